"""`study augmentations`: pictures of each augmentation before and after, and its time on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.augmentations import HospitalAugmentation, PatchBatch
from DiffusionSegmentBackend.datasets.augmentations.contrast_phase import PHASES, shift_phase
from DiffusionSegmentBackend.datasets.augmentations.displacement import Cells, warped
from DiffusionSegmentBackend.datasets.augmentations.obesity import add_fat
from DiffusionSegmentBackend.datasets.augmentations.organ_size import resize_organ
from DiffusionSegmentBackend.datasets.augmentations.slice_thickness import thick_slices
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest

SPACING_MM = (3.0, 1.5, 1.5)
PATCH = (64, 128, 128)
_SHOWN_VOXELS = (96, 256, 288)
_ROUNDS = 20
_WHOLE_ROUNDS = 200
_INCHES = 2.6
_DOTS_PER_INCH = 100
_COLOURS = 96

Change = Callable[[PatchBatch], PatchBatch]


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        stem: name of the file without its suffix.
        caption: text below the picture.
        columns: the change shown in each column, by its title.
        axis: axis (z, y, x) perpendicular to the plane shown.
    """

    stem: str
    caption: str
    columns: Mapping[str, Change]
    axis: int = 0


def labelled_batch(volume: Volume, model: Model) -> PatchBatch:
    """A whole scan on a grid of 1.5 x 1.5 x 3 mm, labelled by the model without a refiner."""
    segmentation = segment(volume, model, SegmentOptions(samples=1, steps=1))
    grid = model_grid(volume, spacing=SPACING_MM[::-1])
    low, high = model.description.window
    return PatchBatch(
        image=torch.from_numpy(grid.to_grid(volume.array)).float().clamp(low, high)[None, None],
        labels=torch.from_numpy(grid.labels_to_grid(segmentation.labels)).long()[None, None],
        spacing_mm=SPACING_MM,
        organs=organ_values(model.description),
    )


def organ_values(description: ModelDescription) -> dict[str, int]:
    """Label values by the organs' names."""
    return {label.name: label.value for label in description.labels}


