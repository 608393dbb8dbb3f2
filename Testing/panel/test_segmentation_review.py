"""Review this segmentation: matches in a table, the request, its result beside the given segmentation, and refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.protocol.messages import Alternatives, Correct
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan, readReport
from fixtures.segments import LIVER_ENTRY, addSegment, segmentationOf
from headless.slicer_picture import putVolume

from .engine_process import REFUSED, SLOW

if TYPE_CHECKING:
    from .conftest import PanelUser

LIVER, SPLEEN = 6, 1
LIVER_BOX = (slice(2, 6), slice(2, 7), slice(2, 7))
SPLEEN_BOX = (slice(2, 6), slice(2, 7), slice(9, 13))
CYST_BOX = (slice(7, 9), slice(8, 10), slice(2, 5))


@pytest.fixture
def ct(user: PanelUser) -> Any:
    return user.addVolume()


@pytest.fixture
def theirs(user: PanelUser, ct: Any) -> Any:
    """A segmentation of another program, not yet chosen."""
    node = segmentationOf(ct, "Theirs")
    addSegment(node, ct, "Leber", LIVER_BOX, entry=LIVER_ENTRY)
    addSegment(node, ct, "spleen", SPLEEN_BOX)
    addSegment(node, ct, "Cyst", CYST_BOX)
    user.application.process()
    return node


def choose(user: PanelUser, node: Any) -> None:
    user.ui.givenSelector.setCurrentNode(node)
    user.application.process()


def review(user: PanelUser, node: Any = None) -> None:
    if node is not None:
        choose(user, node)
    user.click(user.ui.reviewGivenButton)
    user.until(lambda: user.ui.segmentButton.text == "Segment")


def chosenOrgans(user: PanelUser) -> dict[str, str]:
    """What the table shows."""
    table = user.ui.matchTable
    return {table.item(row, 0).text(): table.cellWidget(row, 1).currentText for row in range(table.rowCount)}


def chooseOrgan(user: PanelUser, segment: str, organ: str) -> None:
    table = user.ui.matchTable
    (row,) = [row for row in range(table.rowCount) if table.item(row, 0).text() == segment]
    box = table.cellWidget(row, 1)
    box.setCurrentIndex(box.findText(organ))
    user.application.process()


def received(node: Any) -> dict[str, Any]:
    return dict(json.loads(readReport(node).provenance.source.input or ""))


def nodesOf(scene: Any) -> list[str]:
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


def shownScan(user: PanelUser) -> SegmentedScan:
    scan: SegmentedScan = user.widget.panel.scan
    return scan


def test_the_button_needs_a_scan_and_a_segmentation(user: PanelUser, ct: Any, theirs: Any) -> None:
    ui = user.ui
    assert ui.givenSelector.currentNode() is None
    assert not ui.reviewGivenButton.enabled
    assert not ui.matchSection.visible
    choose(user, theirs)
    assert ui.reviewGivenButton.enabled
    ui.inputSelector.setCurrentNode(None)
    user.application.process()
    assert not ui.reviewGivenButton.enabled
    assert ui.reviewGivenButton.toolTip == "Choose an input volume first."


def test_matches_are_shown_and_the_table_is_closed_when_all_segments_match(
    user: PanelUser, ct: Any, theirs: Any
) -> None:
    choose(user, theirs)
    assert chosenOrgans(user) == {"Leber": "Liver", "spleen": "Spleen", "Cyst": "leave as it is"}
    assert user.ui.matchSection.text == "2 of 3 segments are organs of the model"
    assert not user.ui.matchSection.collapsed
    theirs.GetSegmentation().RemoveSegment("Segment_3")
    choose(user, None)
    choose(user, theirs)
    assert user.ui.matchSection.collapsed
    assert user.ui.matchSection.text == "2 of 2 segments are organs of the model"


def test_the_review_is_shown_in_a_node_with_the_same_voxels(user: PanelUser, ct: Any, theirs: Any) -> None:
    before = theirs.GetSegmentation().GetMTime()
    review(user, theirs)
    reviewed = user.widget._parameterNode.segmentation
    assert reviewed.GetName() == "Theirs (reviewed)"
    labels = np.zeros(shownScan(user).box.shape, np.uint8)
    labels[LIVER_BOX], labels[SPLEEN_BOX] = LIVER, SPLEEN
    np.testing.assert_array_equal(readLabels(shownScan(user)).labels, labels)
    assert user.ui.messageLabel.text.startswith("3 organs of Theirs reviewed in 1 s. Not for diagnosis.")
    assert user.ui.resultTable.rowCount == 2
    assert user.ui.regionTable.rowCount == 1
    assert user.ui.matchSection.collapsed
    assert user.ui.undoButton.text == "Undo Review"
    assert slicer.mrmlScene.GetFirstNodeByName("CT uncertainty") is not None
    sent = received(reviewed)
    assert (sent["type"], sent["organs"], sent["preview"]) == ("review", ["spleen", "liver"], False)
    assert [match["organ"] for match in sent["segments"]["matches"]] == ["liver", "spleen"]
    assert theirs.GetSegmentation().GetMTime() == before
    visible = [theirs.GetDisplayNode().GetSegmentVisibility(f"Segment_{n}") for n in (1, 2, 3)]
    assert visible == [False, False, True]


def test_the_organ_of_a_segment_is_chosen_in_the_table(user: PanelUser, ct: Any, theirs: Any) -> None:
    choose(user, theirs)
    chooseOrgan(user, "Cyst", "Stomach")
    chooseOrgan(user, "spleen", "leave as it is")
    assert user.ui.matchSection.text == "2 of 3 segments are organs of the model"
    review(user)
    segments = received(user.widget._parameterNode.segmentation)["segments"]
    matches = [(match["segment"], match["organ"], match["reason"]) for match in segments["matches"]]
    assert matches == [("Leber", "liver", "code"), ("Cyst", "stomach", "given")]
    assert [other["name"] for other in segments["unmatched"]] == ["spleen"]
    # The choice is kept for the next click, and ends with the choice of another segmentation.
    assert chosenOrgans(user)["Cyst"] == "Stomach"
    choose(user, None)
    choose(user, theirs)
    assert chosenOrgans(user)["Cyst"] == "leave as it is"


def overlap(node: Any, ct: Any) -> None:
    addSegment(node, ct, "Stomach", (slice(3, 4), slice(3, 5), slice(3, 5)))


def rename(node: Any, ct: Any) -> None:
    for number in (1, 2):
        node.GetSegmentation().GetSegment(f"Segment_{number}").SetName("Tumour")
        node.GetSegmentation().GetSegment(f"Segment_{number}").RemoveTag("TerminologyEntry")


def empty(node: Any, ct: Any) -> None:
    node.GetSegmentation().RemoveAllSegments()


def move(node: Any, ct: Any) -> None:
    ct.SetOrigin(1000.3, 0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (overlap, "Liver and Stomach of Theirs share 4 voxels."),
        (rename, "No segment of Theirs is an organ of the model: Tumour, Tumour, Cyst."),
        (empty, "Theirs has no segments."),
        (move, "Most of Theirs lies outside CT."),
    ],
    ids=["overlap", "no organ", "empty", "another scan"],
)
def test_what_cannot_be_reviewed_is_refused_in_one_line_and_the_scene_is_unchanged(
    user: PanelUser, ct: Any, theirs: Any, change: Callable[[Any, Any], None], words: str
) -> None:
    change(theirs, ct)
    choose(user, theirs)
    before = nodesOf(slicer.mrmlScene)
    review(user)
    assert words in user.ui.messageLabel.text
    assert user.ui.messageLabel.text.count("\n") <= 1
    assert nodesOf(slicer.mrmlScene) == before
    assert not user.widget.logic.client.running


def test_an_error_of_the_worker_and_a_cancelled_review_change_nothing(user: PanelUser, ct: Any, theirs: Any) -> None:
    choose(user, theirs)
    before = nodesOf(slicer.mrmlScene)
    user.widget._parameterNode.seed = REFUSED
    review(user)
    assert "This is MR." in user.ui.messageLabel.text
    user.widget._parameterNode.seed = SLOW
    user.click(user.ui.reviewGivenButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    assert not user.ui.reviewGivenButton.enabled
    user.segment()
    assert user.ui.messageLabel.text == "Cancelled. Nothing was changed."
    assert nodesOf(slicer.mrmlScene) == before
    assert theirs.GetDisplayNode().GetSegmentVisibility("Segment_1")


def test_segment_after_a_review_makes_a_result_of_its_own(user: PanelUser, ct: Any, theirs: Any) -> None:
    review(user, theirs)
    user.segment()
    assert [node.GetName() for node in user.segmentations()] == ["Theirs", "Theirs (reviewed)", "CT segmentation"]
    reviewed = user.segmentations()[1]
    labels = readLabels(SegmentedScan(ct, reviewed, shownScan(user).labels)).labels
    assert np.count_nonzero(labels) == np.count_nonzero(labels[LIVER_BOX]) + np.count_nonzero(labels[SPLEEN_BOX])
    assert readReport(reviewed).reviewed is not None
    assert readReport(user.segmentations()[2]).reviewed is None


def test_the_models_own_result_can_be_reviewed_too(user: PanelUser, ct: Any) -> None:
    user.segment()
    (own,) = user.segmentations()
    review(user, own)
    assert set(chosenOrgans(user).values()) == {"Spleen", "Liver"}
    assert [node.GetName() for node in user.segmentations()] == ["CT segmentation", "CT segmentation (reviewed)"]


def test_corrections_and_alternatives_of_a_review_send_what_was_reviewed(
    user: PanelUser, ct: Any, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    review(user, theirs)
    given = np.zeros(shownScan(user).box.shape, np.uint8)
    given[LIVER_BOX], given[SPLEEN_BOX], given[CYST_BOX] = LIVER, SPLEEN, 255
    sent: list[tuple[Any, Any]] = []
    client = user.widget.logic.client
    monkeypatch.setattr(client, "request", lambda kind, *_, maps=None, **__: sent.append((kind, maps)))
    labels = readLabels(shownScan(user)).labels.copy()
    labels[3, 3, 3] = SPLEEN
    writeLabels(shownScan(user), labels)
    user.click(user.ui.applyButton)
    user.click(user.ui.alternativesButton)
    assert [kind for kind, _ in sent] == [Correct, Alternatives]
    for _, maps in sent:
        np.testing.assert_array_equal(maps["reviewed"], given)


def test_a_script_reviews_a_segmentation(user: PanelUser, ct: Any, theirs: Any) -> None:
    from DiffusionSegmentLib.worker.client import WorkerClient
    from DiffusionSegmentLib.worker.transport import QProcessTransport

    from .conftest import ENGINE

    logic = user.widget.logic
    logic.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(ENGINE))
    caught: list[str] = []
    node = logic.review(ct, theirs, matches={"Cyst": "stomach"}, progress=lambda stage, *_: caught.append(stage))
    assert node.GetName() == "Theirs (reviewed)"
    assert received(node)["organs"] == ["spleen", "liver", "stomach"]
    assert "refine" in caught
    for options, words in (({"matches": {"Milz": "spleen"}}, "no segment 'Milz'"), ({"organs": ["liver"]}, "'organs'")):
        with pytest.raises(DiffusionSegmentError, match=words):
            logic.review(ct, theirs, **options)


@pytest.mark.slow
def test_a_review_is_corrected_by_the_real_worker(user: PanelUser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))
    user.useWorker([sys.executable, "-m", "DiffusionSegmentBackend", "worker"])
    phantom = make_phantom(seed=3, spacing_mm=(3.0, 3.0, 3.0))
    part = tuple(slice((n - 64) // 2, (n + 64) // 2) for n in phantom.image.shape)
    ct = putVolume(slicer.mrmlScene, Volume(phantom.image[part].copy(), phantom.index_to_lps), "CT")
    user.ui.inputSelector.setCurrentNode(ct)
    parameters = user.widget._parameterNode
    parameters.force, parameters.samples, parameters.steps = True, 2, 1
    node = segmentationOf(ct, "Theirs")
    addSegment(node, ct, "liver", (slice(20, 40), slice(20, 40), slice(10, 30)))
    choose(user, node)

    def finish() -> None:
        user.until(lambda: not user.widget.logic.client.running, seconds=300.0)
        user.application.process()

    user.click(user.ui.reviewGivenButton)
    finish()
    scan = shownScan(user)
    labels = readLabels(scan).labels.copy()
    assert np.count_nonzero(labels == LIVER) == 20 * 20 * 20 == np.count_nonzero(labels)
    assert user.ui.regionTable.rowCount > 1
    labels[25, 25:28, 15:18] = 0
    writeLabels(scan, labels)
    user.click(user.ui.applyButton)
    finish()
    assert user.ui.messageLabel.text.startswith("Corrections applied")
    assert not readLabels(scan).labels[25, 25:28, 15:18].any()
    assert readReport(scan.segmentation).corrections
    user.click(user.ui.nextButton)
    assert user.ui.alternativeLabel.text.startswith("1 of")
    before, regions = readLabels(scan).labels.copy(), user.widget.panel.result.regions.unpack()
    user.click(user.ui.useAlternativeButton)
    changed = readLabels(scan).labels != before
    assert changed.any()
    assert (regions[changed] == 1).all()
