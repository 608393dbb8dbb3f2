"""Out-of-fold probabilities of the control arm of a bake-off, with truth and image, on the grid of the trunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, read_case_labels
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.imaging.balls import Spacing, Voxel
from DiffusionSegmentBackend.imaging.volume import Grid, coarser_grid
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.networks.segmenter import Segmenter
from DiffusionSegmentBackend.schema.report import ReviewRegion
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe
from DiffusionSegmentBackend.training.whole_scan import whole_scan_probabilities
from numpy.typing import NDArray
from tqdm import tqdm

from .bakeoff import CONTROL, TRUNK_STRIDE, train_arm, train_trunk
from .bakeoff_data import BakeoffSetup
from .stored_array import stored_array


@dataclass(frozen=True, kw_only=True)
class OutOfFoldMap:
    """A case that the network has not seen.

    Attributes:
        name: of the case.
        probabilities: (classes, z, y, x), float32.
        truth: the expert's label map (z, y, x).
        image: (z, y, x) in -1..1.
        grid: the grid over the whole scan.
        offset: first voxel (z, y, x) of the arrays on it.
    """

    name: str
    probabilities: NDArray[np.float32]
    truth: NDArray[np.uint8]
    image: NDArray[np.float32]
    grid: Grid
    offset: tuple[int, int, int]

    @property
    def spacing(self) -> Spacing:
        """mm along z, y, x."""
        x, y, z = self.grid.spacing
        return z, y, x

    def voxels_of(self, regions: Sequence[ReviewRegion]) -> list[Voxel]:
        """The voxels (z, y, x) of the arrays that are shown for regions to review."""
        to_voxels = np.linalg.inv(self.grid.index_to_lps)
        voxels = []
        for region in regions:
            x, y, z = (to_voxels @ [*region.centroid_lps_mm, 1.0])[:3]
            k, j, i = (round(float(n)) - o for n, o in zip((z, y, x), self.offset, strict=True))
            voxels.append((k, j, i))
        return voxels


def out_of_fold_maps(setup: BakeoffSetup) -> Iterator[OutOfFoldMap]:
    """The held-out cases of the fold, predicted by the control arm; predictions are kept beside its checkpoint."""
    trunk = train_trunk(setup.data, setup.plan)
    network = train_arm(CONTROL, setup.data, trunk, setup.plan)
    folder = setup.plan.folder / CONTROL.name
    for files, volume in tqdm(setup.data.held_out, desc="cases"):
        stored = stored_map(folder / f"{files.name}.npy", volume, network, CONTROL.recipe, setup.plan.device)
        yield _map(files, volume, stored.astype(np.float32), setup.data.description)


def stored_map(
    path: Path, volume: TrainingVolume, network: Segmenter, recipe: SegmenterRecipe, device: str
) -> NDArray[np.float16]:
    """Probabilities (classes, z, y, x) at the spacing of the trunk, read from `path` or computed and written there."""

    def predicted() -> NDArray[np.float16]:
        probabilities = whole_scan_probabilities(network, volume, recipe, device=device)
        if recipe.pool != TRUNK_STRIDE:
            probabilities = F.avg_pool3d(probabilities, TRUNK_STRIDE)
        return probabilities.half().numpy()

    return stored_array(path, predicted)


def _map(
    files: CaseFiles, volume: TrainingVolume, probabilities: NDArray[np.float32], description: ModelDescription
) -> OutOfFoldMap:
    grid = coarser_grid(volume.grid, TRUNK_STRIDE)
    z, y, x = (o // step for o, step in zip(volume.offset, TRUNK_STRIDE, strict=True))
    truth = grid.labels_to_grid(read_case_labels(files, read_volume(files.image), description))[z:, y:, x:]
    shape = probabilities.shape[1:]
    # The volume is padded with air to whole voxels of the coordinate grid.
    padded = np.pad(truth, [(0, max(0, n - m)) for n, m in zip(shape, truth.shape, strict=True)])
    return OutOfFoldMap(
        name=files.name,
        probabilities=probabilities,
        truth=padded[: shape[0], : shape[1], : shape[2]],
        image=volume.pooled_image(TRUNK_STRIDE).numpy(),
        grid=grid,
        offset=(z, y, x),
    )
