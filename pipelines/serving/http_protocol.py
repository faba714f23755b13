"""Limits below the level of requests: how many connections, and how slow clients may be."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.responses import JSONResponse

from pipelines.engine.core import _compat
from pipelines.serving.config import LimitsConfig

_HTTPProtocol: Any = _compat.http_protocol()
_WebSocketProtocol: Any = _compat.websocket_protocol()

_TOO_MANY = "too many connections (limits.connections)"
_INVALID_HANDSHAKE = "invalid WebSocket handshake"


def limited_http(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with limits on connections and on slow clients."""
    return type("LimitedHTTP", (_LimitedHTTP,), {"limits": limits})


def limited_websocket(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """Return uvicorn's WebSocket protocol, which closes connections that cannot go on."""
    return type("LimitedWebSocket", (_LimitedWebSocket,), {"limits": limits})


class _LimitedHTTP(_HTTPProtocol):
    """One HTTP connection. uvicorn creates it, so the limits are an attribute of its class."""

    limits: ClassVar[LimitsConfig]
    timeout_keep_alive_task: asyncio.TimerHandle | None
    _timer: asyncio.TimerHandle | None = None
    _reads_body = _is_too_many = _is_upgraded = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.limits.connections:
            self._is_too_many = True
            headers = {"Connection": "close", "Retry-After": "1"}
            self.app = JSONResponse({"error": _TOO_MANY}, 503, headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()  # else its timer keeps this object alive
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # uvicorn stops its keep-alive timer even for data that does not start a request.
        is_idle = self.cycle is None or self.cycle.response_complete
        has_timer = self._timer is not None or self.timeout_keep_alive_task is not None
        if is_idle and not (has_timer or self._is_upgraded or self.transport.is_closing()):
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        _close(self.transport, self.limits)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reads_body = False
        self._start_timer()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._reads_body = True
        self._start_timer()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_timer()

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()
        if self._is_too_many:
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY)
            return
        self._is_upgraded = True
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._reject(HTTPStatus.BAD_REQUEST, msg)

    def _start_timer(self) -> None:
        self._stop_timer()
        # The application rejects a slow body; the connection is closed if the body still goes on.
        seconds = self.limits.receive_seconds * (2 if self._reads_body else 1)
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._reads_body:
            _close(self.transport, self.limits)
        else:
            message = "the request did not arrive in time (limits.receive_seconds)"
            self._reject(HTTPStatus.REQUEST_TIMEOUT, message)

    def _reject(self, status: HTTPStatus, message: str) -> None:
        _reject(self.transport, self.limits, status, message)


class _LimitedWebSocket(_WebSocketProtocol):
    """One WebSocket connection. uvicorn creates it, so the limits are an attribute of its class."""

    limits: ClassVar[LimitsConfig]

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except UnicodeError:  # a path that is not ASCII
            _reject(self.transport, self.limits, HTTPStatus.BAD_REQUEST, _INVALID_HANDSHAKE)
            return
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The parser has given up, and would wait for the client to leave.
            _reject(self.transport, self.limits, HTTPStatus.BAD_REQUEST, _INVALID_HANDSHAKE)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        _close(self.transport, self.limits)


def _close(transport: asyncio.Transport, limits: LimitsConfig) -> None:
    """Close a connection, even if the client does not read what is still to be sent."""
    transport.close()
    asyncio.get_running_loop().call_later(limits.receive_seconds, transport.abort)


def _reject(
    transport: asyncio.Transport, limits: LimitsConfig, status: HTTPStatus, message: str
) -> None:
    """Send an error to a client whose request did not reach the application, and close."""
    if transport.is_closing():
        return
    body = JSONResponse({"error": message}).body
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    transport.write(head.encode() + bytes(body))
    _close(transport, limits)
