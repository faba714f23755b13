"""The HTTP side: TensorFlow Serving's REST interface, health and metrics."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.serving import json_codec, openapi
from pipelines.serving.config import LimitsConfig, ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.handler import Call, Handler, signature
from pipelines.serving.json_codec import Arrays
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository, Version
from pipelines.serving.servable import Servable
from pipelines.serving.websocket import Streams

#: As TensorFlow Serving names the codes of a version's status.
_OK, _FAILED = "OK", "INTERNAL"


class _Part(Convertor[str]):
    """A part of a path that a verb may follow, as in ``NAME:predict``."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("part", _Part())


async def _received(request: Request, limits: LimitsConfig) -> bytes:
    """
    Raises:
        RequestError: the body is too long, too slow or not whole.
    """
    most = limits.body_bytes
    refusal = RequestError(413, f"the body is longer than {most} bytes (limits.body_bytes)")
    try:
        if int(request.headers.get("content-length", 0)) > most:
            raise refusal
    except ValueError:
        raise RequestError(400, "Content-Length is not a number") from None
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.receive_seconds):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > most:
                    raise refusal
    except TimeoutError:
        raise RequestError(
            408, "the body did not arrive in time (limits.receive_seconds)"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the client left before the end of the body") from None
    return b"".join(chunks)


def create(
    library: Repository, config: ServingConfig, metrics: Metrics, rpc_address: str | None = None
) -> FastAPI:
    """The application. It loads models while it runs, and from its start on.

    Args:
        rpc_address: where it listens to gRPC too.
    """
    predictor = Handler(library, config, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as ends:
            ends.push_async_callback(library.close)
            if rpc_address is not None:
                from pipelines.serving import grpc_server  # what it needs is not always installed

                app.state.stop_rpc = await ends.enter_async_context(
                    grpc_server.serving(rpc_address, library, config, predictor)
                )
            watching = asyncio.get_running_loop().create_task(library.watch())
            ends.callback(watching.cancel)
            yield

    app = FastAPI(
        title="Unfold",
        summary="Exported models, asked as TensorFlow Serving is.",
        lifespan=lifespan,
        redirect_slashes=False,
        # Their pages are made of what another site serves.
        docs_url=None,
        redoc_url=None,
    )
    streams = Streams(library, config, metrics)

    async def answered(request: Request, name: str, number: int | None = None) -> Response:
        call = Call(name, number)

        async def answer() -> bytes:
            body = await _received(request, config.limits)

            def read(servable: Servable) -> tuple[str, Arrays, Callable[[Arrays], bytes]]:
                asked = json_codec.parse(body)
                specs = signature(servable.signatures, asked.signature).inputs
                inputs = json_codec.arrays(asked, specs, config.limits)
                return (
                    asked.signature,
                    inputs,
                    lambda outputs: json_codec.body(outputs, asked.format),
                )

            return await predictor.ask(call, len(body), read)

        try:
            return Response(await predictor(call, answer), media_type="application/json")
        except RequestError as error:
            headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
            return Response(_error(str(error)), error.status, headers, "application/json")

    asked: dict[str, Any] = {"responses": openapi.refusals(*openapi.REFUSALS)}
    found: dict[str, Any] = {"responses": openapi.refusals(400, 404, 503)}

    @app.post("/v1/models/{name:part}:predict", **asked)
    async def predict(request: Request, name: str) -> Response:
        """Ask the newest version of a model."""
        return await answered(request, name)

    @app.post("/v1/models/{name:part}/versions/{version:part}:predict", **asked)
    async def predict_version(request: Request, name: str, version: int) -> Response:
        """Ask one version of a model."""
        return await answered(request, name, version)

    @app.websocket("/v1/models/{name:part}:stream")
    async def stream(socket: WebSocket, name: str) -> None:
        await streams(socket, name)

    @app.websocket("/v1/models/{name:part}/versions/{version}:stream")
    async def stream_version(socket: WebSocket, name: str, version: int) -> None:
        await streams(socket, name, version)

    @app.get("/v1/models/{name:part}", **found)
    async def status(name: str) -> dict[str, Any]:
        """Which versions of a model there are, and which of them are served."""
        return {"model_version_status": [_status(v) for v in library.versions(name)]}

    @app.get("/v1/models/{name:part}/versions/{version:part}", **found)
    async def version_status(name: str, version: int) -> dict[str, Any]:
        """Whether a version of a model is served."""
        found = [v for v in library.versions(name) if v.number == version]
        if not found:
            raise RequestError(404, f"Could not find version {version} of model {name}")
        return {"model_version_status": [_status(v) for v in found]}

    @app.get("/v1/models/{name:part}/metadata", **found)
    async def metadata(name: str) -> dict[str, Any]:
        """The signatures of the newest version of a model."""
        with library.find(name).used() as servable:
            return servable.metadata()

    @app.get("/v1/models/{name:part}/versions/{version:part}/metadata", **found)
    async def version_metadata(name: str, version: int) -> dict[str, Any]:
        """The signatures of one version of a model."""
        with library.find(name, version).used() as servable:
            return servable.metadata()

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        """The server runs."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "some model has no version yet"}})
    async def ready() -> Response:
        """Every model has a version that is served."""
        models = library.ready()
        is_ready = bool(models) and all(models.values())
        return JSONResponse({"ready": is_ready, "models": models}, 200 if is_ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def all_metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return Response(_error(str(error)), error.status, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        where = ", ".join(str(e["loc"][-1]) for e in error.errors())
        return JSONResponse({"error": f"Malformed request: {where}"}, 400)

    general = app.openapi

    def document() -> dict[str, Any]:
        """The interface with a path for each model, which says what that model takes and gives."""
        return general() | {"paths": _paths_of_models(general()["paths"], library, config.limits)}

    app.openapi = document  # type: ignore[method-assign]
    return app


def _paths_of_models(
    paths: dict[str, Any], library: Repository, limits: LimitsConfig
) -> dict[str, Any]:
    served = {}
    for name, there in library.ready().items():
        servable = library.find(name).servable if there else None
        if servable is not None:
            served[name] = servable.signatures
    out = {}
    for path, operations in paths.items():
        if "{name}" not in path:
            out[path] = operations
            continue
        for name, signatures in served.items():
            own = copy.deepcopy(operations)
            for operation in own.values():
                operation["operationId"] += f"_{name}"
                operation["parameters"] = [
                    p for p in operation.get("parameters", ()) if p["name"] != "name"
                ]
                operation["responses"].pop("422", None)
                if "post" in own:
                    body = {"schema": openapi.request(signatures, limits)}
                    operation["requestBody"] = {
                        "required": True,
                        "content": {"application/json": body},
                    }
                    operation["responses"]["200"]["content"] = {
                        "application/json": {"schema": openapi.answer(signatures)}
                    }
            out[path.replace("{name}", name)] = own
    return out


def _status(version: Version) -> dict[str, Any]:
    code = _FAILED if version.error else _OK
    return {
        "version": str(version.number),
        "state": version.state,
        "status": {"error_code": code, "error_message": version.error},
    }


def _error(message: str) -> bytes:
    return bytes(JSONResponse({"error": message}).body)
