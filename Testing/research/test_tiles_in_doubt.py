"""`study doubt`: tiles left out, time saved and labels changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentResearch.cli.main import main
from DiffusionSegmentResearch.evidence.results import read_result
from fixtures.tiny_model import write_tiny_model


@pytest.mark.slow
def test_the_study_writes_a_row_for_each_scan(tmp_path: Path) -> None:
    phantom = make_phantom(seed=3, spacing_mm=(6.0, 6.0, 6.0))
    (tmp_path / "scans").mkdir()
    write_volume(Volume(phantom.image[10:40], phantom.index_to_lps), tmp_path / "scans" / "one.nii.gz")
    model, output = write_tiny_model(tmp_path / "models"), tmp_path / "doubt.json"
    assert main(["study", "doubt", "--models", str(model), "--data", str(tmp_path / "scans"), "-o", str(output)]) == 0
    (row,) = read_result(output).rows
    assert row.name.endswith("one")
    assert row.numbers["tiles in doubt"] <= row.numbers["tiles"]
    assert row.numbers["Dice of both results, organs pooled"] <= 1.0
    if row.numbers["tiles in doubt"] == row.numbers["tiles"]:
        assert row.numbers["changed (%)"] == 0.0
