"""Choose the implementation that a call of a recurrent layer runs.

There are four, over the same weights:

- ``cudnn``: NVIDIA's kernel, for training on a GPU; see `layers.cudnn_tensorflow`.
- ``by_hand``: the loop with the gradient derived in `layers.bptt`, for training in a compiled
  function.
- ``fused``: TensorFlow's kernel for inference of an LSTM; see `layers.fused_tensorflow`.
- ``portable``: the loop of `layers.unfold` with the backend's own gradient, for everything else.

`choose_route` decides and says why; `run` executes the decision.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from layers.backends import Tensor, backend_module
from layers.unfold import Sequences, unfold_cell, zero_unless

#: The hidden states [batch, time, units], None if not returned, and the last states.
Result = tuple[Tensor | None, list[Tensor]]


class Route(NamedTuple):
    """The implementation that a call runs, and why."""

    name: Literal["cudnn", "by_hand", "fused", "portable"]
    reason: str


# -- the choice ------------------------------------------------------------------------------


def choose_route(layer: Any, training: bool, compiled: bool) -> Route:
    """Return the fastest route that computes what ``layer`` is configured for.

    Args:
        layer: a `layers.base.RecurrentLayer`.
        training: whether the call trains.
        compiled: whether the call is part of a compiled function, as in `fit`.
    """
    cell = layer.cell
    sigma = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
    if layer.unroll:
        return Route("portable", "unroll=True")
    if cell.activation is not keras.activations.tanh:
        return Route("portable", f"activation={cell.activation.__name__}, not tanh")
    if sigma is not keras.activations.sigmoid:
        return Route("portable", f"recurrent_activation={sigma.__name__}, not sigmoid")
    return _training_route(layer, compiled) if training else _inference_route(layer, compiled)


def _training_route(layer: Any, compiled: bool) -> Route:
    cell = layer.cell
    if 0.0 < cell.recurrent_dropout < 1.0:
        return Route("portable", "recurrent_dropout")
    if 0.0 < cell.dropout < 1.0 and getattr(cell, "implementation", 2) == 1:
        return Route("portable", "implementation=1: a dropout mask for each gate")
    refusal = _cudnn_refusal(layer)
    if refusal is None:
        return Route("cudnn", "an NVIDIA GPU")
    if backend_module("bptt") is None:
        return Route("portable", f"the only one on the {keras.backend.backend()} backend")
    if not compiled:
        return Route("portable", f"an eager call is not worth compiling; {refusal}")
    return Route("by_hand", f"backpropagation through time as derived by hand; {refusal}")


def _cudnn_refusal(layer: Any) -> str | None:
    """Return why training cannot run on cuDNN, or None if it can."""
    cudnn, equations = backend_module("cudnn"), layer.equations().__name__
    if layer.use_cudnn is False:
        return "use_cudnn=False"
    if cudnn is None or equations not in cudnn.CELLS:
        return f"no cuDNN for {equations} on the {keras.backend.backend()} backend"
    if layer.truncate is not None:
        return "cuDNN does not truncate"
    if layer.compute_dtype not in cudnn.DTYPES:
        return f"cuDNN does not compute in {layer.compute_dtype}"
    refusal: str | None = cudnn.refusal()
    return refusal


def _inference_route(layer: Any, compiled: bool) -> Route:
    fused, equations = backend_module("fused"), layer.equations().__name__
    dtype = layer.compute_dtype
    if not compiled:
        return Route("portable", "an eager call in inference")
    if fused is None or equations not in fused.CELLS or dtype not in fused.DTYPES:
        return Route("portable", f"inference; no fused {equations} in {dtype}")
    if layer.truncate is not None:
        return Route("portable", "inference; the fused kernel's gradient does not truncate")
    refusal = fused.refusal()
    if refusal is not None:
        return Route("portable", f"inference; {refusal}")
    return Route("fused", f"inference, of up to {fused.ROWS} rows")


def is_compiled(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is traced for a compiled function of a backend that has routes."""
    bptt = backend_module("bptt")
    return bptt is not None and bool(bptt.is_compiled(tensor))


# -- the routes ------------------------------------------------------------------------------


def run(route: Route, layer: Any, sequences: Sequences, may_be_one_step: bool = False) -> Result:
    """Run a layer over its input, by ``route``.

    Args:
        may_be_one_step: whether a sequence of unknown length is often a single step, as when
            a text is generated; that step then needs neither loop nor kernel.
    """
    timesteps = sequences.x.shape[1]
    if timesteps in (0, 1):  # there is no loop to be faster than
        return run_portable(layer, sequences)
    implementation = _ROUTES[route.name]
    if may_be_one_step and timesteps is None:
        return _one_step_or(implementation, layer, sequences)
    return implementation(layer, sequences)


def run_portable(layer: Any, sequences: Sequences) -> Result:
    """Run the loop of `layers.unfold`."""
    record = (lambda states: states[0]) if layer.return_sequences else None
    return unfold_cell(layer, sequences, record)


