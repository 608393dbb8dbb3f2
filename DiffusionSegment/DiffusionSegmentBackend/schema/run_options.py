"""Options of a run, and the plan that follows from them.

`RunOptions` is the only list of run options: command line, worker messages, panel, session key and report derive from
its fields. A new option is a field here, its use in the pipeline and, for the panel, a widget in the .ui file.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, Protocol

from ..errors import DiffusionSegmentError, ErrorCode, unknown_name

DEFAULT_MODEL = "abdomen-ct"
_OPTION = "option"
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What interfaces show of an option, and what values it may have.

    `flag` is its name on the command line, where it is not the field's own. `changes_result` states whether two runs
    with other values may give other voxels: such options belong to the session key and to the provenance.
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    changes_result: bool = True


def option(default: Any, help: str, **info: Any) -> Any:
    """A field of `RunOptions`: its default and its `OptionInfo`."""
    return field(default=default, metadata={_OPTION: OptionInfo(help=help, **info)})


def option_info(item: Field[Any]) -> OptionInfo:
    """The description of a field of `RunOptions`."""
    info = item.metadata[_OPTION]
    assert isinstance(info, OptionInfo)
    return info


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run; None selects the model's default.

    `abar_start` is alpha_bar at the start T', 0..1. `organs` are names or titles. `region` are the 16 numbers, row by
    row, of the matrix from the cube -1..1 to the oriented box, in LPS mm, outside which nothing is segmented.
    `memory_limit_gb` (1e9 bytes) is what the process may use of the computer's memory.
    """

    model: str = option(DEFAULT_MODEL, "name or folder (default: %(default)s)", changes_result=False)
    samples: int | None = option(
        None, "diffusion samples (default: the model's, of a review at most 2)", metavar="K", minimum=1, maximum=64
    )
    steps: int | None = option(
        None, "denoising steps per sample (default: the model's, of a review 1)", metavar="S", minimum=1, maximum=100
    )
    seed: int = option(0, "the same seed gives the same result (default: %(default)s)", minimum=0, maximum=MAX_SEED)
    sampler: str | None = option(
        None, "denoising step: ddim is deterministic, ddpm adds noise (default: the model's)", choices=("ddim", "ddpm")
    )
    schedule: str | None = option(None, "how noise grows with t (default: the model's)", choices=("linear", "cosine"))
    abar_start: float | None = option(None, "alpha_bar at the start T', 0 to 1 (default: the model's)", metavar="A")
    organs: tuple[str, ...] | None = option(
        None, "names as in the table, separated by commas (default: all)", metavar="NAMES"
    )
    region: tuple[float, ...] | None = option(
        None, "region of interest, LPS mm (default: the whole scan)", flag="--roi"
    )
    device: str = option(
        "auto",
        "compute device; auto uses the GPU if there is one (default: %(default)s)",
        choices=("auto", "cpu", "cuda"),
        changes_result=False,
    )
    precision: str = option(
        "auto",
        "of the networks; auto: bfloat16 where the device has instructions for it (default: %(default)s)",
        choices=("auto", "float32", "bfloat16"),
        changes_result=False,
    )
    bodypart: bool = option(False, "also write the body coordinates", changes_result=False)
    force: bool = option(False, "run even if the scan looks wrong for the model", changes_result=False)
    memory_limit_gb: float | None = option(
        None,
        "most memory of the computer to use (default: what is free)",
        metavar="GB",
        flag="--memory-limit",
        changes_result=False,
    )


class RunDefaults(Protocol):
    """What a model gives for options that are None."""

    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def schedule(self) -> str: ...  # noqa: D102
    @property
    def sampler(self) -> str: ...  # noqa: D102
    @property
    def abar_start(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class RunPlan(RunOptions):
    """What a run does: its options with the model's defaults filled in.

    `samples` and `steps` are 0 for a model without a refiner, which draws none.
    """

    samples: int = 0
    steps: int = 0
    sampler: str = ""
    schedule: str = ""
    abar_start: float = 0.0

    @property
    def session_key(self) -> tuple[tuple[str, object], ...]:
        """What decides the voxels of a run on a scan by a model: equal keys share a session."""
        return tuple((name, getattr(self, name)) for name in RESULT_OPTIONS)


RESULT_OPTIONS = tuple(item.name for item in fields(RunOptions) if option_info(item).changes_result)


def run_plan(options: RunOptions, defaults: RunDefaults) -> RunPlan:
    """Fill in a model's defaults and check every value.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    values = {item.name: getattr(options, item.name) for item in fields(RunOptions)}
    values |= {name: getattr(defaults, name, None) for name, value in values.items() if value is None}
    plan = RunPlan(**values)
    for item in fields(RunOptions):
        _check(item.name, getattr(plan, item.name), option_info(item))
    if not 0 <= plan.abar_start < 1 and (plan.abar_start, plan.steps, plan.samples) != (1, 1, 1):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"abar_start is {plan.abar_start}.",
            hint="Choose 0 to below 1, or 1 with one sample of one step for a deterministic refiner.",
        )
    return plan


def run_options_of(values: object) -> RunOptions:
    """The run options among the attributes of a message or of parsed arguments; those that it lacks are defaults."""
    given: dict[str, Any] = {item.name: getattr(values, item.name, item.default) for item in fields(RunOptions)}
    return RunOptions(**given)


def box_region(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> tuple[float, ...]:
    """The `region` between two corners in LPS mm, along the patient's axes."""
    half = ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2)
    centre = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    rows = [[half[axis] if axis == column else 0.0 for column in range(3)] + [centre[axis]] for axis in range(3)]
    return tuple(value for row in (*rows, [0.0, 0.0, 0.0, 1.0]) for value in row)


def _check(name: str, value: object, info: OptionInfo) -> None:
    if value is None:
        return
    if info.choices and value not in info.choices:
        raise unknown_name(name, str(value), info.choices)
    low, high = info.minimum, info.maximum
    if isinstance(value, (int, float)) and low is not None and high is not None and not low <= value <= high:
        upper = "or more" if high == MAX_SEED else f"to {high:g}"
        what = "The seed is" if name == "seed" else f"{name} is"
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{what} {value}.", hint=f"Choose {low:g} {upper}.")
