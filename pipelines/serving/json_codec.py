"""JSON as TensorFlow Serving reads and writes it, to arrays and back.

Row format is a list of rows (``{"instances": [...]}`` → ``{"predictions": [...]}``), column format
a tensor for each name (``{"inputs": ...}`` → ``{"outputs": ...}``); where there is one tensor only
its name is left out. Bytes that are no text are ``{"b64": "..."}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson

from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError

#: Outputs with such a name are bytes and not text.
BYTES = "_bytes"
DEFAULT = "serving_default"
#: Of a tensor, where a signature does not say how many it has.
MOST_DIMENSIONS = 32

Format = Literal["row", "column"]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Spec:
    """A tensor of a signature.

    Attributes:
        dtype: of NumPy; ``object`` for strings.
        shape: None where a size is open, or for all of it if not even their number is known.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def is_text(self) -> bool:
        return self.dtype.kind == "O"


@dataclass(frozen=True)
class Request:
    """What a body asks for."""

    signature: str
    format: Format
    #: By name, as JSON has it; without a name where the client gave none.
    given: Any


def parse(body: bytes) -> Request:
    """Raises: RequestError (400) if it is not JSON of this form."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    if not isinstance(data, dict):
        raise RequestError(400, f"the body is {_kind(data)}, not an object")
    signature = data.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError(400, "'signature_name' key must be a string value.")
    there = [key for key in ("instances", "inputs") if key in data]
    if len(there) != 1:
        found = "both" if there else "neither"
        raise RequestError(400, f"one of 'inputs' and 'instances' is needed, and {found} is there")
    rows = there == ["instances"]
    return Request(signature or DEFAULT, "row" if rows else "column", data[there[0]])


def arrays(request: Request, specs: Mapping[str, Spec], limits: LimitsConfig) -> Arrays:
    """The inputs of a request, checked against a signature and the limits.

    Raises:
        RequestError: 400, naming the input and what is wrong with it.
    """
    columns = (_of_rows if request.format == "row" else _of_columns)(request.given, specs, limits)
    found = {name: _array(name, value, specs[name], limits) for name, value in columns.items()}
    check_most(found, limits)
    return found


def check_most(inputs: Arrays, limits: LimitsConfig) -> None:
    """Raises: RequestError (400) if one of ``limits.most`` is exceeded."""
    for name, most in limits.most.model_dump().items():
        if name in inputs and inputs[name].dtype.kind != "O" and inputs[name].size:
            asked = inputs[name].max()
            if asked > most:
                raise too_much(f"{name}: {asked}", most, f"most.{name}")


def body(outputs: Arrays, format: Format) -> bytes:
    """The answer as JSON.

    Raises:
        RequestError: 400, if row format is asked for and the outputs are no rows.
    """
    plain = {name: _readable(name, value) for name, value in outputs.items()}
    answer: Any
    if format == "column":
        key = "outputs"
        answer = plain if len(plain) != 1 else next(iter(plain.values()))
    else:
        key = "predictions"
        sizes = {a.shape[:1] for a in outputs.values()}
        if len(sizes) != 1 or sizes == {()}:
            raise RequestError(400, "the outputs have no batch size in common: ask with 'inputs'")
        if len(plain) == 1:
            answer = next(iter(plain.values()))
        else:
            answer = [
                dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)
            ]
    return _written({key: answer}, outputs)


def row(outputs: Arrays) -> bytes:
    """The only row of ``outputs`` as JSON, an object."""
    return _written({name: _readable(name, value)[0] for name, value in outputs.items()}, outputs)


def _written(answer: Any, outputs: Arrays) -> bytes:
    if all(np.isfinite(a).all() for a in outputs.values() if a.dtype.kind == "f"):
        written: bytes = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        return written
    # JSON has no word for them; TensorFlow Serving writes NaN and Infinity, as Python does.
    return json.dumps(answer, default=_as_list, ensure_ascii=False).encode()


def _of_rows(rows: Any, specs: Mapping[str, Spec], limits: LimitsConfig) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise RequestError(400, f"'instances' is {_kind(rows)}, not a list")
    if not rows:
        raise RequestError(400, "no values in 'instances'")
    if len(rows) > limits.rows:
        raise too_much(f"{len(rows)} rows", limits.rows, "rows")
    named = [isinstance(row, dict) and set(row) != {"b64"} for row in rows]
    if not any(named):
        if len(specs) != 1:
            raise RequestError(400, f"each of 'instances' must be an object with {_names(specs)}")
        return {next(iter(specs)): rows}
    for number, row in enumerate(rows):
        if not named[number]:
            raise RequestError(400, f"row {number} of 'instances' is {_kind(row)}, not an object")
        if row.keys() != specs.keys():
            raise RequestError(
                400, f"the keys of row {number} of 'instances' must be {_names(specs)}"
            )
    return {name: [row[name] for row in rows] for name in specs}


def _of_columns(given: Any, specs: Mapping[str, Spec], limits: LimitsConfig) -> dict[str, Any]:
    if not isinstance(given, dict) or (given.keys() == {"b64"} and "b64" not in specs):
        if len(specs) != 1:
            raise RequestError(400, f"'inputs' must be an object with {_names(specs)}")
        return {next(iter(specs)): given}
    missing = [name for name in specs if name not in given]
    if missing:
        raise RequestError(400, f"missing in 'inputs': {', '.join(missing)}")
    return {name: given[name] for name in specs}


def _array(name: str, value: Any, spec: Spec, limits: LimitsConfig) -> np.ndarray:
    items, shape = _flat(name, value, spec, limits)
    if spec.shape is not None:
        fits = len(shape) == len(spec.shape) or (0 in shape and len(shape) < len(spec.shape))
        if not fits or any(s not in (None, n) for s, n in zip(spec.shape, shape, strict=False)):
            raise RequestError(400, f"{name}: {expected(spec)}, not {shown(shape)}")
        # Of an empty list, what its items would be is not known.
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    return _filled(name, items, spec, limits).reshape(shape)


def _flat(name: str, value: Any, spec: Spec, limits: LimitsConfig) -> tuple[list[Any], list[int]]:
    """The items of nested lists, and the sizes of those."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise RequestError(400, f"{name}: the lists are of unequal length or depth")
        bound, key = (limits.steps, "steps") if shape else (limits.rows, "rows")
        if size > bound:
            raise too_much(f"{name}: a list of {size}", bound, key)
        shape.append(size)
        if spec.shape is None and len(shape) > MOST_DIMENSIONS:
            raise RequestError(400, f"{name}: lists nested more than {MOST_DIMENSIONS} deep")
        if spec.shape is not None and len(shape) > len(spec.shape):
            raise RequestError(400, f"{name}: {expected(spec)}, and the lists are nested deeper")
        level = list(chain.from_iterable(level))
    return level, shape


