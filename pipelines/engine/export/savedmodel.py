"""A trained run as a SavedModel: string in, string out, core TensorFlow ops only.

Written in a TensorFlow process with no GPU visible, from the run's ``model.keras`` and
``processor/``, whatever backend and device it was trained on.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import new_folder

#: Ops that need a library, a device or a file that a stock CPU server does not have.
_FOREIGN = ("Cudnn", "XlaCallModule", "PyFunc", "EagerPyFunc")


@dataclass(frozen=True)
class Endpoint:
    """One signature: a function of tensors and the specs of its arguments."""

    function: Callable[..., dict[str, tf.Tensor]]
    inputs: dict[str, tf.TensorSpec]


def write(
    folder: Path, model: keras.Model, endpoints: dict[str, Endpoint], resources: list[tf.Module]
) -> None:
    """Write a SavedModel to ``folder``, whole or not at all.

    Args:
        endpoints: by signature name; the one named ``serving_default`` is the main one.
        resources: what the endpoints use besides the model (lookup tables).
    """
    with new_folder(folder) as work:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for resource in resources:
            archive.track(resource)
        for name, endpoint in endpoints.items():
            archive.add_endpoint(
                name, endpoint.function, input_signature=list(endpoint.inputs.values())
            )
        with _disk_errors(folder):
            archive.write_out(str(work), verbose=False)
        check(work)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What TensorFlow raises where a disk is full, as Python raises it.

    Raises:
        OSError: in its place.
    """
    try:
        yield
    except tf.errors.OpError as error:
        said = str(error.message).rpartition("; ")[2].strip()  # of the system, after the path
        number = next((n for n in errno.errorcode if os.strerror(n) == said), None)
        if number is None:
            raise
        raise OSError(number, said, str(folder)) from None


def read(folder: Path) -> saved_model_pb2.SavedModel:
    """Return the graphs and signatures of a SavedModel as stored, which takes less than loading it.

    Raises:
        UserError: The folder is not a SavedModel.
    """
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (FileNotFoundError, DecodeError):
        raise UserError(f"{folder}: not a SavedModel") from None
    return proto


def ops(folder: Path) -> set[str]:
    """The names of all ops in a SavedModel, functions included."""

    def names() -> Iterator[str]:
        for graph in (meta.graph_def for meta in read(folder).meta_graphs):
            yield from (node.op for node in graph.node)
            for function in graph.library.function:
                yield from (node.op for node in function.node_def)

    return set(names())


def check(folder: Path) -> None:
    """Refuse to export what a stock TensorFlow on a CPU could not serve."""
    foreign = sorted(op for op in ops(folder) if op.startswith(_FOREIGN))
    if foreign:
        raise RuntimeError(f"the SavedModel holds ops that a CPU server lacks: {foreign}")


def load(folder: Path) -> Any:
    """A SavedModel, ready to call. Keep the returned object: signatures do not keep it alive."""
    return tf.saved_model.load(str(folder))


def mlflow_signature(folder: Path, binary: Sequence[str] = ()) -> Any:
    """The serving signature in MLflow's words: its columns by name and type.

    Args:
        binary: inputs that are bytes and not text, which TensorFlow does not tell apart.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    scalars = {
        tf.string: DataType.string,
        tf.bool: DataType.boolean,
        tf.float32: DataType.float,
        tf.float64: DataType.double,
        tf.uint8: DataType.integer,
        tf.int32: DataType.integer,
        tf.int64: DataType.long,
    }
    serve = read(folder).meta_graphs[0].signature_def["serving_default"]

    # JSON has no other numbers, and within an array MLflow makes them no narrower.
    widest = {DataType.float: DataType.double, DataType.integer: DataType.long}

    def schema(tensors: Mapping[str, TensorInfo], *, given: bool = False) -> Schema:
        columns: list[Any] = []
        for name, tensor in sorted(tensors.items()):
            kind: Any = DataType.binary if name in binary else scalars[tf.as_dtype(tensor.dtype)]
            nested = len(tensor.tensor_shape.dim) - 1
            if given and nested > 0:
                kind = widest.get(kind, kind)
            for _ in range(nested):
                kind = Array(kind)
            columns.append(ColSpec(kind, name))
        return Schema(columns)

    return ModelSignature(inputs=schema(serve.inputs, given=True), outputs=schema(serve.outputs))
