"""Alternatives of the regions to review: their outlines, and their use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import RegionAlternatives
from DiffusionSegmentLib.scene.alternatives import (
    Alternative,
    hideAlternative,
    keepAlternatives,
    showAlternative,
    useAlternative,
)
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.correction_maps import storeScribbles
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.merge_policy import setLocked
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan

Scene = slicer.vtkMRMLScene
LIVER, SPLEEN = 6, 1
# The region between liver and spleen.
GAP = Box((8, 6, 11), (11, 10, 17))


@pytest.fixture
def alternatives(scan: SegmentedScan, alternativesMessage: RegionAlternatives) -> tuple[Alternative, ...]:
    kept = keepAlternatives(scan, alternativesMessage).ofRegion(ReviewList(scan.segmentation).regions[1])
    assert kept is not None
    return kept


class TestKeeping:
    def test_each_alternative_is_kept_in_the_box_of_its_marks(
        self, alternatives: tuple[Alternative, ...], marks: np.ndarray
    ) -> None:
        assert [alternative.box for alternative in alternatives] == [GAP, Box((8, 6, 12), (10, 10, 17))]
        for alternative, array in zip(alternatives, marks, strict=True):
            inside = alternative.box.within(Box.ofShape(array.shape, (8, 6, 11)))
            np.testing.assert_array_equal(alternative.marks.unpack(), array[inside])
            assert np.count_nonzero(array) == np.count_nonzero(array[inside])

    def test_a_region_of_another_list_has_unknown_alternatives(
        self, scan: SegmentedScan, alternativesMessage: RegionAlternatives
    ) -> None:
        kept = keepAlternatives(scan, alternativesMessage)
        region = ReviewList(scan.segmentation).regions[0]
        assert kept.ofRegion(region) == ()
        assert kept.ofRegion(replace(region, centroidLPS=(0.0, 0.0, 0.0))) is None

    def test_regions_without_any_alternative_need_no_marks(
        self, scan: SegmentedScan, alternativesMessage: RegionAlternatives
    ) -> None:
        regions = tuple(replace(region, alternatives=()) for region in alternativesMessage.alternatives)
        kept = keepAlternatives(scan, replace(alternativesMessage, alternatives=regions, alternative_marks=None))
        assert [alternatives for _, alternatives in kept.regions] == [(), (), ()]

    def test_marks_of_another_geometry_are_refused(
        self, scan: SegmentedScan, alternativesMessage: RegionAlternatives, marks: np.ndarray, tmp_path: Path
    ) -> None:
        odd = write_buffer(tmp_path / "odd.raw", marks, np.eye(4))
        with pytest.raises(DiffusionSegmentError, match="another geometry") as caught:
            keepAlternatives(scan, replace(alternativesMessage, alternative_marks=odd))
        assert caught.value.code is ErrorCode.GEOMETRY

    @pytest.mark.parametrize("start", [(-1, 0, 0), (26, 6, 8)])
    def test_marks_beyond_the_scan_are_refused(
        self, scan: SegmentedScan, alternativesMessage: RegionAlternatives, start: tuple[int, int, int]
    ) -> None:
        regions = tuple(
            replace(region, alternatives=tuple(replace(one, start_ijk=start) for one in region.alternatives))
            for region in alternativesMessage.alternatives
        )
        with pytest.raises(DiffusionSegmentError, match="beyond the scan"):
            keepAlternatives(scan, replace(alternativesMessage, alternatives=regions))

    @pytest.mark.parametrize("damage", ["one mark too few", "no marks", "empty marks"])
    def test_marks_that_do_not_fit_the_list_are_refused(
        self,
        scan: SegmentedScan,
        alternativesMessage: RegionAlternatives,
        marks: np.ndarray,
        oblique: Volume,
        tmp_path: Path,
        damage: str,
    ) -> None:
        array = {"one mark too few": marks[:1], "empty marks": 0 * marks}.get(damage)
        odd = None if array is None else write_buffer(tmp_path / "odd.raw", array, oblique.index_to_lps)
        with pytest.raises(DiffusionSegmentError) as caught:
            keepAlternatives(scan, replace(alternativesMessage, alternative_marks=odd))
        assert caught.value.code is ErrorCode.PROTOCOL

    def test_alternatives_of_a_deleted_scan_are_refused(
        self, scene: Scene, scan: SegmentedScan, alternativesMessage: RegionAlternatives
    ) -> None:
        scene.RemoveNode(scan.input)
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
            keepAlternatives(scan, alternativesMessage)


class TestUse:
    def test_only_marked_voxels_change(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...], labels: np.ndarray
    ) -> None:
        box = useAlternative(scan, alternatives[0])
        expected = labels.copy()
        expected[GAP.slices] = LIVER
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
        assert box is not None
        assert GAP.contains(box)

    def test_an_alternative_that_was_used_changes_nothing_again(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...]
    ) -> None:
        assert useAlternative(scan, alternatives[0]) is not None
        assert useAlternative(scan, alternatives[0]) is None

    @pytest.mark.parametrize(("locked", "value"), [("liver", LIVER), ("spleen", SPLEEN)])
    def test_locked_organs_stay(
        self,
        scan: SegmentedScan,
        alternatives: tuple[Alternative, ...],
        labels: np.ndarray,
        locked: str,
        value: int,
    ) -> None:
        setLocked(scan.segmentation, locked, True)
        for alternative in alternatives:
            useAlternative(scan, alternative)
        np.testing.assert_array_equal(readLabels(scan).labels == value, labels == value)

    def test_corrected_voxels_stay(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...], labels: np.ndarray
    ) -> None:
        scribbles = np.zeros_like(labels)
        scribbles[9, 7, 12] = labels[9, 7, 12] + 1
        storeScribbles(scan, scribbles)
        useAlternative(scan, alternatives[0])
        now = readLabels(scan).labels
        assert now[9, 7, 12] == labels[9, 7, 12] != LIVER
        assert now[9, 7, 13] == LIVER

    def test_the_use_of_an_alternative_counts_as_an_edit(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...]
    ) -> None:
        useAlternative(scan, alternatives[0])
        assert set(np.unique(findCorrections(scan).scribbles)) == {0, LIVER + 1}


class TestOutline:
    def test_the_outline_shows_the_labels_after_the_use_and_changes_nothing(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...], labels: np.ndarray, model: Any
    ) -> None:
        preview = showAlternative(scan, alternatives[0], "Alternative 1 of 2")
        np.testing.assert_array_equal(readLabels(scan).labels, labels)
        drawn = readLabels(SegmentedScan(scan.input, preview, model.labels)).labels
        useAlternative(scan, alternatives[0])
        np.testing.assert_array_equal(drawn, readLabels(scan).labels)
        assert preview.GetName() == "Alternative 1 of 2"
        assert not preview.GetDisplayNode().GetVisibility2DFill()

    def test_only_organs_that_change_are_outlined_in_a_lighter_colour(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...]
    ) -> None:
        preview = showAlternative(scan, alternatives[1], "Alternative 2 of 2").GetSegmentation()
        assert preview.GetSegmentIDs() == ("spleen",)
        own = scan.segmentation.GetSegmentation().GetSegment("spleen").GetColor()
        assert sum(preview.GetSegment("spleen").GetColor()) > sum(own) + 0.1

    def test_all_alternatives_use_one_node_that_is_not_saved(
        self, scene: Scene, scan: SegmentedScan, alternatives: tuple[Alternative, ...], saveAndLoad: Any
    ) -> None:
        first = showAlternative(scan, alternatives[0], "1")
        count = scene.GetNumberOfNodes()
        assert showAlternative(scan, alternatives[1], "2") is first
        assert scene.GetNumberOfNodes() == count
        saveAndLoad()
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1

    def test_hiding_removes_the_outline_and_its_display(
        self, scene: Scene, scan: SegmentedScan, alternatives: tuple[Alternative, ...]
    ) -> None:
        showAlternative(scan, alternatives[0], "1")
        hideAlternative(scan)
        hideAlternative(scan)
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationDisplayNode") == 1

    def test_the_outline_contains_edits(
        self, scan: SegmentedScan, alternatives: tuple[Alternative, ...], model: Any
    ) -> None:
        box = Box((5, 6, 4), (6, 7, 5))
        writeLabels(scan, np.zeros(box.shape, np.uint8), box=box)
        preview = showAlternative(scan, alternatives[0], "1")
        assert readLabels(SegmentedScan(scan.input, preview, model.labels)).labels[5, 6, 4] == 0