def _filled(name: str, items: list[Any], spec: Spec, limits: LimitsConfig) -> np.ndarray:
    dtype = spec.dtype
    if spec.is_text:
        out = np.empty(len(items), object)
        out[:] = [_bytes(name, item) for item in items]
        longest = max(map(len, out), default=0)
        if longest > limits.text_bytes:
            raise too_much(f"{name}: {longest} bytes", limits.text_bytes, "text_bytes")
        return out
    wanted: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = wanted.get(dtype.kind, {int})
    if not set(map(type, items)) <= allowed:
        wrong = next(item for item in items if type(item) not in allowed)
        raise RequestError(400, f"{name}: {_kind(wrong)} where {_word(spec)} is expected")
    if dtype.kind in "iu" and items:
        info = np.iinfo(dtype)
        if not info.min <= min(items) <= max(items) <= info.max:
            raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    with np.errstate(over="ignore"):
        out = np.array(items, dtype)
    if dtype.kind == "f" and not np.isfinite(out).all():
        raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    return out


def _bytes(name: str, item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, dict) and item.keys() == {"b64"} and isinstance(item["b64"], str):
        text = item["b64"]
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(400, f"{name}: 'b64' is not base64") from None
    raise RequestError(400, f'{name}: {_kind(item)} where a string or {{"b64": ...}} is expected')


def _readable(name: str, value: np.ndarray) -> Any:
    """What orjson can write: numbers as they are, strings as lists of text."""
    if value.dtype.kind != "O":
        return np.ascontiguousarray(value) if value.ndim else value[()]
    if name.endswith(BYTES):
        plain = [{"b64": base64.b64encode(raw).decode()} for raw in value.ravel()]
    else:
        plain = [raw.decode(errors="replace") for raw in value.ravel()]
    items = np.empty(value.size, object)
    items[:] = plain
    return items.reshape(value.shape).tolist()


def _as_list(value: Any) -> Any:
    if value.dtype == np.float32:
        # The shortest number that is the same in float32, not the digits behind it.
        value = value.astype(str).astype(float)
    return value.tolist()


def too_much(what: str, bound: int, key: str) -> RequestError:
    return RequestError(400, f"{what}, and the limit is {bound} (limits.{key})")


def _names(specs: Mapping[str, Spec]) -> str:
    return "{" + ", ".join(sorted(specs)) + "}"


def expected(spec: Spec) -> str:
    return f"a {_word(spec)} tensor of shape {shown(spec.shape)} is expected"


def shown(shape: Any) -> str:
    if shape is None:
        return "any"
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _word(spec: Spec) -> str:
    return "string" if spec.is_text else str(spec.dtype)


def _kind(value: Any) -> str:
    """What a JSON value is, without telling the value."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")
