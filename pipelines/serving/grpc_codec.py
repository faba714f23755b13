"""TensorProtos of TensorFlow Serving's gRPC API, decoded to arrays and encoded from them.

As in TensorFlow Serving, only names and dtypes are compared with the signature. Memory for an input
is allocated only after its type, shape and length have been checked.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError, shorten
from pipelines.serving.json_codec import (
    MAX_RANK,
    Arrays,
    TensorSpec,
    check_input_limits,
    limit_error,
    type_name,
)

#: The field of a TensorProto that holds the values of a dtype one by one.
_VALUE_FIELDS = {
    "bfloat16": "half_val",
    "float16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "object": "string_val",
}
#: How values are written, where not as such: as bits, or as real and imaginary parts.
_VIEWS: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(np.uint16),
    "float16": np.dtype(np.uint16),
    "complex64": np.dtype(np.float32),
    "complex128": np.dtype(np.float64),
}
#: Maximum number of fields in a message, and in all of its inputs together. Numbers are packed
#: into one field; texts are a field each.
_MAX_FIELDS, _MAX_INPUT_FIELDS = 1_000, 100_000
#: Field numbers: a PredictRequest's inputs, the value of an entry of that map, a tensor's shape.
_INPUTS, _VALUE, _SHAPE = 2, 2, 2
#: Field numbers of a TensorProto's resources and variants, which hold messages themselves.
_NESTED_VALUES = {14, 15}
#: Bytes of a field's content by its wire type, unless that is a varint or has a length prefix.
_FIXED_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}


def decode_inputs(
    tensors: Mapping[str, Any], specs: Mapping[str, TensorSpec], limits: LimitsConfig
) -> Arrays:
    """Return the inputs of a request as arrays of a signature's dtypes, within the limits.

    Args:
        tensors: TensorProtos by name.
        specs: The signature's inputs.
        limits: The server's limits.

    Raises:
        RequestError: With status 400, naming the input and what is wrong with it.
    """
    if tensors.keys() != specs.keys():
        extra, missing = (
            shorten(", ".join(sorted(names)))
            for names in (tensors.keys() - specs.keys(), specs.keys() - tensors.keys())
        )
        raise RequestError(
            400,
            f"the inputs must be {{{', '.join(sorted(specs))}}}. "
            f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}.",
        )
    inputs = {name: _array(name, tensors[name], spec, limits) for name, spec in specs.items()}
    check_input_limits(inputs, limits)
    return inputs


def encode_tensor(array: np.ndarray) -> Any:
    """Return a TensorProto with the values one by one.

    TensorFlow Serving does not use ``tensor_content`` either: its clients read ``float_val``.
    """
    dtype = tf.as_dtype(array.dtype)
    if array.dtype.name not in _VALUE_FIELDS:
        return tf.make_tensor_proto(array, dtype, array.shape)
    shape = tf.TensorShape(array.shape).as_proto()
    tensor = TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape)
    values = array.ravel()
    if array.dtype.name in _VIEWS:
        values = values.view(_VIEWS[array.dtype.name])
    getattr(tensor, _VALUE_FIELDS[array.dtype.name]).extend(values.tolist())
    return tensor


def has_too_many_fields(raw: bytes) -> bool:
    """Return whether a serialized PredictRequest would take far more memory once it is parsed.

    An empty input is two bytes long, and over a hundred once it is parsed. The same holds for
    nested values, which no signature here takes.
    """
    input_fields = 0
    try:
        for count, (number, content) in enumerate(_fields(raw, 0, len(raw)), start=1):
            if count > _MAX_FIELDS:
                return True
            if number != _INPUTS:
                continue
            with contextlib.suppress(IndexError, KeyError):  # the parser stops here too
                for is_nested_value in _fields_of_input(raw, content):
                    input_fields += 1
                    if is_nested_value or input_fields > _MAX_INPUT_FIELDS:
                        return True
    except (IndexError, KeyError):
        return False  # malformed, which the parser reports
    return False


def _fields_of_input(raw: bytes, entry: tuple[int, int]) -> Iterator[bool]:
    """Yield, for each field of an input, whether it is a nested value."""
    for number, value in _fields(raw, *entry):
        yield False
        if number != _VALUE:
            continue
        for tensor_number, content in _fields(raw, *value):
            yield tensor_number in _NESTED_VALUES
            if tensor_number == _SHAPE:
                yield from (False for _ in _fields(raw, *content))


def _fields(raw: bytes, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the number of each field of a message, and where its content starts and ends.

    The content of a field without a length prefix, which has no fields itself, counts as empty.

    Raises:
        IndexError: The message is malformed.
        KeyError: The message is malformed.
    """
    while start < end:
        tag, start = _varint(raw, start)
        wire_type = tag & 7
        if wire_type == 2:
            size, start = _varint(raw, start)
        elif wire_type == 0:
            size = _varint(raw, start)[1] - start
        else:
            size = _FIXED_SIZES[wire_type]
        if start + size > end:
            raise IndexError
        yield tag >> 3, (start, start + size if wire_type == 2 else start)
        start += size


