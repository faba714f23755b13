"""What each model takes and gives, in OpenAPI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.serving.config import LimitsConfig
from pipelines.serving.json_codec import BYTES, DEFAULT, Spec
from pipelines.serving.servable import Signature

Schema = dict[str, Any]

_B64: Schema = {
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
ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
#: What a request for a prediction can be told instead of an answer.
REFUSALS = {
    400: "what is wrong with the request, or which of the limits of a request it is above",
    404: "there is no such model or version",
    408: "the request did not arrive in time",
    413: "the body is too long",
    429: "too many requests at the same time",
    503: "the model is being loaded, or there are too many connections",
    504: "the answer takes too long",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": ERROR}}
    return {s: {"description": REFUSALS[s], "content": content} for s in statuses}


def request(signatures: Mapping[str, Signature], limits: LimitsConfig) -> Schema:
    """A body that one of the signatures takes."""
    return {
        "anyOf": [
            body
            for name, signature in sorted(signatures.items())
            for body in _bodies(name, signature, limits)
        ]
    }


def answer(signatures: Mapping[str, Signature]) -> Schema:
    """A body that one of the signatures gives."""
    kinds = []
    for _, signature in sorted(signatures.items()):
        outputs = {n: (s, n.endswith(BYTES)) for n, s in signature.outputs.items()}
        whole = {n: _given(s, raw, 0) for n, (s, raw) in outputs.items()}
        kinds.append(_object({"outputs": _named(whole)}))
        if signature.inputs:
            rows = _named({n: _given(s, raw, 1) for n, (s, raw) in outputs.items()})
            kinds.append(_object({"predictions": {"type": "array", "items": rows}}))
    return {"anyOf": kinds}


def _bodies(name: str, signature: Signature, limits: LimitsConfig) -> list[Schema]:
    title = {"signature_name": {"const": name}}
    inputs = signature.inputs
    columns = {n: _taken(n, s, limits, 0) for n, s in inputs.items()}
    accepted = [_object(columns)]
    bodies = []
    if len(inputs) == 1:
        accepted.append(next(iter(columns.values())))
    if inputs and all(s.shape != () for s in inputs.values()):
        items = {n: _taken(n, s, limits, 1) for n, s in inputs.items()}
        row = [_object(items), *(items.values() if len(items) == 1 else ())]
        bodies.append({"instances": _list({"anyOf": row}, None, limits.rows, least=1)})
    bodies.append({"inputs": {"anyOf": accepted}})
    return [
        {
            "type": "object",
            "properties": title | body,
            "required": [*body, *([] if name == DEFAULT else title)],
            "not": {"required": ["inputs" if "instances" in body else "instances"]},
        }
        for body in bodies
    ]


def _taken(name: str, spec: Spec, limits: LimitsConfig, axis: int) -> Schema:
    """An input from an axis on: 0 is all of it, 1 a row."""
    if spec.is_text:
        item: Schema = {"anyOf": [{"type": "string", "maxLength": limits.text_bytes // 4}, _B64]}
    else:
        item = _number(spec)
        most = limits.most.model_dump().get(name)
        if most is not None and "maximum" in item:
            item["maximum"] = most
    for i, size in reversed(list(enumerate(spec.shape or ()))[axis:]):
        item = _list(item, size, limits.steps if i else limits.rows)
    return item


def _given(spec: Spec, raw: bool, axis: int) -> Schema:
    """An output from an axis on."""
    if spec.shape is None:
        return {}
    # An answer may be NaN, and a whole number is one with a fraction to JSON.
    kinds = {"O": _B64 if raw else {"type": "string"}, "b": {"type": "boolean"}}
    item = kinds.get(spec.dtype.kind, {"type": ["number", "null"]})
    for size in reversed(spec.shape[axis:]):
        item = _list(item, size, None)
    return item


def _number(spec: Spec) -> Schema:
    if spec.dtype.kind == "b":
        return {"type": "boolean"}
    if spec.dtype.kind in "iu":
        info = np.iinfo(spec.dtype)
        return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}
    top = float(np.finfo(spec.dtype).max)
    return {"type": "number", "minimum": -top, "maximum": top}


def _list(items: Schema, size: int | None, most: int | None, least: int = 0) -> Schema:
    out: Schema = {"type": "array", "items": items, "minItems": least}
    if size is not None:
        return out | {"minItems": size, "maxItems": size}
    return out if most is None else out | {"maxItems": most}


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _named(values: dict[str, Schema]) -> Schema:
    return next(iter(values.values())) if len(values) == 1 else _object(values)
