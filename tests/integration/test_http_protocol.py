"""Slow clients, and clients that do not read, over real connections to uvicorn."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import Response

from pipelines.serving.config import LimitsConfig
from pipelines.serving.http_protocol import limited_http, limited_websocket
from tests.support.servers import received, wait

LARGE = b"a" * 20_000_000
HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n%s"
)


async def app(scope, receive, send):
    """Respond before the body is read, and send a stream more than its client reads."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": LARGE})
    else:
        body = LARGE if scope["path"] == "/large" else b"early"
        await Response(body, 404)(scope, receive, send)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[uvicorn.Server, int]]:
    limits = LimitsConfig(connections=6, receive_seconds=2)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, lifespan="off", timeout_keep_alive=1,
            http=limited_http(limits), ws=limited_websocket(limits),
            ws_ping_interval=0.5, ws_ping_timeout=0.5,
        )
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # On the same event loop as the real server.
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        wait(lambda: server.started)
        yield server, listening.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def connect(running):
    """Return a function that opens connections with a timeout."""
    with contextlib.ExitStack() as opened:

        def connect() -> socket.socket:
            address = ("127.0.0.1", running[1])
            return opened.enter_context(socket.create_connection(address, timeout=10))

        yield connect
    wait(lambda: not running[0].server_state.connections)


@pytest.mark.parametrize("late", [b"a", b"\r\n"], ids=["the body", "an empty line"])
def test_data_after_the_response_does_not_keep_a_connection_open(connect, late):
    connection = connect()
    length = b"Content-Length: 1\r\n" if late == b"a" else b""
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n")
    answer = b""
    while not answer.endswith(b"early"):
        answer += connection.recv(1000)
    connection.sendall(late)
    assert received(connection) == b""  # and no TimeoutError


def test_a_client_that_does_not_read_its_response_is_disconnected(connect, running):
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    wait(lambda: running[0].server_state.connections)
    wait(lambda: not running[0].server_state.connections)
    assert len(received(connection)) < len(LARGE)


def test_a_client_that_does_not_read_its_stream_is_disconnected(connect, running):
    connection = connect()
    connection.sendall(HANDSHAKE % (b"/", b"", b""))
    assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
    connection.sendall(b"\x81\x81\0\0\0\0a")
    wait(lambda: running[0].server_state.connections)
    wait(lambda: not running[0].server_state.connections)
    wait(lambda: not running[0].server_state.tasks)  # the task that writes to it has ended too


@pytest.mark.parametrize(
    "asked",
    [
        HANDSHAKE % (b"/", b"Cookie: " + b"a" * 9000 + b"\r\n", b""),
        HANDSHAKE % (b"/", b"".join(b"X-%d: a\r\n" % i for i in range(200)), b""),
        HANDSHAKE % (b"/", b"Content-Length: 5\r\n", b"hello"),
        HANDSHAKE % ("/ü".encode(), b"", b""),
    ],
    ids=["long", "many", "body", "path"],
)
def test_an_invalid_handshake_is_answered(connect, asked):
    connection = connect()
    connection.sendall(asked)
    head, _, body = received(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(body)) == {"error"}


def test_streams_count_as_connections(connect, running):
    held = [connect() for _ in range(6)]
    wait(lambda: len(running[0].server_state.connections) == 6)
    connection = connect()
    connection.sendall(HANDSHAKE % (b"/", b"", b""))
    head, _, body = received(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert "limits.connections" in json.loads(body)["error"]
    assert len(held) == 6
