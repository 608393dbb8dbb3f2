"""Segments of other programs are matched with the labels of a model by code, then by name, and the match is stated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.model_manifest import CodedTerm, ModelLabel, ModelManifest
from DiffusionSegmentBackend.schema.segment_matching import (
    SegmentName,
    match_segments,
    normalised,
    terms_of_entry,
)

MODELS = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models"
TOTALSEGMENTATOR = {
    "spleen": "spleen",
    "kidney_right": "right_kidney",
    "kidney_left": "left_kidney",
    "gallbladder": "gallbladder",
    "esophagus": "esophagus",
    "liver": "liver",
    "stomach": "stomach",
    "aorta": "aorta",
    "inferior_vena_cava": "inferior_vena_cava",
    "portal_vein_and_splenic_vein": "portal_and_splenic_vein",
    "pancreas": "pancreas",
    "adrenal_gland_right": "right_adrenal_gland",
    "adrenal_gland_left": "left_adrenal_gland",
}
AMOS = ("right kidney", "gall bladder", "arota", "postcava", "left adrenal gland")
OTHER = ("lung_upper_lobe_left", "kidney_cyst_left", "pulmonary_vein", "superior_vena_cava", "duodenum", "", "kidney")
LIVER = CodedTerm(scheme="SCT", value="10200004", meaning="Liver")
KIDNEY = CodedTerm(scheme="SCT", value="64033007", meaning="Kidney")
LEFT = CodedTerm(scheme="SCT", value="7771000", meaning="Left")


def labels_of(model: str) -> tuple[ModelLabel, ...]:
    return ModelManifest.from_json(json.loads((MODELS / model / "model.json").read_text(encoding="utf-8"))).labels


ABDOMEN = labels_of("abdomen-ct")


def organ_of(segment: SegmentName, labels: tuple[ModelLabel, ...] = ABDOMEN) -> tuple[str, str] | None:
    (match,) = match_segments([segment], labels).matches
    return None if match is None else (match.organ, match.reason)


def test_the_class_names_of_totalsegmentator_match_every_label_of_the_abdomen() -> None:
    matching = match_segments([SegmentName(name=name) for name in TOTALSEGMENTATOR], ABDOMEN)
    assert {match.segment: match.organ for match in matching.matched} == TOTALSEGMENTATOR
    assert matching.organs == tuple(label.name for label in ABDOMEN)
    assert matching.unmatched == ()


@pytest.mark.parametrize("model", ["abdomen-ct", "abdomen-mr", "headneck-ct", "hippocampus-mr"])
def test_every_name_and_title_of_a_model_matches_its_own_label(model: str) -> None:
    labels = labels_of(model)
    for label in labels:
        assert organ_of(SegmentName(name=label.name), labels) == (label.name, "name")
        assert organ_of(SegmentName(name=label.title), labels) == (label.name, "name")


@pytest.mark.parametrize("name", AMOS)
def test_names_of_public_data_sets_match(name: str) -> None:
    assert organ_of(SegmentName(name=name)) is not None


@pytest.mark.parametrize("name", OTHER)
def test_a_name_of_no_label_has_no_match(name: str) -> None:
    assert organ_of(SegmentName(name=name)) is None


def test_spelling_case_and_order_of_the_words_do_not_matter() -> None:
    names = ("LeftKidney", "kidney, left", "Kidney (L)", "lt_kidney", "left  Kidney")
    assert {normalised(name) for name in names} == {frozenset({"left", "kidney"})}
    assert normalised("Oesophagus") == normalised("esophagus")


def test_a_code_decides_before_a_name() -> None:
    assert organ_of(SegmentName(name="Segment_1", code=LIVER)) == ("liver", "code")
    assert organ_of(SegmentName(name="spleen", code=LIVER)) == ("liver", "code")


def test_the_side_is_part_of_a_code() -> None:
    assert organ_of(SegmentName(name="a", code=KIDNEY, modifier=LEFT)) == ("left_kidney", "code")
    assert organ_of(SegmentName(name="a", code=KIDNEY)) is None
    assert organ_of(SegmentName(name="right kidney", code=KIDNEY)) == ("right_kidney", "name")


def test_where_labels_share_a_code_the_name_decides() -> None:
    hippocampus = labels_of("hippocampus-mr")
    assert organ_of(SegmentName(name="part 1", code=hippocampus[0].code), hippocampus) is None
    posterior = SegmentName(name="hippocampus_posterior", code=hippocampus[0].code)
    assert organ_of(posterior, hippocampus) == ("posterior_hippocampus", "name")


def test_of_several_segments_of_one_label_the_one_with_the_stronger_reason_matches() -> None:
    segments = [SegmentName(name="liver"), SegmentName(name="Leber", code=LIVER), SegmentName(name="Liver")]
    matching = match_segments(segments, ABDOMEN)
    assert [(match.segment, match.reason) for match in matching.matched] == [("Leber", "code")]
    assert matching.unmatched == ("liver", "Liver")


def test_a_given_match_decides_before_code_and_name() -> None:
    segments = [SegmentName(name="a", code=LIVER), SegmentName(name="liver"), SegmentName(name="b")]
    matching = match_segments(segments, ABDOMEN, given={"a": "Spleen", "b": "liver"})
    assert [(match.segment, match.organ, match.reason) for match in matching.matched] == [
        ("a", "spleen", "given"),
        ("b", "liver", "given"),
    ]
    assert matching.unmatched == ("liver",)


def test_several_segments_may_be_given_one_organ() -> None:
    segments = [SegmentName(name="liver_segment_1"), SegmentName(name="liver_segment_2")]
    matching = match_segments(segments, ABDOMEN, given={segment.name: "liver" for segment in segments})
    assert [match.value for match in matching.matched] == [6, 6]
    assert matching.organs == ("liver",)


def test_a_segment_can_be_left_out() -> None:
    matching = match_segments([SegmentName(name="liver")], ABDOMEN, given={"liver": ""})
    assert (matching.matched, matching.unmatched) == ((), ("liver",))


@pytest.mark.parametrize(("given", "words"), [({"Milz": "spleen"}, "no segment 'Milz'"), ({"a": "Herz"}, "'Herz'")])
def test_a_given_match_of_an_unknown_name_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        match_segments([SegmentName(name="a")], ABDOMEN, given=given)
    assert caught.value.code is ErrorCode.OPTION


def test_the_terms_of_a_terminology_entry_of_slicer() -> None:
    entry = (
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
        "~SCT^64033007^Kidney~SCT^7771000^Left~Anatomic codes - DICOM master list~^^~^^|"
    )
    assert terms_of_entry(entry) == (KIDNEY, LEFT)
    assert terms_of_entry(entry.replace("SCT^7771000^Left", "^^")) == (KIDNEY, None)
    assert terms_of_entry("") == terms_of_entry("a~b") == (None, None)
