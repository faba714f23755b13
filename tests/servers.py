"""What the tests of the server share: a real process of it, and the ways to ask it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests


@contextlib.contextmanager
def serving(home: Path, *settings: str) -> Iterator[Server]:
    """`unfold serve` in a process of its own, on a free port, until the block ends."""
    log = (home / "log").open("w+")
    pairs = [argument for pair in settings for argument in ("--set", pair)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", *pairs],
        env=os.environ | {"UNFOLD_HOME": str(home)},
        stderr=log,
    )
    try:
        server = Server(process, home)
        wait(lambda: server.events("listening"))
        server.url = server.events("listening")[0]["address"]
        wait(lambda: server.get("/readyz").status_code == 200)
        yield server
    finally:
        process.terminate()
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


class Server:
    """A server process, and the ways to ask it."""

    url = ""

    def __init__(self, process: subprocess.Popen[bytes], home: Path) -> None:
        self.process, self.home = process, home

    def events(self, name: str) -> list[dict[str, Any]]:
        assert self.process.poll() is None, (self.home / "log").read_text()
        lines = (self.home / "log").read_text().splitlines()
        return [e for line in lines if (e := json.loads(line))["event"] == name]

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=20)

    def post(self, body: Any, path: str = "/v1/models/tiny:predict") -> requests.Response:
        raw = json.dumps(body) if isinstance(body, dict | list | int) else body
        return requests.post(self.url + path, data=raw, timeout=20)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)


def wait(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
