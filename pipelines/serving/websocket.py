"""Streams: one row of a model's ``step`` over a WebSocket, the state kept for the connection.

Each message is the next inputs of the row, as an object of JSON; each is answered by its outputs,
or by ``{"error": …}``, which leaves the state as it was. What ends a stream from this side has a
close code of RFC 6455: 1001 the server ends, 1003 bytes that are no text, 1008 a limit, 1009 a
message that is too long, 1011 an error of the server's, 1013 it has too much to do.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import orjson
from fastapi import WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from pipelines.engine.export.stateful import STATE
from pipelines.serving import json_codec
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays
from pipelines.serving.metrics import LOGGER, Metrics, log
from pipelines.serving.repository import Repository, Version

_UNSUPPORTED, _LIMIT, _FAILED, _LATER = 1003, 1008, 1011, 1013


class Streams:
    """The streams of a server."""

    def __init__(self, library: Repository, config: ServingConfig, metrics: Metrics) -> None:
        self._library, self._config, self._metrics = library, config, metrics
        self._open = 0

    async def __call__(self, socket: WebSocket, name: str, number: int | None = None) -> None:
        """Serve one connection, from its handshake to its end.

        A version that is replaced goes on with the streams that it has.
        """
        try:
            version = self._admit(socket, name, number)
        except RequestError as error:
            headers = {"Retry-After": "1"} if error.status in (429, 503) else None
            body = orjson.dumps({"error": str(error)})
            await socket.send_denial_response(
                Response(body, error.status, headers, "application/json")
            )
            return
        self._open += 1
        self._metrics.streams.inc()
        steps, reason = 0, "the client left"
        try:
            with version.used():
                await socket.accept()
                state = await self._begin(version)
                while True:
                    message = await self._receive(socket)
                    state = await self._step(socket, version, message, state)
                    steps += 1
        except WebSocketDisconnect:
            pass
        except _EndError as end:
            reason = end.reason
            await socket.close(end.code, reason)
        except Exception:  # noqa: BLE001 - the client learns that it failed, the log where
            reason = "internal error"
            LOGGER.exception("stream failed", extra={"fields": {"model": name}})
            await socket.close(_FAILED, reason)
        finally:
            self._open -= 1
            self._metrics.streams.dec()
            if self._config.log_requests:
                log("stream", model=name, version=version.number, steps=steps, end=reason)

    def _admit(self, socket: WebSocket, name: str, number: int | None) -> Version:
        """The version asked for.

        Raises:
            RequestError: 403, 404, 429 or 503.
        """
        # A browser tells which page it is that asks; any page may try.
        origin = socket.headers.get("origin")
        own = _host(f"//{socket.headers.get('host', '')}")
        if origin and (own is None or _host(origin) != own):
            raise RequestError(403, "a page of another host may not open streams")
        version = self._library.find(name, number)
        assert version.servable is not None
        if not {"start", "step"} <= version.servable.signatures.keys():
            raise RequestError(
                404, f"model {name} has no signature step: it reads all before it answers"
            )
        if self._open >= self._config.streams.concurrent:
            raise RequestError(429, "too many streams at the same time (streams.concurrent)")
        return version

    async def _begin(self, version: Version) -> Arrays:
        try:
            return await version.batchers["start"]({}, self._config.limits.answer_seconds)
        except RequestError as error:
            raise _EndError(_LATER if error.status == 504 else _FAILED, str(error)) from None

    async def _receive(self, socket: WebSocket) -> str:
        seconds = self._config.streams.idle_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await socket.receive()
        except TimeoutError:
            raise _EndError(
                _LIMIT, f"nothing came for {seconds:g} s (streams.idle_seconds)"
            ) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise _EndError(_UNSUPPORTED, "messages are JSON in text frames")
        return str(text)

    async def _step(
        self, socket: WebSocket, version: Version, message: str, state: Arrays
    ) -> Arrays:
        """Answer a message; the state after it."""
        assert version.servable is not None
        started = time.perf_counter()
        specs = version.servable.signatures["step"].inputs
        limits = self._config.limits
        try:
            row = _parse(message)
            asked = json_codec.Request("step", "row", [row])
            new = {n: s for n, s in specs.items() if not n.startswith(STATE)}
            inputs = json_codec.arrays(asked, new, limits) | state
            found = await version.batchers["step"](inputs, limits.answer_seconds)
        except RequestError as error:
            await socket.send_text(orjson.dumps({"error": str(error)}).decode())
            return state
        state = {n: a for n, a in found.items() if n.startswith(STATE)}
        answer = json_codec.row({n: a for n, a in found.items() if n not in state})
        self._metrics.step_seconds.labels(version.name).observe(time.perf_counter() - started)
        if _size(state) > self._config.streams.state_bytes:
            raise _EndError(_LIMIT, "the state has grown too large (streams.state_bytes)")
        await socket.send_text(answer.decode())
        return state


class _EndError(Exception):
    """The stream is ended from this side."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _parse(message: str) -> dict[str, object]:
    try:
        row = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    if not isinstance(row, dict):
        raise RequestError(400, "a message is an object with the next inputs")
    return row


def _size(state: Arrays) -> int:
    return sum(
        sum(map(len, a.ravel())) if a.dtype.kind == "O" else a.nbytes for a in state.values()
    )
