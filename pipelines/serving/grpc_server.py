"""TensorFlow Serving's gRPC services, PredictionService and ModelService.

Messages arrive serialized, so that a large one can be parsed off the event loop, and a slow one is
subject to the same time limit as over HTTP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# Before gRPC is imported: its own log lines are not JSON.
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
from pipelines.serving.config import LimitsConfig, ServingConfig
from pipelines.serving.errors import GRPC_CODES, RequestError, shorten
from pipelines.serving.handler import Handler, ModelSpec, get_signature, run_sized
from pipelines.serving.json_codec import DEFAULT_SIGNATURE, Arrays
from pipelines.serving.log import LOGGER
from pipelines.serving.repository import Repository, Version
from pipelines.serving.servable import Servable

_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
#: Maximum characters of an error: clients limit the size of the headers that carry it.
_MAX_DETAILS = 500
#: TensorFlow's numbers of a version's error codes.
_OK, _INTERNAL = 0, 13

Messages = AsyncIterator[bytes]
Method = Callable[[Messages, Any], Awaitable[bytes]]


@asynccontextmanager
async def serve(
    address: str, repository: Repository, config: ServingConfig, handler: Handler
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve gRPC while the block runs; at its end, finish requests in flight.

    Args:
        address: Host and port to listen on.
        repository: The models.
        config: The server's config.
        handler: Handles predictions.

    Yields:
        A function that begins the shutdown earlier: it stops accepting requests, and returns once
        those in flight are finished.
    """
    limits = config.limits
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            # This holds for compressed messages too, before and after they are decompressed.
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_connection_idle_ms", 60_000),
            ("grpc.server_handshake_timeout_ms", int(limits.receive_seconds * 1000)),
        ],
        # As over HTTP, where a connection has one request at a time.
        maximum_concurrent_rpcs=limits.connections,
    )
    services = _Services(repository, limits, handler)
    for name, methods in services.methods().items():
        handlers = {
            # A stream of one message has the same encoding as that message.
            method: grpc.stream_unary_rpc_method_handler(_with_status(function))
            for method, function in methods.items()
        }
        generic = grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
        server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port(address)
    await server.start()
    LOGGER.info("listening to gRPC", address=f"{address.rpartition(':')[0]}:{port}")

    async def stop() -> None:
        await server.stop(limits.answer_seconds + 1)

    try:
        yield stop
    finally:
        await stop()


