"""Limits that hold before there is a request: how many connections, and how slow they may be."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipelines.serving.config import LimitsConfig


def protocol(limits: LimitsConfig) -> type[HttpToolsProtocol]:
    """uvicorn's HTTP protocol within the limits."""

    class Limited(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _reads_body = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()
            if len(self.connections) > limits.connections:
                headers = {"Connection": "close", "Retry-After": "1"}
                error = {"error": "too many connections (limits.connections)"}
                self.app = JSONResponse(error, 503, headers)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

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
                self.transport.close()
            else:
                late = "the request did not arrive in time (limits.receive_seconds)"
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, late)

        def _refuse(self, status: HTTPStatus, message: str) -> None:
            if self.transport.is_closing():
                return
            body = JSONResponse({"error": message}).body
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Limited
