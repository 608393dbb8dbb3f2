"""Patient, study and series of a volume, from Slicer's subject hierarchy and DICOM database; they are not stored."""

from __future__ import annotations

from typing import Any

import slicer
from DiffusionSegmentBackend.schema.examination import Examination

_INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
_TAGS = {
    "patient_name": "0010,0010",
    "patient_id": "0010,0020",
    "study_date": "0008,0020",
    "series_description": "0008,103E",
}


def examinationOf(volume: slicer.vtkMRMLVolumeNode) -> Examination:
    """Patient, study and series of a volume: from the subject hierarchy, missing values from the DICOM database."""
    values = _ofHierarchy(volume)
    values |= {name: value for name, value in _ofDatabase(volume).items() if not values.get(name)}
    return Examination.of_dicom(values)


def _ofHierarchy(volume: slicer.vtkMRMLVolumeNode) -> dict[str, str]:
    scene = volume.GetScene()
    # Not ResolveSubjectHierarchy, which would create one in a scene without it.
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") if scene is not None else None
    item = hierarchy.GetItemByDataNode(volume) if hierarchy is not None else 0
    if hierarchy is None or not item:
        return {}
    names = slicer.vtkMRMLSubjectHierarchyConstants
    values = {}
    for name, level, attribute in (
        ("patient_name", names.GetDICOMLevelPatient(), names.GetDICOMPatientNameAttributeName()),
        ("patient_id", names.GetDICOMLevelPatient(), names.GetDICOMPatientIDAttributeName()),
        ("study_date", names.GetDICOMLevelStudy(), names.GetDICOMStudyDateAttributeName()),
    ):
        above = hierarchy.GetItemAncestorAtLevel(item, level)
        values[name] = str(hierarchy.GetItemAttribute(above, attribute) or "") if above else ""
    return values


def _ofDatabase(volume: slicer.vtkMRMLVolumeNode) -> dict[str, str]:
    """Values of the first image of the volume; none where the application has no database."""
    instances = (volume.GetAttribute(_INSTANCES_ATTRIBUTE) or "").split()
    database: Any = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return {}
    return {name: str(database.instanceValue(instances[0], tag) or "") for name, tag in _TAGS.items()}
