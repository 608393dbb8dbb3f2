"""`--keep-session`: corrections with the same result and without a new run; other sessions are refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline import segment as segment_module
from DiffusionSegmentBackend.pipeline.interactive.session_files import (
    UnusableSessionError,
    read_session,
    write_session,
)
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import open_session
from DiffusionSegmentBackend.schema.output_kinds import SESSION
from fixtures.correction_cases import (
    BACKGROUND,
    GENERATIONS,
    REFINED,
    SPLEEN,
    correct,
    labels_of,
    report_of,
    segment,
    segment_by_each_model,
    write_scribbles,
)
from fixtures.tiny_model import coarse_phantom

# Probabilities are stored to the nearest 1/2048; samples that start from them differ by a similar amount.
HALF_PRECISION = 2e-3
TIES = 1e-3
RUNS = "The case runs again"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a scan, its result with the session by each model, and scribbles for it."""
    folder = segment_by_each_model(tmp_path_factory.mktemp("kept"), "--keep-session")
    for model in GENERATIONS:
        write_scribbles(folder / model, folder / f"{model}.nii.gz", of=SPLEEN, label=BACKGROUND, count=2)
    return folder


@pytest.fixture(autouse=True)
def models(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(done / "models"))


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the networks ran on the whole scan")

    monkeypatch.setattr(segment_module, "predict", refuse)


