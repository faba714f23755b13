"""The JSON of TensorFlow Serving's REST API, decoded to arrays and encoded from them.

Row format is a list of rows (``{"instances": [...]}`` → ``{"predictions": [...]}``); column format
is one tensor for each name (``{"inputs": ...}`` → ``{"outputs": ...}``). The name of a single
tensor is left out. Bytes that are not text are ``{"b64": "..."}``.

As in TensorFlow Serving, numbers may be NaN or infinite, and only names and dtypes are
compared with the signature: the model itself rejects shapes it cannot take.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson

from pipelines.serving import json_parser
from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError

#: Suffix of the names of outputs that are bytes rather than text.
BYTES_SUFFIX = "_bytes"
DEFAULT_SIGNATURE = "serving_default"
#: Maximum rank of a tensor.
MAX_RANK = 32
_TYPE_NAMES = {"object": "string", "float16": "half", "float32": "float", "float64": "double"}
#: Python's types of the JSON values of numeric dtypes, by NumPy's kind of dtype.
_PYTHON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}

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

    @property
    def type_name(self) -> str:
        """TensorFlow Serving's name of the dtype."""
        return type_name(self.dtype.name)

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a shape is one that the signature specifies."""
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(s in (None, n) for s, n in zip(self.shape, shape, strict=True))
        )


@dataclass(frozen=True)
class Request:
    """A parsed request.

    Attributes:
        signature: Name of the signature to call.
        format: Format of the request and its response.
        data: The rows or columns, with or without names, as JSON values.
        is_marked: Whether `json_parser.without_mark` is needed for each number and text.
    """

    signature: str
    format: Format
    data: Any
    is_marked: bool = False


def type_name(dtype: str) -> str:
    """Return TensorFlow Serving's name of a dtype that NumPy or TensorFlow calls ``dtype``."""
    return _TYPE_NAMES.get(dtype, dtype)


def parse_request(body: bytes) -> Request:
    """Parse the body of a request.

    Raises:
        RequestError: With status 400 if it is not JSON of this API.
    """
    content, is_marked = json_parser.parse(body)
    if not isinstance(content, dict):
        raise RequestError(400, f"the body is {_json_type(content)}, not an object")
    signature = content.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError(400, "'signature_name' key must be a string value.")
    keys = [key for key in ("instances", "inputs") if key in content]
    if not keys:
        raise RequestError(400, "Missing 'inputs' or 'instances' key")
    if len(keys) == 2:
        raise RequestError(
            400, "expecting only one of 'inputs' or 'instances' keys, and found both"
        )
    format_: Format = "row" if keys == ["instances"] else "column"
    return Request(signature or DEFAULT_SIGNATURE, format_, content[keys[0]], is_marked)


def decode_inputs(
    request: Request, specs: Mapping[str, TensorSpec], limits: LimitsConfig
) -> Arrays:
    """Return the inputs of a request as arrays of a signature's dtypes, within the limits.

    Args:
        request: The request.
        specs: The signature's inputs.
        limits: The server's limits.

    Raises:
        RequestError: With status 400, naming the input and what is wrong with it.
    """
    to_columns = _columns_of_rows if request.format == "row" else _columns
    columns = to_columns(request.data, specs, limits)
    inputs = {}
    for name, value in columns.items():
        items, shape = _flatten(name, value, limits)
        if request.is_marked:
            items = list(map(json_parser.without_mark, items))
        inputs[name] = _array(name, items, shape, specs[name], limits)
    check_input_limits(inputs, limits)
    return inputs


def check_shapes(inputs: Arrays, specs: Mapping[str, TensorSpec]) -> None:
    """Check that inputs have the shapes that a signature specifies.

    Raises:
        RequestError: With status 400 if one has another.
    """
    for name, array in inputs.items():
        spec = specs[name]
        if not spec.fits(array.shape):
            expected = f"a {spec.type_name} tensor of shape {_format_shape(spec.shape)} is expected"
            raise RequestError(400, f"{name}: {expected}, not {_format_shape(array.shape)}")


def check_input_limits(inputs: Arrays, limits: LimitsConfig) -> None:
    """Check the inputs that have a largest value.

    Raises:
        RequestError: With status 400 if an input exceeds its ``limits.most``.
    """
    for name, limit in limits.most.model_dump().items():
        if name in inputs and inputs[name].dtype.kind in "iuf" and inputs[name].size:
            largest = inputs[name].max()
            if largest > limit:
                raise limit_error(f"{name}: {largest}", limit, f"most.{name}")


