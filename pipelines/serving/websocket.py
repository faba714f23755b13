"""Streams: one sequence through a model's ``step`` over a WebSocket, with the state kept here.

Each message is a JSON object with the next inputs of the sequence. Each is answered by the outputs,
or by ``{"error": …}``, which leaves the state unchanged. When the server ends a stream, the close
code (RFC 6455) says why: 1001 the server shuts down, 1003 a binary message, 1008 a limit, 1009 a
message that is too long, 1011 an internal error, 1013 an overloaded server.
"""

from __future__ import annotations

import asyncio
import time

import orjson
from aiohttp import WSMsgType, web

from pipelines.engine.core.commands import command
from pipelines.engine.export.stateful import STATE
from pipelines.serving import json_codec
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.frames import MAX_FRAMES
from pipelines.serving.handler import ModelSpec
from pipelines.serving.http_protocol import Connection
from pipelines.serving.json_codec import Arrays
from pipelines.serving.log import LOGGER
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository, Version

_GOING_AWAY, _UNSUPPORTED_DATA, _POLICY_VIOLATION = 1001, 1003, 1008
_INTERNAL_ERROR, _TRY_AGAIN_LATER = 1011, 1013
#: Seconds without a message after which the client is pinged; it must answer in half of that.
_HEARTBEAT = 20.0
#: Seconds for the client to answer a close frame.
_CLOSE_SECONDS = 2.0


class StreamHandler:
    """Accept, count and log the streams of a server."""

    def __init__(self, repository: Repository, config: ServingConfig, metrics: Metrics) -> None:
        self._repository, self._config, self._metrics = repository, config, metrics
        self._open: set[web.WebSocketResponse] = set()
        self._is_stopping = False

    async def handle(self, request: web.BaseRequest, model: ModelSpec) -> web.StreamResponse:
        """Serve one connection from its handshake to its end.

        A stream keeps its version, even after a newer one replaces that.

        Args:
            request: The handshake.
            model: The requested model.

        Raises:
            RequestError: The handshake is refused, with status 400, 404, 429 or 503.
        """
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS,
            heartbeat=_HEARTBEAT,
            compress=False,
            max_msg_size=self._config.streams.message_bytes,
        )
        socket.headers["Server"] = "unfold"
        if not socket.can_prepare(request):
            raise RequestError(400, "invalid WebSocket handshake")
        version = self._admit(model)
        stream = _Stream(socket, version, self._config, self._metrics)
        assert isinstance(request.protocol, Connection)
        request.protocol.flooded = stream.end_flood
        self._open.add(socket)
        self._metrics.streams.inc()
        reason = "the client left"
        try:
            with version.in_use():
                await socket.prepare(request)
                await stream.run()
        except (ConnectionError, _ClientLeft):
            pass
        except _CloseError as error:
            reason = error.reason
            await socket.close(code=error.code, message=reason.encode())
        except Exception:  # noqa: BLE001 - the log has the details; the client gets a close code
            reason = "internal error"
            LOGGER.exception("stream failed", model=version.name)
            await socket.close(code=_INTERNAL_ERROR, message=reason.encode())
        finally:
            self._open.discard(socket)
            self._metrics.streams.dec()
            if self._config.log_requests:
                LOGGER.info(
                    "stream",
                    model=version.name,
                    version=version.number,
                    steps=stream.steps,
                    end="the server stopped" if self._is_stopping else reason,
                )
        return socket

    async def stop(self) -> None:
        """Close all streams."""
        self._is_stopping = True
        closing = (s.close(code=_GOING_AWAY, message=b"the server stops") for s in self._open)
        await asyncio.gather(*closing, return_exceptions=True)

    def _admit(self, model: ModelSpec) -> Version:
        """Return the requested version.

        Raises:
            RequestError: With status 404, 429 or 503.
        """
        if self._is_stopping:
            raise RequestError(503, "the server stops")
        version = self._repository.find(model.name, model.version, model.label)
        assert version.servable is not None
        if not {"start", "step"} <= version.servable.signatures.keys():
            raise RequestError(
                404,
                f"model {model.name} has no signature step: it needs the whole input before it "
                "answers (e.g. it reads in both directions); train and export a model that "
                "streams: " + command("train", "sentiment", config="configs/sentiment/live.yaml"),
            )
        if len(self._open) >= self._config.streams.concurrent:
            raise RequestError(429, "too many streams at the same time (streams.concurrent)")
        return version


class _Stream:
    """One open stream.

    Attributes:
        steps: Number of messages handled.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        version: Version,
        config: ServingConfig,
        metrics: Metrics,
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
        self._waiting: asyncio.Timeout | None = None
        self._is_flooded = False

    async def run(self) -> None:
        """Answer the messages of the client.

        Raises:
            ConnectionError, _ClientLeft: The client has left.
            _CloseError: The server must close the stream.
        """
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

    def end_flood(self) -> None:
        """Close the stream, since the client sends too many frames."""
        self._is_flooded = True
        if self._waiting is not None:
            self._waiting.reschedule(0)

    async def _receive(self) -> str:
        seconds = self._config.streams.idle_seconds
        try:
            async with asyncio.timeout(0 if self._is_flooded else seconds) as self._waiting:
                message = await self._socket.receive()
        except TimeoutError:
            reason = f"no message for {seconds:g} s (streams.idle_seconds)"
            if self._is_flooded:
                reason = f"more than {MAX_FRAMES} pings or fragments in a second"
            raise _CloseError(_POLICY_VIOLATION, reason) from None
        finally:
            self._waiting = None
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise _CloseError(_UNSUPPORTED_DATA, "messages are JSON in text frames")
        raise _ClientLeft

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
            await self._socket.send_str(orjson.dumps({"error": str(error)}).decode())
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
        await self._socket.send_str(answer.decode())
        return state


class _CloseError(Exception):
    """The server closes the stream."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _ClientLeft(Exception):  # noqa: N818 - not an error
    """The client has closed the stream."""


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
