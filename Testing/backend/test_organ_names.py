"""An organ answers to its name and to its title, however they are written; another name gets the nearest."""

from __future__ import annotations

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.pipeline.description import find_model, list_models, read_description

ABDOMEN = read_description(find_model("abdomen-ct"))


@pytest.mark.parametrize("model", list_models())
def test_every_organ_of_every_model_answers_to_what_the_table_prints(model: str) -> None:
    description = read_description(find_model(model))
    for label in description.labels:
        for name in (label.name, label.title, label.title.upper(), label.name.replace("_", " "), f" {label.title} "):
            assert description.label_named(name) is label


@pytest.mark.parametrize("name", ["Left kidney", "left_kidney", "LEFT-KIDNEY", "left  kidney", "Left_Kidney"])
def test_case_and_what_joins_the_words_do_not_count(name: str) -> None:
    assert ABDOMEN.label_named(name).name == "left_kidney"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("left kidny", "Did you mean 'Left kidney'?"),
        ("kidney", "Did you mean 'Right kidney' or 'Left kidney'?"),
        ("adrenal", "Did you mean 'Right adrenal gland' or 'Left adrenal gland'?"),
        ("oesophagus", "Did you mean 'Esophagus'?"),
        ("heart", "It knows: Spleen, Right kidney, "),
        ("", "It knows: Spleen, Right kidney, "),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_all(name: str, hint: str) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        ABDOMEN.label_named(name)
    assert caught.value.code is ErrorCode.OPTION
    assert caught.value.hint.startswith(hint)
    assert "\n" not in str(caught.value)
