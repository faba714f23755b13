"""Limits that hold beside requests: how many connections, and how slow they may be."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from pipelines.engine.core import _compat
from pipelines.serving.config import LimitsConfig

_TOO_MANY = "too many connections (limits.connections)"
_NO_HANDSHAKE = "this is no handshake of a WebSocket"


def protocol(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol within the limits."""

    base: Any = _compat.http_protocol()

    class Limited(base):
        timeout_keep_alive_task: asyncio.TimerHandle | None
        _deadline: asyncio.TimerHandle | None = None
        _reads_body = _is_too_many = _is_upgraded = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()
            if len(self.connections) > limits.connections:
                self._is_too_many = True
                headers = {"Connection": "close", "Retry-After": "1"}
                self.app = JSONResponse({"error": _TOO_MANY}, 503, headers)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            self._unset_keepalive_if_required()  # it would keep all this until then
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # What belongs to no request, or to one that is answered already, stops the clock.
            is_idle = self.cycle is None or self.cycle.response_complete
            has_clock = self._deadline is not None or self.timeout_keep_alive_task is not None
            if is_idle and not (has_clock or self._is_upgraded or self.transport.is_closing()):
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            cut(self.transport, limits)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._reads_body = False
            self._wait()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._reads_body = True
            self._wait()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._arrived()

        def handle_websocket_upgrade(self) -> None:
            self._arrived()
            if self._is_too_many:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY)
                return
            self._is_upgraded = True
            super().handle_websocket_upgrade()

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

        def _wait(self) -> None:
            self._arrived()
            # A slow body is the application's to refuse; one that comes on after that is cut.
            seconds = limits.receive_seconds * (2 if self._reads_body else 1)
            self._deadline = self.loop.call_later(seconds, self._late)

        def _arrived(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            if self._reads_body:
                cut(self.transport, limits)
            else:
                late = "the request did not arrive in time (limits.receive_seconds)"
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, late)

        def _refuse(self, status: HTTPStatus, message: str) -> None:
            refuse(self.transport, limits, status, message)

    return Limited


def stream_protocol(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """uvicorn's WebSocket protocol within the limits."""

    base: Any = _compat.websocket_protocol()

    class Limited(base):
        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except UnicodeError:  # a path that is not ASCII
                refuse(self.transport, limits, HTTPStatus.BAD_REQUEST, _NO_HANDSHAKE)
                return
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                # The parser has given up, and waits for the client to leave.
                refuse(self.transport, limits, HTTPStatus.BAD_REQUEST, _NO_HANDSHAKE)

        def keepalive_timeout(self) -> None:
            super().keepalive_timeout()
            cut(self.transport, limits)

    return Limited


def cut(transport: asyncio.Transport, limits: LimitsConfig) -> None:
    """Close a connection, also where the client does not read what it is sent before that."""
    transport.close()
    asyncio.get_running_loop().call_later(limits.receive_seconds, transport.abort)


def refuse(
    transport: asyncio.Transport, limits: LimitsConfig, status: HTTPStatus, message: str
) -> None:
    """Answer what has not become a request, and close the connection."""
    if transport.is_closing():
        return
    body = JSONResponse({"error": message}).body
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    transport.write(head.encode() + bytes(body))
    cut(transport, limits)
