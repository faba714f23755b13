"""TensorFlow Serving's REST API, with health and metrics."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipelines.serving import json_codec, openapi, pages
from pipelines.serving.bodies import BodyReader
from pipelines.serving.config import ServingConfig
from pipelines.serving.errors import RequestError, shorten
from pipelines.serving.handler import Handler, ModelSpec, get_signature
from pipelines.serving.hosts import HostRules
from pipelines.serving.http_protocol import error_response, json_response
from pipelines.serving.json_codec import Arrays
from pipelines.serving.log import LOGGER
from pipelines.serving.metrics import Metrics
from pipelines.serving.repository import Repository, Version
from pipelines.serving.servable import Servable
from pipelines.serving.websocket import StreamHandler

_MODEL_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>/metadata|:[a-z]+)?",
    re.IGNORECASE,
)
_MAX_VERSION = 2**63 - 1
#: TensorFlow Serving's names of a version's error codes.
_OK, _INTERNAL = "OK", "INTERNAL"

ModelRoute = Callable[[web.BaseRequest, ModelSpec], Awaitable[web.StreamResponse]]


class RestAPI:
    """Answer the requests of the API.

    Args:
        repository: The models.
        config: The server's config.
        metrics: The server's metrics.
        handler: Handles predictions.
        streams: Handles streams.
        bodies: Reads the bodies of requests.
    """

    def __init__(
        self,
        repository: Repository,
        config: ServingConfig,
        metrics: Metrics,
        handler: Handler,
        streams: StreamHandler,
        bodies: BodyReader,
    ) -> None:
        self._repository, self._config, self._metrics = repository, config, metrics
        self._handler, self._bodies = handler, bodies
        self._hosts = HostRules(config.host, config.allowed_hosts)
        self._description: tuple[Any, tuple[bytes, str]] | None = None
        self._model_routes: dict[tuple[str, str], ModelRoute] = {
            ("POST", ":predict"): self._predict,
            ("POST", ":classify"): _unimplemented,
            ("POST", ":regress"): _unimplemented,
            ("GET", ":stream"): streams.handle,
            ("GET", ""): self._status,
            ("GET", "/metadata"): self._metadata,
        }
        self._routes: dict[str, Callable[[], web.Response]] = {
            "/": self._index,
            "/docs": lambda: pages.respond(self._described()[1]),
            "/healthz": lambda: _json({"status": "ok"}),
            "/metrics": self._all_metrics,
            "/monitoring/prometheus/metrics": self._all_metrics,
            "/openapi.json": lambda: json_response(self._described()[0]),
            "/readyz": self._ready,
        }

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the response to a request; an error is one too."""
        try:
            self._hosts.check(request.headers)
            return await self._route(request)
        except RequestError as error:
            return error_response(error.status, str(error))
        except ConnectionError:
            raise  # the client has left
        except Exception:  # noqa: BLE001 - the log has the details; the client gets status 500
            LOGGER.exception("request failed", model="")
            return error_response(500, "internal error")

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.raw_path.partition("?")[0]
        found = _MODEL_PATH.fullmatch(path)
        if found is not None:
            route = self._model_routes.get((method, (found["verb"] or "").lower()))
            if route is not None:
                return await route(request, _model_spec(found))
        elif (page := self._routes.get(path)) is not None:
            if method == "GET":
                return page()
            response = error_response(405, "the method is not GET")
            response.headers["Allow"] = "GET"
            return response
        if path[:4].lower() in ("/v1", "/v1/"):
            raise RequestError(400, f"Malformed request: {method} {shorten(path)}")
        raise RequestError(404, "there is nothing at this path; / says what is served")

    async def _predict(self, request: web.BaseRequest, model: ModelSpec) -> web.Response:
        try:
            body = await self._bodies.read(request)
        except RequestError as error:
            # Counted and logged like others; until here, it took nothing from limits.concurrent.
            return await self._handler.handle(model, partial(_fail, error))

        def decode(servable: Servable) -> tuple[str, Arrays, Callable[[Arrays], bytes]]:
            parsed = json_codec.parse_request(body)
            specs = get_signature(servable.signatures, parsed.signature).inputs
            inputs = json_codec.decode_inputs(parsed, specs, self._config.limits)
            return (
                parsed.signature,
                inputs,
                lambda outputs: json_codec.encode_outputs(outputs, parsed.format),
            )

        def answer() -> Awaitable[bytes]:
            return self._handler.predict(model, len(body), decode)

        try:
            return json_response(await self._handler.handle(model, answer))
        finally:
            self._bodies.release(len(body))

    async def _status(self, request: web.BaseRequest, model: ModelSpec) -> web.Response:
        found = self._repository.versions(model.name, model.version, model.label)
        return _json({"model_version_status": list(map(_version_status, found))})

    async def _metadata(self, request: web.BaseRequest, model: ModelSpec) -> web.Response:
        version = self._repository.find(model.name, model.version, model.label)
        with version.in_use() as servable:
            return _json(servable.metadata())

    def _ready(self) -> web.Response:
        models = self._repository.readiness()
        is_ready = bool(models) and all(models.values())
        return _json({"ready": is_ready, "models": models}, 200 if is_ready else 503)

    def _all_metrics(self) -> web.Response:
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _described(self) -> tuple[bytes, str]:
        """Return the OpenAPI document and its page, made once for the versions served."""
        versions = self._newest()
        key = tuple((v.name, v.number, v.attempted) for v in versions.values())
        if self._description is None or self._description[0] != key:
            document = openapi.document(_signatures(versions), self._config.limits)
            self._description = key, (orjson.dumps(document), pages.docs(document))
        return self._description[1]

    def _index(self) -> web.Response:
        states = {name: self._repository.versions(name) for name in self._repository.names}
        return pages.respond(pages.index(states, _signatures(self._newest())))

    def _newest(self) -> dict[str, Version]:
        """Return the newest available version of each model."""
        readiness = self._repository.readiness()
        return {name: self._repository.find(name) for name, ready in readiness.items() if ready}


def _signatures(versions: dict[str, Version]) -> openapi.ModelSignatures:
    return {n: v.servable.signatures for n, v in versions.items() if v.servable is not None}


def _model_spec(path: re.Match[str]) -> ModelSpec:
    """Return the model that a path names.

    Raises:
        RequestError: With status 400 if the version is too large.
    """
    number = path["version"]
    if number is not None and (len(number) > len(str(_MAX_VERSION)) or int(number) > _MAX_VERSION):
        raise RequestError(400, f"Failed to convert version: {shorten(number)} to numeric.")
    label = path["label"]
    return ModelSpec(
        unquote(path["name"]),
        None if number is None else int(number),
        None if label is None else unquote(label),
    )


async def _unimplemented(request: web.BaseRequest, model: ModelSpec) -> web.Response:
    raise RequestError(501, "classify and regress are not implemented: use predict")


async def _fail(error: RequestError) -> web.Response:
    raise error


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return json_response(orjson.dumps(value), status)


def _version_status(version: Version) -> dict[str, Any]:
    error_code = _INTERNAL if version.error else _OK
    return {
        "version": str(version.number),
        "state": version.state,
        "status": {"error_code": error_code, "error_message": version.error},
    }