def encode_outputs(outputs: Arrays, format: Format) -> bytes:
    """Encode a response.

    Args:
        outputs: Arrays by name.
        format: The format of the request.

    Raises:
        RequestError: With status 400 if row format was requested and the outputs are not rows, or
            if JSON cannot hold an output.
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
    is_named = [isinstance(row, dict) and ("b64" not in row or not _is_base64(row)) for row in rows]
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
    if not isinstance(columns, dict) or _is_base64(columns):
        if len(specs) != 1:
            raise RequestError(400, f"'inputs' must be an object with {_names(specs)}")
        return {next(iter(specs)): columns}
    missing = [name for name in specs if name not in columns]
    if missing:
        raise RequestError(400, f"Missing named input: {', '.join(missing)} in 'inputs' object")
    return {name: columns[name] for name in specs}


def _array(
    name: str, items: list[Any], shape: list[int], spec: TensorSpec, limits: LimitsConfig
) -> np.ndarray:
    if spec.shape is not None and 0 in shape:
        # An empty list does not show the sizes of the axes within it.
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    flat = (_text_array if spec.is_text else _number_array)(name, items, spec, limits)
    return flat.reshape(shape)


def _flatten(name: str, value: Any, limits: LimitsConfig) -> tuple[list[Any], list[int]]:
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
        if len(shape) > MAX_RANK:
            raise RequestError(400, f"{name}: lists nested more than {MAX_RANK} deep")
        level = list(chain.from_iterable(level))
    return level, shape


def _text_array(
    name: str, items: Sequence[Any], spec: TensorSpec, limits: LimitsConfig
) -> np.ndarray:
    texts = [
        item.encode() if isinstance(item, str) else _to_bytes(name, item, spec) for item in items
    ]
    longest = max(map(len, texts), default=0)
    if longest > limits.text_bytes:
        raise limit_error(f"{name}: {longest} bytes", limits.text_bytes, "text_bytes")
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _number_array(
    name: str, items: Sequence[Any], spec: TensorSpec, limits: LimitsConfig
) -> np.ndarray:
    dtype = spec.dtype
    if dtype.kind not in _PYTHON_TYPES:
        raise RequestError(400, f"{name}: JSON cannot hold a tensor of type: {spec.type_name}")
    allowed = _PYTHON_TYPES[dtype.kind]
    if not set(map(type, items)) <= allowed:
        raise _type_error(name, next(item for item in items if type(item) not in allowed), spec)
    if dtype.kind in "iu" and items:
        info = np.iinfo(dtype)
        if not info.min <= min(items) <= max(items) <= info.max:
            raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return np.array(items, dtype)


def _is_base64(value: Any) -> bool:
    """Return whether a JSON value is bytes rather than an object of names."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _to_bytes(name: str, item: Any, spec: TensorSpec) -> bytes:
    """Return the bytes of an item that is not text."""
    if not _is_base64(item):
        raise _type_error(name, item, spec)
    try:
        return _from_base64(item["b64"])
    except ValueError:  # perhaps in lines of 76 characters, as base64(1) writes it
        pass
    try:
        return _from_base64("".join(item["b64"].split()))
    except ValueError:
        raise RequestError(400, f"{name}: 'b64' is not base64") from None


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _type_error(name: str, item: Any, spec: TensorSpec) -> RequestError:
    return RequestError(
        400, f"{name}: {_json_type(item)} is not of expected type: {spec.type_name}"
    )


def _serializable(name: str, value: np.ndarray) -> Any:
    """Return what orjson can serialize: numbers as an array, strings as lists."""
    if value.dtype.kind in _PYTHON_TYPES:
        return np.ascontiguousarray(value) if value.ndim else value[()]
    if value.dtype.kind != "O":
        raise RequestError(400, f"JSON cannot hold the output {name} of tensor type: {value.dtype}")
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


def _format_shape(shape: Sequence[int | None] | None) -> str:
    """Return a shape as text, with ``any`` for what is unknown."""
    if shape is None:
        return "any"
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _json_type(value: Any) -> str:
    """Return the type of a JSON value: errors do not quote values."""
    types = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else types.get(type(value), "a number")
