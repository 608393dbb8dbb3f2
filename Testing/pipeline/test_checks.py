"""The anatomy check: verdicts accept, warn and refuse, their messages, and how its limits are computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.layout import layout_mm, organ_layout_mm
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import Model, find_model
from DiffusionSegmentBackend.pipeline.checks import (
    Finding,
    OrganMeasures,
    Verdict,
    enforce,
    judge_body_part,
    judge_organs,
    judge_side,
    organ_measures,
    share_in_reach,
)
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentResearch.studies import anatomy
from DiffusionSegmentResearch.studies.anatomy import Measured, anatomy_rows, limits_of, measure, measure_all
from DiffusionSegmentResearch.studies.anatomy_scans import Scan, phantoms, scans_of

FAST = SegmentOptions(samples=1, steps=1)


@pytest.fixture(scope="module")
def bundled() -> ModelDescription:
    return read_description(find_model("abdomen-ct"))


def limited(description: ModelDescription, **limits: Any) -> ModelDescription:
    return replace(description, anatomy=replace(description.anatomy, **limits))


def labels_at_usual_positions(description: ModelDescription, *, swap: bool = False) -> torch.Tensor:
    """Balls of 12 mm radius at 1.2 times each organ's usual position, z, y, x on the model's grid."""
    labels = torch.zeros(110, 90, 110, dtype=torch.uint8)
    z, y, x = (torch.arange(n, dtype=torch.float32) for n in labels.shape)
    for label in description.labels:
        assert label.body_mm is not None
        ax, ay, az = (1.2 * v / 3 + n / 2 for v, n in zip(label.body_mm, (110, 90, 110), strict=True))
        ax = 110 - ax if swap else ax
        squares = (z[:, None, None] - az) ** 2 + (y[None, :, None] - ay) ** 2 + (x[None, None] - ax) ** 2
        labels[squares < 4**2] = label.value
    return labels


def test_the_layout_is_small_at_usual_positions_and_large_for_swapped_sides(bundled: ModelDescription) -> None:
    usual = organ_layout_mm(labels_at_usual_positions(bundled), bundled)
    swapped = organ_layout_mm(labels_at_usual_positions(bundled, swap=True), bundled)
    assert usual is not None
    assert swapped is not None
    assert usual < 6
    assert swapped > 40


def test_layout_does_not_depend_on_position_and_size_of_the_patient() -> None:
    positions = [(0.0, 0.0, 0.0), (100.0, 0.0, 40.0), (0.0, 80.0, -60.0), (-90.0, 30.0, 50.0)]
    moved = [(0.9 * x + 500, 0.9 * y - 30, 0.9 * z + 7) for x, y, z in positions]
    assert layout_mm(moved, positions) < 1
    assert layout_mm([moved[1], moved[0], moved[3], moved[2]], positions) > 30


def test_few_or_small_organs_have_no_layout(bundled: ModelDescription) -> None:
    labels = labels_at_usual_positions(bundled)
    assert organ_layout_mm(labels * (labels <= 3), bundled) is None
    assert organ_layout_mm(labels * (torch.rand(labels.shape) < 0.01), bundled) is None
    without_positions = replace(bundled, labels=tuple(replace(label, body_mm=None) for label in bundled.labels))
    assert organ_layout_mm(labels, without_positions) is None


def test_share_in_reach_counts_tissue_only() -> None:
    image, coordinates = torch.zeros(20, 4, 4), torch.zeros(3, 20, 4, 4)
    image[10:] = -1.0
    coordinates[2] = 400
    coordinates[2, :2] = 50
    assert share_in_reach(coordinates, image, (-100.0, 100.0)) == pytest.approx(0.2)
    assert share_in_reach(coordinates, torch.full_like(image, -1.0), (-100.0, 100.0)) == 0
    assert share_in_reach(coordinates, image, None) is None


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.5, Verdict.ACCEPT), (0.35, Verdict.WARN), (0.2, Verdict.REFUSE), (None, Verdict.ACCEPT)]
)
def test_the_share_in_reach_gives_one_of_three_verdicts(
    share: float | None, verdict: Verdict, bundled: ModelDescription
) -> None:
    description = limited(bundled, usual_share_in_reach=0.4, min_share_in_reach=0.3)
    finding = judge_body_part(share, description)
    assert finding.verdict is verdict
    assert bool(finding.message) is (verdict is not Verdict.ACCEPT)
    if share is not None and finding.message:
        assert f"{100 * share:.0f} %" in finding.message


@pytest.mark.parametrize(
    ("measures", "verdict"),
    [
        (OrganMeasures(2000, 0.95, 15.0), Verdict.ACCEPT),
        (OrganMeasures(2000, 0.70, 15.0), Verdict.ACCEPT),
        (OrganMeasures(2000, 0.95, 25.0), Verdict.WARN),
        (OrganMeasures(2000, 0.95, 45.0), Verdict.REFUSE),
        (OrganMeasures(10, 0.95, 15.0), Verdict.REFUSE),
        (OrganMeasures(2000, 0.95, None), Verdict.ACCEPT),
        (OrganMeasures(2000, 0.70, None), Verdict.REFUSE),
    ],
)
def test_layout_decides_and_confidence_only_without_a_layout(
    measures: OrganMeasures, verdict: Verdict, bundled: ModelDescription
) -> None:
    description = limited(bundled, usual_layout_mm=20.0, max_layout_mm=30.0, min_confidence=0.87, min_organ_ml=50.0)
    assert judge_organs(measures, description).verdict is verdict


@pytest.mark.parametrize(
    ("measures", "share", "code", "words"),
    [
        (OrganMeasures(10, 0.95, None), 0.3, ErrorCode.BODY_PART_MISMATCH, "shows another part of the body"),
        (OrganMeasures(10, 0.95, None), 0.8, ErrorCode.UNUSUAL_APPEARANCE, "shows the right part of the body, but"),
        (OrganMeasures(2000, 0.7, None), 0.8, ErrorCode.UNUSUAL_APPEARANCE, "unusual contrast, dose or disease"),
        (OrganMeasures(2000, 0.7, None), None, ErrorCode.UNUSUAL_APPEARANCE, "or another part of the body"),
        (OrganMeasures(2000, 0.95, 45.0), 0.8, ErrorCode.BODY_PART_MISMATCH, "shows another part of the body"),
    ],
)
def test_a_refusal_distinguishes_another_body_part_from_an_unusual_appearance(
    measures: OrganMeasures, share: float | None, code: ErrorCode, words: str, bundled: ModelDescription
) -> None:
    limits = {"usual_layout_mm": 20.0, "max_layout_mm": 30.0, "min_confidence": 0.87, "usual_share_in_reach": 0.4}
    finding = judge_organs(measures, limited(bundled, **limits), share=share)
    assert words in finding.message
    with pytest.raises(DiffusionSegmentError) as caught:
        enforce(finding, force=False)
    assert caught.value.code is code
    assert caught.value.exit_status == 2


def test_a_scan_of_the_right_part_with_an_unusual_appearance_is_segmented_with_a_warning(
    model: Model, phantom_ct: Volume
) -> None:
    unusual = replace(model, description=limited(model.description, usual_confidence=1.0))
    result = segment(phantom_ct, unusual, FAST)
    assert any(text.startswith("Unusual contrast, dose or disease: ") for text in result.report.warnings)
    assert result.labels.any()


def test_confidence_decides_without_limits_of_the_layout(bundled: ModelDescription) -> None:
    description = limited(bundled, usual_layout_mm=None, max_layout_mm=None, min_confidence=0.87)
    assert judge_organs(OrganMeasures(2000, 0.9, 90.0), description).verdict is Verdict.ACCEPT
    assert judge_organs(OrganMeasures(2000, 0.8, 10.0), description).verdict is Verdict.REFUSE


@pytest.mark.parametrize(("slices", "verdict"), [(40, Verdict.ACCEPT), (41, Verdict.REFUSE)])
def test_a_scan_that_shows_more_than_a_model_of_crops_takes_is_refused(
    slices: int, verdict: Verdict, bundled: ModelDescription
) -> None:
    box = (slice(5, 5 + slices), slice(0, 30), slice(0, 20))
    finding = judge_side(box, limited(bundled, max_side_mm=120.0))
    assert finding.verdict is verdict
    assert judge_side(box, limited(bundled, max_side_mm=None)).verdict is Verdict.ACCEPT
    if verdict is Verdict.REFUSE:
        assert "shows 123 mm of the body" in finding.message
        with pytest.raises(DiffusionSegmentError, match="at most 120 mm") as caught:
            enforce(finding, force=False)
        assert caught.value.hint == "Crop the scan around the organs of the model."


def test_a_side_is_measured_along_its_own_axis(bundled: ModelDescription) -> None:
    flat = replace(limited(bundled, max_side_mm=120.0), spacing_mm=(1.5, 1.5, 6.0))
    assert judge_side((slice(0, 20), slice(0, 80), slice(0, 80)), flat).verdict is Verdict.ACCEPT
    assert judge_side((slice(0, 21), slice(0, 10), slice(0, 10)), flat).verdict is Verdict.REFUSE


def test_too_large_a_scan_is_refused_before_the_networks_run(model: Model, phantom_ct: Volume) -> None:
    small = replace(model, description=limited(model.description, max_side_mm=50.0))
    stages: list[str] = []
    with pytest.raises(DiffusionSegmentError, match="trained on small crops"):
        segment(phantom_ct, small, FAST, progress=lambda stage, done, total: stages.append(stage))
    assert "bodypart" not in stages
    assert "features" not in stages


def test_a_whole_head_is_too_large_for_the_model_of_the_hippocampus() -> None:
    description = read_description(find_model("hippocampus-mr"))
    head = (slice(0, 180), slice(0, 180), slice(0, 150))
    crop = (slice(0, 36), slice(0, 50), slice(0, 35))
    assert judge_side(head, description).verdict is Verdict.REFUSE
    assert judge_side(crop, description).verdict is Verdict.ACCEPT


def test_a_refusal_is_an_error_and_with_force_a_warning() -> None:
    refusal = Finding(Verdict.REFUSE, "It shows a foot.")
    with pytest.raises(DiffusionSegmentError, match="It shows a foot") as caught:
        enforce(refusal, force=False)
    assert caught.value.code is ErrorCode.BODY_PART_MISMATCH
    assert "--" not in str(caught.value)
    assert enforce(refusal, force=True) == [
        "Segmented on request, although it would have been refused: It shows a foot."
    ]
    assert enforce(Finding(Verdict.WARN, "Look."), force=False) == ["Look."]
    assert enforce(Finding(Verdict.ACCEPT), force=False) == []


def test_an_unusual_scan_gives_a_warning_in_the_report(model: Model, phantom_ct: Volume) -> None:
    unusual = replace(model, description=limited(model.description, usual_layout_mm=0.1, max_layout_mm=1000.0))
    warnings = segment(phantom_ct, unusual, FAST).report.warnings
    assert any("Unusual anatomy" in text for text in warnings)
    assert not any("--" in text for text in warnings)


def test_a_forced_run_warns_that_it_would_have_been_refused(model: Model, phantom_ct: Volume) -> None:
    never = replace(model, description=limited(model.description, max_layout_mm=0.1))
    with pytest.raises(DiffusionSegmentError, match="not arranged like the organs"):
        segment(phantom_ct, never, FAST)
    warnings = segment(phantom_ct, never, replace(FAST, force=True)).report.warnings
    assert any("would have been refused" in text for text in warnings)


def test_the_bundled_model_has_limits_that_warn_before_they_refuse(bundled: ModelDescription) -> None:
    limits = bundled.anatomy
    assert limits.usual_layout_mm is not None
    assert limits.max_layout_mm is not None
    assert limits.usual_layout_mm < limits.max_layout_mm
    assert 0 < limits.min_share_in_reach < limits.usual_share_in_reach


@pytest.mark.parametrize("phantom", list(phantoms()), ids=lambda scan: scan.name)
def test_water_and_noise_are_refused_by_the_bundled_model(phantom: Scan, model: Model) -> None:
    share, organs = measure(model, phantom, organs=True)
    assert Measured(phantom, share, organs).verdict(model.description) is Verdict.REFUSE


def test_a_phantom_of_an_abdomen_is_not_refused(model: Model, phantom_ct: Volume) -> None:
    assert segment(phantom_ct, model, FAST).report.organs


def test_the_command_line_adds_force_as_the_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    water = np.full((40, 60, 60), -1000, dtype=np.int16)
    water[10:30, 20:40, 20:40] = 0
    write_volume(Volume(water, np.diag([3.0, 3.0, 3.0, 1.0])), tmp_path / "water.nii.gz")
    run = ["segment", str(tmp_path / "water.nii.gz"), "-o", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main(run) == 2
    error = capsys.readouterr().err
    assert error.startswith("BODY_PART_MISMATCH")
    assert error.strip().endswith("run again with --force.")
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def scan(name: str, *, own: bool = True, sets_limits: bool = True) -> Scan:
    return Scan("own" if own else "other", name, own, sets_limits, Path(name))


SCANS = [
    Measured(scan("a"), 0.8, OrganMeasures(2000, 0.95, 12.0)),
    Measured(scan("b"), 0.5, OrganMeasures(2000, 0.906, 19.3)),
    Measured(scan("kept apart", sets_limits=False), 0.42, OrganMeasures(2000, 0.7, 27.0)),
    Measured(scan("c", own=False), 0.125, None),
    Measured(scan("d", own=False), 0.02, OrganMeasures(500, 0.75, 45.0)),
    Measured(scan("also apart", own=False, sets_limits=False), 0.3, OrganMeasures(500, 0.75, 60.0)),
]


def test_limits_are_computed_from_training_scans_only() -> None:
    limits = limits_of(SCANS)
    assert limits == {
        "usual_share_in_reach": 0.5,
        "min_share_in_reach": 0.25,
        "usual_layout_mm": 20,
        "max_layout_mm": 29,
        "usual_confidence": 0.9,
    }
    assert limits_of([one for one in SCANS if one.scan.sets_limits]) == limits


def test_the_study_counts_verdicts_per_group(bundled: ModelDescription) -> None:
    description = limited(bundled, **limits_of(SCANS))
    own, other, rule = anatomy_rows(SCANS, description)
    assert [own.numbers[key] for key in ("scans", "accepted", "with a warning", "refused")] == [3, 2, 1, 0]
    assert [other.numbers[key] for key in ("scans", "accepted", "with a warning", "refused")] == [3, 0, 0, 3]
    assert rule.numbers == limits_of(SCANS)


def test_measures_are_cached_in_a_file(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = list(phantoms())[:1]
    first = measure_all(model, scans, tmp_path)
    cached = json.loads((tmp_path / "anatomy.json").read_text(encoding="utf-8"))
    assert list(cached) == ["phantoms of water and noise/water"]
    monkeypatch.setattr(anatomy, "measure", lambda *_args, **_more: pytest.fail("measured again"))
    assert measure_all(model, scans, tmp_path) == first


def test_a_scan_given_as_other_is_not_an_own_scan(tmp_path: Path, phantom_ct: Volume) -> None:
    for name in ("abdomen", "chest"):
        write_volume(phantom_ct, tmp_path / f"{name}.nii.gz")
    scans = scans_of([tmp_path], [tmp_path / "chest.nii.gz"])
    assert [(one.name, one.own) for one in scans if isinstance(one.source, Path)] == [
        ("abdomen", True),
        ("chest", False),
    ]
    assert not any(one.sets_limits for one in scans)


def test_organs_are_measured_on_the_models_grid(bundled: ModelDescription) -> None:
    pre = torch.zeros(bundled.classes, 10, 10, 10)
    pre[0] = 1
    pre[6, :5], pre[0, :5] = 0.9, 0.1
    measures = organ_measures(pre, bundled)
    assert measures.organ_ml == pytest.approx(500 * 0.027)
    assert measures.confidence == pytest.approx(0.9)
    assert measures.layout_mm is None
