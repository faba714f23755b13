"""The HTTP server: aiohttp's, with limits on connections, and errors in JSON.

aiohttp limits what a connection can buffer: headers, requests that are pipelined, parts of a body
that are not read yet, messages and pongs of a WebSocket. Here are the limits in number and time.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http import WebSocketReader
from aiohttp.http_exceptions import LineTooLong

from pipelines.serving.bodies import BodyReader
from pipelines.serving.config import LimitsConfig
from pipelines.serving.frames import FrameLimiter

#: Bytes in a URL, in one header, and in all headers of a request; and the number of these.
_URL, _HEADER, _HEADERS, _FIELDS = 16_384, 8_190, 65_536, 64
#: Bytes that a connection buffers while nobody reads them, and that the system does. The event
#: loop reads a connection until its buffer is empty: a small one lets others have their turn.
_BUFFER, _SYSTEM_BUFFER = 65_536, 131_072
#: Seconds until an idle connection is closed, and for reading the rest of a body that is refused.
_KEEP_ALIVE, _LINGER = 60.0, 10.0
#: Seconds between two looks at the connections: in general, and while the server stops.
_SWEEP, _STOPPING_SWEEP = 0.5, 0.1
#: How often to look for clients that wait to be accepted, before the server stops listening.
_LAST_ACCEPTS = 100
_TOO_MANY = "too many connections (limits.connections)"

Responder = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def error_response(status: int, message: str) -> web.Response:
    """Return an error as JSON."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return json_response(orjson.dumps({"error": message}), status, headers)


