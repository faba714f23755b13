"""OpenAPI schemas of the requests and responses of each model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

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
#: Descriptions of a prediction's error statuses.
ERRORS = {
    400: "the request is invalid, or exceeds a limit of its contents",
    404: "there is no such model or version",
    408: "the request did not arrive in time",
    413: "the body is too long",
    429: "too many requests at the same time",
    503: "the model is being loaded, or there are too many connections",
    504: "the answer takes too long",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of these statuses, as FastAPI's routes take them."""
    content = {"application/json": {"schema": _ERROR}}
    return {s: {"description": ERRORS[s], "content": content} for s in statuses}


def paths_by_model(
    paths: Mapping[str, Any], models: ModelSignatures, limits: LimitsConfig
) -> dict[str, Any]:
    """Replace each path with ``{name}`` by one path for each model, with that model's schemas."""
    result = {}
    for path, operations in paths.items():
        if "{name}" not in path:
            result[path] = operations
            continue
        for name, signatures in models.items():
            own = copy.deepcopy(operations)
            for method, operation in own.items():
                operation["operationId"] += f"_{name}"
                operation["parameters"] = [
                    p for p in operation.get("parameters", ()) if p["name"] != "name"
                ]
                operation["responses"].pop("422", None)
                if method == "post":
                    _add_schemas(operation, signatures, limits)
            result[path.replace("{name}", name)] = own
    return result


def _add_schemas(
    operation: dict[str, Any], signatures: Mapping[str, Signature], limits: LimitsConfig
) -> None:
    request, response = request_schema(signatures, limits), response_schema(signatures)
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": request}},
    }
    operation["responses"]["200"]["content"] = {"application/json": {"schema": response}}


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
