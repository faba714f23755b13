"""The OpenAPI document of a server, with the requests and responses of each model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from pipelines.serving.config import LimitsConfig
from pipelines.serving.json_codec import BYTES_SUFFIX, DEFAULT_SIGNATURE, TensorSpec
from pipelines.serving.servable import Signature

Schema = dict[str, Any]
#: Signatures by the model's name and their own.
ModelSignatures = Mapping[str, Mapping[str, Signature]]

_BASE64: Schema = {
    "type": "object",
    "properties": {
        "b64": {
            "type": "string",
            "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        }
    },
    "required": ["b64"],
    "additionalProperties": False,
}
_ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
#: Descriptions of the error statuses.
_ERRORS = {
    400: "the request is invalid, or exceeds a limit of its contents",
    403: "the request is for another host, or comes from a web page of another host",
    404: "there is no such model or version",
    408: "the request did not arrive in time",
    413: "the body is too long",
    415: "the body's Content-Encoding is not supported",
    429: "too many requests at the same time",
    503: "the model is being loaded, or there are too many connections or bytes in requests",
    504: "the answer takes too long",
}
_VERSIONS: dict[str, Schema] = {
    "version": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "label": {"type": "string", "minLength": 1, "pattern": "^[^/:]+$"},
}
_STATUS: Schema = {"type": "object", "required": ["model_version_status"]}
_METADATA: Schema = {"type": "object", "required": ["model_spec", "metadata"]}
_HEALTH: Schema = {"type": "object", "required": ["status"]}
_READINESS: Schema = {"type": "object", "required": ["ready", "models"]}


def document(models: ModelSignatures, limits: LimitsConfig) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        models: The served models.
        limits: The server's limits.
    """
    paths = _general_paths()
    for name, signatures in models.items():
        base = f"/v1/models/{quote(name)}"
        request, response = request_schema(signatures, limits), response_schema(signatures)
        for place, parameter in (
            ("", ""),
            ("/versions/{version}", "version"),
            ("/labels/{label}", "label"),
        ):
            which = f"one {parameter} of {name}" if parameter else f"the newest version of {name}"
            suffix = f"{parameter}_{name}".strip("_")
            predict = _operation(
                f"predict_{suffix}", f"Run {which}.", response, tuple(_ERRORS), parameter
            )
            predict["requestBody"] = {"required": True, "content": _json(request)}
            paths[f"{base}{place}:predict"] = {"post": predict}
            status = f"Return the state of {which if parameter else f'all versions of {name}'}."
            paths[f"{base}{place}"] = {
                "get": _operation(f"status_{suffix}", status, _STATUS, (400, 403, 404), parameter)
            }
            paths[f"{base}{place}/metadata"] = {
                "get": _operation(
                    f"metadata_{suffix}", f"Return the signatures of {which}.", _METADATA,
                    (400, 403, 404, 503), parameter,
                )
            }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unfold",
            "summary": "Exported models, with TensorFlow Serving's REST API.",
            "version": "1",
        },
        "paths": paths,
    }


def _general_paths() -> dict[str, Any]:
    """Return the paths that do not depend on models."""
    ready = _operation("ready", "Whether every model has an available version.", _READINESS, (403,))
    ready["responses"]["503"] = {
        "description": "a model has no available version", "content": _json(_READINESS)
    }  # fmt: skip
    paths = {
        "/healthz": {"get": _operation("healthy", "200 while the server runs.", _HEALTH, (403,))},
        "/readyz": {"get": ready},
    }
    for path, summary, media_type in (
        ("/metrics", "Metrics for Prometheus.", "text/plain"),
        ("/monitoring/prometheus/metrics", "The same, as in TensorFlow Serving.", "text/plain"),
        ("/openapi.json", "This document.", "application/json"),
        ("/docs", "This document as a page.", "text/html"),
        ("/", "What is served, as a page.", "text/html"),
    ):  # fmt: skip
        operation = _operation(f"page_{path.strip('/') or 'index'}", summary, {}, (403,))
        operation["responses"]["200"]["content"] = {media_type: {}}
        paths[path] = {"get": operation}
    return paths


