"""`diffusion-segment features`: dense features on disk, with their geometry and time step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.commands.features import write_features_of
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.phantom.phantom import make_phantom


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom = make_phantom(seed=3, spacing_mm=(6.0, 6.0, 6.0))
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    middle = np.ascontiguousarray(phantom.image[10:40])
    write_volume(Volume(middle, phantom.index_to_lps), path)
    return path


@pytest.fixture(scope="module")
def written(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "clean"
    write_features_of(str(scan), folder, model_name="abdomen-ct", device="cpu")
    return folder


def test_each_level_has_half_the_resolution_of_the_level_before(written: Path, model: Model) -> None:
    record = json.loads((written / "features.json").read_text(encoding="utf-8"))
    with np.load(written / "features.npz") as stored:
        finest = stored["level_0"].shape[1:]
        assert stored["coordinates_mm"].shape == (3, *finest)
        for n, channels in enumerate(model.backbone.channels):
            level = stored[f"level_{n}"]
            assert level.dtype == np.float16
            assert level.shape == (channels, *(side // 2**n for side in finest))
            assert np.isfinite(level).all()
            assert record["levels"][n]["spacing_mm"] == [3.0 * 2**n] * 3
    assert (record["timestep"], record["network_timestep"]) == (0, 10)


def test_the_stored_geometry_agrees_with_the_body_coordinates(written: Path) -> None:
    """Body coordinates grow with LPS, so they must increase along the recorded axes."""
    record = json.loads((written / "features.json").read_text(encoding="utf-8"))["levels"][0]
    axes = np.array(record["axes_lps"])
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    with np.load(written / "features.npz") as stored:
        coordinates = stored["coordinates_mm"].astype(np.float32)
    z, y, x = (n // 2 for n in coordinates.shape[1:])
    ahead = coordinates[0, z, y, x + 8] - coordinates[0, z, y, x - 8]
    assert np.sign(ahead) == np.sign(axes[0, 0])


def test_features_of_a_noisy_scan_differ_and_record_their_time_step(scan: Path, written: Path, tmp_path: Path) -> None:
    write_features_of(str(scan), tmp_path / "noisy", model_name="abdomen-ct", device="cpu", timestep=100)
    assert json.loads((tmp_path / "noisy" / "features.json").read_text(encoding="utf-8"))["timestep"] == 100
    with np.load(written / "features.npz") as clean, np.load(tmp_path / "noisy" / "features.npz") as noisy:
        assert not np.allclose(clean["level_0"], noisy["level_0"], atol=0.05)


def test_a_time_step_out_of_range_is_refused_and_nothing_is_written(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        write_features_of(str(scan), tmp_path / "out", model_name="abdomen-ct", device="cpu", timestep=1001)
    assert caught.value.code is ErrorCode.OPTION
    assert not (tmp_path / "out").exists()
