"""What the HTTP proxy of Ray Serve does with clients that our server cuts off.

`python Testing/service/ray_serve_limits.py [--seconds S]` with the package `ray[serve]` prints what is still open after
these seconds, and how many replicas have answered the requests of one client.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from DiffusionSegmentBackend.process.ray_cluster import import_ray

PORT = 18123
ADDRESS = ("127.0.0.1", PORT)


def connection(*sent: bytes, buffer: int | None = None) -> socket.socket:
    """A connection on which something was sent."""
    made = socket.create_connection(ADDRESS)
    if buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    for part in sent:
        made.sendall(part)
    return made


def is_open(client: socket.socket) -> bool:
    """Whether the server has not closed a connection."""
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.setblocking(True)


def observe(seconds: float) -> dict[str, Any]:
    """Open connections, let them be for some time, and look which are left."""
    idle = [connection() for _ in range(400)]
    unread = connection(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", buffer=4096)
    slow, end = connection(b"GET / HTTP/1.1\r\nHost:"), time.monotonic() + seconds
    while time.monotonic() < end and is_open(slow):
        slow.sendall(b"x")
        time.sleep(1)
    pids = {urllib.request.urlopen(f"http://127.0.0.1:{PORT}/?pid").read() for _ in range(20)}
    return {
        "a head of one byte a second": is_open(slow),
        "of 400 connections without a request": sum(is_open(client) for client in idle),
        "an answer that nobody reads": is_open(unread),
        "replicas that answered one client": len(pids),
        "/-/routes without a token": urllib.request.urlopen(f"http://127.0.0.1:{PORT}/-/routes").read().decode(),
    }


def main() -> None:
    """Start Serve with two replicas, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    options = parser.parse_args()
    ray = import_ray()
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    @serve.deployment(num_replicas=2)
    class Answers:
        async def __call__(self, request: Request) -> StreamingResponse:
            return StreamingResponse(self.body("pid" in request.query_params))

        def body(self, short: bool) -> Iterator[bytes]:
            yield from [str(os.getpid()).encode()] if short else (bytes(1 << 20) for _ in range(2000))

    with tempfile.TemporaryDirectory(prefix="dsr", ignore_cleanup_errors=True) as folder:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        try:
            serve.start(http_options={"host": ADDRESS[0], "port": PORT})
            serve.run(Answers.bind())
            print(json.dumps({"ray": ray.__version__, **observe(options.seconds)}, indent=2))
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
