"""The command line of the node: addresses, peers, and one line for what is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cli.dicom_node import node_settings
from DiffusionSegmentBackend.cli.main import build_parser, main
from DiffusionSegmentBackend.dicom_node.settings import Address, NodeSettings, Peer, address, ae_title, peer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

FORWARD = ("--port", "0", "--forward", "PACS@10.0.0.5:104")


def settings(*arguments: str) -> NodeSettings:
    return node_settings(build_parser().parse_args(["dicom-node", *arguments]))


def test_addresses_and_peers_are_read() -> None:
    assert address("PACS@archive.example:104") == Address(aet="PACS", host="archive.example", port=104)
    assert address("MY PACS@[::1]:11112") == Address(aet="MY PACS", host="::1", port=11112)
    assert (peer("CT01"), peer("CT01@ct.example")) == (Peer(aet="CT01"), Peer(aet="CT01", host="ct.example"))


@pytest.mark.parametrize("text", ["PACS", "PACS@a", "PACS@:104", "@a:104", "PACS@a:0", "PACS@a:70000", "PACS@a:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        address(text)
    assert caught.value.code is ErrorCode.OPTION


@pytest.mark.parametrize("text", ["", " ", "SEVENTEEN LETTERS", "back\\slash", "täle", "line\nbreak"])
def test_what_is_no_title_is_refused(text: str) -> None:
    with pytest.raises(DiffusionSegmentError):
        ae_title(text)


def test_by_default_only_the_archive_may_send() -> None:
    listener = settings(*FORWARD).listener
    assert listener is not None
    assert listener.peers == (Peer(aet="PACS", host="10.0.0.5"),)
    listener = settings(*FORWARD, "--peer", "CT01", "--peer", "CT02@ct2").listener
    assert listener is not None
    assert listener.peers == (Peer(aet="CT01"), Peer(aet="CT02", host="ct2"))


def test_a_node_that_only_fetches_does_not_listen() -> None:
    fetching = settings("--dicomweb", "https://archive.example/dicom-web", "--retention", "1")
    assert (fetching.listener, fetching.forward, fetching.limits.retention_s) == (None, None, 3600)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--forward", "PACS@a:104"), "receive nothing"),
        (("--port", "11112"), "nowhere to send"),
        (("--port", "11112", "--dicomweb", "http://a/b"), "Nobody may send"),
        (("--port", "99999", "--forward", "PACS@a:104"), "is no port"),
        ((*FORWARD, "--tls-cert", "a.pem"), "three files"),
        ((*FORWARD, "--aet", "far too long for a title"), "no AE title"),
        ((*FORWARD, "--peer", "CT01@"), "names no host"),
        ((*FORWARD, "--model", "unknown"), "unknown"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dicom-node", *arguments]) in (2, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "DiffusionSegmentBackend", "dicom-node", "--port", port, "--host", "127.0.0.1"]
        more = ["--forward", "PACS@127.0.0.1:1", "--folder", str(tmp_path / "node")]
        done = subprocess.run([*command, *more], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"OPTION: Port {port} cannot be listened on")