class _Services:
    """The methods of both services, on serialized messages."""

    def __init__(self, repository: Repository, limits: LimitsConfig, handler: Handler) -> None:
        self._repository, self._limits, self._handler = repository, limits, handler

    def methods(self) -> dict[str, dict[str, Method]]:
        """Return the methods by the names of services and methods."""
        return {
            "PredictionService": {"Predict": self.predict, "GetModelMetadata": self.metadata},
            "ModelService": {"GetModelStatus": self.status},
        }

    async def predict(self, messages: Messages, context: Any) -> bytes:
        model = ModelSpec()

        async def respond() -> bytes:
            request, size = await self._read(messages, predict_pb2.PredictRequest)
            _read_model_spec(request, model)

            def decode(servable: Servable) -> tuple[str, Arrays, Callable[[Arrays], bytes]]:
                key = request.model_spec.signature_name or DEFAULT_SIGNATURE
                signature = get_signature(servable.signatures, key)
                names = _output_names(request.output_filter, signature.outputs)
                inputs = grpc_codec.decode_inputs(request.inputs, signature.inputs, self._limits)

                def encode(outputs: Arrays) -> bytes:
                    response = predict_pb2.PredictResponse()
                    response.model_spec.CopyFrom(_model_spec(servable, key))
                    for name in names:
                        response.outputs[name].CopyFrom(grpc_codec.encode_tensor(outputs[name]))
                    return bytes(response.SerializeToString())

                return key, inputs, encode

            return await self._handler.predict(model, size, decode, context.time_remaining())

        return await self._handler.handle(model, respond)

    async def metadata(self, messages: Messages, context: Any) -> bytes:
        request, _ = await self._read(messages, get_model_metadata_pb2.GetModelMetadataRequest)
        if set(request.metadata_field) != {"signature_def"}:
            raise RequestError(400, "metadata_field must be signature_def")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        model = _read_model_spec(request, ModelSpec())
        version = self._repository.find(model.name, model.version, model.label)
        with version.in_use() as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            ParseDict(servable.metadata()["metadata"]["signature_def"], signatures)
            response.model_spec.CopyFrom(_model_spec(servable))
        response.metadata["signature_def"].Pack(signatures)
        return bytes(response.SerializeToString())

    async def status(self, messages: Messages, context: Any) -> bytes:
        request, _ = await self._read(messages, get_model_status_pb2.GetModelStatusRequest)
        model = _read_model_spec(request, ModelSpec())
        found = self._repository.versions(model.name, model.version, model.label)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.extend(map(_status, found))
        return bytes(response.SerializeToString())

    async def _read(self, messages: Messages, message_type: Any) -> tuple[Any, int]:
        """Return the message of a call, and its size in bytes."""
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                raw = await anext(messages)
        except StopAsyncIteration:
            # gRPC drops a message that is too long, and tells the client so itself.
            limit = self._limits.body_bytes
            raise RequestError(
                413, f"no message, or one longer than {limit} bytes (limits.body_bytes)"
            ) from None
        except TimeoutError:
            raise RequestError(
                408, "the message did not arrive in time (limits.receive_seconds)"
            ) from None
        if await run_sized(len(raw), grpc_codec.has_too_many_fields, raw):
            raise RequestError(400, "the message has too many parts")
        try:
            return await run_sized(len(raw), message_type.FromString, raw), len(raw)
        except DecodeError:
            name = message_type.DESCRIPTOR.name
            raise RequestError(400, f"the message is not a valid {name}") from None


def _with_status(method: Method) -> Method:
    """Return the method with its errors turned into gRPC's status codes."""

    async def call(messages: Messages, context: Any) -> bytes:
        try:
            return await method(messages, context)
        except RequestError as error:
            code = (
                grpc.StatusCode[GRPC_CODES.get(error.status, "INTERNAL")]
                if error.grpc_code is None
                else _CODES_BY_NUMBER[error.grpc_code]
            )
            details = str(error)
        except Exception:  # noqa: BLE001 - the log has the details; the client gets INTERNAL
            code, details = grpc.StatusCode.INTERNAL, "internal error"
            LOGGER.exception("request failed", method=method.__name__)
        await context.abort(code, details[:_MAX_DETAILS])
        raise AssertionError  # abort raises

    return call


def _read_model_spec(request: Any, model: ModelSpec) -> ModelSpec:
    """Fill in which model a request names.

    Raises:
        RequestError: With status 400 if it names none.
    """
    if not request.HasField("model_spec"):
        raise RequestError(400, "Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise RequestError(400, "ModelSpec has no name specified.")
    model.name = spec.name
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        model.version = spec.version.value
    elif choice == "version_label":
        model.label = spec.version_label
    return model


def _output_names(output_filter: Any, outputs: Any) -> list[str]:
    """Return the names of the requested outputs; all if there is no filter."""
    names: dict[str, None] = {}
    for name in output_filter:
        if name not in outputs:
            raise RequestError(
                400,
                f"output tensor alias not found in signature: {shorten(name)}; "
                f"the outputs are {', '.join(sorted(outputs))}",
            )
        if name in names:
            raise RequestError(400, f"duplicate output tensor alias: {name}")
        names[name] = None
    return list(names or outputs)


def _model_spec(servable: Servable, signature_name: str = "") -> Any:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec


def _status(version: Version) -> Any:
    status = get_model_status_pb2.ModelVersionStatus(version=version.number)
    status.state = status.State.Value(version.state)
    status.status.error_code = _INTERNAL if version.error else _OK
    status.status.error_message = version.error
    return status
