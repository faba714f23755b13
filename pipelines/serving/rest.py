"""TensorFlow Serving's REST API, with health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.serving import json_codec, openapi
from pipelines.serving.config import LimitsConfig, ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.handler import Handler, ModelSpec, get_signature
from pipelines.serving.json_codec import Arrays
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository, Version
from pipelines.serving.servable import Servable
from pipelines.serving.websocket import StreamHandler

#: TensorFlow Serving's names of a version's error codes.
_OK, _INTERNAL = "OK", "INTERNAL"


class _PathPart(Convertor[str]):
    """A part of a path that a verb may follow, as in ``NAME:predict``."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("part", _PathPart())


def create_app(
    repository: Repository,
    config: ServingConfig,
    metrics: Metrics,
    grpc_address: str | None = None,
) -> FastAPI:
    """Create the application. It watches the repository from its startup to its shutdown.

    Args:
        repository: The models.
        config: The server's config.
        metrics: The server's metrics.
        grpc_address: Where to serve gRPC too; None disables gRPC.
    """
    handler = Handler(repository, config, metrics)
    app = FastAPI(
        title="Unfold",
        summary="Exported models, with TensorFlow Serving's REST API.",
        lifespan=_lifespan(repository, config, handler, grpc_address),
        redirect_slashes=False,
        # These pages load scripts from another site.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_prediction_routes(handler, config.limits))
    app.include_router(_stream_routes(StreamHandler(repository, config, metrics)))
    app.include_router(_model_routes(repository))
    app.include_router(_monitoring_routes(repository, metrics))
    _add_error_handlers(app)
    general = app.openapi

    def describe() -> dict[str, Any]:
        """Return the OpenAPI document, with the paths and schemas of each model."""
        document = general()
        signatures = _served_signatures(repository)
        paths = openapi.paths_by_model(document["paths"], signatures, config.limits)
        return document | {"paths": paths}

    app.openapi = describe  # type: ignore[method-assign]
    return app


def _lifespan(
    repository: Repository, config: ServingConfig, handler: Handler, grpc_address: str | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(repository.close)
            if grpc_address is not None:
                from pipelines.serving import grpc_server  # its dependency is optional

                app.state.stop_grpc = await stack.enter_async_context(
                    grpc_server.serve(grpc_address, repository, config, handler)
                )
            watcher = asyncio.get_running_loop().create_task(repository.watch())
            stack.callback(watcher.cancel)
            yield

    return lifespan


def _prediction_routes(handler: Handler, limits: LimitsConfig) -> APIRouter:
    router = APIRouter()
    responses = openapi.error_responses(*openapi.ERRORS)

    async def respond(request: Request, model: ModelSpec) -> Response:
        async def predict() -> bytes:
            body = await _read_body(request, limits)

            def decode(servable: Servable) -> tuple[str, Arrays, Callable[[Arrays], bytes]]:
                parsed = json_codec.parse_request(body)
                specs = get_signature(servable.signatures, parsed.signature).inputs
                inputs = json_codec.decode_inputs(parsed, specs, limits)
                return (
                    parsed.signature,
                    inputs,
                    lambda outputs: json_codec.encode_outputs(outputs, parsed.format),
                )

            return await handler.predict(model, len(body), decode)

        try:
            body = await handler.handle(model, predict)
        except RequestError as error:
            headers = {"Retry-After": "1"} if error.status in (429, 503) else None
            return JSONResponse({"error": str(error)}, error.status, headers)
        return Response(body, media_type="application/json")

    @router.post("/v1/models/{name:part}:predict", responses=responses)
    async def predict(request: Request, name: str) -> Response:
        """Run the newest version of a model."""
        return await respond(request, ModelSpec(name))

    @router.post("/v1/models/{name:part}/versions/{version:part}:predict", responses=responses)
    async def predict_version(request: Request, name: str, version: int) -> Response:
        """Run one version of a model."""
        return await respond(request, ModelSpec(name, version))

    return router


async def _read_body(request: Request, limits: LimitsConfig) -> bytes:
    """Read the body of a request.

    Raises:
        RequestError: The body is too long, too slow or incomplete.
    """
    limit = limits.body_bytes
    too_long = RequestError(413, f"the body is longer than {limit} bytes (limits.body_bytes)")
    try:
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_long
    except ValueError:
        raise RequestError(400, "Content-Length is not a number") from None
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.receive_seconds):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise too_long
    except TimeoutError:
        raise RequestError(
            408, "the body did not arrive in time (limits.receive_seconds)"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "the client left before the end of the body") from None
    return b"".join(chunks)


def _stream_routes(streams: StreamHandler) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/models/{name:part}:stream")
    async def stream(socket: WebSocket, name: str) -> None:
        await streams.handle(socket, name)

    @router.websocket("/v1/models/{name:part}/versions/{version}:stream")
    async def stream_version(socket: WebSocket, name: str, version: int) -> None:
        await streams.handle(socket, name, version)

    return router


def _model_routes(repository: Repository) -> APIRouter:
    router = APIRouter()
    responses = openapi.error_responses(400, 404, 503)

    @router.get("/v1/models/{name:part}", responses=responses)
    async def status(name: str) -> dict[str, Any]:
        """Return the states of all versions of a model."""
        return _status(repository.versions(name))

    @router.get("/v1/models/{name:part}/versions/{version:part}", responses=responses)
    async def version_status(name: str, version: int) -> dict[str, Any]:
        """Return the state of one version of a model."""
        found = [v for v in repository.versions(name) if v.number == version]
        if not found:
            raise RequestError(404, f"Could not find version {version} of model {name}")
        return _status(found)

    @router.get("/v1/models/{name:part}/metadata", responses=responses)
    async def metadata(name: str) -> dict[str, Any]:
        """Return the signatures of the newest version of a model."""
        with repository.find(name).in_use() as servable:
            return servable.metadata()

    @router.get("/v1/models/{name:part}/versions/{version:part}/metadata", responses=responses)
    async def version_metadata(name: str, version: int) -> dict[str, Any]:
        """Return the signatures of one version of a model."""
        with repository.find(name, version).in_use() as servable:
            return servable.metadata()

    return router


def _monitoring_routes(repository: Repository, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthy() -> dict[str, str]:
        """Return 200 while the server runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "a model has no available version"}})
    async def ready() -> Response:
        """Return 200 if every model has an available version."""
        models = repository.readiness()
        is_ready = bool(models) and all(models.values())
        return JSONResponse({"ready": is_ready, "models": models}, 200 if is_ready else 503)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def all_metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _add_error_handlers(app: FastAPI) -> None:
    """Make every error a JSON object with the key ``error``."""

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        return JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        parameters = ", ".join(str(e["loc"][-1]) for e in error.errors())
        return JSONResponse({"error": f"Malformed request: {parameters}"}, 400)


def _served_signatures(repository: Repository) -> openapi.ModelSignatures:
    """Return the signatures of the newest available version of each model."""
    signatures = {}
    for name, is_ready in repository.readiness().items():
        servable = repository.find(name).servable if is_ready else None
        if servable is not None:
            signatures[name] = servable.signatures
    return signatures


def _status(versions: list[Version]) -> dict[str, Any]:
    return {
        "model_version_status": [
            {
                "version": str(version.number),
                "state": version.state,
                "status": {
                    "error_code": _INTERNAL if version.error else _OK,
                    "error_message": version.error,
                },
            }
            for version in versions
        ]
    }
