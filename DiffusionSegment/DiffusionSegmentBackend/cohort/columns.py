"""The columns of the tables of a cohort, with their types and what they mean: schema of Parquet, and codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "integer"]


@dataclass(frozen=True)
class Column:
    """A column; a value that does not apply or was not measured is null."""

    name: str
    kind: Kind
    meaning: str


SCANS = (
    Column("scan_id", "text", "pseudonym of the scan, and name of its folder below scans"),
    Column("status", "text", "done, failed, not_fit (the model is not made for it) or waiting"),
    Column("code", "text", "error code of a scan without result"),
    Column("reason", "text", "why there is no result"),
    Column("attempts", "integer", "how often the scan was tried; 0 if it was not fit by its header"),
    Column("seconds", "number", "duration of the last attempt in s"),
    Column("patient", "text", "pseudonym of the PatientID"),
    Column("study", "text", "pseudonym of the StudyInstanceUID"),
    Column("modality", "text", "DICOM modality"),
    Column("manufacturer", "text", "manufacturer of the scanner"),
    Column("kernel", "text", "convolution kernel"),
    Column("kvp", "text", "tube voltage in kV"),
    Column("contrast", "text", "yes if the header states a contrast agent"),
    Column("slice_thickness_mm", "text", "slice thickness in mm as in the header"),
    Column("size_i", "integer", "voxels along the first axis"),
    Column("size_j", "integer", "voxels along the second axis"),
    Column("size_k", "integer", "voxels along the third axis"),
    Column("spacing_i_mm", "number", "voxel spacing along the first axis in mm"),
    Column("spacing_j_mm", "number", "voxel spacing along the second axis in mm"),
    Column("spacing_k_mm", "number", "voxel spacing along the third axis in mm"),
    Column("review_priority", "number", "0 to 1: mean rank by the four criteria of the page; 1 is most in need"),
    Column("expected_wrong_ml", "number", "volume of the voxels whose label is expected to be wrong, in mL"),
    Column("confidence", "number", "mean probability of the segmented voxels, 0 to 1"),
    Column("alarms", "integer", "number of alarms about whole organs"),
    Column("max_volume_z", "number", "largest deviation of an organ's volume, see volume_z of the organs"),
    Column("regions", "integer", "number of regions to review"),
    Column("warnings", "text", "warnings of the run, separated by ' | '"),
    Column("peak_memory_mb", "number", "largest memory of the worker in MB"),
    Column("model", "text", "name of the model"),
    Column("model_version", "text", "version of the model"),
    Column("model_sha256", "text", "checksum of the weights"),
    Column("software", "text", "program and version"),
    Column("seed", "integer", "seed of the samples"),
    Column("key", "text", "checksum of the scan's bytes, the weights and the options"),
)
IDENTIFIERS = (
    Column("path", "text", "path of the scan"),
    Column("patient_id", "text", "PatientID"),
    Column("study_uid", "text", "StudyInstanceUID"),
    Column("series_uid", "text", "SeriesInstanceUID"),
)
ORGANS = (
    Column("scan_id", "text", "pseudonym of the scan"),
    Column("organ", "text", "name of the organ in the model"),
    Column("code_scheme", "text", "scheme of the code"),
    Column("code", "text", "code of the organ, SNOMED CT where the scheme is SCT"),
    Column("side_code", "text", "code of the side, such as left"),
    Column("state", "text", "measured, cut (by the edge of the scan), absent, or outside (no voxel, not in the scan)"),
    Column("volume_ml", "number", "volume in mL; null if cut or outside, 0 if absent"),
    Column("volume_ml_p05", "number", "lower end of the 90 % interval of the volume in mL"),
    Column("volume_ml_p95", "number", "upper end of the 90 % interval of the volume in mL"),
    Column("confidence", "number", "mean probability of the organ's voxels, 0 to 1; null without a voxel"),
    Column("volume_z", "number", "robust z of the logarithm of the volume; null for fewer than 10 scans"),
    Column("alarm", "text", "alarms about the organ, separated by ' | '"),
)
REGIONS = (
    Column("scan_id", "text", "pseudonym of the scan"),
    Column("rank", "integer", "1 is the region with the largest expected error"),
    Column("organ", "text", "label of the region"),
    Column("competing_organ", "text", "label that competes with it"),
    Column("score_ml", "number", "volume expected to be wrong, in mL"),
    Column("volume_ml", "number", "volume of the region in mL"),
    Column("probability", "number", "probability of a gross error, 0 to 1; null for a model without calibration"),
    Column("x_mm", "number", "position in the region, LPS, in mm"),
    Column("y_mm", "number", "position in the region, LPS, in mm"),
    Column("z_mm", "number", "position in the region, LPS, in mm"),
    Column("sentence", "text", "the region in words"),
)
CODEBOOK = (
    Column("table", "text", ""),
    Column("column", "text", ""),
    Column("type", "text", ""),
    Column("meaning", "text", ""),
)
