"""One version of a model, in memory: its signatures, called with arrays.

A SavedModel runs in a session of its own, as in TensorFlow Serving: a call that takes too long is
cancelled, and closing the session gives its memory back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from pipelines.engine.core import _compat
from pipelines.serving.errors import RequestError
from pipelines.serving.json_codec import Arrays, Spec

#: What TensorFlow says when an input has no fitting shape or value.
_WRONG_INPUT = (
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
)
#: SavedModels keep the function that sets their resources up beside those for clients.
_PRIVATE = "__saved_model"


class Signature:
    """One function of a model.

    Attributes:
        inputs, outputs: by name; of strings, the dtype is ``object``.
        by_rows: whether rows of several requests can go through it side by side: each input and
            output has its rows along the first axis, and no output has another axis of open size,
            which would be as long as the longest row makes it.
    """

    def __init__(self, session: Any, definition: Any) -> None:
        self._session = session

        def tensors(infos: Any) -> dict[str, Any]:
            found = {n: session.graph.get_tensor_by_name(i.name) for n, i in sorted(infos.items())}
            return {n: _compat.tensor_handle(tensor) for n, tensor in found.items()}

        self._feeds, self._fetches = tensors(definition.inputs), tensors(definition.outputs)
        self.inputs = {n: _spec(definition.inputs[n]) for n in self._feeds}
        self.outputs = {n: _spec(definition.outputs[n]) for n in self._fetches}
        inputs, outputs = ([s.shape or () for s in d.values()] for d in (self.inputs, self.outputs))
        self.by_rows = (
            bool(inputs)
            and all(shape[:1] == (None,) for shape in inputs + outputs)
            and not any(None in shape[1:] for shape in outputs)
        )

    def __call__(self, inputs: Arrays, seconds: float) -> Arrays:
        """Compute, without holding Python's lock.

        Raises:
            RequestError: 400 if the model cannot take these inputs; 504 if it takes longer than
                ``seconds``, after which nothing of it runs any more.
        """
        try:
            found = self._run({self._feeds[n]: value for n, value in inputs.items()}, seconds)
        except _WRONG_INPUT as error:
            message = str(error.message).split("\n")[0].split("[[")[0].strip()
            raise RequestError(400, f"the model cannot take this: {message[:300]}") from None
        except tf.errors.DeadlineExceededError:
            raise RequestError(504, "the answer takes too long (limits.answer_seconds)") from None
        return {n: np.asarray(value) for n, value in zip(self._fetches, found, strict=True)}

    def _run(self, feeds: dict[Any, np.ndarray], seconds: float) -> list[Any]:
        options = tf.compat.v1.RunOptions(timeout_in_ms=max(int(seconds * 1000), 1))
        fetches = list(self._fetches.values())
        return _compat.run_session(self._session, options.SerializeToString(), feeds, fetches)


class Servable:
    """A version of a model that can be asked."""

    def __init__(self, name: str, version: int, folder: Path) -> None:
        """Load it and call each signature once: the first request shall not wait for that.

        Raises:
            Exception: whatever TensorFlow raises for a folder that is no whole SavedModel.
        """
        self.name, self.version = name, version
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
            _compat.extend_graph(self._session)
            self.signatures = {
                key: Signature(self._session, definition)
                for key, definition in loaded.signature_def.items()
                if not key.startswith(_PRIVATE)
            }
            self._definitions = {
                key: MessageToDict(
                    definition,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
                for key, definition in loaded.signature_def.items()
            }
            for signature in self.signatures.values():
                _warm(signature)
        except BaseException:
            self.close()
            raise

    def metadata(self) -> dict[str, Any]:
        """As TensorFlow Serving tells it."""
        spec = {"name": self.name, "signature_name": "", "version": str(self.version)}
        definitions = {"signature_def": self._definitions}
        return {"model_spec": spec, "metadata": {"signature_def": definitions}}

    def close(self) -> None:
        self._session.close()


def give_back() -> None:
    """Give the memory of closed models back to the system."""
    gc.collect()  # graphs are in cycles
    with contextlib.suppress(AttributeError):  # glibc keeps it, and others have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _spec(info: Any) -> Spec:
    dtype = tf.as_dtype(info.dtype)
    shape = tf.TensorShape(info.tensor_shape)
    sizes = None if shape.rank is None else tuple(shape.as_list())
    return Spec(np.dtype(object if dtype == tf.string else dtype.as_numpy_dtype), sizes)


def _warm(signature: Signature) -> None:
    """Call it with one row of ones, or of words."""
    row = {
        name: np.full(
            [1 if size is None else size for size in spec.shape or ()],
            b"a" if spec.is_text else 1,
            spec.dtype,
        )
        for name, spec in signature.inputs.items()
    }
    try:
        signature(row, seconds=60)
    except RequestError:
        return  # it wants other sizes than these; it has run up to where it noticed
