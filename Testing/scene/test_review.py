"""The review list: order, states, what survives a save or a new report, and Slicer's own segment status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.review import ReviewList, storeReport
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan

Logic = slicer.vtkSlicerSegmentationsModuleLogic


@pytest.fixture
def review(scan: SegmentedScan) -> ReviewList:
    return ReviewList(scan.segmentation)


def status(scan: SegmentedScan, organ: str) -> int:
    return int(Logic.GetSegmentStatus(scan.segmentation.GetSegmentation().GetSegment(organ)))


def moved(item: dict[str, Any], millimetres: float) -> dict[str, Any]:
    x, y, z = item["centroid_lps_mm"]
    return {**item, "centroid_lps_mm": [x + millimetres, y, z]}


def test_regions_have_the_order_of_the_report_and_are_open(review: ReviewList) -> None:
    assert [region.organ for region in review.regions] == ["liver", "spleen", "spleen"]
    assert {region.state for region in review.regions} == {RegionState.OPEN}
    assert review.current is None


def test_next_and_previous_visit_all_regions_and_wrap_around(review: ReviewList) -> None:
    review.accept(1)
    assert [region.number for region in (review.next(), review.next(), review.next(), review.next()) if region] == [
        0,
        1,
        2,
        0,
    ]
    previous = review.previous()
    assert previous is not None
    assert previous.number == 2


def test_previous_begins_at_the_end(review: ReviewList) -> None:
    last = review.previous()
    assert last is not None
    assert last.number == 2


def test_an_empty_list_has_no_next(scan: SegmentedScan) -> None:
    storeReport(scan.segmentation, {})
    review = ReviewList(scan.segmentation)
    assert review.next() is review.previous() is review.accept() is None


def test_a_region_that_does_not_exist_is_refused(review: ReviewList) -> None:
    for act in (review.select, review.accept, review.flag):
        with pytest.raises(IndexError):
            act(3)
        with pytest.raises(IndexError):
            act(-1)


def test_a_state_is_set_for_the_current_or_the_given_region(review: ReviewList) -> None:
    assert review.accept() is None
    review.next()
    review.accept()
    review.flag(2)
    states = [region.state for region in review.regions]
    assert states == [RegionState.ACCEPTED, RegionState.OPEN, RegionState.FLAGGED]
    assert review.count(RegionState.OPEN) == 1


class TestSegmentStatus:
    def test_untouched_organs_are_not_started(self, scan: SegmentedScan) -> None:
        assert status(scan, "liver") == Logic.NotStarted

    def test_a_visited_organ_is_in_progress(self, scan: SegmentedScan, review: ReviewList) -> None:
        review.select(0)
        assert status(scan, "liver") == Logic.InProgress
        assert status(scan, "spleen") == Logic.NotStarted

    def test_an_organ_is_completed_when_all_of_its_regions_are_accepted_or_corrected(
        self, scan: SegmentedScan, review: ReviewList
    ) -> None:
        review.accept(0)
        assert status(scan, "liver") == Logic.InProgress
        review.markCorrected(1)
        assert status(scan, "liver") == Logic.Completed
        assert status(scan, "spleen") == Logic.InProgress

    def test_flagged_takes_precedence(self, scan: SegmentedScan, review: ReviewList) -> None:
        review.accept(0)
        review.flag(1)
        assert status(scan, "liver") == status(scan, "spleen") == Logic.Flagged


class TestNewReport:
    def test_a_state_stays_with_its_region(
        self, scan: SegmentedScan, review: ReviewList, report: dict[str, Any]
    ) -> None:
        review.flag(1)
        swapped = {**moved(report["review"][1], 4.0), "organ": "liver", "competing_organ": "spleen"}
        review.replaceReport({**report, "review": [report["review"][2], swapped]})
        assert [region.state for region in review.regions] == [RegionState.OPEN, RegionState.FLAGGED]
        assert review.regions[1].number == 1

    def test_six_millimetres_away_is_another_region(self, review: ReviewList, report: dict[str, Any]) -> None:
        review.accept(0)
        review.replaceReport({**report, "review": [moved(report["review"][0], 6.0)]})
        assert review.regions[0].state is RegionState.OPEN

    def test_the_same_position_between_other_organs_is_another_region(
        self, review: ReviewList, report: dict[str, Any]
    ) -> None:
        review.accept(0)
        review.replaceReport({**report, "review": [{**report["review"][0], "organ": "stomach"}]})
        assert review.regions[0].state is RegionState.OPEN

    def test_one_state_is_given_to_the_nearest_region_only(self, review: ReviewList, report: dict[str, Any]) -> None:
        review.accept(0)
        first = report["review"][0]
        review.replaceReport({**report, "review": [moved(first, 3.0), moved(first, 1.0)]})
        assert [region.state for region in review.regions] == [RegionState.OPEN, RegionState.ACCEPTED]

    def test_the_current_region_stays_current(self, review: ReviewList, report: dict[str, Any]) -> None:
        review.select(2)
        review.replaceReport({**report, "review": report["review"][1:]})
        assert review.current is not None
        assert review.current.number == 1

    def test_a_report_of_version_1_gives_the_competing_organ(self, review: ReviewList, report: dict[str, Any]) -> None:
        region = dict(report["review"][1])
        region["rival"] = region.pop("competing_organ")
        review.replaceReport({**report, "review": [region]})
        assert review.regions[0].competingOrgan == "liver"

    @pytest.mark.parametrize(
        "broken", [{"review": [{"organ": "liver"}]}, {"review": 3}, {"review": [{"centroid_lps_mm": [1]}]}]
    )
    def test_a_report_without_its_fields_is_refused_and_the_list_stays(
        self, review: ReviewList, broken: dict[str, Any]
    ) -> None:
        before = review.regions
        with pytest.raises(DiffusionSegmentError) as caught:
            review.replaceReport(broken)
        assert caught.value.code is ErrorCode.INPUT_UNREADABLE
        assert review.regions == before


class TestSaving:
    def test_the_review_list_survives_save_and_load(
        self, review: ReviewList, saveAndLoad: Callable[[], SegmentedScan]
    ) -> None:
        review.accept(0)
        review.select(1)
        review.flag()
        loaded = saveAndLoad()
        again = ReviewList(loaded.segmentation)
        assert again.regions == review.regions
        assert again.current == review.current
        assert status(loaded, "spleen") == Logic.Flagged

    @pytest.mark.parametrize(
        ("attribute", "text"),
        [
            ("DiffusionSegment.report", "{"),
            ("DiffusionSegment.report", "[1]"),
            ("DiffusionSegment.report", '{"review": [1]}'),
            ("DiffusionSegment.review", "{"),
            ("DiffusionSegment.review", "[1]"),
            ("DiffusionSegment.review", '{"states": 3}'),
            ("DiffusionSegment.review", '{"states": ["?", "?", "?"], "visited": [0, 0, 0]}'),
        ],
    )
    def test_a_damaged_scene_is_reported_with_a_hint(self, scan: SegmentedScan, attribute: str, text: str) -> None:
        scan.segmentation.SetAttribute(attribute, text)
        with pytest.raises(DiffusionSegmentError, match="damaged") as caught:
            ReviewList(scan.segmentation)
        assert caught.value.code is ErrorCode.INPUT_UNREADABLE
        assert caught.value.hint == "Segment the scan again."

    def test_states_of_another_number_of_regions_are_not_used(self, scan: SegmentedScan) -> None:
        scan.segmentation.SetAttribute("DiffusionSegment.review", '{"states": ["flagged"], "visited": [true]}')
        assert ReviewList(scan.segmentation).count(RegionState.OPEN) == 3

    def test_a_new_run_replaces_a_damaged_list(self, scan: SegmentedScan, report: dict[str, Any]) -> None:
        scan.segmentation.SetAttribute("DiffusionSegment.report", "{")
        storeReport(scan.segmentation, report)
        assert len(ReviewList(scan.segmentation).regions) == 3

    def test_two_lists_of_one_node_agree_after_reload(self, scan: SegmentedScan, review: ReviewList) -> None:
        other = ReviewList(scan.segmentation)
        review.accept(0)
        other.reload()
        assert other.regions == review.regions
        np.testing.assert_equal(other.count(RegionState.ACCEPTED), 1)
