"""Islands: small pieces of an organ become background and stay uncertain; pieces with scribbles are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.models.user_models import save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.pipeline.interactive.correction import Corrections, correct
from DiffusionSegmentBackend.pipeline.islands import find_islands, pieces_of, remove_islands
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

OPTIONS = SegmentOptions(samples=1, steps=1, force=True)


def labels_with_islands() -> NDArray[np.uint8]:
    """Organ 1: pieces of 8, 2 and 1 voxels. Organ 2: two pieces of 2 voxels."""
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[0:2, 0:2, 0:2] = 1
    labels[4, 4, 4:6] = 1
    labels[7, 7, 7] = 1
    labels[4, 0, 0:2] = labels[6, 0, 0:2] = 2
    return labels


def probabilities_of(labels: NDArray[np.uint8], *, sure: float = 0.7) -> Tensor:
    """Three classes: `sure` for the label of a voxel, the rest in equal shares for the two others."""
    hot = np.moveaxis(np.eye(3, dtype=np.float32)[labels], -1, 0)
    return torch.from_numpy(sure * hot + (1 - sure) / 2 * (1 - hot))


def test_a_piece_smaller_than_the_share_of_the_largest_is_an_island() -> None:
    labels = labels_with_islands()
    islands = find_islands(labels, smallest_piece=0.2)
    assert np.argwhere(islands).tolist() == [[7, 7, 7]]
    islands = find_islands(labels, smallest_piece=0.3)
    assert np.argwhere(islands).tolist() == [[4, 4, 4], [4, 4, 5], [7, 7, 7]]
    assert set(islands[islands > 0]) == {1}


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2, :2, :2] = labels[2, 2, 2] = 1
    assert not find_islands(labels, smallest_piece=1.0).any()


def test_an_island_becomes_background_and_keeps_a_tenth_of_the_probability() -> None:
    probabilities = probabilities_of(labels_with_islands())
    before = probabilities.clone()
    remove_islands(probabilities, smallest_piece=0.2)
    torch.testing.assert_close(probabilities[:, 7, 7, 7], torch.tensor([0.9 * 0.85, 0.1 * 0.85, 0.15]))
    probabilities[:, 7, 7, 7] = before[:, 7, 7, 7]
    assert torch.equal(probabilities, before)


def test_islands_are_returned_and_listed_by_piece() -> None:
    labels = labels_with_islands()
    islands = remove_islands(probabilities_of(labels), smallest_piece=0.3)
    assert np.array_equal(islands, find_islands(labels, smallest_piece=0.3))
    assert [(value, voxels.tolist()) for value, voxels in pieces_of(islands)] == [
        (1, [[4, 4, 4], [4, 4, 5]]),
        (1, [[7, 7, 7]]),
    ]


def test_a_share_of_zero_gives_no_islands() -> None:
    probabilities = probabilities_of(labels_with_islands())
    before = probabilities.clone()
    remove_islands(probabilities, smallest_piece=0.0)
    assert torch.equal(probabilities, before)


def test_a_piece_with_a_scribble_of_its_label_is_not_an_island() -> None:
    labels = labels_with_islands()
    scribbles = torch.zeros(labels.shape, dtype=torch.uint8)
    scribbles[4, 4, 4] = 1 + 1
    scribbles[7, 7, 7] = 2 + 1  # another organ than the piece's own
    probabilities = probabilities_of(labels)
    remove_islands(probabilities, smallest_piece=0.3, scribbles=scribbles)
    assert probabilities.argmax(dim=0)[4, 4, 4:6].tolist() == [1, 1]
    assert int(probabilities.argmax(dim=0)[7, 7, 7]) == 0


def test_only_voxels_inside_the_mask_change() -> None:
    probabilities = probabilities_of(labels_with_islands())
    within = torch.zeros(8, 8, 8, dtype=torch.bool)
    within[4] = True
    remove_islands(probabilities, smallest_piece=0.3, within=within)
    assert probabilities.argmax(dim=0)[4, 4, 4:6].tolist() == [0, 0]
    assert int(probabilities.argmax(dim=0)[7, 7, 7]) == 1


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint8, (6, 7, 5), elements=st.integers(0, 2)), st.floats(0.01, 1.0), st.floats(0.4, 0.99))
def test_probabilities_sum_to_one_and_every_organ_keeps_its_largest_piece(
    labels: NDArray[np.uint8], share: float, sure: float
) -> None:
    probabilities = probabilities_of(labels, sure=sure)
    remove_islands(probabilities, smallest_piece=share)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(6, 7, 5))
    assert float(probabilities.min()) >= 0
    after = probabilities.argmax(dim=0).numpy()
    for value in set(np.unique(labels)) - {0}:
        pieces, _ = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        largest = pieces == 1 + np.bincount(pieces[pieces > 0] - 1).argmax()
        assert (after[largest] == value).all()


def with_smallest_piece(model: Model, share: float) -> Model:
    defaults = replace(model.description.defaults, smallest_piece=share)
    return replace(model, description=replace(model.description, defaults=defaults))


def pieces(labels: NDArray[np.uint8]) -> int:
    """Connected pieces of all organs together."""
    return sum(ndimage.label(labels == v, structure=np.ones((3, 3, 3)))[1] for v in np.unique(labels[labels > 0]))


def test_preview_and_result_have_no_islands_but_alternatives_do(model: Model, phantom_ct: Volume) -> None:
    previews: list[NDArray[np.uint8]] = []
    sessions = {}
    for share in (0.0, 1.0):
        one = with_smallest_piece(model, share)
        sessions[share] = open_session(phantom_ct, one, OPTIONS, preview=previews.append)
    whole, cleaned = (sessions[share].prediction.ensemble.argmax(dim=0).byte().numpy() for share in (0.0, 1.0))
    assert find_islands(whole, smallest_piece=1.0).any()
    assert not find_islands(cleaned, smallest_piece=1.0).any()
    assert pieces(previews[1]) < pieces(previews[0])
    assert torch.equal(sessions[0.0].prediction.sample_labels[0], sessions[1.0].prediction.sample_labels[0])
    assert torch.equal(sessions[0.0].prediction.pre, sessions[1.0].prediction.pre)


def test_the_report_lists_removed_islands(model: Model, phantom_ct: Volume) -> None:
    strict = with_smallest_piece(model, 1.0)
    session = open_session(phantom_ct, strict, OPTIONS)
    report = build_segmentation(session, strict, bodypart=False).report
    islands = session.prediction.islands.numpy()
    voxel_ml = float(np.prod(session.grid.spacing)) / 1000
    assert report["taken_out"]
    for organ in report["taken_out"]:
        value = model.description.label_named(organ["name"]).value
        assert organ["volume_ml"] == pytest.approx(np.count_nonzero(islands == value) * voxel_ml, abs=0.01)
        assert organ["pieces"] == ndimage.label(islands == value, structure=np.ones((3, 3, 3)))[1]
        warned = any(f"{organ['title'].lower()} {organ['volume_ml']:.1f} mL" in text for text in report["warnings"])
        assert warned == (organ["volume_ml"] >= 1)
    loose = with_smallest_piece(model, 0.0)
    assert build_segmentation(open_session(phantom_ct, loose, OPTIONS), loose, bodypart=False).report["taken_out"] == []


def test_a_piece_restored_by_a_correction_is_no_longer_listed(model: Model, phantom_ct: Volume) -> None:
    strict = with_smallest_piece(model, 1.0)
    session = open_session(phantom_ct, strict, OPTIONS)
    first = build_segmentation(session, strict, bodypart=False)
    value, voxels = max(pieces_of(session.prediction.islands.numpy()), key=lambda piece: len(piece[1]))
    lps = session.grid.lps(voxels + np.array(session.prediction.offset))
    ijk = np.linalg.solve(phantom_ct.index_to_lps, np.c_[lps, np.ones(len(lps))].T)[:3].T.round().astype(int)
    scribbles = np.zeros_like(first.labels)
    scribbles[tuple(ijk[:, ::-1].T)] = value + 1
    correction, _ = correct(session, strict, Corrections(labels=first.labels, scribbles=scribbles))
    name = model.description.labels[value - 1].name
    before, after = (
        {o["name"]: o["pieces"] for o in report["taken_out"]} for report in (first.report, correction.report)
    )
    assert after.get(name, 0) == before[name] - 1


def test_a_correction_beside_an_island_does_not_restore_it(model: Model, phantom_ct: Volume) -> None:
    strict = with_smallest_piece(model, 1.0)
    raw = open_session(phantom_ct, with_smallest_piece(model, 0.0), OPTIONS)
    session = open_session(phantom_ct, strict, OPTIONS)
    labels = build_segmentation(session, strict, bodypart=False).labels
    islands = find_islands(raw.prediction.ensemble.argmax(dim=0).byte().numpy(), smallest_piece=1.0)
    island = np.argwhere(islands)[0] + np.array(session.prediction.offset)
    lps = session.grid.lps(island)
    i, j, k = np.round(np.linalg.solve(phantom_ct.index_to_lps, [*lps, 1.0])[:3]).astype(int)
    scribbles = np.zeros_like(labels)
    beside = (k, j, i + 4 if i + 4 < labels.shape[2] else i - 4)
    scribbles[beside] = 1 + 1 if labels[beside] != 1 else 1 + 2
    _, after = correct(session, strict, Corrections(labels=labels, scribbles=scribbles))
    assert after.corrected is not None
    assert after.scribbles is not None
    now = after.corrected.ensemble.argmax(dim=0).byte().numpy()
    held = after.scribbles.numpy() == now + 1
    assert held.any()
    assert not find_islands(now, smallest_piece=1.0, held=held).any()


def test_a_fine_tuned_model_keeps_every_piece(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path))
    assert model.description.defaults.smallest_piece == 0.2
    label = {"value": 1, "name": "metastasis", "title": "Metastasis"}
    probe = Probe(model.description.channels, 2, hidden=8)
    folder = save_user_model("mine", probe, base=model.description, labels=[label], anatomy={})
    assert '"smallest_piece"' not in (folder / "model.json").read_text(encoding="utf-8")