def run_by_hand(layer: Any, sequences: Sequences) -> Result:
    """Run the loop whose gradient `layers.bptt` derives."""
    x, states, mask, x_dropout, _ = sequences
    result: Result = backend_module("bptt").unfold(
        layer.equations(),
        _dropped(x, x_dropout),
        states,
        *_weights(layer),
        mask=mask,
        truncate=layer.truncate,
        sequences=layer.return_sequences,
        concurrent_layers=layer.concurrent_layers,
    )
    return result


def run_cudnn(layer: Any, sequences: Sequences) -> Result:
    """Run NVIDIA's kernel."""
    x, states, mask, x_dropout, _ = sequences
    return _run_kernel(backend_module("cudnn"), layer, _dropped(x, x_dropout), states, mask)


def run_fused(layer: Any, sequences: Sequences) -> Result:
    """Run TensorFlow's kernel for a few rows, and the loop for many."""
    fused = backend_module("fused")
    x, states, mask, *_ = sequences

    def few() -> list[Tensor]:
        # + 0: the gradient of a branch cannot ask for the shape of a tensor from outside it.
        return _flat(layer, _run_kernel(fused, layer, x, [s + 0 for s in states], mask))

    def many() -> list[Tensor]:
        return _flat(layer, run_portable(layer, Sequences(x, states, mask)))

    rows = x.shape[0]
    if rows is None:
        return _unflat(layer, ops.cond(ops.shape(x)[0] <= fused.ROWS, few, many))
    return _unflat(layer, few() if rows <= fused.ROWS else many())


def _one_step_or(
    implementation: Callable[[Any, Sequences], Result], layer: Any, sequences: Sequences
) -> Result:
    """Run a single step without loop and kernel, and more by ``implementation``."""

    def one() -> list[Tensor]:
        x, mask = sequences.x, sequences.mask
        first = sequences._replace(x=x[:, :1], mask=None if mask is None else mask[:, :1])
        return _flat(layer, run_portable(layer, first))

    def more() -> list[Tensor]:
        return _flat(layer, implementation(layer, sequences))

    return _unflat(layer, ops.cond(ops.shape(sequences.x)[1] == 1, one, more))


def _flat(layer: Any, result: Result) -> list[Tensor]:
    """Return the tensors of a result as one list, which both branches of a `cond` must return."""
    hidden, last = result
    return [*([hidden] if layer.return_sequences else []), *last]


def _unflat(layer: Any, tensors: list[Tensor]) -> Result:
    """Invert `_flat`."""
    return (tensors[0], tensors[1:]) if layer.return_sequences else (None, tensors)


def _run_kernel(
    kernel: Any, layer: Any, x: Tensor, states: list[Tensor], mask: Tensor | None
) -> Result:
    """Run a kernel that knows right-padded rows only.

    The real steps of a row are moved to its front, wherever the mask has them, and their hidden
    states back.
    """
    if mask is None:
        count = ops.zeros(ops.shape(x)[:1], dtype="int32") + ops.shape(x)[1]
    else:
        x = zero_unless(mask[..., None], x)
        count = ops.sum(ops.cast(mask, "int32"), axis=1)
        steps = ops.arange(ops.shape(mask)[1], dtype="int32")
        front = ops.argsort(ops.where(mask, 0, ops.shape(mask)[1]) + steps, axis=1)
        x = ops.take_along_axis(x, front[..., None], axis=1)
    # Kernels need at least one step; that of an empty row is discarded below.
    lengths = ops.cast(ops.maximum(count, 1), "int32")
    hidden, last = kernel.sequence(layer.equations().__name__, x, states, *_weights(layer), lengths)
    if mask is not None:
        some = count[:, None] > 0
        last = [ops.where(some, new, s) for new, s in zip(last, states, strict=True)]
        index = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1
        moved = ops.take_along_axis(hidden, ops.maximum(index, 0)[..., None], axis=1)
        hidden = ops.where(index[..., None] >= 0, moved, states[0][:, None])
    return hidden, last


def _dropped(x: Tensor, dropout: Tensor | None) -> Tensor:
    """Return inputs [batch, time, inputs] under one mask [batch, inputs] for all steps."""
    return x if dropout is None else x * dropout[:, None]


def _weights(layer: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, W, b and the recurrent bias b', zero where the layer has none."""
    W, *biases = layer.cell.step_weights()
    zeros = ops.zeros((W.shape[-1],), dtype=W.dtype)
    b, b_recurrent = [zeros + b for b in (*biases, 0.0)[:2]]
    return layer.cell.input_weights(), W, b, b_recurrent


_ROUTES: dict[str, Callable[[Any, Sequences], Result]] = {
    "portable": run_portable,
    "by_hand": run_by_hand,
    "cudnn": run_cudnn,
    "fused": run_fused,
}
