"""The JSON of TensorFlow Serving's REST API, decoded to arrays and encoded from them.

Row format is a list of rows (``{"instances": [...]}`` → ``{"predictions": [...]}``); column format
is one tensor for each name (``{"inputs": ...}`` → ``{"outputs": ...}``). The name of a single
tensor is left out. Bytes that are not text are ``{"b64": "..."}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson

from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError

#: Suffix of the names of outputs that are bytes rather than text.
BYTES_SUFFIX = "_bytes"
DEFAULT_SIGNATURE = "serving_default"
#: Maximum rank of a tensor whose signature does not specify one.
MAX_RANK = 32

Format = Literal["row", "column"]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """The type of a tensor in a signature.

    Attributes:
        dtype: NumPy's dtype; ``object`` for strings.
        shape: The sizes, None where one is unknown; None if the rank is unknown too.
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def is_text(self) -> bool:
        """Whether its entries are strings."""
        return self.dtype.kind == "O"


@dataclass(frozen=True)
class Request:
    """A parsed request.

    Attributes:
        signature: Name of the signature to call.
        format: Format of the request and its response.
        data: The rows or columns, with or without names, as JSON values.
    """

    signature: str
    format: Format
    data: Any


def parse_request(body: bytes) -> Request:
    """Parse the body of a request.

    Raises:
        RequestError: With status 400 if it is not JSON of this API.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(400, f"the body is {_json_type(content)}, not an object")
    signature = content.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError(400, "'signature_name' key must be a string value.")
    keys = [key for key in ("instances", "inputs") if key in content]
    if len(keys) != 1:
        found = "both are" if keys else "neither is"
        raise RequestError(400, f"one of 'inputs' and 'instances' is needed, and {found} given")
    format_: Format = "row" if keys == ["instances"] else "column"
    return Request(signature or DEFAULT_SIGNATURE, format_, content[keys[0]])


def decode_inputs(
    request: Request, specs: Mapping[str, TensorSpec], limits: LimitsConfig
) -> Arrays:
    """Return the inputs of a request as arrays that fit a signature and the limits.

    Args:
        request: The request.
        specs: The signature's inputs.
        limits: The server's limits.

    Raises:
        RequestError: With status 400, naming the input and what is wrong with it.
    """
    to_columns = _columns_of_rows if request.format == "row" else _columns
    columns = to_columns(request.data, specs, limits)
    inputs = {name: _array(name, value, specs[name], limits) for name, value in columns.items()}
    check_input_limits(inputs, limits)
    return inputs


def check_input_limits(inputs: Arrays, limits: LimitsConfig) -> None:
    """Check the inputs that have a largest value.

    Raises:
        RequestError: With status 400 if an input exceeds its ``limits.most``.
    """
    for name, limit in limits.most.model_dump().items():
        if name in inputs and inputs[name].dtype.kind != "O" and inputs[name].size:
            largest = inputs[name].max()
            if largest > limit:
                raise limit_error(f"{name}: {largest}", limit, f"most.{name}")


def encode_outputs(outputs: Arrays, format: Format) -> bytes:
    """Encode a response.

    Args:
        outputs: Arrays by name.
        format: The format of the request.

    Raises:
        RequestError: With status 400 if row format was requested and the outputs are not rows.
    """
    plain = {name: _serializable(name, value) for name, value in outputs.items()}
    answer: Any
    if format == "column":
        key = "outputs"
        answer = plain if len(plain) != 1 else next(iter(plain.values()))
    else:
        key = "predictions"
        sizes = {a.shape[:1] for a in outputs.values()}
        if len(sizes) != 1 or sizes == {()}:
            raise RequestError(
                400, "the outputs do not have the same batch size: send 'inputs', not 'instances'"
            )
        if len(plain) == 1:
            answer = next(iter(plain.values()))
        else:
            answer = [
                dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)
            ]
    return _dump({key: answer}, outputs)


def encode_row(outputs: Arrays) -> bytes:
    """Encode the only row of ``outputs`` as a JSON object."""
    row = {name: _serializable(name, value)[0] for name, value in outputs.items()}
    return _dump(row, outputs)


def _dump(answer: Any, outputs: Arrays) -> bytes:
    if all(np.isfinite(a).all() for a in outputs.values() if a.dtype.kind == "f"):
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    # JSON has no NaN or Infinity, but TensorFlow Serving writes them, as Python's json does.
    return json.dumps(answer, default=_to_list, ensure_ascii=False).encode()


def _columns_of_rows(
    rows: Any, specs: Mapping[str, TensorSpec], limits: LimitsConfig
) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise RequestError(400, f"'instances' is {_json_type(rows)}, not a list")
    if not rows:
        raise RequestError(400, "no values in 'instances'")
    if len(rows) > limits.rows:
        raise limit_error(f"{len(rows)} rows", limits.rows, "rows")
    is_named = [isinstance(row, dict) and set(row) != {"b64"} for row in rows]
    if not any(is_named):
        if len(specs) != 1:
            raise RequestError(400, f"each of 'instances' must be an object with {_names(specs)}")
        return {next(iter(specs)): rows}
    for number, row in enumerate(rows):
        if not is_named[number]:
            raise RequestError(
                400, f"row {number} of 'instances' is {_json_type(row)}, not an object"
            )
        if row.keys() != specs.keys():
            raise RequestError(
                400, f"the keys of row {number} of 'instances' must be {_names(specs)}"
            )
    return {name: [row[name] for row in rows] for name in specs}


def _columns(columns: Any, specs: Mapping[str, TensorSpec], limits: LimitsConfig) -> dict[str, Any]:
    if not isinstance(columns, dict) or (columns.keys() == {"b64"} and "b64" not in specs):
        if len(specs) != 1:
            raise RequestError(400, f"'inputs' must be an object with {_names(specs)}")
        return {next(iter(specs)): columns}
    missing = [name for name in specs if name not in columns]
    if missing:
        raise RequestError(400, f"missing in 'inputs': {', '.join(missing)}")
    return {name: columns[name] for name in specs}


def _array(name: str, value: Any, spec: TensorSpec, limits: LimitsConfig) -> np.ndarray:
    items, shape = _flatten(name, value, spec, limits)
    if spec.shape is not None:
        fits = len(shape) == len(spec.shape) or (0 in shape and len(shape) < len(spec.shape))
        if not fits or any(s not in (None, n) for s, n in zip(spec.shape, shape, strict=False)):
            raise RequestError(400, f"{name}: {describe_expected(spec)}, not {format_shape(shape)}")
        # An empty list does not show the sizes of the axes within it.
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    flat = (_text_array if spec.is_text else _number_array)(name, items, spec, limits)
    return flat.reshape(shape)


def _flatten(
    name: str, value: Any, spec: TensorSpec, limits: LimitsConfig
) -> tuple[list[Any], list[int]]:
    """Return the items of nested lists, and their shape."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise RequestError(400, f"{name}: the lists are of unequal length or depth")
        limit, key = (limits.steps, "steps") if shape else (limits.rows, "rows")
        if size > limit:
            raise limit_error(f"{name}: a list of {size}", limit, key)
        shape.append(size)
        if spec.shape is None and len(shape) > MAX_RANK:
            raise RequestError(400, f"{name}: lists nested more than {MAX_RANK} deep")
        if spec.shape is not None and len(shape) > len(spec.shape):
            raise RequestError(
                400, f"{name}: {describe_expected(spec)}, and the lists are nested deeper"
            )
        level = list(chain.from_iterable(level))
    return level, shape


