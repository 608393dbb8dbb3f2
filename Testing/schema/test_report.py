"""report.json, review.json and model.json are read as typed objects, of this version and of the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.schema.correction_marks import scribble_value
from DiffusionSegmentBackend.schema.dataclass_json import SchemaError, from_json, to_json
from DiffusionSegmentBackend.schema.json_schema import FILES, json_schema
from DiffusionSegmentBackend.schema.model_manifest import AnatomyLimits, ModelManifest
from DiffusionSegmentBackend.schema.report import SCHEMA_VERSION, Report
from DiffusionSegmentBackend.schema.review_state import OrganState, RegionDecision, RegionState, ReviewState

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
# A report of the first version: without schema_version, and with the key of that version for the competing organ.
VERSION_1: dict[str, Any] = {
    "organs": [
        {
            "name": "spleen",
            "title": "Spleen",
            "value": 1,
            "volume_ml": 156.88,
            "volume_interval_ml": [116.34, 210.11],
            "confidence": 0.935,
        }
    ],
    "review": [
        {
            "organ": "spleen",
            "rival": "background",
            "value": 1,
            "rival_value": 0,
            "centroid_lps_mm": [-74.5, -9.8, 285.3],
            "volume_ml": 19.9,
            "score": 6.9,
            "sentence": "Spleen or background?",
        }
    ],
    "confidence": 0.93,
    "taken_out": [{"name": "spleen", "title": "Spleen", "pieces": 2, "volume_ml": 1.5}],
    "warnings": ["Not found: pancreas."],
    "timings_s": {"prepare": 1.5, "total": 1.5},
    "peak_memory_mb": 900,
    "predicted_memory_mb": 800,
    "scales": {"uncertainty": {"quantity": "entropy / ln(classes)", "classes": 14, "nats_at_1": 2.6391}},
    "provenance": {
        "software": "DiffusionSegment 0.1.0",
        "model": "abdomen-ct",
        "version": "0.4.1",
        "sha256": "ab" * 32,
        "seed": 3,
        "samples": 4,
        "steps": 2,
        "schedule": "cosine",
        "sampler": "ddim",
        "abar_start": 0.2,
        "organs": None,
        "region": None,
        "device": "cpu",
        "precision": "float32",
        "torch": "2.13.0",
        "input": "/scans/ct.nii.gz",
    },
    "corrections": [
        {
            "time": "2026-03-01T09:30:00+00:00",
            "kind": "marks",
            "marked_voxels": 40,
            "changed_voxels": 12,
            "organs": [
                {
                    "name": "spleen",
                    "title": "Spleen",
                    "gained_voxels": 12,
                    "lost_voxels": 0,
                    "gained_ml": 0.32,
                    "lost_ml": 0.0,
                }
            ],
        }
    ],
}


def test_a_report_of_the_first_version_is_read() -> None:
    report = Report.from_json(VERSION_1)
    assert report.review[0].competing_organ == "background"
    assert report.provenance.plan.seed == 3
    assert report.provenance.plan.organs is None
    assert report.provenance.source.input == "/scans/ct.nii.gz"
    assert report.provenance.software.sha256 == "ab" * 32
    assert report.corrections[0].organs[0].gained_ml == 0.32


def test_it_is_written_in_the_current_version_and_read_again() -> None:
    report = Report.from_json(VERSION_1)
    written = report.to_json()
    assert written["schema_version"] == SCHEMA_VERSION == 2
    assert written["review"][0]["competing_organ"] == "background"
    assert written["provenance"] == VERSION_1["provenance"]
    assert {key: written[key] for key in VERSION_1 if key != "review"} == {
        key: value for key, value in VERSION_1.items() if key != "review"
    }
    assert Report.from_json(json.loads(json.dumps(written))) == report


def test_parts_that_a_run_does_not_have_are_left_out() -> None:
    written = Report.from_json({key: value for key, value in VERSION_1.items() if key != "corrections"}).to_json()
    assert not {"corrections", "alternatives", "probabilities", "run_timings_s"} & written.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 3}, "schema_version is 3"),
        ({"organs": [{"name": "spleen"}]}, r"organs\[0\] has no title"),
        ({"review": [5]}, "review is not a list of objects"),
        ({"provenance": {"model": "a"}}, "has no seed"),
        ({"provenance": {**VERSION_1["provenance"], "seed": "3"}}, "seed"),
        ({"timings_s": {"total": "long"}}, "timings_s.total"),
        ({"corrections": [{**VERSION_1["corrections"][0], "time": "yesterday"}]}, "ISO 8601"),
        ({"corrections": [{**VERSION_1["corrections"][0], "marked_voxels": -1}]}, "number of voxels"),
    ],
)
def test_a_damaged_report_is_refused_with_the_name_of_the_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Report.from_json({**VERSION_1, **change})


def test_a_review_is_read_and_written() -> None:
    raw = {"organs": {"liver": "accepted"}, "regions": [{"index": 2, "state": "flagged"}]}
    review = from_json(ReviewState, raw)
    assert (review.organ("liver"), review.organ("spleen")) == (OrganState.ACCEPTED, OrganState.NOT_REVIEWED)
    assert (review.region(2), review.region(0)) == (RegionState.FLAGGED, RegionState.OPEN)
    assert to_json(review) == raw
    with pytest.raises(DiffusionSegmentError, match="region 2") as caught:
        review.check(organs=["liver"], regions=2)
    assert caught.value.code is ErrorCode.INPUT_VALUES


def test_two_states_of_a_region_are_refused() -> None:
    decision = RegionDecision(0, RegionState.OPEN)
    with pytest.raises(SchemaError, match="twice"):
        ReviewState(regions=(decision, decision))


def test_the_value_of_a_scribble_is_the_label_plus_1() -> None:
    assert [scribble_value(value) for value in (0, 1, 13)] == [1, 2, 14]


@pytest.mark.parametrize(
    "path", sorted(bundled_models_folder().glob("*/model.json")), ids=lambda path: path.parent.name
)
def test_the_bundled_manifests_are_read(path: Path) -> None:
    manifest = ModelManifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    assert manifest.name == path.parent.name
    assert all(label.has_terms for label in manifest.labels)
    assert manifest.quality is not None
    assert 0.5 < (manifest.quality.result_dice or 0) < 1


@pytest.mark.parametrize("name", ["", ".hidden", "../a", "a/b", "a\\b", "C:a", "a" * 300])
def test_weights_outside_the_folder_of_the_manifest_are_refused(name: str) -> None:
    raw = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text(encoding="utf-8"))
    raw["networks"]["probe"]["file"] = name
    with pytest.raises(SchemaError, match=r"beside model\.json"):
        ModelManifest.from_json(raw)


def test_limits_of_the_first_version_are_read() -> None:
    limits = from_json(AnatomyLimits, {"min_organ_ml": 3.0})
    assert AnatomyLimits.from_json({"least_organ_ml": 3.0, "least_confidence": 0.5}).min_confidence == 0.5
    assert AnatomyLimits.from_json({"least_organ_ml": 3.0}) == limits


def test_the_published_schemas_are_generated_from_the_types() -> None:
    published = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DOCS.glob("*.json")}
    generated = {f"{name}.schema.json": json_schema(kind) for name, kind in FILES.items()}
    assert published == generated, "run `make schemas`"


def test_written_files_are_valid_in_the_published_schema() -> None:
    jsonschema.validate(Report.from_json(VERSION_1).to_json(), json_schema(Report))
    for path in bundled_models_folder().glob("*/model.json"):
        manifest = ModelManifest.from_json(json.loads(path.read_text(encoding="utf-8")))
        jsonschema.validate(to_json(manifest), json_schema(ModelManifest))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**Report.from_json(VERSION_1).to_json(), "organs": [{}]}, json_schema(Report))
