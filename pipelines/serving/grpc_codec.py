"""TensorProto, as TensorFlow Serving's gRPC has it, to arrays and back.

Nothing is built of what a client sends before its type, its sizes and its length are known to fit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from pipelines.serving.config import LimitsConfig
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import (
    MOST_DIMENSIONS,
    Arrays,
    Spec,
    check_most,
    expected,
    shown,
    too_much,
)

#: Where a TensorProto has its values one by one.
_FIELDS = {
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
    "object": "string_val",
}
#: Parts of a message at most, and of its inputs all together. Numbers come packed, as one part;
#: texts do not.
_PARTS, _INNER_PARTS = 1_000, 100_000
#: Fields of a PredictRequest, of an entry of its inputs, and of a TensorProto.
_INPUTS, _VALUE, _SHAPE = 2, 2, 2
#: Of a TensorProto: resources and variants, which hold messages themselves.
_FOREIGN = {14, 15}
#: How many bytes a part has that is no varint and tells no length, by its wire type.
_FIXED = {1: 8, 3: 0, 4: 0, 5: 4}


def arrays(given: Mapping[str, Any], specs: Mapping[str, Spec], limits: LimitsConfig) -> Arrays:
    """The inputs of a request, checked against a signature and the limits.

    Args:
        given: TensorProtos by name.

    Raises:
        RequestError: 400, naming the input and what is wrong with it.
    """
    if given.keys() != specs.keys():
        raise RequestError(400, f"the inputs must be {{{', '.join(sorted(specs))}}}")
    found = {name: _array(name, given[name], spec, limits) for name, spec in specs.items()}
    check_most(found, limits)
    return found


def proto(array: np.ndarray) -> Any:
    """A TensorProto.

    Its values are one by one, as in TensorFlow Serving's answers: clients read ``float_val``.
    """
    dtype = tf.as_dtype(array.dtype)
    if array.dtype.name not in _FIELDS:
        return tf.make_tensor_proto(array, dtype, array.shape)
    shape = tf.TensorShape(array.shape).as_proto()
    answer = TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape)
    flat = array.ravel()
    values = flat.view(np.uint16) if flat.dtype == np.float16 else flat
    getattr(answer, _FIELDS[array.dtype.name]).extend(values.tolist())
    return answer


def is_crowded(raw: bytes) -> bool:
    """Whether a PredictRequest has more parts than a request needs, told before it is read.

    An input without anything has two bytes, and takes more than a hundred once it is read; so does
    whatever stands in those fields of a tensor that no signature of ours has.
    """
    inner = 0
    try:
        for outer, (field, entry) in enumerate(_parts(raw, 0, len(raw)), start=1):
            if outer > _PARTS:
                return True
            if field != _INPUTS:
                continue
            with contextlib.suppress(IndexError, KeyError):  # nor is the rest of it read
                for is_foreign in _inside(raw, entry):
                    inner += 1
                    if is_foreign or inner > _INNER_PARTS:
                        return True
    except (IndexError, KeyError):
        return False  # broken from here on; who reads it says so
    return False


def _inside(raw: bytes, entry: tuple[int, int]) -> Iterator[bool]:
    """Of each part of an entry of the inputs, whether no signature of ours has its like."""
    for field_of_entry, value in _parts(raw, *entry):
        yield False
        if field_of_entry != _VALUE:
            continue
        for field_of_tensor, content in _parts(raw, *value):
            yield field_of_tensor in _FOREIGN
            if field_of_tensor == _SHAPE:
                yield from (False for _ in _parts(raw, *content))


def _parts(raw: bytes, place: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """The number of each field of a message, and where its content begins and ends.

    Raises:
        IndexError, KeyError: it is no message.
    """
    while place < end:
        tag, place = _varint(raw, place)
        kind = tag & 7
        if kind == 2:
            size, place = _varint(raw, place)
        elif kind == 0:
            size = _varint(raw, place)[1] - place
        else:
            size = _FIXED[kind]
        if place + size > end:
            raise IndexError
        # What has no length of its own has no parts.
        yield tag >> 3, (place, place + size if kind == 2 else place)
        place += size


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = raw[place + shift // 7]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + shift // 7 + 1
    raise IndexError


def _array(name: str, tensor: Any, spec: Spec, limits: LimitsConfig) -> np.ndarray:
    if spec.dtype.name not in _FIELDS:
        raise RequestError(400, f"{name}: a tensor of {spec.dtype} cannot be sent")
    if tensor.dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
        raise RequestError(400, f"{name}: {expected(spec)}, and the dtype is another")
    shape = _shape(name, tensor.tensor_shape, spec, limits)
    if tensor.tensor_content:
        flat = _of_content(name, tensor.tensor_content, spec, math.prod(shape))
    else:
        values = getattr(tensor, _FIELDS[spec.dtype.name])
        flat = _of_values(name, values, spec, math.prod(shape), limits)
    if spec.dtype.kind == "f" and not np.isfinite(flat).all():
        raise RequestError(400, f"{name}: a number that is not finite")
    return flat.reshape(shape)


def _shape(name: str, given: Any, spec: Spec, limits: LimitsConfig) -> list[int]:
    if given.unknown_rank:
        raise RequestError(400, f"{name}: the shape is unknown")
    rank = len(given.dim)
    if rank > MOST_DIMENSIONS if spec.shape is None else rank != len(spec.shape):
        what = "fewer dimensions are expected" if spec.shape is None else expected(spec)
        raise RequestError(400, f"{name}: {what}, not {rank} dimensions")
    shape = [int(dim.size) for dim in given.dim]
    if any(size < 0 for size in shape):
        raise RequestError(400, f"{name}: a negative size in the shape")
    if any(s not in (None, n) for s, n in zip(spec.shape or (), shape, strict=False)):
        raise RequestError(400, f"{name}: {expected(spec)}, not {shown(shape)}")
    for place, size in enumerate(shape):
        bound, key = (limits.steps, "steps") if place else (limits.rows, "rows")
        if size > bound:
            raise too_much(f"{name}: {size} entries", bound, key)
    if math.prod(size or 1 for size in shape) >= 2**60:  # also where another size is 0
        raise RequestError(400, f"{name}: the sizes of the shape are too large together")
    return shape


def _of_content(name: str, content: bytes, spec: Spec, size: int) -> np.ndarray:
    if spec.is_text:
        raise RequestError(400, f"{name}: strings are sent as string_val")
    if len(content) != size * spec.dtype.itemsize:
        raise RequestError(400, f"{name}: tensor_content is not as long as the shape says")
    if spec.dtype.kind == "b" and max(content) > 1:
        raise RequestError(400, f"{name}: a truth value is neither 0 nor 1")
    little = np.frombuffer(content, spec.dtype.newbyteorder("<"))
    return little.astype(spec.dtype)


def _of_values(name: str, values: Any, spec: Spec, size: int, limits: LimitsConfig) -> np.ndarray:
    count = len(values)
    if count > size or (size and not count):
        raise RequestError(400, f"{name}: {count} values where the shape has {size}")
    # The last one stands for those that are left out. A short request could become a large array.
    each = len(values[-1]) + 8 if spec.is_text and count else spec.dtype.itemsize
    if (size - count) * each > limits.body_bytes:
        raise too_much(f"{name}: what is left out", limits.body_bytes, "body_bytes")
    if spec.is_text:
        longest = max(map(len, values), default=0)
        if longest > limits.text_bytes:
            raise too_much(f"{name}: {longest} bytes", limits.text_bytes, "text_bytes")
        found = np.empty(count, object)
        found[:] = list(values)
    elif spec.dtype == np.float16:
        found = _whole(name, values, np.dtype(np.uint16)).view(np.float16)
    elif spec.dtype.kind in "iu":
        found = _whole(name, values, spec.dtype)
    else:
        found = np.fromiter(values, spec.dtype, count)
    return found if count == size else np.concatenate([found, np.repeat(found[-1:], size - count)])


def _whole(name: str, values: Any, dtype: np.dtype[Any]) -> np.ndarray:
    info = np.iinfo(dtype)
    if len(values) and not info.min <= min(values) <= max(values) <= info.max:
        raise RequestError(400, f"{name}: a number that {dtype} cannot hold")
    return np.fromiter(values, dtype, len(values))
