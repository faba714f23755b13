"""One loaded version of a model: its signatures, called with arrays.

Each SavedModel runs in its own session, as in TensorFlow Serving: a call that takes too long can be
cancelled, and closing the session frees its memory.
"""

from __future__ import annotations

import contextlib
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from pipelines.engine.core import _compat
from pipelines.engine.core.paths import EXPORT_ORIGIN
from pipelines.engine.export.digest import Digest
from pipelines.serving import memory
from pipelines.serving.errors import RequestError, hide_paths, out_of_memory
from pipelines.serving.json_codec import Arrays, TensorSpec
from pipelines.serving.log import LOGGER
from pipelines.serving.state_changes import changes_state

#: What TensorFlow raises for an input of the wrong shape or value.
_INVALID_INPUT = (
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
)
#: Prefix of the functions with which a SavedModel initialises itself.
_PRIVATE_PREFIX = "__saved_model"


class Signature:
    """One function of a model.

    Attributes:
        inputs: Specs by name.
        outputs: Specs by name.
        changes_state: Whether a call changes variables or other state of the model.
        is_batchable: Whether the rows of several requests can share a call: each input and output
            has its rows along the first axis, no output has another axis of unknown size, whose
            length would depend on the longest row of the batch, and calls change no state.
    """

    def __init__(self, session: Any, definition: Any, *, changes_state: bool = False) -> None:
        """Look up the tensors of a signature.

        Args:
            session: The session with the model's graph.
            definition: The signature's ``SignatureDef``.
            changes_state: Whether a call changes variables or other state of the model.
        """
        self._session, self.changes_state = session, changes_state

        def handles(infos: Any) -> dict[str, Any]:
            tensors = {
                name: session.graph.get_tensor_by_name(info.name)
                for name, info in sorted(infos.items())
            }
            return {name: _compat.tensor_handle(tensor) for name, tensor in tensors.items()}

        self._feeds, self._fetches = handles(definition.inputs), handles(definition.outputs)
        self.inputs = {name: _tensor_spec(definition.inputs[name]) for name in self._feeds}
        self.outputs = {name: _tensor_spec(definition.outputs[name]) for name in self._fetches}
        inputs = [spec.shape or () for spec in self.inputs.values()]
        outputs = [spec.shape or () for spec in self.outputs.values()]
        self.is_batchable = (
            bool(inputs)
            and not changes_state
            and all(shape[:1] == (None,) for shape in inputs + outputs)
            and not any(None in shape[1:] for shape in outputs)
        )

    def __call__(self, inputs: Arrays, seconds: float) -> Arrays:
        """Compute the outputs, without holding Python's global lock.

        Args:
            inputs: Arrays by name, with the dtypes of `inputs`.
            seconds: Time limit, after which the computation is cancelled.

        Raises:
            RequestError: With status 400 if the model rejects the inputs, 404 if it does not find
                what they name, 503 if there is not enough memory, or 504 after ``seconds``.
        """
        options = tf.compat.v1.RunOptions(timeout_in_ms=max(int(seconds * 1000), 1))
        feeds = {self._feeds[name]: value for name, value in inputs.items()}
        try:
            values = _compat.run_session(
                self._session, options.SerializeToString(), feeds, list(self._fetches.values())
            )
        except _INVALID_INPUT as error:
            message = hide_paths(str(error.message).split("\n")[0].split("[[")[0].strip())
            status = 404 if isinstance(error, tf.errors.NotFoundError) else 400
            raise RequestError(
                status, f"the model cannot take this: {message[:300]}", error.error_code
            ) from None
        except tf.errors.ResourceExhaustedError:
            raise out_of_memory() from None
        except tf.errors.DeadlineExceededError:
            raise RequestError(504, "the answer takes too long (limits.answer_seconds)") from None
        return {name: _as_array(v) for name, v in zip(self._fetches, values, strict=True)}


class Servable:
    """A loaded version of a model.

    Attributes:
        name: The model's name.
        version: The version's number.
        signatures: The public signatures by name.
        digest: The distributions of requests and answers in training, if the export has them.
        origin: Which ``run`` it is of, its ``data``, and its ``score`` in a ``metric``, as far as
            the export says so.
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        """Load a SavedModel and call each signature once, so that first requests are fast.

        Signatures that change the model's state are not called.

        Raises:
            Exception: Whatever TensorFlow raises for an incomplete SavedModel.
        """
        self.name, self.version = name, version
        self.origin = _read_origin(folder)
        self.digest = _read_digest(name, version, folder)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
            _compat.extend_graph(self._session)
            self.signatures = {
                key: Signature(
                    self._session,
                    definition,
                    changes_state=changes_state(loaded.graph_def, definition),
                )
                for key, definition in loaded.signature_def.items()
                if not key.startswith(_PRIVATE_PREFIX)
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
                if not signature.changes_state:
                    _warm_up(signature)
        except BaseException:
            self.close()
            raise

    def metadata(self) -> dict[str, Any]:
        """Return the signatures in the JSON format of TensorFlow Serving's metadata."""
        spec = {"name": self.name, "signature_name": "", "version": str(self.version)}
        definitions = {"signature_def": self._definitions}
        return {"model_spec": spec, "metadata": {"signature_def": definitions}}

    def close(self) -> None:
        """Close the session, which frees its memory."""
        self._session.close()


def release_memory() -> None:
    """Return the memory of closed models to the operating system."""
    gc.collect()  # graphs contain reference cycles
    memory.trim()


def _read_origin(folder: Path) -> dict[str, Any]:
    """Return what an export says of its run; nothing if other software wrote it."""
    try:
        origin = json.loads((folder / EXPORT_ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    keys = ("run", "data", "metric", "score")
    return {key: origin[key] for key in keys if key in origin} if isinstance(origin, dict) else {}


def _read_digest(name: str, version: int, folder: Path) -> Digest | None:
    """Return the digest of an export; None, and a line of the log, if it cannot be read."""
    try:
        return Digest.read(folder)
    except ValueError as error:
        reason = str(error).replace(str(folder), f"{name}/{version}")
        LOGGER.warning("no metrics of drift", model=name, version=version, reason=reason)
        return None


def _tensor_spec(info: Any) -> TensorSpec:
    dtype = tf.as_dtype(info.dtype)
    shape = tf.TensorShape(info.tensor_shape)
    sizes = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(np.dtype(object if dtype == tf.string else dtype.as_numpy_dtype), sizes)


def _as_array(value: Any) -> np.ndarray:
    """Return an output as an array; TensorFlow returns a scalar as a NumPy scalar or bytes."""
    if not isinstance(value, bytes):
        return np.asarray(value)
    array = np.empty((), object)  # NumPy's own dtype for bytes would drop zeros at the end
    array[()] = value
    return array


def _warm_up(signature: Signature) -> None:
    """Call a signature with one row of ones, or of short texts."""
    row = {
        name: np.full(
            [1 if size is None else size for size in spec.shape or ()],
            b"a" if spec.is_text else 1,
            spec.dtype,
        )
        for name, spec in signature.inputs.items()
    }
    # It may need other inputs; what ran before the error is warm.
    with contextlib.suppress(RequestError, tf.errors.OpError):
        signature(row, seconds=60)
