"""The user's own models: their folder, export and import, and what is refused before installation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.folders import bundled_models_folder, model_folders, user_models_folder
from DiffusionSegmentBackend.models.manifest import list_models, read_description
from DiffusionSegmentBackend.models.model import find_model, load_model, weights_sha256
from DiffusionSegmentBackend.models.user_models import export_model, import_model, save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.training.fine_tuned_model import label_entries
from fixtures.fine_tuning_models import BASE, install_base
from platformdirs import windows
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

CHANNELS = [8, 8, 16]


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    install_base(tmp_path / "models")
    return tmp_path / "models"


def save(name: str = "mine", *, weight: float = 0.5, replace: bool = False) -> Path:
    base = read_description(find_model(BASE))
    probe = Probe(CHANNELS, 2, hidden=8)
    torch.nn.init.constant_(probe.head.weight, weight)
    labels = label_entries({1: "my tumour"}, base)
    anatomy = {"min_organ_ml": 0.0, "min_confidence": 0.0}
    return save_user_model(name, probe, base=base, labels=labels, anatomy=anatomy, replace=replace)


@pytest.fixture
def exported(models: Path, tmp_path: Path) -> Path:
    """A model in a zip file, no longer installed."""
    folder = save()
    export_model("mine", tmp_path / "mine.zip")
    shutil.rmtree(folder)
    return tmp_path / "mine.zip"


def test_a_stored_model_is_listed_and_loaded(models: Path) -> None:
    assert save() == models / "mine"
    assert sorted(p.name for p in (models / "mine").iterdir()) == ["manifest.json", "model.json", "probe.safetensors"]
    assert find_model("mine") == models / "mine"
    bundled = [name for name in list_models() if name not in (BASE, "mine")]
    assert list_models() == (*bundled, "mine", BASE)
    model = load_model("mine", "cpu")
    assert model.refiner is None
    assert model.description.labels[0].title == "My tumour"
    base = read_description(find_model(BASE))
    assert model.description.base is not None
    assert model.description.base.weights_sha256 == weights_sha256(base)


def test_a_model_shares_the_networks_of_a_bundled_one() -> None:
    base = read_description(find_model("abdomen-ct"))
    probe = Probe(base.channels, 2)
    save_user_model("on-abdomen", probe, base=base, labels=label_entries({1: "cyst"}, base), anatomy={})
    assert load_model("on-abdomen", "cpu").description.file_of("backbone") == base.file_of("backbone")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        (Unix, {"XDG_DATA_HOME": "data"}, "data/DiffusionSegment/models"),
        (Unix, {}, "home/.local/share/DiffusionSegment/models"),
        (MacOS, {}, "home/Library/Application Support/DiffusionSegment/models"),
        (Windows, {"APPDATA": "roaming"}, "roaming/DiffusionSegment/models"),
        (Unix, {"DIFFUSION_SEGMENT_MODELS": "chosen"}, "chosen"),
    ],
)
def test_the_folder_follows_the_conventions_of_the_platform(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: type[PlatformDirsABC],
    variables: dict[str, str],
    expected: str,
) -> None:
    for name in ("DIFFUSION_SEGMENT_MODELS", "XDG_DATA_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "home"} | variables).items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr(platformdirs, "PlatformDirs", platform)
    monkeypatch.setattr(windows, "get_win_folder", windows.get_win_folder_from_env_vars)
    assert user_models_folder() == tmp_path / expected


def test_a_user_without_a_home_has_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIFFUSION_SEGMENT_MODELS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    home = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
    assert user_models_folder() == home / ".local/share/DiffusionSegment/models"


def test_without_platformdirs_only_bundled_models_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFUSION_SEGMENT_MODELS", raising=False)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert model_folders() == (bundled_models_folder(),)
    assert "abdomen-ct" in list_models()
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", "chosen")
    assert model_folders() == (bundled_models_folder(), Path("chosen"))


def test_an_exported_model_is_imported_and_loaded(exported: Path) -> None:
    assert "mine" not in list_models()
    assert import_model(exported) == "mine"
    assert load_model("mine", "cpu").description.name == "mine"


def test_a_copied_folder_is_imported(tmp_path: Path) -> None:
    shutil.move(save(), tmp_path / "copy")
    assert import_model(tmp_path / "copy") == "mine"


def test_a_model_is_replaced_only_on_request(exported: Path, models: Path) -> None:
    save(weight=0.25)
    before = (models / "mine" / "probe.safetensors").read_bytes()
    with pytest.raises(DiffusionSegmentError, match="already"):
        import_model(exported)
    with pytest.raises(DiffusionSegmentError, match="already"):
        save(weight=0.75)
    assert (models / "mine" / "probe.safetensors").read_bytes() == before
    (models / "mine" / "left over").touch()
    import_model(exported, replace=True)
    assert not (models / "mine" / "left over").exists()
    assert (models / "mine" / "probe.safetensors").read_bytes() != before
    assert load_model("mine", "cpu").description.name == "mine"
    assert sorted(p.name for p in models.iterdir()) == ["mine", BASE]


@pytest.mark.parametrize("name", ["", "..", "../up", "My Model", "a" * 41, "con", "-a", "a/b", "a\\b", "abdomen-ct"])
def test_invalid_model_names_are_refused(name: str, models: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        save(name)
    assert caught.value.code is ErrorCode.OPTION
    assert [p.name for p in models.iterdir()] == [BASE]


def test_a_model_on_a_base_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    base = read_description(install_base(tmp_path / "elsewhere"))
    with pytest.raises(DiffusionSegmentError, match="not installed"):
        save_user_model("mine", Probe(CHANNELS, 2, hidden=8), base=base, labels=[], anatomy={})


def test_a_changed_or_missing_base_is_reported(exported: Path, models: Path) -> None:
    save()
    install_base(models, seed=1, version="2.0.0")
    with pytest.raises(
        DiffusionSegmentError, match=r"mine was trained on tiny-base 1\.0\.0; installed: 2\.0\.0"
    ) as caught:
        load_model("mine", "cpu")
    assert "Train it again" in str(caught.value)
    install_base(models, seed=1, version="1.0.0")
    with pytest.raises(DiffusionSegmentError, match="other weights of that version"):
        load_model("mine", "cpu")
    shutil.rmtree(models / BASE)
    with pytest.raises(DiffusionSegmentError, match="not installed"):
        load_model("mine", "cpu")
    shutil.rmtree(models / "mine")
    with pytest.raises(DiffusionSegmentError, match="not installed"):
        import_model(exported)
    assert list(models.iterdir()) == []


def test_a_base_of_which_only_the_probe_changed_can_still_be_used(models: Path) -> None:
    save()
    raw = json.loads((models / BASE / "model.json").read_text(encoding="utf-8"))
    raw["version"], raw["networks"]["probe"]["sha256"] = "1.1.0", "0" * 64
    (models / BASE / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    assert load_model("mine", "cpu").description.name == "mine"


def content_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_zip(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)


def with_checksums(content: dict[str, bytes], **changed: object) -> dict[str, bytes]:
    """The content with correct checksums in its manifest, whose other entries are `changed`."""
    manifest = json.loads(content["manifest.json"])
    manifest["sha256"] = {n: hashlib.sha256(content[n]).hexdigest() for n in manifest["sha256"]}
    return {**content, "manifest.json": json.dumps({**manifest, **changed}).encode()}


def with_manifest(content: dict[str, bytes], change: Callable[[dict], None]) -> dict[str, bytes]:
    raw = json.loads(content["model.json"])
    change(raw)
    return with_checksums({**content, "model.json": json.dumps(raw).encode()})


def decompression_bomb(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "model.json": b" " * 2_000_000}


def shared_probe(raw: dict) -> None:
    raw["networks"]["probe"]["model"] = BASE


def large_network(raw: dict) -> None:
    raw["networks"]["probe"]["architecture"]["hidden"] = 10**9


def outside_file(raw: dict) -> None:
    raw["networks"]["probe"]["file"] = "../../probe.safetensors"


CHANGES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a path outside the folder": (lambda c: {**c, "../evil.py": b"x"}, r"\.\./evil\.py"),
    "an absolute path": (lambda c: {**c, "/evil.py": b"x"}, "evil"),
    "an additional file": (lambda c: {**c, "setup.py": b"x"}, "setup.py"),
    "a missing file": (lambda c: {n: d for n, d in c.items() if n != "model.json"}, "once each"),
    "a file that decompresses to too much": (decompression_bomb, "larger than"),
    "changed weights": (lambda c: {**c, "probe.safetensors": c["probe.safetensors"][:-1] + b"\0"}, "was changed"),
    "a changed model.json": (lambda c: {**c, "model.json": c["model.json"] + b" "}, "was changed"),
    "a later format": (lambda c: with_checksums(c, format=3), "update the extension"),
    "the format of a whole model": (lambda c: with_checksums(c, format=2), "not that of the whole model"),
    "a manifest that is not JSON": (lambda c: {**c, "manifest.json": b"[1"}, "damaged"),
    "a manifest without checksums": (lambda c: with_checksums({**c, "manifest.json": b'{"sha256": {}}'}), "damaged"),
    "a name that is a path": (lambda c: with_checksums(c, name="../up"), "cannot be the name"),
    "the name of a bundled model": (lambda c: with_checksums(c, name="abdomen-ct"), "of the extension"),
    "a name other than in model.json": (lambda c: with_checksums(c, name="other"), "not a fine-tuned model"),
    "no base": (lambda c: with_manifest(c, lambda raw: raw.pop("base")), "not a fine-tuned model"),
    "a probe of another model": (lambda c: with_manifest(c, shared_probe), "not a fine-tuned model"),
    "weights outside the folder": (lambda c: with_manifest(c, outside_file), "damaged"),
    "labels that do not fit": (lambda c: with_manifest(c, lambda raw: raw.update(labels=[])), "does not fit tiny-base"),
    "a grid that is too fine for any memory": (
        lambda c: with_manifest(c, lambda raw: raw.update(spacing_mm=[0.01] * 3)),
        "not fit",
    ),
    "a network that is too large for any memory": (lambda c: with_manifest(c, large_network), "does not fit tiny-base"),
    "a file that contains no weights": (
        lambda c: with_checksums({**c, "probe.safetensors": b"rubbish"}),
        "sha256 differs|not fit",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_refused_zip_installs_nothing(exported: Path, models: Path, tmp_path: Path, change: str) -> None:
    alter, words = CHANGES[change]
    write_zip(tmp_path / "bad.zip", alter(content_of(exported)))
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        import_model(tmp_path / "bad.zip")
    assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in models.iterdir()] == [BASE]
    assert not (tmp_path / "evil.py").exists()


def test_links_and_duplicate_entries_in_a_zip_are_refused(exported: Path, tmp_path: Path) -> None:
    content = content_of(exported)
    link = zipfile.ZipInfo("probe.safetensors")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        for name in ("model.json", "manifest.json"):
            file.writestr(name, content[name])
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DiffusionSegmentError, match="is a link"):
        import_model(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "duplicate.zip", "w") as file:
        for name in content:
            file.writestr(name, content[name])
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("model.json", content["model.json"])
    with pytest.raises(DiffusionSegmentError, match="once each"):
        import_model(tmp_path / "duplicate.zip")


def test_a_zip_header_with_a_wrong_size_is_refused(exported: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "bomb.zip", decompression_bomb(content_of(exported)))
    data = (tmp_path / "bomb.zip").read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "bomb.zip").write_bytes(data)
    with pytest.raises(DiffusionSegmentError) as caught:
        import_model(tmp_path / "bomb.zip")
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


def test_files_that_are_not_models_are_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip", encoding="utf-8")
    (tmp_path / "cut.zip").write_bytes(exported.read_bytes()[:-40])
    (tmp_path / "empty").mkdir()
    os.symlink(exported, tmp_path / "empty" / "model.json")
    for name in ("text.zip", "cut.zip", "empty"):
        with pytest.raises(DiffusionSegmentError) as caught:
            import_model(tmp_path / name)
        assert caught.value.code is ErrorCode.INPUT_UNREADABLE
    with pytest.raises(DiffusionSegmentError, match="does not exist"):
        import_model(tmp_path / "none.zip")


def test_only_complete_user_models_are_exported(models: Path, tmp_path: Path) -> None:
    for name in ("abdomen-ct", "none", "../models/mine"):
        with pytest.raises(DiffusionSegmentError, match="of your own"):
            export_model(name, tmp_path / "out.zip")
    probe = save() / "probe.safetensors"
    probe.write_bytes(probe.read_bytes()[:-1] + b"\1")
    with pytest.raises(DiffusionSegmentError, match="was changed"):
        export_model("mine", tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_an_interrupted_installation_is_not_listed(models: Path) -> None:
    shutil.copytree(save(), models / ".mine.abc123")
    assert ".mine.abc123" not in list_models()


def test_the_commands_export_and_import(exported: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-model", str(exported)]) == 0
    assert main(["export-model", "mine", "-o", str(exported.with_name("again.zip"))]) == 0
    assert main(["import-model", str(exported.with_name("again.zip")), "--replace"]) == 0
    capsys.readouterr()
    assert main(["import-model", str(exported)]) == 2
    assert capsys.readouterr().err.startswith("OPTION: A model named 'mine' already exists.")