def _operation(
    identifier: str,
    summary: str,
    response: Schema,
    errors: tuple[int, ...],
    parameter: str = "",
) -> dict[str, Any]:
    """Describe one method of a path; ``parameter`` is the name of the one in the path."""
    responses = {"200": {"description": "the answer", "content": _json(response)}} | {
        str(status): {"description": _ERRORS[status], "content": _json(_ERROR)} for status in errors
    }
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", identifier),
        "summary": summary,
        "responses": responses,
    }
    if parameter:
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": _VERSIONS[parameter]}
        ]
    return operation


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def request_schema(signatures: Mapping[str, Signature], limits: LimitsConfig) -> Schema:
    """Return the schema of requests for any of the signatures."""
    return {
        "anyOf": [
            body
            for name, signature in sorted(signatures.items())
            for body in _request_bodies(name, signature, limits)
        ]
    }


def response_schema(signatures: Mapping[str, Signature]) -> Schema:
    """Return the schema of responses of any of the signatures."""
    bodies = []
    for _, signature in sorted(signatures.items()):
        outputs = signature.outputs.items()
        columns = {name: _output(name, spec, 0) for name, spec in outputs}
        bodies.append(_object({"outputs": _unwrap_single(columns)}))
        if signature.inputs:
            row = _unwrap_single({name: _output(name, spec, 1) for name, spec in outputs})
            bodies.append(_object({"predictions": {"type": "array", "items": row}}))
    return {"anyOf": bodies}


def _request_bodies(name: str, signature: Signature, limits: LimitsConfig) -> list[Schema]:
    title = {"signature_name": {"const": name}}
    inputs = signature.inputs
    columns = {n: _input(n, s, limits, 0) for n, s in inputs.items()}
    # Further names are ignored, as TensorFlow Serving does in this format only.
    accepted = [_object(columns) | {"additionalProperties": True}]
    bodies = []
    if len(inputs) == 1:
        accepted.append(next(iter(columns.values())))
    if inputs and all(s.shape != () for s in inputs.values()):
        items = {n: _input(n, s, limits, 1) for n, s in inputs.items()}
        row = [_object(items), *(items.values() if len(items) == 1 else ())]
        bodies.append({"instances": _list({"anyOf": row}, None, limits.rows, min_items=1)})
    bodies.append({"inputs": {"anyOf": accepted}})
    return [
        {
            "type": "object",
            "properties": title | body,
            "required": [*body, *([] if name == DEFAULT_SIGNATURE else title)],
            "not": {"required": ["inputs" if "instances" in body else "instances"]},
        }
        for body in bodies
    ]


def _input(name: str, spec: TensorSpec, limits: LimitsConfig, axis: int) -> Schema:
    """Return the schema of an input from an axis on: 0 is the whole tensor, 1 a row."""
    if spec.is_text:
        text = {"type": "string", "maxLength": limits.text_bytes}
        item: Schema = {"anyOf": [text, _BASE64]}
    else:
        item = _number(spec)
        limit = limits.most.model_dump().get(name)
        if limit is not None and "maximum" in item:
            item["maximum"] = limit
    for i, size in reversed(list(enumerate(spec.shape or ()))[axis:]):
        item = _list(item, size, limits.steps if i else limits.rows)
    return item


def _output(name: str, spec: TensorSpec, axis: int) -> Schema:
    """Return the schema of an output from an axis on: 0 is the whole tensor, 1 a row."""
    if spec.shape is None:
        return {}
    text = _BASE64 if name.endswith(BYTES_SUFFIX) else {"type": "string"}
    # Outputs may be NaN, and JSON does not tell integers from floats.
    item = {"O": text, "b": {"type": "boolean"}}.get(spec.dtype.kind, {"type": ["number", "null"]})
    for size in reversed(spec.shape[axis:]):
        item = _list(item, size, None)
    return item


def _number(spec: TensorSpec) -> Schema:
    if spec.dtype.kind == "b":
        return {"type": "boolean"}
    if spec.dtype.kind in "iu":
        info = np.iinfo(spec.dtype)
        return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
    if spec.dtype.kind != "f":
        return {"not": {}}  # complex numbers and bfloat16, which JSON cannot hold
    largest = float(np.finfo(spec.dtype).max)
    return {"type": "number", "minimum": -largest, "maximum": largest}


def _list(items: Schema, size: int | None, max_items: int | None, min_items: int = 0) -> Schema:
    schema: Schema = {"type": "array", "items": items, "minItems": min_items}
    if size is not None:
        return schema | {"minItems": size, "maxItems": size}
    return schema if max_items is None else schema | {"maxItems": max_items}


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _unwrap_single(values: dict[str, Schema]) -> Schema:
    """Return an object of the values, or the only value: a single tensor has no name."""
    return next(iter(values.values())) if len(values) == 1 else _object(values)
