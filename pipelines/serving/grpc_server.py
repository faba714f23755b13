"""The gRPC side: TensorFlow Serving's PredictionService and ModelService.

Messages come as they are on the wire, so that a large one is read beside the event loop, and a
slow one is not waited for any longer than over HTTP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# Before gRPC is imported: the log is lines of JSON, and gRPC's own lines are not.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from pipelines.serving import grpc_codec
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.handler import Call, Handler, beside, signature
from pipelines.serving.json_codec import DEFAULT, Arrays
from pipelines.serving.metrics import LOGGER, log
from pipelines.serving.repository import Repository, Version
from pipelines.serving.servable import Servable

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Characters of an error: it is sent where clients take only a few thousand bytes.
_LONGEST = 500
#: As TensorFlow numbers the codes of a version's status.
_OK, _FAILED = 0, 13

Messages = AsyncIterator[bytes]
Method = Callable[[Messages, Any], Awaitable[bytes]]


@asynccontextmanager
async def serving(
    address: str, library: Repository, config: ServingConfig, predictor: Handler
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Answer gRPC at an address; at the end, those who have asked get their answers.

    Yields: what begins that end earlier: nothing more is taken from then on.
    """
    limits = config.limits
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.body_bytes),
            # Whatever is short may become long when it is unpacked: nothing packed is taken.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_connection_idle_ms", 60_000),
            ("grpc.server_handshake_timeout_ms", int(limits.receive_seconds * 1000)),
        ],
        # Over HTTP, a connection has one request at a time.
        maximum_concurrent_rpcs=limits.connections,
    )
    services = _Services(library, config, predictor)
    for name, methods in services.methods().items():
        handlers = {
            # On the wire a stream of one message is the same as that message.
            method: grpc.stream_unary_rpc_method_handler(_refusing(handle))
            for method, handle in methods.items()
        }
        generic = grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
        server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port(address)
    await server.start()
    log("listening to gRPC", address=f"{address.rpartition(':')[0]}:{port}")

    async def stop() -> None:
        await server.stop(limits.answer_seconds + 1)

    try:
        yield stop
    finally:
        await stop()


class _Services:
    def __init__(self, library: Repository, config: ServingConfig, predictor: Handler) -> None:
        self._library, self._limits, self._predictor = library, config.limits, predictor

    def methods(self) -> dict[str, dict[str, Method]]:
        """What is answered of each service."""
        return {
            "PredictionService": {"Predict": self.predict, "GetModelMetadata": self.metadata},
            "ModelService": {"GetModelStatus": self.status},
        }

    async def predict(self, messages: Messages, context: Any) -> bytes:
        call = Call()

        async def answer() -> bytes:
            asked, size = await self._received(messages, predict_pb2.PredictRequest)
            call.name = asked.model_spec.name
            call.number = _number(asked.model_spec)

            def read(servable: Servable) -> tuple[str, Arrays, Callable[[Arrays], bytes]]:
                key = asked.model_spec.signature_name or DEFAULT
                definition = signature(servable.signatures, key)
                names = _names(asked.output_filter, definition.outputs)
                inputs = grpc_codec.arrays(asked.inputs, definition.inputs, self._limits)

                def write(outputs: Arrays) -> bytes:
                    answer = predict_pb2.PredictResponse()
                    answer.model_spec.CopyFrom(_spec(servable, key))
                    for name in names:
                        answer.outputs[name].CopyFrom(grpc_codec.proto(outputs[name]))
                    return bytes(answer.SerializeToString())

                return key, inputs, write

            return await self._predictor.ask(call, size, read, context.time_remaining())

        return await self._predictor(call, answer)

    async def metadata(self, messages: Messages, context: Any) -> bytes:
        asked, _ = await self._received(messages, get_model_metadata_pb2.GetModelMetadataRequest)
        if not asked.metadata_field or set(asked.metadata_field) != {"signature_def"}:
            raise RequestError(400, "metadata_field must be signature_def")
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        version = self._library.find(asked.model_spec.name, _number(asked.model_spec))
        with version.used() as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            ParseDict(servable.metadata()["metadata"]["signature_def"], signatures)
            answer.model_spec.CopyFrom(_spec(servable))
        answer.metadata["signature_def"].Pack(signatures)
        return bytes(answer.SerializeToString())

    async def status(self, messages: Messages, context: Any) -> bytes:
        asked, _ = await self._received(messages, get_model_status_pb2.GetModelStatusRequest)
        name, number = asked.model_spec.name, _number(asked.model_spec)
        found = [v for v in self._library.versions(name) if number in (None, v.number)]
        if number is not None and not found:
            raise RequestError(404, f"Could not find version {number} of model {name}")
        answer = get_model_status_pb2.GetModelStatusResponse()
        answer.model_version_status.extend(map(_status, found))
        return bytes(answer.SerializeToString())

    async def _received(self, messages: Messages, kind: Any) -> tuple[Any, int]:
        """The message of a call, and how many bytes it had."""
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                raw = await anext(messages)
        except StopAsyncIteration:
            # gRPC itself does not hand a message on that is too long, and tells the client so.
            most = self._limits.body_bytes
            raise RequestError(
                413, f"no message, or one longer than {most} bytes (limits.body_bytes)"
            ) from None
        except TimeoutError:
            raise RequestError(
                408, "the message did not arrive in time (limits.receive_seconds)"
            ) from None
        if await beside(len(raw), grpc_codec.is_crowded, raw):
            raise RequestError(400, "the message has too many parts")
        try:
            return await beside(len(raw), kind.FromString, raw), len(raw)
        except DecodeError:
            raise RequestError(400, f"the message is no {kind.DESCRIPTOR.name}") from None


def _refusing(method: Method) -> Method:
    """The method, whose errors are told in gRPC's words."""

    async def answered(messages: Messages, context: Any) -> bytes:
        try:
            return await method(messages, context)
        except RequestError as error:
            code, message = _CODES.get(error.status, grpc.StatusCode.INTERNAL), str(error)
        except Exception:  # noqa: BLE001 - the client learns that it failed, the log where
            code, message = grpc.StatusCode.INTERNAL, "internal error"
            LOGGER.exception("request failed", extra={"fields": {"method": method.__name__}})
        await context.abort(code, message[:_LONGEST])
        raise AssertionError  # abort raises

    return answered


def _number(spec: Any) -> int | None:
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        raise RequestError(400, "versions have no labels here: ask for one by its number")
    return None if choice is None else int(spec.version.value)


def _names(wanted: Any, outputs: Any) -> list[str]:
    """Of the outputs, those that are wanted; all, if that is not said."""
    names = list(wanted)
    if len(set(names)) != len(names):
        raise RequestError(400, "output_filter has a name twice")
    if not outputs.keys() >= set(names):
        raise RequestError(400, f"output_filter: the outputs are {', '.join(sorted(outputs))}")
    return names or list(outputs)


def _spec(servable: Servable, key: str = "") -> Any:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=key)
    spec.version.value = servable.version
    return spec


def _status(version: Version) -> Any:
    answer = get_model_status_pb2.ModelVersionStatus(version=version.number)
    answer.state = answer.State.Value(version.state)
    answer.status.error_code = _FAILED if version.error else _OK
    answer.status.error_message = version.error
    return answer
