"""The registry of studies: every entry can be run, and its command repeats it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentResearch.studies.registry import STUDIES
from DiffusionSegmentResearch.studies.study import Study, StudyOptions, StudyRequest


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_every_study_has_a_function_and_known_options(study: Study) -> None:
    assert callable(study.function)
    assert {entry.name for entry in fields(StudyOptions)}.issuperset(study.options)
    assert set(study.options).issuperset(study.required)


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.required])
def test_a_missing_option_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError, match=rf"'{name}' needs a folder.*--\w+ DIR") as error:
        STUDIES[name].run([tmp_path], [tmp_path], tmp_path / "result.json")
    assert error.value.code is ErrorCode.OPTION


def test_the_command_has_the_options_that_the_study_reads() -> None:
    options = StudyOptions(trainings=Path("kept"), fold=1, trunk_minutes=60.0, minutes=20.0, targets="a b")
    request = StudyRequest(STUDIES["bakeoff"], (Path("m"),), (Path("one"), Path("two")), Path("r.json"), options)
    assert request.command == (
        "diffusion-segment-research study bakeoff --models m --data one --data two -o r.json "
        "--trainings kept --fold 1 --trunk-minutes 60 --minutes 20"
    )
    tuning = StudyRequest(STUDIES["fine-tuning"], (Path("m"),), (Path("one"),), Path("r.json"), options)
    assert tuning.command.endswith("-o r.json --targets 'a b' --minutes 20")
