"""Advanced > Run on a server: the panel, the client process and a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import slicer
import trustme
from DiffusionSegmentBackend.protocol.connection import server_connection
from DiffusionSegmentLib.worker.remembered_server import readServer, writeServer
from fixtures.running_service import RunningService

if TYPE_CHECKING:
    from .conftest import PanelUser

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """A server with the quick engine of the panel's tests."""
    started = RunningService(tmp_path, worker_command=ENGINE)
    yield started
    started.close()


@pytest.fixture
def serverUser(user: PanelUser) -> PanelUser:
    """The panel as it chooses its worker itself."""
    from DiffusionSegmentLib.worker.transport import transportOf

    user.widget.logic.client._createTransport = lambda: transportOf(user.widget.logic.server)
    return user


def fill(user: PanelUser, address: str, token: str, certificate: str = "") -> None:
    """Choose a server as a user does."""
    ui: Any = user.ui
    ui.advancedButton.collapsed = False
    ui.runOnSelector.setCurrentIndex(1)
    texts = (ui.serverAddressEdit, address), (ui.serverTokenEdit, token), (ui.serverCertificateEdit, certificate)
    for edit, text in texts:
        edit.setText(text)
        edit.editingFinished.emit()
    user.application.process()


def savedScene(folder: Path) -> str:
    slicer.mrmlScene.SetURL(str(folder / "scene.mrml"))
    slicer.mrmlScene.Commit()
    return (folder / "scene.mrml").read_text()


def test_the_fields_of_a_server_appear_when_one_is_chosen(serverUser: PanelUser) -> None:
    ui = serverUser.ui
    ui.advancedButton.collapsed = False
    assert not ui.serverFrame.visible
    ui.runOnSelector.setCurrentIndex(1)
    assert ui.serverFrame.visible
    ui.runOnSelector.setCurrentIndex(0)
    assert not ui.serverFrame.visible
    assert serverUser.widget.logic.server.connection is None


def test_a_scan_is_segmented_on_the_server(serverUser: PanelUser, service: RunningService, tmp_path: Path) -> None:
    serverUser.addVolume()
    fill(serverUser, service.address, service.tokens["alice"])
    serverUser.segment()
    assert len(serverUser.segmentations()) == 1, serverUser.ui.messageLabel.text
    assert list(service.work_dir.glob("session-*"))
    # The token is in memory alone.
    token = service.tokens["alice"]
    assert token not in savedScene(tmp_path)
    assert token not in serverUser.widget.logic.client.log()
    assert token not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    environments = b"".join(_environment(path) for path in Path("/proc").glob("[0-9]*/environ"))
    assert token.encode() not in environments
    assert not list(Path(slicer.app.slicerUserSettingsFilePath).parent.iterdir())


def _environment(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_connection_is_tested(serverUser: PanelUser, service: RunningService) -> None:
    fill(serverUser, service.address, service.tokens["alice"])
    serverUser.click(serverUser.ui.testConnectionButton)
    serverUser.until(lambda: "Connected" in serverUser.ui.serverLabel.text)
    assert "models" in serverUser.ui.serverLabel.text
    fill(serverUser, service.address, "wrong")
    serverUser.click(serverUser.ui.testConnectionButton)
    serverUser.until(lambda: "SERVER_TOKEN" in serverUser.ui.serverLabel.text)
    assert not list(service.work_dir.glob("session-*"))


@pytest.mark.parametrize(
    ("address", "token", "code"),
    [
        ("https://", "t", "SERVER_ADDRESS"),
        ("http://server.example.org", "t", "SERVER_ADDRESS"),
        ("https://server.example.org", "", "SERVER_TOKEN"),
        ("http://127.0.0.1:9", "t", "SERVER_UNREACHABLE"),
    ],
)
def test_without_a_server_the_reason_is_said_and_the_scene_stays(
    serverUser: PanelUser, address: str, token: str, code: str
) -> None:
    serverUser.addVolume()
    before = slicer.mrmlScene.GetNumberOfNodes()
    fill(serverUser, address, token)
    serverUser.click(serverUser.ui.segmentButton)
    serverUser.until(lambda: code in serverUser.ui.messageLabel.text)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    serverUser.ui.runOnSelector.setCurrentIndex(0)
    serverUser.useWorker(ENGINE)
    serverUser.segment()
    assert len(serverUser.segmentations()) == 1


def test_a_server_is_remembered_only_where_that_is_asked_for(
    serverUser: PanelUser, service: RunningService, tmp_path: Path
) -> None:
    from DiffusionSegmentLib.panel.server_panel import serverFile

    fill(serverUser, service.address, service.tokens["alice"])
    assert not serverFile().exists()
    serverUser.ui.rememberServerBox.setChecked(True)
    assert json.loads(serverFile().read_text())["token"] == service.tokens["alice"]
    assert serverFile().stat().st_mode & 0o777 == 0o600
    serverUser.ui.rememberServerBox.setChecked(False)
    assert not serverFile().exists()


def test_the_certificate_of_the_server_is_checked(serverUser: PanelUser, tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    service = RunningService(tmp_path, tls_cert=str(file), tls_key=str(file))
    try:
        for certificate, text in (("", "SERVER_CERTIFICATE"), (str(tmp_path / "authority.pem"), "Connected")):
            fill(serverUser, service.address, service.tokens["alice"], certificate)
            serverUser.click(serverUser.ui.testConnectionButton)
            serverUser.until(lambda expected=text: expected in serverUser.ui.serverLabel.text)
            assert ("Connected" in serverUser.ui.serverLabel.text) == bool(certificate)
    finally:
        service.close()


def test_a_remembered_server_is_read_back_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    connection = server_connection("https://a.example:1", "token", "ab" * 32)
    writeServer(tmp_path / "server.json", connection)
    assert readServer(tmp_path / "server.json") == connection
    (tmp_path / "server.json").write_text("{")
    assert readServer(tmp_path / "server.json") is None
