"""Streams: one sequence through a model's ``step`` over a WebSocket, with the state kept here.

Each message is a JSON object with the next inputs of the sequence. Each is answered by the outputs,
or by ``{"error": …}``, which leaves the state unchanged. When the server ends a stream, the close
code (RFC 6455) says why: 1001 the server shuts down, 1003 a binary message, 1008 a limit, 1009 a
message that is too long, 1011 an internal error, 1013 an overloaded server.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import orjson
from fastapi import WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from pipelines.engine.core.commands import command
from pipelines.engine.export.stateful import STATE
from pipelines.serving import json_codec
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays
from pipelines.serving.log import LOGGER
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository, Version

_UNSUPPORTED_DATA, _POLICY_VIOLATION, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1003, 1008, 1011, 1013


class StreamHandler:
    """Accept, count and log the streams of a server."""

    def __init__(self, repository: Repository, config: ServingConfig, metrics: Metrics) -> None:
        self._repository, self._config, self._metrics = repository, config, metrics
        self._open = 0

    async def handle(self, socket: WebSocket, name: str, number: int | None = None) -> None:
        """Serve one connection from its handshake to its end.

        A stream keeps its version, even after a newer one replaces that.

        Args:
            socket: The connection.
            name: The model's name.
            number: The version's number; None is the newest one.
        """
        try:
            version = self._admit(socket, name, number)
        except RequestError as error:
            await _reject(socket, error)
            return
        stream = _Stream(socket, version, self._config, self._metrics)
        self._open += 1
        self._metrics.streams.inc()
        reason = "the client left"
        try:
            with version.in_use():
                await stream.run()
        except WebSocketDisconnect:
            pass
        except _CloseError as error:
            reason = error.reason
            await socket.close(error.code, reason)
        except Exception:  # noqa: BLE001 - the log has the details; the client gets a close code
            reason = "internal error"
            LOGGER.exception("stream failed", model=name)
            await socket.close(_INTERNAL_ERROR, reason)
        finally:
            self._open -= 1
            self._metrics.streams.dec()
            if self._config.log_requests:
                LOGGER.info(
                    "stream", model=name, version=version.number, steps=stream.steps, end=reason
                )

    def _admit(self, socket: WebSocket, name: str, number: int | None) -> Version:
        """Return the requested version.

        Raises:
            RequestError: With status 403, 404, 429 or 503.
        """
        # WebSockets are exempt from the same-origin policy, so the server compares the hosts.
        origin = socket.headers.get("origin")
        host = _host(f"//{socket.headers.get('host', '')}")
        if origin and (host is None or _host(origin) != host):
            raise RequestError(403, "a page of another host may not open streams")
        version = self._repository.find(name, number)
        assert version.servable is not None
        if not {"start", "step"} <= version.servable.signatures.keys():
            raise RequestError(
                404,
                f"model {name} has no signature step: it needs the whole input before it answers "
                "(e.g. it reads in both directions); train and export a model that streams: "
                + command("train", "sentiment", config="configs/sentiment/live.yaml"),
            )
        if self._open >= self._config.streams.concurrent:
            raise RequestError(429, "too many streams at the same time (streams.concurrent)")
        return version


class _Stream:
    """One open stream.

    Attributes:
        steps: Number of messages handled.
    """

    def __init__(
        self, socket: WebSocket, version: Version, config: ServingConfig, metrics: Metrics
    ) -> None:
        assert version.servable is not None
        self._socket, self._version = socket, version
        self._config, self._metrics = config, metrics
        self._inputs = {
            name: spec
            for name, spec in version.servable.signatures["step"].inputs.items()
            if not name.startswith(STATE)
        }
        self.steps = 0

    async def run(self) -> None:
        """Accept the connection and answer its messages.

        Raises:
            WebSocketDisconnect: The client has left.
            _CloseError: The server must close the stream.
        """
        await self._socket.accept()
        state = await self._initial_state()
        while True:
            message = await self._receive()
            state = await self._step(message, state)
            self.steps += 1

    async def _initial_state(self) -> Arrays:
        seconds = self._config.limits.answer_seconds
        try:
            return await self._version.batchers["start"]({}, seconds)
        except RequestError as error:
            code = _TRY_AGAIN_LATER if error.status == 504 else _INTERNAL_ERROR
            raise _CloseError(code, str(error)) from None

    async def _receive(self) -> str:
        seconds = self._config.streams.idle_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await self._socket.receive()
        except TimeoutError:
            reason = f"no message for {seconds:g} s (streams.idle_seconds)"
            raise _CloseError(_POLICY_VIOLATION, reason) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise _CloseError(_UNSUPPORTED_DATA, "messages are JSON in text frames")
        return str(text)

    async def _step(self, message: str, state: Arrays) -> Arrays:
        """Answer a message and return the new state."""
        started = time.perf_counter()
        limits = self._config.limits
        try:
            request = json_codec.Request("step", "row", [_parse(message)])
            inputs = json_codec.decode_inputs(request, self._inputs, limits)
            json_codec.check_shapes(inputs, self._inputs)  # another could spoil the state
            found = await self._version.batchers["step"](inputs | state, limits.answer_seconds)
        except RequestError as error:
            await self._socket.send_text(_error_body(error).decode())
            return state
        state = {name: a for name, a in found.items() if name.startswith(STATE)}
        outputs = {name: a for name, a in found.items() if name not in state}
        answer = json_codec.encode_row(outputs)
        seconds = time.perf_counter() - started
        self._metrics.step_seconds.labels(self._version.name).observe(seconds)
        if _size(state) > self._config.streams.state_bytes:
            raise _CloseError(
                _POLICY_VIOLATION, "the state has grown too large (streams.state_bytes)"
            )
        await self._socket.send_text(answer.decode())
        return state


class _CloseError(Exception):
    """The server closes the stream."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def _reject(socket: WebSocket, error: RequestError) -> None:
    """Answer the handshake with an HTTP error."""
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    await socket.send_denial_response(
        Response(_error_body(error), error.status, headers, "application/json")
    )


def _error_body(error: RequestError) -> bytes:
    return orjson.dumps({"error": str(error)})


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _parse(message: str) -> dict[str, object]:
    try:
        row = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    if not isinstance(row, dict):
        raise RequestError(400, "a message must be an object with the next inputs")
    return row


def _size(state: Arrays) -> int:
    """Return the size of a state in bytes, the texts in it included."""
    return sum(
        sum(map(len, a.ravel())) if a.dtype.kind == "O" else a.nbytes for a in state.values()
    )