def around_organs(batch: PatchBatch, size: tuple[int, int, int]) -> PatchBatch:
    """Crop to at most `size` (z, y, x) around the centroid of all organs."""
    centre = batch.labels.nonzero()[:, 2:].float().mean(dim=0).round().long().tolist()
    box = []
    for at, side, n in zip(centre, size, batch.shape, strict=True):
        low = max(0, min(n - side, at - side // 2))
        box.append(slice(low, min(n, low + side)))
    return batch.cut((box[0], box[1], box[2]))


def cost_rows(batch: PatchBatch, augmentation: HospitalAugmentation) -> list[StudyRow]:
    """Processor time in ms for a patch of 64 x 128 x 128 on one thread: a row per part, and for random draws."""
    threads, patch = torch.get_num_threads(), around_organs(batch, PATCH)
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(0)
        rows = [
            _cost_row(name, patch, augmentation, share, generator)
            for name, share in augmentation.probabilities().items()
        ]
        drawn = [augmentation.draw(1, generator) for _ in range(_WHOLE_ROUNDS)]
        seconds = [_seconds(patch, augmentation, one, generator) for one in drawn]
        numbers = {"ms a patch": 1000 * float(np.mean(seconds)), "largest ms": 1000 * max(seconds)}
        return [*rows, StudyRow("as drawn, untouched patches included", numbers=_rounded(numbers))]
    finally:
        torch.set_num_threads(threads)


def _cost_row(
    name: str, patch: PatchBatch, augmentation: HospitalAugmentation, share: float, generator: torch.Generator
) -> StudyRow:
    drawn = (frozenset({name}),)
    seconds = [_seconds(patch, augmentation, drawn, generator) for _ in range(_ROUNDS)]
    numbers = {"ms a patch": 1000 * float(np.mean(seconds)), "largest ms": 1000 * max(seconds)}
    probability = share * (1 - augmentation.untouched)
    return StudyRow(name, numbers={"probability": round(probability, 3), **_rounded(numbers)})


def _seconds(
    patch: PatchBatch,
    augmentation: HospitalAugmentation,
    drawn: tuple[frozenset[str], ...],
    generator: torch.Generator,
) -> float:
    """Time for the displacement field and the intensities, without resampling the patch through its grid."""
    began = time.process_time()
    augmentation.displacement(patch, drawn, generator)
    augmentation.appearance(patch, drawn, generator)
    return time.process_time() - began


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in numbers.items()}


def pictures() -> list[Picture]:
    """All pictures, each with the seeds of its columns."""
    grow = partial(_moved, warp=partial(resize_organ, grown=(3.0, 3.2), shrunk=(3.0, 3.2)))
    return [
        Picture("phase", "Contrast phases", {phase.name: partial(_phase, phase=phase.name) for phase in PHASES}),
        Picture("window", "Random windows", _parts("window", (1, 2, 4))),
        Picture("slices", "Slices of 5, 7.5 and 10 mm", {f"{mm} mm": partial(_thick, mm=mm) for mm in (5, 7.5, 10)}, 2),
        Picture("dose", "Low dose", _parts("dose", (1, 2, 3))),
        Picture("field_of_view", "Cut fields of view", _parts("field_of_view", (2, 8, 6))),
        Picture("scan_end", "Scans that end in the patch", _parts("field_of_view", (1, 4)), 2),
        Picture("stomach", "Content of the stomach", _parts("stomach", (1, 5, 10, 8))),
        Picture("bowel", "Bowel in the background", _parts("bowel", (4, 5, 6, 10))),
        Picture("metal", "Metal", _parts("metal", (12, 15, 16))),
        Picture("fat", "Fat times 1.6 and 2.6", {f"x {g}": partial(_fat, growth=g) for g in (1.6, 2.6)}),
        Picture("scale", "Size of the body", _parts("scale", (1, 2, 3))),
        Picture(
            "organ_size",
            "Organs grown three times in volume, and one shrunk to 0.4",
            {
                "spleen x 3": partial(grow, organs=["spleen"]),
                "kidney x 3": partial(grow, organs=["left_kidney"]),
                "liver x 1.8": partial(_resized, organ="liver", factor=1.8),
                "spleen x 0.4": partial(_resized, organ="spleen", factor=0.4),
            },
        ),
        Picture("masses", "Masses", _parts("masses", (2, 5, 11, 15))),
        Picture(
            "together",
            "All parts as training draws them",
            {f"draw {n}": partial(_drawn, seed=n) for n in (3, 4, 13, 14)},
        ),
    ]


def _parts(name: str, seeds: Sequence[int]) -> dict[str, Change]:
    return {f"seed {seed}": partial(_part, name=name, seed=seed) for seed in seeds}


def _part(batch: PatchBatch, *, name: str, seed: int) -> PatchBatch:
    """One augmentation as in training."""
    drawn, generator = (frozenset({name}),), torch.Generator().manual_seed(seed)
    return _applied(batch, drawn, generator)


def _drawn(batch: PatchBatch, *, seed: int) -> PatchBatch:
    generator = torch.Generator().manual_seed(seed)
    drawn = replace(HospitalAugmentation(), untouched=0.0).draw(1, generator)
    return _applied(batch, drawn, generator)


def _applied(batch: PatchBatch, drawn: tuple[frozenset[str], ...], generator: torch.Generator) -> PatchBatch:
    augmentation = HospitalAugmentation()
    field = augmentation.displacement(batch, drawn, generator)
    return augmentation.appearance(batch if field is None else _read(batch, field), drawn, generator)


def _read(batch: PatchBatch, field: Tensor) -> PatchBatch:
    return replace(batch, image=warped(batch.image, field), labels=warped(batch.labels, field, mode="nearest"))


def _moved(batch: PatchBatch, *, warp: Callable[..., Tensor], **options: object) -> PatchBatch:
    field = warp(batch, torch.Generator().manual_seed(0), **options)
    return _read(batch, Cells(batch.shape, batch.spacing_mm).in_voxels(field))


def _resized(batch: PatchBatch, *, organ: str, factor: float) -> PatchBatch:
    limits = (factor, factor * 1.001)
    return _moved(batch, warp=resize_organ, organs=[organ], grown=limits, shrunk=limits)


def _fat(batch: PatchBatch, *, growth: float) -> PatchBatch:
    return _moved(batch, warp=add_fat, growth=(growth, growth * 1.001))


def _thick(batch: PatchBatch, *, mm: float) -> PatchBatch:
    return thick_slices(batch, torch.Generator().manual_seed(0), thickness_mm=(mm, mm * 1.001))


def _phase(batch: PatchBatch, *, phase: str) -> PatchBatch:
    phases = [known for known in PHASES if known.name == phase]
    return shift_phase(batch, torch.Generator().manual_seed(0), phases=phases)


def draw(picture: Picture, batch: PatchBatch, path: Path, *, window: tuple[float, float]) -> None:
    """Write the picture as PNG: in each column the slice that changes most, before (above) and after."""
    columns = list(picture.columns.items())
    figure = Figure(figsize=(_INCHES * len(columns), 2 * _INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(columns), squeeze=False)
    for n, (title, change) in enumerate(columns):
        after = change(batch)
        difference = (after.image.clamp(*window) - batch.image.clamp(*window)).abs()[0, 0]
        shown = difference * (after.labels[0, 0] > 0).any() if picture.axis == 0 else difference
        index = int(shown.sum(dim=[axis for axis in range(3) if axis != picture.axis]).argmax())
        for row, (shown_batch, heading) in enumerate(((batch, "before"), (after, title))):
            _draw_slice(grid[row][n], shown_batch, picture.axis, index, heading, window)
    figure.savefig(path, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None})
    with Image.open(path) as drawn:
        smaller = drawn.convert("RGB").quantize(_COLOURS)
    smaller.save(path, optimize=True)


def _draw_slice(axes: Axes, batch: PatchBatch, axis: int, index: int, title: str, window: tuple[float, float]) -> None:
    image = batch.image[0, 0].select(axis, index).numpy()
    organs = (batch.labels[0, 0].select(axis, index) > 0).numpy()
    spacing = [step for n, step in enumerate(batch.spacing_mm) if n != axis]
    axes.imshow(
        image,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="upper" if axis == 0 else "lower",
        aspect=spacing[0] / spacing[1],
    )
    if organs.any() and not organs.all():
        axes.contour(organs, [0.5], colors="#E69F00", linewidths=0.6)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def study(request: StudyRequest) -> StudyResult:
    """The first model on the first scan; pictures are written into a folder beside the result file, named as it is.

    Raises:
        DiffusionSegmentError: OPTION for a model whose scans are not in HU.
    """
    description, scan = request.description, request.data[0]
    if not description.in_hounsfield:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The augmentation is for CT, {description.name} for {description.modality}.",
            hint="Choose a model for CT.",
        )
    batch = labelled_batch(read_volume(scan), load_model(str(description.folder), "auto", with_refiner=False))
    written = _write_pictures(around_organs(batch, _SHOWN_VOXELS), description, scan, request.output)
    rows = cost_rows(batch, HospitalAugmentation(window_hu=description.window))
    return StudyResult(rows, _description(written))


def _write_pictures(
    batch: PatchBatch, description: ModelDescription, scan: Path, output: Path
) -> list[Mapping[str, str]]:
    """Draw all pictures; file and caption of each."""
    folder = output.parent / output.stem
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in tqdm(pictures(), desc="pictures"):
        draw(picture, batch, folder / f"{picture.stem}.png", window=description.window)
        caption = f"{picture.caption}: before (above) and after. {scan.name.split('.')[0]}; the outlines are the "
        caption += f"organs by {description.name} {description.version} itself, which were used as labels."
        written.append({"file": f"{folder.name}/{picture.stem}.png", "caption": caption})
    return list(written)


def _description(pictures: Sequence[Mapping[str, str]]) -> StudyDescription:
    return StudyDescription(
        order=14,
        title="Augmentation for what hospitals send",
        question="What does each part do to a scan, and what does it cost?",
        protocol="Processor time on one thread for a patch of 64 x 128 x 128 voxels of 1.5 x 1.5 x 3 mm: the "
        "displacement field and the intensities, without resampling the patch through its grid, which training does "
        "for every patch. Probability: of a part in any patch.",
        budget="no training",
        pictures=pictures,
    )
