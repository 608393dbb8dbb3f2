"""Alternatives of a result: outlines of samples, and picking one for a region or an organ."""

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
from DiffusionSegmentBackend.protocol.messages import Hypotheses
from DiffusionSegmentLib.scene.alternatives import (
    AlternativeTarget,
    SampleMaps,
    hideAlternative,
    keepAlternatives,
    pickAlternative,
    showAlternative,
)
from DiffusionSegmentLib.scene.box import Box
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.merge_policy import setLocked
from DiffusionSegmentLib.scene.result import SceneResult
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan

Scene = slicer.vtkMRMLScene
LIVER, SPLEEN = 6, 1
GROWN, GONE = 1, 2
GAP = Box((8, 6, 11), (11, 10, 17))


@pytest.fixture
def alternatives(scan: SegmentedScan, hypotheses: Hypotheses) -> SampleMaps:
    return keepAlternatives(scan, hypotheses)


@pytest.fixture
def inRegion(scan: SegmentedScan, shown: SceneResult) -> AlternativeTarget:
    """The region between liver and spleen."""
    return AlternativeTarget(region=ReviewList(scan.segmentation).regions[1], regions=shown.regions)


class TestKeeping:
    def test_samples_and_their_box_are_kept(self, alternatives: SampleMaps, samples: np.ndarray) -> None:
        assert len(alternatives) == 3
        assert alternatives.box == Box((4, 5, 3), (18, 16, 26))
        for kept, sample in zip(alternatives.samples, samples, strict=True):
            np.testing.assert_array_equal(kept.unpack(), sample)

    @pytest.mark.parametrize(
        ("origin", "message"), [(None, "another geometry"), ((10.0, 10.0, 10.0, 1.0), "beyond the scan")]
    )
    def test_samples_outside_the_grid_of_the_scan_are_refused(
        self, scan: SegmentedScan, samples: np.ndarray, oblique: Volume, tmp_path: Path, origin: Any, message: str
    ) -> None:
        matrix = oblique.index_to_lps.copy()
        matrix[:3, 3] = (oblique.index_to_lps @ origin)[:3] if origin else 0.0
        odd = write_buffer(tmp_path / "odd.raw", samples, matrix)
        with pytest.raises(DiffusionSegmentError, match=message) as caught:
            keepAlternatives(scan, Hypotheses(id="2", labels=odd))
        assert caught.value.code is ErrorCode.GEOMETRY

    def test_samples_of_a_deleted_scan_are_refused(
        self, scene: Scene, scan: SegmentedScan, hypotheses: Hypotheses
    ) -> None:
        scene.RemoveNode(scan.input)
        with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
            keepAlternatives(scan, hypotheses)