def json_response(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a response of JSON."""
    fields = {"Content-Type": "application/json", "Server": "unfold", **(headers or {})}
    return web.Response(body=body, status=status, headers=fields)


class Connection(web.RequestHandler):
    """A connection of a client.

    Attributes:
        stream: Where its bytes go; set as long as it is not closed.
        is_busy: Whether a request is being answered.
        is_surplus: Whether the server has no place for it.
        heard: When its client sent something last, on the event loop's clock.
        waiting: Since when a request has been expected; None if not.
        stuck: Since when its client has not read what is to be sent; None if it reads.
        flooded: Called when a WebSocket has too many frames (see `FrameLimiter`).
    """

    __slots__ = ("flooded", "heard", "is_busy", "is_surplus", "stream", "stuck", "waiting")

    stream: asyncio.Transport
    waiting: float | None
    flooded: Callable[[], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_busy = self.is_surplus = False
        self.heard = self.waiting = asyncio.get_running_loop().time()
        self.stuck: float | None = None
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        if self.waiting is None and not self.is_busy:
            self.waiting = self.heard
        super().data_received(data)

    def set_parser(
        self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None
    ) -> None:
        """Read a WebSocket from now on."""
        limited: Any = FrameLimiter(parser, self._refuse_frames)
        super().set_parser(limited, data_received_cb)

    def _refuse_frames(self) -> None:
        self.stream.pause_reading()
        self.flooded()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP or exceeds a limit, and close the connection."""
        status, message = 400, "the request is not valid HTTP"
        if isinstance(exc, LineTooLong):
            status, message = 431, f"a header is longer than {_HEADER} bytes"
            if exc.args[1] == _URL:
                status, message = 414, f"the URL is longer than {_URL} bytes"
        elif str(exc).endswith("Too many headers received"):
            status, message = 431, f"the request has more than {_FIELDS} headers"
        response = error_response(status, message)
        response.force_close()
        return response


class HTTPServer(web.Server):
    """Answer requests.

    Args:
        respond: Returns the response to a request, without raising errors.
        limits: The config's limits.
        bodies: Reads the bodies; the oldest one that is not complete makes way for a connection.
    """

    def __init__(self, respond: Responder, limits: LimitsConfig, bodies: BodyReader) -> None:
        super().__init__(self._respond)
        self._answer, self._limits, self._bodies = respond, limits, bodies
        self._open: set[Connection] = set()
        # In the order in which they make way for others: those that have not sent a request yet,
        # and those that have, and are waiting to send another.
        self._silent: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._is_stopping = False

    def __call__(self) -> Connection:
        quiet = logging.getLogger("aiohttp.server")
        quiet.disabled = True  # a client's mistakes are not the server's
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEP_ALIVE,
            lingering_time=min(_LINGER, self._limits.receive_seconds),
            max_line_size=_URL,
            max_field_size=_HEADER,
            max_headers=_FIELDS,
            read_bufsize=_BUFFER,
            auto_decompress=False,  # a small body can become a large one
            logger=quiet,
            access_log=None,  # type: ignore[arg-type] # as documented
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        assert isinstance(handler, Connection)
        super().connection_made(handler, transport)
        handler.stream = transport
        self._open.add(handler)
        if len(self._open) > self._limits.connections:
            handler.is_surplus = not self._make_way()
        self._silent[handler] = None

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        assert isinstance(handler, Connection)
        super().connection_lost(handler, exc)
        self._open.discard(handler)
        self._silent.pop(handler, None)
        self._idle.pop(handler, None)

    async def sweep(self) -> None:
        """Close connections of slow clients, until cancelled."""
        loop = asyncio.get_running_loop()
        seconds = self._limits.receive_seconds
        while True:
            await asyncio.sleep(min(_SWEEP, seconds / 4))
            now = loop.time()
            for connection in list(self._open):
                if connection.writing_paused or connection.stream.is_closing():
                    connection.stuck = connection.stuck or now
                    if now - connection.stuck > seconds:
                        connection.stream.abort()
                elif connection.waiting is not None and now - connection.waiting > seconds:
                    _reject(connection, 408, "the request did not arrive in time")
                else:
                    connection.stuck = None

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Accept connections.

        Args:
            listener: The listening socket.
        """
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SYSTEM_BUFFER)
        return await asyncio.get_running_loop().create_server(self, sock=listener, backlog=2048)

    async def stop(self, listener: socket.socket, close: Callable[[], None]) -> None:
        """Answer all requests that have arrived, and close the connections.

        Args:
            listener: The listening socket.
            close: Stops listening.
        """
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        for _ in range(_LAST_ACCEPTS):  # new clients may come faster than they are accepted
            if not select.select([listener], [], [], 0)[0]:
                break
            await asyncio.sleep(0.001)
        close()
        until = loop.time() + self._limits.answer_seconds + 1
        quiet: dict[Connection, float] = {}
        while self._open and loop.time() < until:
            await asyncio.sleep(_STOPPING_SWEEP)
            for connection in list(self._open):
                if not connection.is_busy and quiet.get(connection) == connection.heard:
                    connection.force_close()
                quiet[connection] = connection.heard
        for connection in self._open:
            connection.stream.abort()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.waiting, connection.is_busy = None, True
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)
        try:
            if connection.is_surplus:
                response: web.StreamResponse = error_response(503, _TOO_MANY)
                response.force_close()
            elif _size(request) > _HEADERS:
                response = error_response(431, f"the headers are longer than {_HEADERS} bytes")
            else:
                response = await self._answer(request)
            if self._is_stopping and not response.prepared:
                # Not force_close: requests that have been pipelined are answered too.
                response.headers["Connection"] = "close"
            return response
        finally:
            connection.is_busy = False
            if connection in self._open:
                self._idle[connection] = None

    def _make_way(self) -> bool:
        """Close a connection that has no request; return whether there was one."""
        for waiting in (self._silent, self._idle):
            if waiting:
                connection = next(iter(waiting))
                del waiting[connection]
                connection.force_close()
                return True
        return self._bodies.refuse_oldest(_TOO_MANY)


def _size(request: web.BaseRequest) -> int:
    return sum(len(name) + len(value) for name, value in request.raw_headers)


def _reject(connection: Connection, status: int, message: str) -> None:
    """Answer a client that has not sent a whole request, and close the connection."""
    body = orjson.dumps({"error": f"{message} (limits.receive_seconds)"})
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.stream.write(head.encode() + body)
    connection.waiting = None
    connection.force_close()
