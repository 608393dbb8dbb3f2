"""What the server refuses, over real sockets: tokens, foreign sessions, sizes, lies, slow clients; and what it logs."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zstandard
from DiffusionSegmentBackend.protocol.messages import ImportModel, Segment, VolumeReference, encode
from DiffusionSegmentBackend.service.tokens import add_user
from fixtures.running_service import RunningService

SESSION, VOLUME, RUN = "5" * 32, "7" * 32, "9" * 32
DECLARED = {"shape": [2, 3, 4], "dtype": "int16"}
ROUTES = (
    ("DELETE", f"/v1/sessions/{SESSION}"),
    ("PUT", f"/v1/sessions/{SESSION}/volumes/{VOLUME}"),
    ("DELETE", f"/v1/sessions/{SESSION}/volumes/{VOLUME}"),
    ("PUT", f"/v1/sessions/{SESSION}/volumes/{VOLUME}/slabs/0?codec=raw"),
    ("GET", f"/v1/sessions/{SESSION}/volumes/{VOLUME}/slabs/0?codec=raw"),
    ("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}"),
    ("DELETE", f"/v1/sessions/{SESSION}/runs/{RUN}"),
    ("GET", f"/v1/sessions/{SESSION}/runs/{RUN}/messages"),
)


class Caller:
    """Requests of a user, each over its own connection."""

    def __init__(self, service: RunningService) -> None:
        self.service = service

    def __call__(
        self, method: str, path: str, body: bytes | dict[str, Any] = b"", *, token: str | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=20)
        token = self.service.tokens["alice"] if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            connection.request(method, path, data or None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def session(self, session: str = SESSION) -> str:
        status, _ = self("PUT", f"/v1/sessions/{session}")
        assert status == 200
        return f"/v1/sessions/{session}"

    def volume(self, declared: dict[str, Any] | None = None) -> tuple[int, bytes]:
        return self("PUT", f"{self.session()}/volumes/{VOLUME}", declared or DECLARED)

    def slab(self, data: bytes, codec: str = "raw", index: int = 0) -> tuple[int, bytes]:
        return self("PUT", f"/v1/sessions/{SESSION}/volumes/{VOLUME}/slabs/{index}?codec={codec}", data)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A server of many tests, which therefore grants more."""
    limits = {"failures_per_minute": 10_000, "openings_per_minute": 10_000, "max_sessions": 100}
    service = RunningService(tmp_path_factory.mktemp("service"), limits=limits)
    yield service
    service.close()


@pytest.fixture
def call(shared: RunningService) -> Iterator[Caller]:
    """Requests to the shared server, whose session ends with the test."""
    caller = Caller(shared)
    yield caller
    caller("DELETE", f"/v1/sessions/{SESSION}")


@pytest.fixture
def ownCall(service: RunningService) -> Caller:
    """Requests to a server of this test alone."""
    return Caller(service)


def code(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["code"]


def raw_socket(service: RunningService) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=20)


def head(service: RunningService, length: str) -> bytes:
    token = service.tokens["alice"]
    path = f"/v1/sessions/{SESSION}/volumes/{VOLUME}/slabs/0?codec=raw"
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}\r\n\r\n".encode()


@pytest.mark.parametrize("token", ["", "wrong", "wr\u00f6ng", "x" * 5000])
def test_without_a_valid_token_every_route_refuses_alike(call: Caller, token: str) -> None:
    answers = {call(method, path, token=token) for method, path in (*ROUTES, ("GET", "/v1/hello"))}
    assert {status for status, _ in answers} == {401}
    assert len(answers) == 1


def test_open_routes_say_nothing_but_their_state(call: Caller) -> None:
    assert call("GET", "/healthz", token="") == (200, b"ok\n")
    assert call("GET", "/readyz", token="") == (200, b"ready\n")
    assert call("GET", "/metrics", token="")[0] == 401
    assert b"diffusion_segment_sessions 0.0" in call("GET", "/metrics")[1]


def test_after_ten_wrong_tokens_an_address_waits(ownCall: Caller) -> None:
    statuses = [ownCall("GET", "/v1/hello", token=f"wrong{number}")[0] for number in range(11)]
    assert statuses == [401] * 10 + [429]
    assert ownCall("GET", "/v1/hello")[0] == 429


def test_a_token_that_was_replaced_or_taken_away_ends_at_once(ownCall: Caller) -> None:
    old = ownCall.service.tokens["alice"]
    new = add_user(ownCall.service.token_file, "alice")
    assert (ownCall("GET", "/v1/hello", token=old)[0], ownCall("GET", "/v1/hello", token=new)[0]) == (401, 200)
    ownCall.service.token_file.chmod(0o644)
    assert ownCall("GET", "/v1/hello", token=new)[0] == 401