class TestPicking:
    def test_picking_for_a_region_changes_only_its_voxels(
        self, scan: SegmentedScan, alternatives: SampleMaps, inRegion: AlternativeTarget, labels: np.ndarray
    ) -> None:
        box = pickAlternative(scan, alternatives, GROWN, inRegion)
        expected = labels.copy()
        expected[GAP.slices] = LIVER
        np.testing.assert_array_equal(readLabels(scan).labels, expected)
        assert box is not None
        assert GAP.contains(box)

    def test_picking_for_an_organ_changes_only_its_voxels(
        self, scan: SegmentedScan, alternatives: SampleMaps, labels: np.ndarray
    ) -> None:
        pickAlternative(scan, alternatives, GROWN, AlternativeTarget(organ=LIVER))
        now = readLabels(scan).labels
        np.testing.assert_array_equal(now == SPLEEN, labels == SPLEEN)
        grown = np.zeros(labels.shape, bool)
        grown[GAP.slices] = True
        np.testing.assert_array_equal(now == LIVER, ((labels == LIVER) | grown) & (labels != SPLEEN))

    def test_an_organ_that_the_sample_lacks_is_removed(
        self, scan: SegmentedScan, alternatives: SampleMaps, labels: np.ndarray
    ) -> None:
        pickAlternative(scan, alternatives, GONE, AlternativeTarget(organ=LIVER))
        np.testing.assert_array_equal(readLabels(scan).labels, np.where(labels == LIVER, 0, labels))

    def test_picking_the_present_labels_changes_nothing(self, scan: SegmentedScan, alternatives: SampleMaps) -> None:
        assert pickAlternative(scan, alternatives, 0, AlternativeTarget(organ=LIVER)) is None

    @pytest.mark.parametrize("locked", ["liver", "spleen"])
    def test_locked_organs_stay(
        self,
        scan: SegmentedScan,
        alternatives: SampleMaps,
        inRegion: AlternativeTarget,
        labels: np.ndarray,
        locked: str,
    ) -> None:
        setLocked(scan.segmentation, locked, True)
        pickAlternative(scan, alternatives, GROWN, inRegion)
        pickAlternative(scan, alternatives, GONE, AlternativeTarget(organ=LIVER))
        value = LIVER if locked == "liver" else SPLEEN
        np.testing.assert_array_equal(readLabels(scan).labels == value, labels == value)

    def test_a_choice_counts_as_a_correction(
        self, scan: SegmentedScan, alternatives: SampleMaps, inRegion: AlternativeTarget
    ) -> None:
        pickAlternative(scan, alternatives, GROWN, inRegion)
        scribbles = findCorrections(scan).scribbles
        assert set(np.unique(scribbles)) == {0, LIVER + 1}

    @pytest.mark.parametrize("number", [-1, 3])
    def test_a_sample_that_does_not_exist_is_refused(
        self, scan: SegmentedScan, alternatives: SampleMaps, number: int
    ) -> None:
        with pytest.raises(DiffusionSegmentError, match="no alternative"):
            pickAlternative(scan, alternatives, number, AlternativeTarget(organ=LIVER))

    def test_a_region_without_a_map_is_refused(
        self, scan: SegmentedScan, alternatives: SampleMaps, inRegion: AlternativeTarget
    ) -> None:
        with pytest.raises(DiffusionSegmentError, match="unknown"):
            pickAlternative(scan, alternatives, GROWN, replace(inRegion, regions=None))


class TestLooking:
    def test_the_outline_shows_the_labels_after_picking_and_changes_nothing(
        self, scan: SegmentedScan, alternatives: SampleMaps, inRegion: AlternativeTarget, labels: np.ndarray, model: Any
    ) -> None:
        preview = showAlternative(scan, alternatives, GROWN, inRegion)
        np.testing.assert_array_equal(readLabels(scan).labels, labels)
        drawn = readLabels(SegmentedScan(scan.input, preview, model.labels)).labels
        pickAlternative(scan, alternatives, GROWN, inRegion)
        np.testing.assert_array_equal(drawn, readLabels(scan).labels)
        assert preview.GetName() == "Alternative 2 of 3"
        assert not preview.GetDisplayNode().GetVisibility2DFill()

    def test_the_outline_for_an_organ_shows_only_that_organ(
        self, scan: SegmentedScan, alternatives: SampleMaps
    ) -> None:
        preview = showAlternative(scan, alternatives, GROWN, AlternativeTarget(organ=LIVER))
        assert preview.GetSegmentation().GetSegmentIDs() == ("liver",)

    def test_all_alternatives_use_one_node_that_is_not_saved(
        self, scene: Scene, scan: SegmentedScan, alternatives: SampleMaps, saveAndLoad: Any
    ) -> None:
        first = showAlternative(scan, alternatives, GROWN, AlternativeTarget(organ=LIVER))
        count = scene.GetNumberOfNodes()
        assert showAlternative(scan, alternatives, 0, AlternativeTarget(organ=LIVER)) is first
        assert scene.GetNumberOfNodes() == count
        saveAndLoad()
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1

    def test_hiding_removes_the_outline_and_its_display(
        self, scene: Scene, scan: SegmentedScan, alternatives: SampleMaps
    ) -> None:
        showAlternative(scan, alternatives, GROWN, AlternativeTarget(organ=LIVER))
        hideAlternative(scan)
        hideAlternative(scan)
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
        assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationDisplayNode") == 1

    def test_the_outline_contains_edits(
        self, scan: SegmentedScan, alternatives: SampleMaps, inRegion: AlternativeTarget, model: Any
    ) -> None:
        box = Box((5, 6, 4), (6, 7, 5))
        writeLabels(scan, np.zeros(box.shape, np.uint8), box=box)
        preview = showAlternative(scan, alternatives, GROWN, inRegion)
        assert readLabels(SegmentedScan(scan.input, preview, model.labels)).labels[5, 6, 4] == 0
