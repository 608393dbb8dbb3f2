"""Results of several scans in the subject hierarchy: in the study of their scan, unless the reader moved them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import slicer
import vtk
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentLib.scene.overlay import OverlayKind
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.terminology import ModelDescription
from headless.slicer_picture import putVolume

Scene = slicer.vtkMRMLScene


class Tree:
    """The subject hierarchy, by names."""

    def __init__(self, scene: Scene) -> None:
        self._node = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        self._patient = self._node.CreateSubjectItem(self._node.GetSceneItemID(), "Patient")

    def study(self, name: str) -> int:
        return int(self._node.CreateStudyItem(self._patient, name))

    def add(self, node: Any) -> None:
        self._node.CreateItem(self._node.GetSceneItemID(), node)

    def move(self, node: Any, study: int) -> None:
        self._node.SetItemParent(self._node.GetItemByDataNode(node), study)

    def of(self, node: Any) -> str:
        """Name of the item above a node."""
        return str(self._node.GetItemName(self._node.GetItemParent(self._node.GetItemByDataNode(node))))

    def studies(self, put: SceneResult) -> set[str]:
        return {self.of(node) for node in (put.segmentation, *put.overlays.values())}


@pytest.fixture
def tree(scene: Scene) -> Iterator[Tree]:
    """The tree, in which every new node gets an item at the top level, as with the application's plugins."""
    created = Tree(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onAdded(caller: Scene, event: str, node: slicer.vtkMRMLNode) -> None:
        if node.IsA("vtkMRMLDisplayableNode") and not node.GetHideFromEditors():
            created.add(node)

    tag = scene.AddObserver(scene.NodeAddedEvent, onAdded)
    yield created
    scene.RemoveObserver(tag)


@pytest.fixture
def ct(scene: Scene, tree: Tree, oblique: Volume) -> slicer.vtkMRMLScalarVolumeNode:
    """A scan that joins the scene after its tree."""
    return putVolume(scene, oblique, "CT")


def test_the_result_of_each_scan_is_in_its_study(
    scene: Scene, tree: Tree, oblique: Volume, result: Result, model: ModelDescription
) -> None:
    before, after = tree.study("Before"), tree.study("After")
    scans = [putVolume(scene, oblique, name) for name in ("Native", "Portal", "Follow-up")]
    for scan, study in zip(scans, (before, before, after), strict=True):
        tree.move(scan, study)
    studies = [tree.studies(putResult(scene, result, scan, model)) for scan in scans]
    assert studies == [{"Before"}, {"Before"}, {"After"}]


def test_the_next_result_follows_a_scan_to_another_study(
    scene: Scene, tree: Tree, ct: slicer.vtkMRMLScalarVolumeNode, result: Result, model: ModelDescription
) -> None:
    tree.move(ct, tree.study("Before"))
    put = putResult(scene, result, ct, model)
    tree.move(ct, tree.study("After"))
    assert tree.studies(putResult(scene, result, ct, model, previous=put)) == {"After"}


def test_nodes_moved_by_the_reader_stay_in_their_study(
    scene: Scene, tree: Tree, ct: slicer.vtkMRMLScalarVolumeNode, result: Result, model: ModelDescription
) -> None:
    tree.move(ct, tree.study("Before"))
    put = putResult(scene, result, ct, model)
    tree.move(put.segmentation, tree.study("Teaching"))
    again = putResult(scene, result, ct, model, previous=put)
    assert tree.of(again.segmentation) == "Teaching"
    assert tree.of(again.overlays[OverlayKind.UNCERTAINTY]) == "Before"


def test_without_a_study_the_result_is_at_the_top_like_the_scan(
    scene: Scene, tree: Tree, ct: slicer.vtkMRMLScalarVolumeNode, result: Result, model: ModelDescription
) -> None:
    put = putResult(scene, result, ct, model)
    assert tree.studies(put) == {tree.of(ct)}
