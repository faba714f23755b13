"""Clients that send too much, too slowly, or do not read, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from aiohttp import web

from pipelines.serving import http_protocol
from pipelines.serving.bodies import BodyReader
from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.http_protocol import HTTPServer, error_response, json_response
from tests.support.servers import received, wait

LIMITS = LimitsConfig(
    connections=6, receive_seconds=1, body_bytes=300_000, inflight_bytes=400_000, answer_seconds=30
)
LARGE = b"a" * 20_000_000


class Running:
    """A server in a thread, which responds with the size of each body."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address = self.listener.getsockname()
        self.ready, self.go = threading.Event(), threading.Event()
        self.seen = 0
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._run(),))
        self.thread.start()
        assert self.ready.wait(10)

    async def _run(self) -> None:
        self.bodies = BodyReader(LIMITS)
        self.http = HTTPServer(self._respond, LIMITS, self.bodies)
        self.server = await self.http.listen(self.listener)
        self.stopping = asyncio.Event()
        sweeping = self.loop.create_task(self.http.sweep())
        self.ready.set()
        await self.stopping.wait()
        await self.http.stop(self.listener, self.server.close)
        sweeping.cancel()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen += 1
        if request.raw_path == "/large":
            return json_response(LARGE)
        if request.raw_path == "/wait":
            while not self.go.is_set():
                await asyncio.sleep(0.01)
        try:
            body = await self.bodies.read(request)
        except RequestError as error:
            return error_response(error.status, str(error))
        self.bodies.release(len(body))
        return json_response(b"%d" % len(body))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(30)
        assert not self.thread.is_alive()

    @property
    def open(self) -> int:
        return len(self.http.connections)


@contextlib.contextmanager
def server_running() -> Iterator[Running]:
    server = Running()
    try:
        yield server
    finally:
        server.go.set()
        server.stop()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with server_running() as server:
        yield server


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(running: Running) -> Iterator[Connect]:
    """Return a function that opens connections with a timeout."""
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(running.address, timeout=20))
    wait(lambda: not running.open)


def post(body: bytes, *headers: bytes, path: bytes = b"/") -> bytes:
    fields = b"".join(header + b"\r\n" for header in (b"Host: a", *headers))
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (path, fields, len(body), body)


def answers(connection: socket.socket, count: int = 1) -> list[tuple[int, Any]]:
    """Read some responses of JSON; return their statuses and values."""
    found = []
    with contextlib.closing(connection.makefile("rb")) as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            size = 0
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            found.append((status, json.loads(file.read(size))))
    return found


def refused(connection: socket.socket, *sent: bytes) -> int:
    """Send something; return the status of the error, after which the connection must end."""
    with contextlib.suppress(ConnectionError):  # the server may refuse it before its end
        for part in sent:
            connection.sendall(part)
    head, _, body = received(connection).partition(b"\r\n\r\n")
    assert json.loads(body).keys() == {"error"}
    assert len(body) < 300
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /%s HTTP/1.1\r\n" % (b"a" * 20_000), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: %s\r\n" % (b"a" * 9_000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Many: a\r\n" * 70, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %s\r\n" % (b"a" * 8_000) * 9 + b"\r\n", 431),
        (b"ANY / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:", 408),
        (b"", 408),
    ],
    ids=["URL", "header", "headers", "all", "method", "TLS", "host", "length", "slow", "silent"],
)
def test_a_request_that_does_not_fit_is_refused_and_forgotten(connect, running, sent, status):
    before = running.seen
    connection = connect()
    if status == 431 and sent.endswith(b"\r\n\r\n"):
        connection.sendall(sent)
        assert answers(connection)[0][0] == status
    else:
        assert refused(connection, sent) == status
    assert running.seen == before
    connection.close()
    wait(lambda: not running.open)


def test_trailers_do_not_add_up(connect):
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    assert refused(connect(), chunked, *[b"X-Trailer: %s\r\n" % (b"a" * 1000)] * 5000) in (408, 431)


def test_endless_headers_of_many_clients_end_soon(connect):
    for _ in range(5):
        assert (
            refused(connect(), b"GET / HTTP/1.1\r\n", *[b"X: %s\r\n" % (b"a" * 8000)] * 5000) == 431
        )


