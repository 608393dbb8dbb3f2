"""Run options are defined once; their use with a model, in a session and in a report follows from the definition."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from DiffusionSegmentBackend.diffusion.reverse import SAMPLERS
from DiffusionSegmentBackend.diffusion.schedule import SCHEDULES
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Segment, VolumeReference, decode, encode
from DiffusionSegmentBackend.schema.model_manifest import Defaults
from DiffusionSegmentBackend.schema.run_options import (
    RESULT_OPTIONS,
    RunOptions,
    box_region,
    option_info,
    run_options_of,
    run_plan,
)

DEFAULTS = Defaults(samples=4, steps=2, schedule="cosine", sampler="ddim", abar_start=0.2)


def test_every_option_has_a_help_text() -> None:
    assert all(option_info(item).help for item in fields(RunOptions))


def test_the_choices_are_the_samplers_and_schedules_of_the_diffusion() -> None:
    choices = {item.name: option_info(item).choices for item in fields(RunOptions)}
    assert choices["sampler"] == tuple(SAMPLERS)
    assert choices["schedule"] == tuple(SCHEDULES)


def test_options_without_a_value_have_the_defaults_of_the_model() -> None:
    plan = run_plan(RunOptions(steps=5, organs=("spleen",)), DEFAULTS)
    assert (plan.samples, plan.steps, plan.schedule, plan.sampler, plan.abar_start) == (4, 5, "cosine", "ddim", 0.2)
    assert plan.organs == ("spleen",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunOptions(samples=0), "samples is 0"),
        (RunOptions(samples=65), "1 to 64"),
        (RunOptions(steps=101), "1 to 100"),
        (RunOptions(seed=-1), "The seed is -1"),
        (RunOptions(seed=2**63), "0 or more"),
        (RunOptions(sampler="euler"), "sampler 'euler'"),
        (RunOptions(schedule="flat"), "schedule 'flat'"),
        (RunOptions(abar_start=1.0), "abar_start is 1.0"),
        (RunOptions(abar_start=-0.1), "abar_start"),
    ],
)
def test_a_value_out_of_range_is_refused(options: RunOptions, words: str) -> None:
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        run_plan(options, DEFAULTS)
    assert caught.value.code is ErrorCode.OPTION or words in str(caught.value)


def test_one_step_without_noise_is_the_deterministic_refiner() -> None:
    assert run_plan(RunOptions(abar_start=1.0, samples=1, steps=1), DEFAULTS).abar_start == 1.0


def test_runs_with_the_same_result_share_a_session() -> None:
    plan = run_plan(RunOptions(), DEFAULTS)
    same = run_plan(RunOptions(samples=4, force=True, memory_limit_gb=3.0, bodypart=True), DEFAULTS)
    assert plan.session_key == same.session_key
    for other in (RunOptions(seed=1), RunOptions(steps=3), RunOptions(region=box_region(0, 1, 0, 1, 0, 1))):
        assert run_plan(other, DEFAULTS).session_key != plan.session_key
    assert set(RESULT_OPTIONS) == {"samples", "steps", "seed", "sampler", "schedule", "abar_start", "organs", "region"}


def test_a_message_contains_every_option() -> None:
    options = RunOptions(samples=3, seed=7, organs=("liver",), abar_start=0.1, memory_limit_gb=2.0, precision="float32")
    volume = VolumeReference(path="v.raw", shape=(2, 2, 2), dtype="int16", ijk_to_lps=(1.0,) * 16)
    values = {item.name: getattr(options, item.name) for item in fields(RunOptions)}
    message = Segment(id="1", output_folder="out", volume=volume, **values)
    assert run_options_of(decode(encode(message))) == options
    assert replace(options, seed=8) != run_options_of(message)


def test_a_box_becomes_the_matrix_of_its_centre_and_half_sides() -> None:
    assert box_region(0, 10, -4, 4, 100, 300) == (5, 0, 0, 5, 0, 4, 0, 0, 0, 0, 100, 200, 0, 0, 0, 1)