def test_another_users_session_is_as_unknown_as_none(call: Caller) -> None:
    call.volume()
    bob = call.service.tokens["bob"]
    foreign = [call(method, path, token=bob) for method, path in ROUTES]
    unknown = [call(method, path.replace(SESSION, "6" * 32), token=bob) for method, path in ROUTES]
    assert {status for status, _ in foreign} == {404}
    assert foreign == unknown
    assert call("PUT", f"/v1/sessions/{SESSION}", token=bob)[0] == 404
    assert call.volume()[0] == 200


@pytest.mark.parametrize(
    "name", ["..", "..%2f..%2fetc", "%2e%2e", "a" * 31, "A" * 32, "a" * 33, "%00" * 8, "%c3%a4" * 16, "con"]
)
def test_names_are_ids_alone(call: Caller, name: str) -> None:
    assert call("PUT", f"/v1/sessions/{name}")[0] in (400, 404)
    assert call("PUT", f"{call.session()}/volumes/{name}", DECLARED)[0] in (400, 404, 405)
    assert [path.name for path in call.service.work_dir.iterdir() if path.name.startswith("session-")] != []
    assert len(list(call.service.work_dir.rglob("*"))) == 2


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"shape": [2, 3, 4], "dtype": "object"}, (400, "PROTOCOL")),
        ({"shape": [2, 3, 4], "dtype": "int16, (9999999,)"}, (400, "PROTOCOL")),
        ({"shape": [2, 3], "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": [2, 3, -4], "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": [2, 3, 2**40], "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": [2, 3, 1.5], "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": "234", "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": [2, 3, True], "dtype": "int16"}, (400, "PROTOCOL")),
        ({"shape": [2000, 2000, 2000], "dtype": "float64"}, (413, "SERVER_LIMIT")),
        ({"dtype": "int16"}, (400, "PROTOCOL")),
    ],
)
def test_a_shape_that_lies_or_is_too_large_is_refused(
    call: Caller, declared: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert code(call.volume(declared)) == expected
    assert not list(call.service.work_dir.rglob("*.raw"))


def test_deeply_nested_json_is_refused(call: Caller) -> None:
    assert code(call("PUT", f"{call.session()}/volumes/{VOLUME}", b"[" * 4000))[1] == "PROTOCOL"
    assert code(call("PUT", f"{call.session()}/volumes/{VOLUME}", b'{"shape":' + b"[" * 3900))[1] == "PROTOCOL"


@pytest.mark.parametrize(("codec", "compress"), [("zlib", zlib.compress), ("zstd", zstandard.compress)])
def test_slabs_that_are_no_slabs_are_refused(codec: str, compress: Callable[[bytes], bytes], call: Caller) -> None:
    call.volume()
    good = compress(bytes(range(48)))
    bomb = compress(bytes(50_000_000))
    assert len(bomb) < 300_000
    cases = {
        "short": call.slab(bytes(47)),
        "long": call.slab(bytes(49)),
        "bomb": call.slab(bomb, codec),
        "cut off": call.slab(good[:-3], codec),
        "changed": call.slab(bytes([good[0] ^ 1]) + good[1:], codec),
        "not compressed": call.slab(bytes(48), codec),
        "codec": call.slab(bytes(48), "pickle"),
        "index": call.slab(bytes(48), index=1),
    }
    assert {name: code(answer) for name, answer in cases.items()} == dict.fromkeys(cases, (400, "PROTOCOL"))
    assert call.slab(good, codec)[0] == 200


def test_an_oversized_upload_is_refused_before_it_is_sent(call: Caller) -> None:
    call.volume()
    with raw_socket(call.service) as connection:
        connection.sendall(head(call.service, f"Content-Length: {10 * 1024**3}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        assert _ends(connection)


def test_an_endless_upload_is_cut_off(call: Caller) -> None:
    call.volume()
    with raw_socket(call.service) as connection:
        connection.sendall(head(call.service, "Transfer-Encoding: chunked"))
        piece, sent = b"100000\r\n" + bytes(0x100000) + b"\r\n", 0
        with contextlib.suppress(OSError):
            while sent < 200:
                connection.sendall(piece)
                sent += 1
    # What the buffers of both sides hold.
    assert sent < 60


def test_slow_clients_are_cut_off(startService: Callable[..., RunningService]) -> None:
    service = startService(limits={"head_seconds": 1.0, "body_seconds": 1.0})
    Caller(service).volume()
    for start in (b"", b"GET /v1/hello HTTP/1.1\r\nHost:", head(service, "Content-Length: 48"), b"\x16\x03\x01"):
        with raw_socket(service) as connection:
            started = time.monotonic()
            connection.sendall(start)
            with contextlib.suppress(OSError):
                while time.monotonic() - started < 8 and not _closed(connection):
                    connection.sendall(b"x")
                    time.sleep(0.2)
            assert time.monotonic() - started < 8, start
    assert Caller(service)("GET", "/v1/hello")[0] == 200


def test_a_client_that_does_not_read_is_cut_off(startService: Callable[..., RunningService]) -> None:
    service = startService(limits={"send_seconds": 1.0})
    call = Caller(service)
    assert call.volume({"shape": [8, 1024, 1024], "dtype": "uint8"})[0] == 200
    with raw_socket(service) as connection:
        request = head(service, "Accept: */*").replace(b"PUT", b"GET")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        end = time.monotonic() + 10
        while "reads too slowly" not in service.log() and time.monotonic() < end:
            time.sleep(0.2)
    assert "reads too slowly" in service.log()


def test_only_runs_on_volumes_that_are_there_are_taken(call: Caller) -> None:
    call.volume()

    def run(task: Any) -> tuple[int, str]:
        return code(call("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}", encode(task)))

    def segment(path: str = VOLUME, shape: tuple[int, ...] = (2, 3, 4), **more: Any) -> Segment:
        reference = VolumeReference(path=path, shape=shape, dtype="int16", ijk_to_lps=tuple(np.eye(4).ravel()))
        return Segment(**{"id": RUN, "output_folder": "/etc", "volume": reference, **more})

    assert run(segment()) == (400, "PROTOCOL"), "incomplete"
    assert call.slab(bytes(48))[0] == 200
    assert run(segment("/etc/passwd")) == (404, "SESSION_LOST")
    assert run(segment(shape=(4, 3, 4))) == (400, "PROTOCOL")
    assert run(segment(id="8" * 32)) == (400, "PROTOCOL")
    assert run(segment(model="../../Models/abdomen-ct")) == (400, "MODEL_UNKNOWN")
    assert run(ImportModel(id=RUN, output_folder="", path="/tmp")) == (400, "PROTOCOL")
    assert code(call("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}", b'{"type":"shutdown"}')) == (400, "PROTOCOL")
    assert code(call("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}", b"\x80\x04pickle")) == (400, "PROTOCOL")
    assert call("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}", encode(segment()))[0] == 200


def test_sessions_and_runs_are_limited(startService: Callable[..., RunningService]) -> None:
    service = startService(limits={"max_sessions": 3, "openings_per_minute": 6})
    alice, bob = Caller(service), service.tokens["bob"]
    assert [alice("PUT", f"/v1/sessions/{number:032x}")[0] for number in range(3)] == [200, 200, 413]
    assert [alice("PUT", f"/v1/sessions/{number + 9:032x}", token=bob)[0] for number in range(2)] == [200, 503]
    statuses = [alice("PUT", f"/v1/sessions/{number + 20:032x}")[0] for number in range(4)]
    assert statuses == [413] * 4
    assert json.loads(alice("PUT", f"/v1/sessions/{99:032x}")[1])["message"].startswith("Too many runs")


def test_no_log_holds_a_header_a_token_or_a_text_of_a_scan(ownCall: Caller) -> None:
    canary = "CANARY^PATIENT"
    ownCall.volume()
    ownCall("GET", f"/v1/{canary}")
    ownCall("GET", "/v1/hello", token=canary)
    ownCall("PUT", f"/v1/sessions/{SESSION}/runs/{RUN}", json.dumps({"type": canary, "id": canary}).encode())
    ownCall("PUT", f"/v1/sessions/{SESSION}/volumes/{VOLUME}", {"shape": canary, "dtype": canary})
    metrics = ownCall("GET", "/metrics")[1].decode()
    log = ownCall.service.log()
    assert "refused" in log
    for secret in (canary, *ownCall.service.tokens.values(), "Bearer", "uthorization", SESSION):
        assert secret not in log
        assert secret not in metrics
    assert not re.search(r"alice|bob|127\.0\.0\.1", metrics)


def _closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


def _ends(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except OSError:
        return True
    return True


def test_files_are_private(call: Caller) -> None:
    call.volume()
    for path in [call.service.work_dir, *call.service.work_dir.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