def _varint(raw: bytes, start: int) -> tuple[int, int]:
    """Return a variable-length integer, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = raw[start + shift // 7]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, start + shift // 7 + 1
    raise IndexError


def _array(name: str, tensor: Any, spec: TensorSpec, limits: LimitsConfig) -> np.ndarray:
    if spec.dtype.name not in _VALUE_FIELDS:
        raise RequestError(400, f"{name}: a tensor of {spec.type_name} cannot be sent")
    if tensor.dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
        raise RequestError(
            400,
            f"the input {name} is expected to be {spec.type_name} but {_sent_dtype(tensor)} is "
            "provided",
        )
    shape = _shape(name, tensor.tensor_shape, limits)
    size = math.prod(shape)
    if tensor.tensor_content:
        flat = _from_content(name, tensor.tensor_content, spec, size, limits)
    else:
        flat = _from_values(name, tensor, spec, size, limits)
    return flat.reshape(shape)


def _sent_dtype(tensor: Any) -> str:
    """Return the name of a tensor's dtype."""
    try:
        return type_name(tf.as_dtype(tensor.dtype).name)
    except TypeError:
        return "an unknown dtype"


def _shape(name: str, proto: Any, limits: LimitsConfig) -> list[int]:
    if proto.unknown_rank:
        raise RequestError(400, f"{name}: the shape is unknown")
    rank = len(proto.dim)
    if rank > MAX_RANK:
        raise RequestError(400, f"{name}: at most {MAX_RANK} dimensions are allowed, not {rank}")
    shape = [int(dim.size) for dim in proto.dim]
    if any(size < 0 for size in shape):
        raise RequestError(400, f"{name}: a negative size in the shape")
    for axis, size in enumerate(shape):
        limit, key = (limits.steps, "steps") if axis else (limits.rows, "rows")
        if size > limit:
            raise limit_error(f"{name}: {size} entries", limit, key)
    if math.prod(size or 1 for size in shape) >= 2**60:  # NumPy rejects it even if a size is 0
        raise RequestError(400, f"{name}: the sizes of the shape are too large together")
    return shape


def _from_content(
    name: str, content: bytes, spec: TensorSpec, size: int, limits: LimitsConfig
) -> np.ndarray:
    if spec.is_text:
        return _text_array(name, _texts_from_content(name, content, size), limits)
    if len(content) != size * spec.dtype.itemsize:
        raise _content_error(name)
    if spec.dtype.kind == "b" and max(content) > 1:
        raise RequestError(400, f"{name}: a boolean is neither 0 nor 1")
    view = _VIEWS.get(spec.dtype.name, spec.dtype)
    return np.frombuffer(content, view.newbyteorder("<")).astype(view).view(spec.dtype)


def _texts_from_content(name: str, content: bytes, size: int) -> list[bytes]:
    """Return the texts of ``tensor_content``: the lengths of all come first."""
    lengths = []
    start = 0
    try:
        for _ in range(min(size, len(content))):
            length, start = _varint(content, start)
            lengths.append(length)
    except IndexError:
        raise _content_error(name) from None
    if len(lengths) != size or start + sum(lengths) != len(content):
        raise _content_error(name)
    ends = accumulate(lengths, initial=start)
    return [content[first:last] for first, last in pairwise(ends)]


def _content_error(name: str) -> RequestError:
    return RequestError(400, f"{name}: tensor_content is not as long as the shape says")


def _from_values(
    name: str, tensor: Any, spec: TensorSpec, size: int, limits: LimitsConfig
) -> np.ndarray:
    field = _VALUE_FIELDS[spec.dtype.name]
    values = getattr(tensor, field)
    count, rest = divmod(len(values), 2 if spec.dtype.kind == "c" else 1)
    if count > size or rest:
        raise RequestError(400, f"{name}: {len(values)} values where the shape has {size}")
    if size and not count and any(len(getattr(tensor, f)) for f in set(_VALUE_FIELDS.values())):
        raise RequestError(400, f"{name}: the values of {spec.type_name} are not in {field}")
    # The last value is repeated for omitted ones, so a short request could need much memory.
    item_size = len(values[-1]) + 8 if spec.is_text and count else spec.dtype.itemsize
    if (size - count) * item_size > limits.body_bytes:
        raise limit_error(f"{name}: too many omitted values", limits.body_bytes, "body_bytes")
    if spec.is_text:
        array = _text_array(name, values, limits)
    elif spec.dtype.kind in "iu":
        array = _integers(name, values, spec.dtype)
    elif _VIEWS.get(spec.dtype.name) == np.uint16:
        array = _integers(name, values, _VIEWS[spec.dtype.name]).view(spec.dtype)
    elif spec.dtype.kind == "c":
        array = np.fromiter(values, _VIEWS[spec.dtype.name], 2 * count).view(spec.dtype)
    else:
        array = np.fromiter(values, spec.dtype, count)
    if count == size:
        return array
    last = array[-1:] if count else np.array([b""] if spec.is_text else [0], spec.dtype)
    return np.concatenate([array, np.repeat(last, size - count)])


def _text_array(name: str, values: Sequence[bytes], limits: LimitsConfig) -> np.ndarray:
    longest = max(map(len, values), default=0)
    if longest > limits.text_bytes:
        raise limit_error(f"{name}: {longest} bytes", limits.text_bytes, "text_bytes")
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def _integers(name: str, values: Any, dtype: np.dtype[Any]) -> np.ndarray:
    info = np.iinfo(dtype)
    if len(values) and not info.min <= min(values) <= max(values) <= info.max:
        raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    return np.fromiter(values, dtype, len(values))
