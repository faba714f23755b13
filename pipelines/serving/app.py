"""The HTTP side: TensorFlow Serving's REST interface, health and metrics."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.serving import schema, tensors
from pipelines.serving.config import LimitsConfig, ServingConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.metrics import LOGGER, Metrics, log
from pipelines.serving.streams import Streams
from pipelines.serving.versions import Library, Version

#: Bodies up to so many bytes are read and written at once; a larger one would hold others up.
_SMALL = 65_536
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


class Predictor:
    """Answers requests for predictions, within the limits."""

    def __init__(self, library: Library, limits: LimitsConfig, metrics: Metrics) -> None:
        self._library, self._limits, self._metrics = library, limits, metrics
        self._active = 0

    async def __call__(self, request: Request, name: str, number: int | None) -> bytes:
        """
        Raises:
            RequestError: what is wrong with the request, or which limit it meets.
        """
        if self._active >= self._limits.concurrent:
            raise RequestError(429, "too many requests at the same time (limits.concurrent)")
        self._active += 1
        self._metrics.in_progress.inc()
        try:
            body = await self._receive(request)
            version = self._library.find(name, number)
            with version.used():
                return await self._answer(version, body)
        finally:
            self._active -= 1
            self._metrics.in_progress.dec()

    async def _receive(self, request: Request) -> bytes:
        most = self._limits.body_bytes
        refusal = RequestError(413, f"the body is longer than {most} bytes (limits.body_bytes)")
        try:
            if int(request.headers.get("content-length", 0)) > most:
                raise refusal
        except ValueError:
            raise RequestError(400, "Content-Length is not a number") from None
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
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

    async def _answer(self, version: Version, body: bytes) -> bytes:
        assert version.servable is not None
        signatures = version.servable.signatures

        def read() -> tuple[tensors.Request, tensors.Arrays]:
            asked = tensors.parse(body)
            if asked.signature not in signatures:
                raise RequestError(
                    400, f'Serving signature name: "{asked.signature}" not found in signature def'
                )
            return asked, tensors.arrays(asked, signatures[asked.signature].inputs, self._limits)

        asked, inputs = read() if len(body) <= _SMALL else await asyncio.to_thread(read)
        outputs = await version.batchers[asked.signature](inputs, self._limits.answer_seconds)
        if sum(a.nbytes for a in outputs.values()) <= _SMALL:
            return tensors.body(outputs, asked.format)
        return await asyncio.to_thread(tensors.body, outputs, asked.format)


def create(library: Library, config: ServingConfig, metrics: Metrics) -> FastAPI:
    """The application. It loads models while it runs, and from its start on."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.get_running_loop().create_task(library.watch())
        yield
        watching.cancel()
        await library.close()

    app = FastAPI(
        title="Unfold",
        summary="Exported models, asked as TensorFlow Serving is.",
        lifespan=lifespan,
        redirect_slashes=False,
        # Their pages are made of what another site serves.
        docs_url=None,
        redoc_url=None,
    )
    predictor = Predictor(library, config.limits, metrics)
    streams = Streams(library, config, metrics)

    async def answered(request: Request, name: str, number: int | None = None) -> Response:
        started = time.perf_counter()
        status, content, headers = 200, b"", {}
        try:
            content = await predictor(request, name, number)
        except RequestError as error:
            status, content = error.status, _error(str(error))
            headers = {"Retry-After": "1"} if status in (429, 503) else {}
        except Exception:  # noqa: BLE001 - the client learns that it failed, the log where
            status, content = 500, _error("internal error")
            LOGGER.exception("request failed", extra={"fields": {"model": name}})
        seconds = time.perf_counter() - started
        known = name if name in library.names else ""
        metrics.requests.labels(known, str(status)).inc()
        metrics.seconds.labels(known).observe(seconds)
        if config.log_requests:
            log("request", model=known, version=number, status=status, ms=round(seconds * 1e3, 2))
        return Response(content, status, headers, "application/json")

    asked: dict[str, Any] = {"responses": schema.refusals(*schema.REFUSALS)}
    found: dict[str, Any] = {"responses": schema.refusals(400, 404, 503)}

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

    def openapi() -> dict[str, Any]:
        """The interface with a path for each model, which says what that model takes and gives."""
        return general() | {"paths": _paths_of_models(general()["paths"], library, config.limits)}

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _paths_of_models(
    paths: dict[str, Any], library: Library, limits: LimitsConfig
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
                    body = {"schema": schema.request(signatures, limits)}
                    operation["requestBody"] = {
                        "required": True,
                        "content": {"application/json": body},
                    }
                    operation["responses"]["200"]["content"] = {
                        "application/json": {"schema": schema.answer(signatures)}
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