@pytest.mark.parametrize(
    ("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
def test_a_packed_body_is_unpacked_up_to_the_limit(connect, coding, pack):
    connection = connect()
    encoding = b"Content-Encoding: " + coding
    connection.sendall(post(pack(b"a" * 300_000), encoding))
    assert answers(connection) == [(200, 300_000)]
    connection.sendall(post(pack(b"a" * 300_001), encoding))
    assert answers(connection)[0][0] == 413
    bomb = post(pack(b"a" * 30_000_000), encoding)
    connection = connect()
    connection.sendall(bomb)
    assert answers(connection)[0][0] == 413
    connection.sendall(post(b"no " + coding, encoding))
    assert answers(connection)[0][0] == 400
    connection.sendall(post(pack(b"a" * 1000)[:-1], encoding))
    assert answers(connection)[0][0] == 400


def test_bodies_that_are_refused(connect):
    connection = connect()
    connection.sendall(post(b"a", b"Content-Encoding: zip"))
    assert answers(connection)[0][0] == 415
    connection = connect()
    connection.sendall(post(b"a" * 300_001))
    assert answers(connection)[0][0] == 413
    connection = connect()
    connection.sendall(post(b"a")[:-1])
    assert answers(connection)[0][0] == 408


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(connect):
    connection = connect()
    head, body = post(b"a" * 1000, b"Expect: 100-continue").split(b"\r\n\r\n")
    connection.sendall(head + b"\r\n\r\n")
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert answers(connection) == [(200, 1000)]


def test_the_largest_body_that_is_not_complete_makes_way_for_others(connect):
    small, large, other = connect(), connect(), connect()
    small.sendall(post(b"a" * 1000)[:-1])
    large.sendall(post(b"a" * 250_000)[:-1])
    other.sendall(post(b"a" * 200_000))
    assert answers(other) == [(200, 200_000)]
    status, body = answers(large)[0]
    assert status == 503
    assert "limits.inflight_bytes" in body["error"]
    small.sendall(b"a")
    assert answers(small) == [(200, 1000)]


def test_connections_without_a_request_make_way_for_others(connect):
    silent = [connect() for _ in range(6)]
    for _ in range(8):
        connection = connect()
        connection.sendall(post(b"a"))
        assert answers(connection) == [(200, 1)]
    assert all(received(one) == b"" for one in silent)


def test_an_incomplete_body_makes_way_for_a_connection(connect):
    waiting = [connect() for _ in range(6)]
    for one in waiting:
        one.sendall(post(b"aa")[:-1])
        time.sleep(0.05)
    connection = connect()
    connection.sendall(post(b"a"))
    assert answers(connection) == [(200, 1)]
    assert answers(waiting[0])[0][0] == 503
    for one in waiting[1:]:
        one.sendall(b"a")
        assert answers(one) == [(200, 2)]


def test_a_connection_too_many_is_told_so(connect, running):
    running.go.clear()
    busy = [connect() for _ in range(6)]
    before = running.seen
    for one in busy:
        one.sendall(post(b"a", path=b"/wait"))
    wait(lambda: running.seen == before + 6)
    connection = connect()
    connection.sendall(post(b"a"))
    status, body = answers(connection)[0]
    assert status == 503
    assert "limits.connections" in body["error"]
    running.go.set()
    assert [answers(one) for one in busy] == [[(200, 1)]] * 6


@pytest.mark.parametrize("late", [b"a", b"\r\n", b"GET"], ids=["the body", "an empty line", "part"])
def test_data_after_the_response_does_not_keep_a_connection_open(connect, monkeypatch, late):
    monkeypatch.setattr(http_protocol, "_KEEP_ALIVE", 0.5)
    connection = connect()
    connection.sendall(post(b""))
    assert answers(connection) == [(200, 0)]
    connection.sendall(late)
    received(connection)  # and no TimeoutError


def test_a_client_that_does_not_read_is_disconnected(connect, running):
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    wait(lambda: running.open)
    wait(lambda: not running.open)
    assert len(received(connection)) < len(LARGE)


def test_pipelined_requests_are_answered_in_order(connect):
    connection = connect()
    connection.sendall(b"".join(post(b"a" * i) for i in range(200)))
    assert answers(connection, 200) == [(200, i) for i in range(200)]


def test_the_last_requests_are_answered_and_no_client_can_hold_the_server():
    with server_running() as running, contextlib.ExitStack() as opened:
        connections = [
            opened.enter_context(socket.create_connection(running.address, timeout=20))
            for _ in range(5)
        ]
        *asking, idle, deaf = connections
        deaf.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        for one in asking:
            one.sendall(post(b"a", path=b"/wait") + post(b"aa"))
        wait(lambda: running.seen == 4)
        running.loop.call_soon_threadsafe(running.stopping.set)
        assert received(idle) == b""
        late = asking[0]
        late.sendall(post(b"aaa"))  # on a connection that is still in use
        running.go.set()
        assert answers(late, 3) == [(200, 1), (200, 2), (200, 3)]
        for one in asking[1:]:
            assert answers(one, 2) == [(200, 1), (200, 2)]
            assert received(one) == b""


def test_clients_that_wait_to_be_accepted_when_the_server_stops_are_answered():
    with server_running() as running, contextlib.ExitStack() as opened:
        running.go.set()
        running.loop.call_soon_threadsafe(time.sleep, 0.5)  # the server is busy meanwhile
        connections = [
            opened.enter_context(socket.create_connection(running.address, timeout=20))
            for _ in range(5)
        ]
        for one in connections:
            one.sendall(post(b"a"))
        running.loop.call_soon_threadsafe(running.stopping.set)
        assert [answers(one) for one in connections] == [[(200, 1)]] * 5
