"""Streams of a real server process over WebSockets."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from pipelines.engine.export import savedmodel
from pipelines.sentiment import task as sentiment
from pipelines.sentiment.config import CONFIG
from pipelines.sentiment.processor import TextClasses
from tests.support.servers import serving

HANDSHAKE = (
    b"GET /v1/models/review:stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WORDS = ["good", "bad", "film", "the", "a", "not"]
SETTINGS = [
    "poll_seconds=0.1", "streams.concurrent=4", "streams.idle_seconds=2",
    "streams.message_bytes=5000", "streams.state_bytes=3000", "limits.text_bytes=2000",
]  # fmt: skip


def write(folder: Path, seed: int, **model: object) -> None:
    """Export a sentiment model with large random weights."""
    config = CONFIG.model_validate(
        {"data": {"source": "none.csv"}, "model": {"units": [8], "embedding": 8, **model}}
    )
    processor = TextClasses(config.text, WORDS, ["no", "yes"])
    network: keras.Model = sentiment.TASK.build(config, processor)
    rng = np.random.default_rng(seed)
    for w in network.trainable_weights:
        w.assign(rng.normal(size=w.shape, scale=0.7))
    endpoints = sentiment.TASK.endpoints(config, processor, network)
    savedmodel.write(folder, network, endpoints, processor.resources())


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, str, BaseProcess]]:
    home = tmp_path_factory.mktemp("home")
    write(home / "exports" / "both_ways" / "1", seed=0, bidirectional=True)
    write(home / "exports" / "review" / "1", seed=1, pool=["mean", "max"])
    write(home / "new", seed=2, pool=["max"])
    with serving(home, *SETTINGS) as running:
        yield home, running.url.removeprefix("http://"), running.process


def stream(address: str, name: str = "review", **options: object) -> ClientConnection:
    return connect(f"ws://{address}/v1/models/{name}:stream", **options)  # type: ignore[arg-type]


def handshake(address: str, old: str, new: str) -> tuple[int, dict]:
    """Send a changed handshake; return the status and body of the response."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(HANDSHAKE.decode().replace(old, new).encode())
        head, _, body = connection.recv(1000).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def ask(socket: ClientConnection, **row: object) -> dict:
    socket.send(json.dumps(row))
    return json.loads(socket.recv(timeout=60))


def predict(address: str, text: str, name: str = "review") -> dict:
    body = json.dumps({"instances": [{"text": text}]}).encode()
    with urllib.request.urlopen(f"http://{address}/v1/models/{name}:predict", body) as answer:
        return json.load(answer)["predictions"][0]


def ended(socket: ClientConnection) -> Close:
    """Return the close frame that the server sends."""
    try:
        while True:
            socket.recv(timeout=60)
    except ConnectionClosed as end:
        return end.rcvd or Close(1006, "")


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert found["label"] == expected["label"]
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=1e-4)


def test_a_stream_classifies_a_text_while_it_is_typed(server):
    _, address, _ = server
    text = "the film, not good.<br />bad"
    with stream(address) as socket, stream(address) as other:
        for i, character in enumerate(text):
            same(ask(socket, text=character), predict(address, text[: i + 1]))
            if i % 9 == 0:
                same(ask(other, text="good "), predict(address, "good " * (i // 9 + 1)))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("no JSON", "JSON Parse error"),
        ("[]", "an object with the next inputs"),
        ("{}", "must be {text}"),
        ('{"text": 7}', "text: a number is not"),
        ('{"text": ["a"]}', "text: "),
        ('{"text": "a", "state_words": 99}', "must be {text}"),
        (json.dumps({"text": "a" * 2001}), "limits.text_bytes"),
    ],
)
def test_an_invalid_message_leaves_the_state_unchanged(server, message, says):
    _, address, _ = server
    with stream(address) as socket:
        ask(socket, text="not ")
        socket.send(message)
        assert says in json.loads(socket.recv(timeout=60))["error"]
        same(ask(socket, text="good"), predict(address, "not good"))


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([b"\x00"], 1003, "text frames"),
        (["a" * 6000], 1009, ""),
        ([json.dumps({"text": "a" * 1900})] * 2, 1008, "streams.state_bytes"),
        ([], 1008, "streams.idle_seconds"),
    ],
)
def test_the_close_code_and_reason_name_the_cause(server, messages, code, reason):
    _, address, _ = server
    with stream(address) as socket:
        for message in messages:
            socket.send(message)
        end = ended(socket)
    assert end.code == code
    assert reason in end.reason


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("nobody:stream", 404, "nobody"),
        ("review/versions/7:stream", 404, "7"),
        ("review/versions/x:stream", 400, "Malformed request"),
        ("review/labels/x:stream", 400, "label"),
        ("both_ways:stream", 404, "configs/sentiment/live.yaml"),
    ],
)
def test_the_handshake_fails_for_models_that_cannot_stream(server, path, status, says):
    _, address, _ = server
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/v1/models/{path}")
    assert refused.value.response.status_code == status
    assert says in json.loads(refused.value.response.body or b"")["error"]