def _text_array(
    name: str, items: Sequence[Any], spec: TensorSpec, limits: LimitsConfig
) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = [_to_bytes(name, item) for item in items]
    longest = max(map(len, array), default=0)
    if longest > limits.text_bytes:
        raise limit_error(f"{name}: {longest} bytes", limits.text_bytes, "text_bytes")
    return array


def _number_array(
    name: str, items: Sequence[Any], spec: TensorSpec, limits: LimitsConfig
) -> np.ndarray:
    dtype = spec.dtype
    python_types: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = python_types.get(dtype.kind, {int})
    if not set(map(type, items)) <= allowed:
        wrong = next(item for item in items if type(item) not in allowed)
        raise RequestError(400, f"{name}: {_json_type(wrong)} where {_dtype(spec)} is expected")
    if dtype.kind in "iu" and items:
        info = np.iinfo(dtype)
        if not info.min <= min(items) <= max(items) <= info.max:
            raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    with np.errstate(over="ignore"):
        array = np.array(items, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    return array


def _to_bytes(name: str, item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, dict) and item.keys() == {"b64"} and isinstance(item["b64"], str):
        text = item["b64"]
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(400, f"{name}: 'b64' is not base64") from None
    raise RequestError(
        400, f'{name}: {_json_type(item)} where a string or {{"b64": ...}} is expected'
    )


def _serializable(name: str, value: np.ndarray) -> Any:
    """Return what orjson can serialize: numbers as an array, strings as lists."""
    if value.dtype.kind != "O":
        return np.ascontiguousarray(value) if value.ndim else value[()]
    plain: list[Any]
    if name.endswith(BYTES_SUFFIX):
        plain = [{"b64": base64.b64encode(raw).decode()} for raw in value.ravel()]
    else:
        plain = [raw.decode(errors="replace") for raw in value.ravel()]
    items = np.empty(value.size, object)
    items[:] = plain
    return items.reshape(value.shape).tolist()


def _to_list(value: Any) -> Any:
    if value.dtype == np.float32:
        # Shortest decimals that round to the same float32, rather than all digits of the float64.
        value = value.astype(str).astype(float)
    return value.tolist()


def limit_error(excess: str, limit: int, key: str) -> RequestError:
    """Return the error for a request that exceeds a limit.

    Args:
        excess: What exceeds it, such as ``"300 rows"``.
        limit: The limit.
        key: The limit's key within ``limits``.
    """
    return RequestError(400, f"{excess}, and the limit is {limit} (limits.{key})")


def _names(specs: Mapping[str, TensorSpec]) -> str:
    return "{" + ", ".join(sorted(specs)) + "}"


def describe_expected(spec: TensorSpec) -> str:
    """Return what an error says about the expected tensor."""
    return f"a {_dtype(spec)} tensor of shape {format_shape(spec.shape)} is expected"


def format_shape(shape: Sequence[int | None] | None) -> str:
    """Return a shape as text, with ``any`` for what is unknown."""
    if shape is None:
        return "any"
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _dtype(spec: TensorSpec) -> str:
    return "string" if spec.is_text else str(spec.dtype)


def _json_type(value: Any) -> str:
    """Return the type of a JSON value: errors do not quote values."""
    types = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else types.get(type(value), "a number")
