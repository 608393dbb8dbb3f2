"""A user's own model from end to end: table of labels, training on MR, a new case, and another computer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import DiffusionSegmentBackend
import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom

# Of the phantom's labels: liver, spleen, right and left kidney.
ORGANS = {6: 1, 1: 2, 2: 3, 3: 4}
TABLE = "value,name,colour\n1,Liver,\n2,Spleen,\n3,Right kidney,\n4,My structure,#3366cc\n"
SMALL = ["--spacing", "6,6,12", "--trunk-spacing", "12,12,12", "--tile", "32,32,16", "--channels", "8,16,16"]
MINUTES = "0.45"
CODE = Path(DiffusionSegmentBackend.__file__).parents[1]


class Computer:
    """A home directory without any files of the extension."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir()

    def run(self, *arguments: str | Path) -> str:
        """Standard output of a command, which must succeed."""
        environment = {k: v for k, v in os.environ.items() if k not in ("DIFFUSION_SEGMENT_MODELS", "XDG_DATA_HOME")}
        environment["PYTHONPATH"] = str(CODE)
        environment |= {"HOME": str(self._home), "USERPROFILE": str(self._home), "APPDATA": str(self._home)}
        command = [sys.executable, "-m", "DiffusionSegmentBackend", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


def write_case(folder: Path, name: str, seed: int) -> None:
    """A phantom with gray values like those of an MR: none is negative, and air is dark."""
    phantom = make_phantom(seed=seed, spacing_mm=(8.0, 8.0, 12.0))
    image = np.clip(phantom.image + 200, 0, 1000).astype(np.int16)
    labels = np.zeros_like(phantom.labels)
    for old, new in ORGANS.items():
        labels[phantom.labels == old] = new
    for part, array in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, phantom.index_to_lps), folder / part / f"{name}.nii.gz")


@pytest.mark.slow
def test_from_a_table_of_labels_to_a_model_on_another_computer(tmp_path: Path) -> None:
    for seed in range(4):
        write_case(tmp_path / "data", f"case_{seed}", seed)
    write_case(tmp_path / "next", "case_9", 9)
    (tmp_path / "labels.csv").write_text(TABLE, encoding="utf-8")
    scan, manifest, model = tmp_path / "next" / "images" / "case_9.nii.gz", tmp_path / "m.json", tmp_path / "trial"
    own, other = Computer(tmp_path / "own"), Computer(tmp_path / "other")

    own.run(
        "train", "--init", "belly-mr", "--labels", tmp_path / "labels.csv", "--modality", "MR", *SMALL, "-o", manifest
    )
    own.run(
        *("train", "--data", tmp_path / "data", "--manifest", manifest, "-o", model, "--minutes", MINUTES),
        *("--folds", "2", "--processor-time", "--device", "cpu"),
    )
    own.run("segment", scan, "--model", model, "-o", tmp_path / "first", "--device", "cpu")
    own.run("export-model", model, "-o", tmp_path / "belly-mr.zip")

    model.rename(tmp_path / "gone")
    assert "--model belly-mr" in other.run("import-model", tmp_path / "belly-mr.zip")
    other.run("segment", scan, "--model", "belly-mr", "-o", tmp_path / "second", "--device", "cpu")

    first, second = (read_volume(tmp_path / out / "segmentation.nii.gz") for out in ("first", "second"))
    assert np.array_equal(first.array, second.array)
    np.testing.assert_allclose(second.index_to_lps, read_volume(scan).index_to_lps, atol=1e-4)
    report = json.loads((tmp_path / "second" / "report.json").read_text(encoding="utf-8"))
    assert [organ["title"] for organ in report["organs"]] == ["Liver", "Spleen", "Right kidney", "My structure"]
    assert report["provenance"]["model"] == "belly-mr"