def test_pages_of_other_hosts_are_rejected(server):
    _, address, _ = server
    for origin in ("http://example.org", "http://[", "null"):
        with pytest.raises(InvalidStatus) as refused:
            stream(address, origin=origin)
        assert refused.value.response.status_code == 403
    # A name that has become this machine's: the page and the host agree.
    status, body = handshake(address, "Host: localhost", "Host: x.org\r\nOrigin: http://x.org")
    assert status == 403
    assert "for another host" in body["error"]
    with stream(address, origin="http://127.0.0.1:7860") as socket:
        ask(socket, text="good")


def test_the_limit_of_concurrent_streams(server):
    _, address, _ = server
    with contextlib.ExitStack() as some:
        sockets = [some.enter_context(stream(address)) for _ in range(4)]
        with pytest.raises(InvalidStatus) as refused:
            stream(address)
        assert refused.value.response.status_code == 429
        for socket in sockets:
            ask(socket, text="good")
    with stream(address) as socket:
        ask(socket, text="good")


def test_a_stream_answers_pings_but_not_a_flood_of_them(server):
    _, address, _ = server
    with stream(address) as socket:
        assert socket.ping().wait(60)
        same(ask(socket, text="good"), predict(address, "good"))
        with contextlib.suppress(ConnectionClosed):
            for _ in range(150):
                socket.ping()
        end = ended(socket)
    assert (end.code, end.reason) == (1008, "more than 100 pings or fragments in a second")


def test_a_message_may_have_fragments_but_not_endlessly_many(server):
    _, address, _ = server
    with stream(address) as socket:
        socket.send(['{"te', 'xt": "', *"good", '"}'])
        same(json.loads(socket.recv(timeout=60)), predict(address, "good"))
        with contextlib.suppress(ConnectionClosed):
            socket.send("" for _ in range(1_000_000))
        assert ended(socket).code == 1008


def test_a_client_that_sends_pings_and_reads_nothing_is_not_read(server):
    _, address, process = server
    host, _, port = address.partition(":")
    ping = b"\x89\xfd\0\0\0\0" + b"a" * 125
    before = psutil.Process(process.pid).memory_info().rss
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(HANDSHAKE)
        assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
        with contextlib.suppress(OSError):  # the server closes the connection
            for _ in range(2000):
                connection.sendall(ping * 100)
    assert psutil.Process(process.pid).memory_info().rss - before < 20_000_000
    with stream(address) as other:
        ask(other, text="good")


@pytest.mark.parametrize("change", [("Upgrade: websocket\r\n", ""), ("Version: 13", "Version: 9")])
def test_an_invalid_handshake_is_answered(server, change):
    _, address, _ = server
    status, body = handshake(address, *change)
    assert status == 400
    assert "handshake" in body["error"]


def test_a_stream_keeps_a_version_that_is_replaced(server):
    home, address, _ = server
    with stream(address) as old:
        before = ask(old, text="not ")
        shutil.move(home / "new", home / "exports" / "review" / "2")
        while True:
            old_answer = ask(old, text="")
            assert old_answer["probabilities"] == before["probabilities"]
            now = predict(address, "not ")
            if not np.allclose(now["probabilities"], before["probabilities"], rtol=1e-3):
                break
        ask(old, text="good")
        with stream(address) as new:
            same(ask(new, text="not "), now)


def test_shutdown_closes_streams(server):
    """This must be the last test, since it stops the server."""
    home, address, process = server
    # Whatever the clients above have done wrong, the server has done nothing wrong.
    levels = {json.loads(line)["level"] for line in (home / "log").read_text().splitlines()}
    assert levels == {"info"}
    with stream(address) as socket:
        ask(socket, text="good")
        process.terminate()
        assert ended(socket).code in (1001, 1012)