def _without_session(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    (copy / SESSION).unlink()
    return copy


@pytest.mark.parametrize("model", GENERATIONS)
def test_a_correction_with_a_session_file_equals_that_of_a_new_run(
    model: str, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    scribbles = done / f"{model}.nii.gz"
    expected = correct(_without_session(done / model, tmp_path / "bare"), scribbles, tmp_path / "expected")
    assert RUNS in capsys.readouterr().out
    request.getfixturevalue("no_run")
    ours = correct(done / model, scribbles, tmp_path / "ours", "--keep-session")
    assert RUNS not in capsys.readouterr().out
    for name in ("uncertainty.nii.gz", "mutual_information.nii.gz"):
        one, other = (read_volume(folder / name).array for folder in (ours, expected))
        # Entropy is steep near certainty: a difference of 1/2048 in a probability is up to ten times that in it. If two
        # labels are equally probable, rounding decides between them.
        assert np.mean(np.abs(one - other) > 10 * HALF_PRECISION) < TIES
    same = labels_of(ours) == labels_of(expected)
    assert np.mean(~same) < TIES
    for one, other in zip(report_of(ours)["organs"], report_of(expected)["organs"], strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=HALF_PRECISION)
    assert (ours / SESSION).read_bytes() == (done / model / SESSION).read_bytes()


@pytest.mark.usefixtures("no_run")
def test_a_chain_of_corrections_needs_no_run(done: Path, tmp_path: Path) -> None:
    one = correct(done / REFINED, done / f"{REFINED}.nii.gz", tmp_path / "one", "--keep-session")
    more = write_scribbles(one, tmp_path / "more.nii.gz", of=SPLEEN, label=BACKGROUND, share=0.2)
    two = correct(one, more, tmp_path / "two")
    assert (labels_of(two)[read_volume(done / f"{REFINED}.nii.gz").array > 0] == 0).all()
    assert not (two / SESSION).exists(), "only with --keep-session"


@pytest.mark.usefixtures("no_run")
def test_a_correction_in_the_same_folder_keeps_the_session(done: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(done / REFINED, tmp_path / "folder"))
    correct(folder, done / f"{REFINED}.nii.gz", folder)
    correct(folder, done / f"{REFINED}.nii.gz", folder)
    assert len(report_of(folder)["corrections"]) == 2


@pytest.mark.parametrize("model", GENERATIONS)
def test_every_array_is_restored_within_half_precision(model: str, done: Path, tmp_path: Path) -> None:
    volume, network = coarse_phantom(), load_model(model, "cpu")
    options = SegmentOptions(samples=2, seed=3, force=True)
    run = open_session(volume, network, options)
    write_session(run, volume, network, options, tmp_path / SESSION)
    kept = read_session(tmp_path / SESSION, volume, network, options)
    for name in ("start", "ensemble", "mutual_information"):
        one, other = (getattr(session.prediction, name).float().numpy() for session in (kept, run))
        np.testing.assert_allclose(one, other, atol=0.5 / 2048 + 1e-6, err_msg=name)
    for one, other in zip(kept.prediction.sample_labels, run.prediction.sample_labels, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    offset, box = run.prediction.offset, run.prediction.pre.shape[1:]
    inside = (slice(None), *(slice(o, o + n) for o, n in zip(offset, box, strict=True)))
    coordinates = (session.prediction.coordinates_mm[inside].numpy() for session in (kept, run))
    np.testing.assert_allclose(*coordinates, rtol=1e-3)
    np.testing.assert_array_equal(kept.image.numpy(), run.image.numpy())
    assert (tmp_path / SESSION).stat().st_size < 2 * run.prediction.start.numel() * 2


class TestForeignFiles:
    """Session files of another case, or damaged ones: each is refused, and the case runs again."""

    @staticmethod
    def _edited(path: Path, change: Callable[[dict[str, object]], object]) -> None:
        with zipfile.ZipFile(path) as file:
            entries = {name: file.read(name) for name in file.namelist()}
        header = json.loads(entries["session.json"])
        change(header)
        entries["session.json"] = json.dumps(header).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, data in entries.items():
                file.writestr(name, data)

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"sha256": "0" * 64}, "it is of another model"),
            ({"scan": "0" * 32}, "it is of another scan"),
            ({"run": {}}, "it is of another run"),
            ({"format": 99}, "it is of another version"),
            ({"box": [1, 1, 1]}, "it is damaged"),
            ({"box": [10**9, 10**9, 10**9]}, "it is damaged"),
            ({"offset": [-1, 0, 0]}, "it is damaged"),
            ({"sample_maps": 10**6}, "it is damaged"),
            ({"seconds": "long"}, "it is damaged"),
            ({"way": None}, "it is damaged"),
        ],
    )
    def test_a_header_of_another_session(self, change: dict[str, object], why: str, done: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(done / REFINED / SESSION, tmp_path / SESSION))
        self._edited(path, lambda header: header.update(change))
        with pytest.raises(UnusableSessionError, match=why):
            self._open(path, done)

    def test_another_scan_and_another_seed(self, done: Path) -> None:
        with pytest.raises(UnusableSessionError, match="another scan"):
            self._open(done / REFINED / SESSION, done, volume=coarse_phantom(seed=4))
        with pytest.raises(UnusableSessionError, match="another run"):
            self._open(done / REFINED / SESSION, done, seed=1)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all" * 99])
    def test_a_file_of_another_kind(self, content: bytes, done: Path, tmp_path: Path) -> None:
        (tmp_path / SESSION).write_bytes(content)
        with pytest.raises(UnusableSessionError, match="it is damaged"):
            self._open(tmp_path / SESSION, done)

    def test_changed_bytes_and_truncation(self, done: Path, tmp_path: Path) -> None:
        """Either the arrays are unchanged, or the file is refused."""
        data = (done / REFINED / SESSION).read_bytes()
        generator = np.random.default_rng(0)
        path = tmp_path / SESSION
        for position in generator.integers(len(data), size=12):
            flipped = bytearray(data)
            flipped[position] ^= 0x55
            for content in (bytes(flipped), data[:position]):
                path.write_bytes(content)
                with suppress(UnusableSessionError):
                    self._open(path, done)

    def test_the_command_prints_the_reason_and_runs_again(
        self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = Path(shutil.copytree(done / REFINED, tmp_path / "folder"))
        self._edited(folder / SESSION, lambda header: header.update(sha256="0" * 64))
        capsys.readouterr()
        after = correct(folder, done / f"{REFINED}.nii.gz", tmp_path / "after", "--keep-session")
        _, first, second = capsys.readouterr().out.splitlines()[:3]
        assert first == f"Note: the session in {folder / SESSION} is not used: it is of another model."
        assert second.startswith(RUNS)
        self._open(after / SESSION, done)

    @staticmethod
    def _open(path: Path, done: Path, *, volume: Volume | None = None, seed: int = 0) -> None:
        options = SegmentOptions(samples=2, seed=seed, force=True)
        read_session(path, volume or read_volume(done / "ct.nii.gz"), load_model(REFINED, "cpu"), options)


def test_segmenting_again_deletes_the_older_session_and_scribbles(done: Path, tmp_path: Path) -> None:
    """They would be used for the new result."""
    folder = Path(shutil.copytree(done / REFINED, tmp_path / "folder"))
    shutil.copy(done / f"{REFINED}.nii.gz", folder / "corrections.nii.gz")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    write_volume(coarse_phantom(), tmp_path / "ct.nii.gz")
    segment(tmp_path / "ct.nii.gz", folder, REFINED)
    assert not (folder / SESSION).exists()
    assert not (folder / "corrections.nii.gz").exists()
    assert (folder / "notes.txt").exists()
