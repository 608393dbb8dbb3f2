"""Container file and compose file: what they name exists. No image is built here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from DiffusionSegmentBackend.cli.dicom_node import node_settings
from DiffusionSegmentBackend.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
STATEMENTS = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE)).splitlines()


def statements(keyword: str) -> list[str]:
    return [line.removeprefix(keyword).strip() for line in STATEMENTS if line.startswith(f"{keyword} ")]


def argument(name: str) -> str:
    (value,) = [line.partition("=")[2] for line in statements("ARG") if line.startswith(f"{name}=")]
    return value


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((CONTAINERS / "compose.yaml").read_text(encoding="utf-8")))


def test_copied_files_exist_and_are_not_ignored() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    copied = {name for line in statements("COPY") if not line.startswith("--from") for name in shlex.split(line)[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_extras_and_the_version_of_torch_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^([a-z]+) = \[", section, re.MULTILINE))
    assert set(argument("EXTRAS").split(",")) <= known
    assert f"TORCH ?= {argument('TORCH')}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_container_runs_without_rights_and_says_how_it_is() -> None:
    assert statements("USER") == ["10001:10001"]
    assert statements("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(statements("ENTRYPOINT")[0])[-1] == "diffusion-segment"
    health = json.loads(statements("HEALTHCHECK")[0].partition("CMD ")[2])
    compile(health[-1], "HEALTHCHECK", "exec")
    assert "/healthz" in health[-1]


def test_the_command_of_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    node = compose["services"]["node"]
    settings = node_settings(build_parser().parse_args(node["command"]))
    assert settings.listener is not None
    assert settings.forward is not None
    assert settings.health is not None
    exposed = {int(port) for port in statements("EXPOSE")[0].split()}
    assert exposed == {settings.listener.port, settings.health[1]}
    assert f"HEALTH_PORT={settings.health[1]}" in statements("ENV")[-1]
    assert node["read_only"] is True
    assert str(settings.folder).startswith("/data/")
    for service in compose["services"].values():
        assert (CONTAINERS / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_archive_and_node_of_the_compose_file_know_each_other(compose: dict[str, Any]) -> None:
    services = compose["services"]
    settings = node_settings(build_parser().parse_args(services["node"]["command"]))
    archive = json.loads((CONTAINERS / "orthanc" / "orthanc.json").read_text(encoding="utf-8"))
    assert settings.forward is not None
    assert settings.listener is not None
    address = (settings.forward.aet, settings.forward.host, settings.forward.port)
    assert address == (archive["DicomAet"], "orthanc", archive["DicomPort"])
    assert list(archive["DicomModalities"].values()) == [[settings.aet, "node", settings.listener.port]]
    volumes = {mount.split(":")[0] for service in services.values() for mount in service["volumes"]}
    assert volumes == set(compose["volumes"])
    assert {network for service in services.values() for network in service["networks"]} == set(compose["networks"])


def test_node_has_no_way_to_other_networks(compose: dict[str, Any]) -> None:
    assert compose["services"]["node"]["networks"] == ["archive"]
    assert compose["networks"]["archive"]["internal"] is True
