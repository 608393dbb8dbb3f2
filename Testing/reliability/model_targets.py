"""Fuzz targets of models from unknown sources: model.json, weights, and zip files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from DiffusionSegmentBackend.models.folders import USER_MODELS_VARIABLE
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import load_model, load_network
from DiffusionSegmentBackend.models.user_models import export_model, import_model, save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, plan_of
from fixtures.tiny_model import CHANNELS, write_tiny_model

from .mutation import damaged, damaged_json, damaged_text
from .target import Content, demand


class ModelTarget:
    """A model with a damaged model.json and intact weights."""

    allowed = frozenset({"models"})

    def __init__(self, sandbox: Path) -> None:
        self._folder = write_tiny_model(sandbox / "models")
        self._raw = json.loads((self._folder / "model.json").read_text(encoding="utf-8"))

    def make(self, rng: Random) -> Content:
        """One model.json; its networks are damaged more often than their share of the text."""
        raw = self._raw
        if rng.random() < 0.4:
            part = rng.choice(("networks", "networks", "defaults", "anatomy"))
            return {"models/tiny/model.json": json.dumps({**raw, part: damaged_json(rng, raw[part])}).encode()}
        return {"models/tiny/model.json": damaged_text(rng, raw)}

    def consume(self, content: Content) -> None:
        """Read and load the model, and plan a run with its defaults."""
        model = load_model(str(self._folder), "cpu")
        plan_of(SegmentOptions(), model)
        demand(all(d > 0 for d in model.description.spacing_mm), "a spacing is not positive")


class SafetensorsTarget:
    """Damaged weights with a matching sha256 in model.json."""

    allowed = frozenset({"models"})

    def __init__(self, sandbox: Path) -> None:
        self._folder = write_tiny_model(sandbox / "models")
        self._raw = json.loads((self._folder / "model.json").read_text(encoding="utf-8"))
        self._weights = (self._folder / "probe.safetensors").read_bytes()

    def make(self, rng: Random) -> Content:
        """Weights, and a model.json with their sha256."""
        data, length = self._weights, struct.unpack("<Q", self._weights[:8])[0]
        if rng.random() < 0.5:
            header = damaged_text(rng, json.loads(data[8 : 8 + length]))
            data = struct.pack("<Q", len(header)) + header + data[8 + length :]
        else:
            data = damaged(rng, data, head=8 + length if rng.random() < 0.7 else len(data))
        raw = json.loads(json.dumps(self._raw))
        raw["networks"]["probe"]["sha256"] = hashlib.sha256(data).hexdigest()
        return {"models/tiny/probe.safetensors": data, "models/tiny/model.json": json.dumps(raw).encode()}

    def consume(self, content: Content) -> None:
        """Load the network."""
        network = load_network(read_description(self._folder), "probe")
        finite = all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
        demand(finite, "the weights hold NaN or infinity")


class ZipTarget:
    """A zip file with a fine-tuned model: damaged in its bytes or its entries, or with malicious entries."""

    allowed = frozenset({"models", "given"})

    def __init__(self, sandbox: Path) -> None:
        self._models = sandbox / "models"
        self._given = sandbox / "given" / "model.zip"
        base = write_tiny_model(self._models)
        os.environ[USER_MODELS_VARIABLE] = str(self._models)
        label = {"value": 1, "name": "cyst", "title": "Cyst"}
        probe = Probe(CHANNELS, 2, hidden=8)
        save_user_model("mine", probe, base=read_description(base), labels=[label], anatomy={})
        export_model("mine", self._given)
        shutil.rmtree(self._models / "mine")
        self._zip = self._given.read_bytes()
        with zipfile.ZipFile(self._given) as file:
            self._parts = {name: file.read(name) for name in file.namelist()}

    def make(self, rng: Random) -> Content:
        """One zip file."""
        if rng.random() < 0.35:
            return {"given/model.zip": damaged(rng, self._zip, head=rng.choice((100, len(self._zip))))}
        return {"given/model.zip": _zipped(rng, _with_checksums(rng, self._damaged_parts(rng)))}

    def _damaged_parts(self, rng: Random) -> dict[str, bytes]:
        parts = dict(self._parts)
        name = rng.choice(sorted(parts))
        if name.endswith(".json"):
            parts[name] = damaged_text(rng, json.loads(parts[name]))
        else:
            parts[name] = damaged(rng, parts[name], head=2000)
        return parts

    def consume(self, content: Content) -> None:
        """Import, check the installed files, and remove them."""
        name = import_model(self._given, replace=True)
        folder = self._models / name
        installed = {path.name for path in folder.iterdir()}
        demand(installed == {"model.json", "manifest.json", "probe.safetensors"}, f"{installed} was installed")
        load_model(name, "cpu")
        shutil.rmtree(folder)
        demand({p.name for p in self._models.iterdir()} == {"tiny"}, "other files are in the folder of models")


class WholeZipTarget(ZipTarget):
    """A zip file with a whole trained model and the same kinds of damage."""

    def __init__(self, sandbox: Path) -> None:
        self._models = sandbox / "models"
        self._given = sandbox / "given" / "model.zip"
        self._models.mkdir(parents=True)
        os.environ[USER_MODELS_VARIABLE] = str(self._models)
        trained = write_tiny_model(sandbox / "given", name="mine")
        export_model(str(trained), self._given)
        shutil.rmtree(trained)
        self._zip = self._given.read_bytes()
        with zipfile.ZipFile(self._given) as file:
            self._parts = {name: file.read(name) for name in file.namelist()}

    def consume(self, content: Content) -> None:
        """Import, check the installed files, plan a run, and remove them."""
        name = import_model(self._given, replace=True)
        installed = {path.name for path in (self._models / name).iterdir()}
        demand(installed == set(self._parts), f"{installed} was installed")
        plan_of(SegmentOptions(samples=1, steps=1), load_model(name, "cpu"))
        shutil.rmtree(self._models / name)
        demand(list(self._models.iterdir()) == [], "other files are in the folder of models")


def _with_checksums(rng: Random, parts: dict[str, bytes]) -> dict[str, bytes]:
    """Usually with correct checksums in the manifest, because otherwise every change would fail on its checksum."""
    if rng.random() < 0.2:
        return parts
    try:
        manifest: Any = json.loads(parts["manifest.json"])
        named = [name for name in parts if name != "manifest.json"]
        manifest["sha256"] = {name: hashlib.sha256(parts[name]).hexdigest() for name in named}
        return {**parts, "manifest.json": json.dumps(manifest).encode()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return parts


_EVIL = (
    "../evil.py",
    "/evil.py",
    "..\\evil.py",
    "a/../../evil.py",
    "evil.py",
    "model.json/",
    "C:\\evil.py",
    "",
    "\0",
    ".",
)


def _zipped(rng: Random, parts: dict[str, bytes]) -> bytes:
    """A zip file, one in three with an entry that escapes the folder, links, repeats or decompresses to too much."""
    stream = io.BytesIO()
    evil = rng.choice((*([None] * 8), "path", "link", "double", "bomb"))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, b"\0" * 80_000_000 if evil == "bomb" and rng.random() < 0.1 else data)
        if evil == "path":
            file.writestr(zipfile.ZipInfo(rng.choice(_EVIL) or "x"), b"evil")
        elif evil == "link":
            link = zipfile.ZipInfo(rng.choice((*sorted(parts), "link")))
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(link, "/etc/passwd")
        elif evil == "double":
            file.writestr(rng.choice(sorted(parts)), b"{}")
    return stream.getvalue()
