"""Which files a command writes into a folder, which distinguishes an earlier output from other files."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENTATION = "segmentation.nii.gz"
UNCERTAINTY = "uncertainty.nii.gz"
MUTUAL_INFORMATION = "mutual_information.nii.gz"
REGIONS = "regions.nii.gz"
BODYPART = "bodypart.nii.gz"
CORRECTIONS = "corrections.nii.gz"
SESSION = "session.zip"
REVIEWED = "reviewed.nii.gz"
ALTERNATIVES = "alternatives"
PROBABILITIES = "probabilities"
REPORT = "report.json"


@dataclass(frozen=True)
class OutputKind:
    """What a command writes into a folder.

    `files` are the names of all files that it may write, `folders` those of folders in which it writes NIfTI files. A
    folder in which `record`, a JSON object, has all `keys` is an earlier output of the same kind, which a new one may
    replace; without a `record` no folder is.
    """

    title: str
    files: frozenset[str]
    record: str | None = None
    keys: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()


RESULT = OutputKind(
    "result of `segment`, `review` or `correct`",
    frozenset(
        {SEGMENTATION, UNCERTAINTY, MUTUAL_INFORMATION, REGIONS, BODYPART, CORRECTIONS, SESSION, REVIEWED, REPORT}
    ),
    REPORT,
    frozenset({"organs", "review", "provenance"}),
    frozenset({ALTERNATIVES, PROBABILITIES}),
)
FEATURES = OutputKind(
    "features of `features`",
    frozenset({"features.npz", "features.json"}),
    "features.json",
    frozenset({"software", "model", "sha256", "levels"}),
)
SIMILARITY = OutputKind(
    "map of `similar`",
    frozenset({"similarity.nii.gz", "region.nii.gz", "similarity.json"}),
    "similarity.json",
    frozenset({"software", "model", "sha256", "point_lps_mm"}),
)
# Names that a data set has too: no folder of such files is taken for an earlier phantom.
PHANTOM = OutputKind("", frozenset({"ct.nii.gz", "labels.nii.gz"}))
