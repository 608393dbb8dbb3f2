"""Patient and study of a scan: from the subject hierarchy, else from Slicer's DICOM database, else empty."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from DiffusionSegmentBackend.schema.examination import Examination
from DiffusionSegmentLib.scene.examination import examinationOf

Ct = slicer.vtkMRMLScalarVolumeNode
TAGS = {"0010,0010": "Roe^Jane", "0010,0020": "MRN 4711", "0008,0020": "20260301", "0008,103E": "Portal venous"}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, ct: Ct) -> dict[str, str]:
    """Slicer's DICOM database, which knows the tags of the images 1.1 and 1.2, of which the scan was loaded."""
    tags = dict(TAGS)
    asked: Any = SimpleNamespace(instanceValue=lambda uid, tag: tags.get(tag, "") if uid in ("1.1", "1.2") else "")
    monkeypatch.setattr(slicer, "dicomDatabase", asked, raising=False)
    ct.SetAttribute("DICOM.instanceUIDs", "1.1 1.2")
    return tags


@pytest.fixture
def study(scene: slicer.vtkMRMLScene, ct: Ct) -> Callable[..., None]:
    """Put the scan into a study of a patient, with attributes as Slicer's DICOM module writes them."""

    def put(**attributes: str) -> None:
        tree = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Roe^Jane (MRN 4711)")
        item = tree.CreateStudyItem(patient, "Abdomen (20260301)")
        for name, value in attributes.items():
            tree.SetItemAttribute(item if name == "StudyDate" else patient, f"DICOM.{name}", value)
        tree.CreateItem(item, ct)

    return put


def test_patient_and_study_come_from_the_subject_hierarchy(ct: Ct, study: Callable[..., None]) -> None:
    study(PatientName="Roe^Jane", PatientID="MRN 4711", StudyDate="20260301")
    assert examinationOf(ct) == Examination("Roe, Jane", "MRN 4711", "2026-03-01", "")


def test_attributes_missing_in_the_hierarchy_come_from_the_database(
    ct: Ct, study: Callable[..., None], database: dict[str, str]
) -> None:
    study(PatientName="Doe^John")
    assert examinationOf(ct) == Examination("Doe, John", "MRN 4711", "2026-03-01", "Portal venous")


def test_a_database_without_the_images_gives_no_attributes(ct: Ct, database: dict[str, str]) -> None:
    ct.SetAttribute("DICOM.instanceUIDs", "9.9")
    assert examinationOf(ct) == Examination()


def test_a_scan_from_a_file_has_no_patient(ct: Ct) -> None:
    assert examinationOf(ct) == Examination()


def test_nothing_is_stored_in_the_scene(scene: slicer.vtkMRMLScene, ct: Ct, database: dict[str, str]) -> None:
    assert examinationOf(ct).patient_name == "Roe, Jane"
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.SetSaveToXMLString(0)
    assert "Roe" not in scene.GetSceneXMLString()
