"""A real server process for tests, with a small model, and a client."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import requests
import tensorflow as tf

from pipelines.engine.core.files import new_folder
from tests.support.commands import Command

#: Small limits, so that a test can exceed them.
SETTINGS = [
    "poll_seconds=0.1", "limits.body_bytes=200000", "limits.rows=20", "limits.text_bytes=1000",
    "limits.steps=50", "limits.most.beam_width=4", "limits.receive_seconds=1",
    "limits.answer_seconds=3", "limits.connections=60", "limits.concurrent=12",
]  # fmt: skip


class Tiny(tf.Module):
    """A model with every kind of signature."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def text(self, text):
        size = tf.strings.length(text, unit="UTF8_CHAR")
        return {
            "loud": tf.strings.upper(text, encoding="utf-8"),
            "raw_bytes": text,
            "score": self.factor * tf.cast(size, tf.float32),
            "pair": tf.stack([size, -size], axis=1),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 2], tf.float32, name="series"),
            tf.TensorSpec([None], tf.int32, name="beam_width"),
        ]
    )
    def series(self, series, beam_width):
        # All rows share the first one's width, as a beam search over a batch does.
        width = tf.cast(beam_width[:1], tf.float32)
        return {"sum": self.factor * width * tf.reduce_sum(series, axis=[1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def checked(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="too large")]):
            return {"y": self.factor * x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="steps")])
    def slow(self, steps):
        last = tf.while_loop(lambda i: i < steps[0], lambda i: i + 1, [tf.constant(0)])[0]
        return {"last": tf.fill(tf.shape(steps), last)}

    @tf.function(input_signature=[])
    def about(self):
        return {"names": tf.constant(["a", "b"]), "nan": tf.constant([float("nan"), 0.1])}


ALL = ("series", "checked", "slow", "about")


def export(folder: Path, factor: float = 1.0, signatures: Sequence[str] = ALL) -> None:
    """Export `Tiny` with the signature ``serving_default`` and those named."""
    model = Tiny(factor)
    functions = {n: getattr(model, n) for n in signatures}
    with new_folder(folder) as work:
        tf.saved_model.save(model, str(work), {"serving_default": model.text, **functions})


@contextlib.contextmanager
def serving(home: Path, *settings: str, names: Sequence[str] = ()) -> Iterator[Server]:
    """Run `unfold serve` in another process, on a free port, until the block ends.

    Args:
        home: Its exports are served.
        settings: Keys of the server's config.
        names: The models to serve; if empty, all.
    """
    pairs = [argument for pair in settings for argument in ("--set", pair)]
    command = Command(home, "serve", *names, "--port", "0", *pairs, err=home / "log")
    try:
        server = Server(command.process, home)
        wait(lambda: server.events("listening"))
        server.url = server.events("listening")[0]["address"]
        wait(lambda: server.get("/readyz").status_code == 200)
        yield server
    finally:
        command.process.terminate()
        assert command.wait(120).returncode in (0, -signal.SIGTERM)


class Server:
    """A server process, and a client of it."""

    url = ""

    def __init__(self, process: BaseProcess, home: Path) -> None:
        self.process, self.home = process, home

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's lines of an event."""
        assert self.process.exitcode is None, (self.home / "log").read_text()
        lines = (self.home / "log").read_text().splitlines()
        return [e for line in lines if (e := json.loads(line))["event"] == name]

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)

    def post(self, body: Any, path: str = "/v1/models/tiny:predict") -> requests.Response:
        raw = json.dumps(body) if isinstance(body, dict | list | int) else body
        return requests.post(self.url + path, data=raw, timeout=60)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=60)


def received(connection: socket.socket) -> bytes:
    """Return everything the server sends until it closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


def wait(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait until a condition is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
