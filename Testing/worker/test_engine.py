"""The engine passes each request to its handler and keeps model and session between requests, with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models import model as model_module
from DiffusionSegmentBackend.pipeline import segment as segment_module
from DiffusionSegmentBackend.protocol import messages
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import (
    Alternatives,
    Correct,
    Corrected,
    ImportModel,
    Preview,
    RegionAlternatives,
    Request,
    Result,
    Review,
    Segment,
    SegmentFiles,
    SelfTest,
    SelfTestReport,
    Similar,
    Similarity,
    Task,
)
from DiffusionSegmentBackend.schema.reviewed_segmentation import OtherSegment, ReviewedSegmentation
from DiffusionSegmentBackend.schema.segment_matching import SegmentMatch
from DiffusionSegmentBackend.worker.answer import EngineAnswer
from DiffusionSegmentBackend.worker.engine import PipelineEngine
from DiffusionSegmentBackend.worker.handlers import HANDLERS
from fixtures.tiny_model import NAME, SPACING_MM, coarse_phantom, write_tiny_model


class Client:
    """Sends requests about one scan to an engine; `loads` and `runs` count models loaded and scans run."""

    def __init__(self, folder: Path, scan: Volume) -> None:
        self.folder = folder
        self.scan = scan
        self.engine = PipelineEngine()
        self.early: list[EngineAnswer] = []
        self.stages: list[str] = []
        self.loads = self.runs = 0

    def send(self, kind: type[Request], maps: dict[str, np.ndarray] | None = None, **options: Any) -> EngineAnswer:
        geometry = self.scan.index_to_lps
        volume = write_buffer(self.folder / "scan.raw", np.asarray(self.scan.array), geometry)
        written = {
            name: write_buffer(self.folder / f"{name}.raw", array, geometry) for name, array in (maps or {}).items()
        }
        return self.run(
            kind(id="1", output_folder=str(self.folder), volume=volume, model=NAME, **{**written, **options})
        )

    def run(self, request: Task) -> EngineAnswer:
        return self.engine(request, lambda stage, *_: self.stages.append(stage), self.early.append)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    write_tiny_model(tmp_path / "models")
    created = Client(tmp_path, coarse_phantom())
    load, open_session = model_module.load_model, segment_module.open_session

    def counted_load(*arguments: Any, **more: Any) -> Any:
        created.loads += 1
        return load(*arguments, **more)

    def counted_run(*arguments: Any, **more: Any) -> Any:
        created.runs += 1
        return open_session(*arguments, **more)

    monkeypatch.setattr(model_module, "load_model", counted_load)
    monkeypatch.setattr(segment_module, "open_session", counted_run)
    return created


def test_every_task_of_the_protocol_has_a_handler() -> None:
    tasks = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Task) and kind.type and not kind.__subclasses__()
    }
    # The workers of a cohort have an engine of their own.
    assert tasks | {Segment} == {*HANDLERS, SegmentFiles}


def assert_alternatives_fit(answer: EngineAnswer) -> None:
    """Each region of the report has its alternatives, and each of these its marks."""
    regions = answer.values["alternatives"]
    assert [one.centroid_lps_mm for one in regions] == [r.centroid_lps_mm for r in answer.values["report"].review]
    marks = answer.maps["alternative_marks"]
    assert len(marks.array) == sum(len(one.alternatives) for one in regions) > 0


def test_a_segmentation_gives_its_maps_and_a_preview(client: Client) -> None:
    answer = client.send(Segment, samples=1, steps=1, force=True, preview=True, bodypart=True)
    assert answer.message is Result
    maps = {"labels", "uncertainty", "mutual_information", "regions", "bodypart"}
    assert answer.maps.keys() == {*maps, "alternative_marks"}
    assert_alternatives_fit(answer)
    for name in maps - {"uncertainty", "mutual_information"}:
        assert answer.maps[name].array.shape[:3] == client.scan.array.shape
    for name in ("uncertainty", "mutual_information"):
        on_grid = answer.maps[name]
        assert on_grid.array.dtype == np.float32
        assert all(n <= whole for n, whole in zip(on_grid.array.shape, client.scan.array.shape, strict=True))
        np.testing.assert_allclose(on_grid.spacing, SPACING_MM)
    assert answer.values["report"].provenance.plan.samples == 1
    assert [early.message for early in client.early] == [Preview]
    assert client.early[0].maps["labels"].array.shape == client.scan.array.shape


def test_later_requests_use_the_model_and_the_session_of_the_run(client: Client) -> None:
    labels = np.array(client.send(Segment, samples=2, steps=1, force=True).maps["labels"].array)
    scribbles = np.zeros_like(labels)
    scribbles[tuple(n // 2 for n in labels.shape)] = 2
    corrected = client.send(Correct, {"labels": labels, "scribbles": scribbles}, samples=2, steps=1, force=True)
    alternatives = client.send(Alternatives, samples=2, steps=1, force=True)
    assert (corrected.message, alternatives.message) == (Corrected, RegionAlternatives)
    assert alternatives.values["alternatives"] == corrected.values["alternatives"]
    assert_alternatives_fit(corrected)
    assert (client.loads, client.runs) == (1, 1)


OPTIONS: dict[str, Any] = {"samples": 1, "steps": 1, "force": True}
SEGMENTS = ReviewedSegmentation(
    matches=(SegmentMatch(segment="Milz", organ="spleen", value=1, reason="given"),),
    unmatched=(OtherSegment(name="Herz", value=255),),
)


@pytest.fixture
def given(client: Client) -> np.ndarray:
    """A block of spleen, and one of another structure."""
    labels = np.zeros(client.scan.array.shape, dtype=np.uint8)
    k, j, i = (n // 2 for n in labels.shape)
    labels[k - 3 : k + 3, j - 3 : j + 3, i + 1 : i + 5] = 1
    labels[k - 3 : k + 3, j - 3 : j + 3, i - 4 : i] = 255
    return labels


def test_a_review_returns_the_given_segmentation_and_its_maps(client: Client, given: np.ndarray) -> None:
    answer = client.send(Review, {"labels": given}, organs=("spleen",), segments=SEGMENTS, preview=True, **OPTIONS)
    assert answer.message is Result
    np.testing.assert_array_equal(answer.maps["labels"].array, np.where(given == 1, 1, 0))
    report = answer.values["report"]
    assert [organ.name for organ in report.organs] == ["spleen"]
    assert report.reviewed == SEGMENTS
    assert client.early == []


def test_what_follows_a_review_uses_its_session(client: Client, given: np.ndarray) -> None:
    labels = np.array(client.send(Review, {"labels": given}, organs=("spleen",), **OPTIONS).maps["labels"].array)
    scribbles = np.zeros_like(labels)
    scribbles[tuple(np.argwhere(labels == 1)[0])] = 1
    maps = {"labels": labels, "scribbles": scribbles, "reviewed": given}
    corrected = client.send(Correct, maps, organs=("spleen",), **OPTIONS)
    alternatives = client.send(Alternatives, {"reviewed": given}, organs=("spleen",), **OPTIONS)
    assert (corrected.message, alternatives.message) == (Corrected, RegionAlternatives)
    assert alternatives.values["alternatives"] == corrected.values["alternatives"]
    assert corrected.values["report"].taken_out == ()
    assert client.runs == 1


def test_a_session_of_another_segmentation_is_not_used(client: Client, given: np.ndarray) -> None:
    client.send(Segment, organs=("spleen",), **OPTIONS)
    client.send(Alternatives, {"reviewed": given}, organs=("spleen",), **OPTIONS)
    other = given.copy()
    other[given == 1] = 0
    other[given == 255] = 1
    client.send(Alternatives, {"reviewed": other}, organs=("spleen",), **OPTIONS)
    client.send(Alternatives, organs=("spleen",), **OPTIONS)
    assert client.runs == 4


def test_a_review_of_labels_of_another_type_is_refused(client: Client, given: np.ndarray) -> None:
    with pytest.raises(DiffusionSegmentError, match="int16") as caught:
        client.send(Review, {"labels": given.astype(np.int16)}, **OPTIONS)
    assert caught.value.code is ErrorCode.PROTOCOL


def test_similarity_is_1_at_the_point_and_the_features_are_computed_once(client: Client) -> None:
    k, j, i = (n // 2 for n in client.scan.array.shape)
    point = tuple(float(v) for v in (client.scan.index_to_lps @ [i, j, k, 1])[:3])
    client.stages.clear()
    answers = [client.send(Similar, point_lps=point) for _ in range(2)]
    assert all(answer.message is Similarity for answer in answers)
    assert np.asarray(answers[0].maps["similarity"].array).max() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_array_equal(*(answer.maps["similarity"].array for answer in answers))
    assert client.loads == 1


def test_the_self_test_needs_no_model(client: Client) -> None:
    answer = client.run(SelfTest(id="1", output_folder=str(client.folder), device="cpu"))
    assert answer.message is SelfTestReport
    assert answer.values["report"].device
    assert client.loads == 0


def test_a_failed_import_keeps_the_model_in_memory(client: Client) -> None:
    client.send(Segment, samples=1, steps=1, force=True)
    with pytest.raises(DiffusionSegmentError):
        client.run(ImportModel(id="1", output_folder=str(client.folder), path=str(client.folder / "none.zip")))
    client.send(Alternatives, samples=1, steps=1, force=True)
    assert (client.loads, client.runs) == (1, 1)


def test_a_cancelled_run_leaves_no_session(client: Client) -> None:
    def cancel(stage: str, *_: int) -> None:
        if stage == "refine":
            raise Cancelled

    volume = write_buffer(client.folder / "scan.raw", np.asarray(client.scan.array), client.scan.index_to_lps)
    options: dict[str, Any] = {"model": NAME, "samples": 1, "steps": 1, "force": True}
    request = Segment(id="1", output_folder=str(client.folder), volume=volume, **options)
    with pytest.raises(Cancelled):
        client.engine(request, cancel, client.early.append)
    client.send(Alternatives, samples=1, steps=1, force=True)
    assert client.runs == 2


def test_a_task_without_a_handler_is_refused(client: Client) -> None:
    with pytest.raises(DiffusionSegmentError, match="no handler") as caught:
        client.run(Task(id="1", output_folder=str(client.folder)))
    assert caught.value.code is ErrorCode.PROTOCOL
