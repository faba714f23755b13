"""Unfolding a cell over time, and where backpropagation through time is cut.

A recurrent layer is one cell applied at every step with the same weights. `unfold` is that
loop; differentiating it is backpropagation through time (Werbos 1990). `Unfolded` is the
Keras layer around the loop: which steps of a row are real, what the state is before the
first one, and what is returned.
"""

import functools
import importlib.util
import inspect
import itertools
import operator
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

# The loop under keras.layers.RNN; the public keras.ops.scan is slower in a TensorFlow graph.
from keras.src import backend

from layers.recorder import CallRecord, current_recorder, perturbed
from layers.streaming import current_state

TALL = 256  # inputs; 15-20 % of a training step at 256 inputs and 512 units, a loss below 128


def unfold(step, xs, states, mask=None, cuts=None, unroll=False, record=None):
    """Apply ``step`` from the first to the last entry of ``xs``.

    Args:
        step: ``(x_t, states) -> next states``.
        xs: [time, batch, ...], what each step reads.
        states: list of [batch, units], the state before the first step.
        mask: bool [time, batch, 1]; where False the state is carried over unchanged.
        cuts: bool [time, batch or 1, 1]; where True no gradient passes into the step from
            the steps before it.
        unroll: write the steps out one after the other instead of a loop; one step always is.
        record: ``states -> tensor``, what is kept of every step; None keeps nothing.

    Returns:
        What was recorded, [time, batch, ...] (None if nothing), and the last states.
    """
    time = xs.shape[0]
    if time == 0:
        return (None if record is None else record(states)[None][:0]), states
    counted = mask is not None or cuts is not None

    def body(x_t, carried):
        t, before = (carried[-1], carried[:-1]) if counted else (None, carried)
        if cuts is not None:
            before = [ops.where(cuts[t], ops.stop_gradient(s), s) for s in before]
        after = step(x_t, before)
        if mask is not None:
            after = [ops.where(mask[t], new, old) for new, old in zip(after, before, strict=True)]
        kept = after[0] if record is None else record(after)
        return kept, [*after, t + 1] if counted else after

    _, recorded, states = backend.rnn(
        body,
        xs,
        [*states, ops.convert_to_tensor(0, dtype="int32")] if counted else list(states),
        unroll=unroll or time == 1,
        # A list, because Keras takes a bare tensor for one length per row.
        input_length=[ops.shape(xs)[0]] if time is None else time,
        time_major=True,
        return_all_outputs=record is not None,
    )
    states = list(states[:-1] if counted else states)
    return (None if record is None else recorded), states


def multiplies_first(inputs):
    """Whether x @ U is one product for all steps before the loop, or one a step within it.

    One product stores [time, batch, gates] and reads it back; one a step adds a matrix of the
    size of U to its gradient at every step. In a TensorFlow graph the first wins once U is
    tall; under XLA, which is what JAX runs on, it always lost.
    """
    return keras.backend.backend() == "tensorflow" and inputs >= TALL


def lengths_to_mask(lengths, timesteps):
    """bool [batch, timesteps]: True where the step is one of the row's first ``lengths``."""
    lengths = ops.convert_to_tensor(lengths)
    if len(lengths.shape) != 1 or "int" not in keras.backend.standardize_dtype(lengths.dtype):
        raise ValueError(
            f"lengths must be whole numbers [batch], received {lengths.dtype} {lengths.shape}"
        )
    return ops.arange(timesteps, dtype="int32")[None] < ops.cast(lengths, "int32")[:, None]


def truncation_cuts(k, timesteps, mask):
    """Where truncated BPTT cuts: before a row's steps k, 2k, 3k, ... (counted from 0).

    Only steps that a row takes are counted, so padding does not move the cuts.
    """
    if mask is None:
        taken = ops.arange(timesteps, dtype="int32")[:, None, None]
        return (taken > 0) & (taken % k == 0)
    takes = ops.cast(mask, "int32")
    taken = ops.cumsum(takes, axis=0) - takes
    return (taken > 0) & (taken % k == 0) & mask


def check_truncate(k):
    """None, or a whole number of steps of at least one."""
    if k is None:
        return None
    try:
        steps = operator.index(k)
    except TypeError:
        steps = 0
    if steps < 1 or isinstance(k, bool):
        raise ValueError(f"truncate must be None or a whole number of steps >= 1, received {k!r}")
    return steps


def time_major(sequence):
    """[batch, time, ...] to [time, batch, ...]; its own inverse."""
    return ops.swapaxes(sequence, 0, 1)


@functools.cache
def of_backend(kind):
    """The backend's module ``layers.{kind}_{backend}``; None where it has none."""
    name = f"layers.{kind}_{keras.backend.backend()}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def zero_unless(condition, tensor):
    return ops.where(condition, tensor, ops.zeros_like(tensor))


class Route(NamedTuple):
    """Which implementation a call takes, and why."""

    name: str
    reason: str


class Unfolded(keras.layers.RNN):
    """A cell unfolded over a sequence: what `SimpleRNN`, `LSTM` and `GRU` have in common.

    Subclasses name their cell, and the classes of Keras they replace: the arguments are
    Keras's, in Keras's order, plus ``initial`` and ``truncate``.
    """

    cell_class: type
    cell_name: str
    keras_class: type
    keras_cell_class: type
    share = 1  # how many layers go through time at once, and share the cores

    def equations(self):
        """The class of `layers.bptt` that derives this layer's gradient."""
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs):
        """Keras's layers show their cell's arguments as properties; these its views as well."""
        super().__init_subclass__(**kwargs)
        views = [name for name in dir(cls.cell_class) if name.split("_")[0] in ("U", "W", "b")]
        for name in (*_parameters(cls.keras_cell_class), "initial", *views):
            setattr(cls, name, of_cell(name))

    def __init__(self, *args, initial="zeros", truncate=None, **kwargs):
        truncate = check_truncate(truncate)
        bound = inspect.signature(self.keras_class.__init__).bind_partial(self, *args, **kwargs)
        kwargs = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        del kwargs["self"]
        kwargs.pop("kwargs", None)
        use_cudnn = kwargs.pop("use_cudnn", "auto")
        if use_cudnn not in ("auto", True, False):
            raise ValueError(f"use_cudnn must be 'auto', True or False, received {use_cudnn!r}")
        for_cell = [*_parameters(self.keras_cell_class), "implementation"]
        if initial == "learned" and kwargs.get("stateful"):
            raise ValueError(
                "initial='learned' cannot be trained with stateful=True: "
                "the state a stateful layer starts from is a variable, not the learned vector"
            )
        cell = self.cell_class(
            **{name: kwargs.pop(name) for name in for_cell if name in kwargs},
            initial=initial,
            name=self.cell_name,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
        )
        super().__init__(cell, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.use_cudnn = use_cudnn
        self.truncate = truncate

    def call(self, sequences, initial_state=None, mask=None, training=False, lengths=None):
        # Keras does it for TensorFlow, but not for JAX inside a transformation.
        sequences = ops.convert_to_tensor(sequences, dtype=self.compute_dtype)
        streaming = current_state()
        if streaming is not None:
            if self.go_backwards:
                raise ValueError(f"{self.name} reads from the end: it cannot read in pieces")
            if initial_state is None:
                initial_state = streaming.before.get(self.name)
        states = self._states_before(sequences, initial_state)
        x, mask = self._in_order_of_processing(sequences, mask, lengths)
        kept_x, kept_h = self.cell.dropout_masks(
            ops.zeros((ops.shape(x)[0], x.shape[2]), dtype=x.dtype), states[0], training
        )
        self.cell.reset_dropout_mask()
        self.cell.reset_recurrent_dropout_mask()

        own = of_backend("bptt")
        route = self.route(training, compiled=own is not None and own.is_compiled(x))
        few = x.shape[1] in (0, 1)  # no loop to be quicker than
        recorder = current_recorder()
        if recorder is not None:
            take = functools.partial(self._recorded, recorder)
        elif few:
            take = self._portable
        else:
            take = getattr(self, f"_{route.name}")
            if not training and x.shape[1] is None and initial_state is not None:
                take = functools.partial(self._one_or_more, take)
        hidden, last_states = take(x, states, mask, kept_x, kept_h)
        if streaming is not None:
            streaming.after[self.name] = list(last_states)
        if self.stateful:
            for variable, state in zip(self.states, last_states, strict=True):
                variable.assign(ops.cast(state, variable.dtype))

        if self.return_sequences:
            output = self._outputs(hidden, mask, from_zeros=self._starts_at_zero(initial_state))
        elif mask is not None and self.zero_output_for_mask and x.shape[1] != 0:
            output = zero_unless(mask[:, -1:], last_states[0])
        else:
            output = last_states[0]
        return (output, *last_states) if self.return_state else output

    def route(self, training=False, compiled=True):
        """Which of the implementations over the same weights a call takes, and why.

        Args:
            training: as in the call.
            compiled: whether the call is part of a compiled function, as in `fit`.

        Returns:
            `Route`: ``cudnn``, NVIDIA's kernel; ``by_hand``, the gradient derived in
            `layers.bptt`; ``fused``, TensorFlow's kernel for inference; or ``portable``, the
            loop of `unfold` with the backend's own gradient; and the reason in words.

        Raises:
            ValueError: ``use_cudnn=True`` and a training call cannot take that path.
        """
        route = self._choose_route(training, compiled)
        if self.use_cudnn is True and training and route.name != "cudnn":
            raise ValueError(f"{self.name}: use_cudnn=True, but the route is {route}")
        return route

    def _choose_route(self, training, compiled):
        cell, equations = self.cell, self.equations().__name__
        sigma = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
        if self.unroll:
            return Route("portable", "unroll=True")
        if cell.activation is not keras.activations.tanh:
            return Route("portable", f"activation={cell.activation.__name__}, not tanh")
        if sigma is not keras.activations.sigmoid:
            return Route("portable", f"recurrent_activation={sigma.__name__}, not sigmoid")
        if not training:
            return self._choose_inference(equations, compiled)
        if 0.0 < cell.recurrent_dropout < 1.0:
            return Route("portable", "recurrent_dropout")
        if 0.0 < cell.dropout < 1.0 and getattr(cell, "implementation", 2) == 1:
            return Route("portable", "implementation=1: a dropout mask for each gate")
        cudnn = of_backend("cudnn")
        if self.use_cudnn is False:
            refusal = "use_cudnn=False"
        elif cudnn is None or equations not in cudnn.CELLS:
            refusal = f"no cuDNN for {equations} on the {keras.backend.backend()} backend"
        elif self.truncate is not None:
            refusal = "cuDNN does not truncate"
        elif self.compute_dtype not in cudnn.DTYPES:
            refusal = f"cuDNN does not compute in {self.compute_dtype}"
        else:
            refusal = cudnn.refusal()
        if refusal is None:
            return Route("cudnn", "an NVIDIA GPU")
        if of_backend("bptt") is None:
            return Route("portable", f"the only one on the {keras.backend.backend()} backend")
        if not compiled:
            return Route("portable", f"an eager call is not worth compiling; {refusal}")
        return Route("by_hand", f"backpropagation through time as derived by hand; {refusal}")

    def _choose_inference(self, equations, compiled):
        fused = of_backend("fused")
        if not compiled:
            return Route("portable", "an eager call in inference")
        if fused is None or equations not in fused.CELLS or self.compute_dtype not in fused.DTYPES:
            return Route("portable", f"inference; no fused {equations} in {self.compute_dtype}")
        if self.truncate is not None:
            return Route("portable", "inference; the fused kernel's gradient does not truncate")
        refusal = fused.refusal()
        if refusal is not None:
            return Route("portable", f"inference; {refusal}")
        return Route("fused", f"inference, of up to {fused.ROWS} rows")

    def _portable(self, x, states, mask, kept_x=None, kept_h=None):
        """Hidden states [batch, time, units] (None if not returned) and the last states."""
        record = (lambda states: states[0]) if self.return_sequences else None
        return self._loop(record, x, states, mask, kept_x, kept_h)

    def _recorded(self, recorder, x, states, mask, kept_x=None, kept_h=None):
        """As `_portable`; the call is recorded, see `layers.recorder`."""
        perturb = recorder.perturbation
        deltas = None if perturb is None else perturb(self, x, states)
        after, last_states = self._states_over_time(x, states, mask, kept_x, kept_h, deltas)
        recorder.record(CallRecord(self, x, states, mask, after))
        return after[0], last_states

    def _states_over_time(self, x, states, mask, kept_x=None, kept_h=None, deltas=None):
        """Each state after every step, [batch, time, units], and the last states."""

        def record(states):
            return ops.concatenate(states, axis=-1)

        after, last_states = self._loop(record, x, states, mask, kept_x, kept_h, deltas)
        ends = np.cumsum([0, *(s.shape[-1] for s in states)])
        return [after[..., a:b] for a, b in itertools.pairwise(ends)], last_states

    def _loop(self, record, x, states, mask, kept_x=None, kept_h=None, deltas=None):
        """What is recorded of each step, [batch, time, ...], and the last states.

        ``deltas`` [batch, time, units of all states] are added to the states.
        """
        x, mask, cuts = self._time_major(x, mask)
        xs, step = self._inputs_and_step(x, kept_x, kept_h)
        if deltas is not None:
            step = perturbed(step, [s.shape[-1] for s in states])
            xs = ops.concatenate([xs, time_major(deltas)], axis=-1)
        recorded, last_states = unfold(
            step, xs, states, mask=mask, cuts=cuts, unroll=self.unroll, record=record
        )
        return None if recorded is None else time_major(recorded), last_states

    def _one_or_more(self, several, x, states, mask, kept_x=None, kept_h=None):
        """As ``several``, but a single step, as of a stream, is taken without loop and kernel."""

        def flat(hidden, last):
            return [*([hidden] if self.return_sequences else []), *last]

        def one():
            now = None if mask is None else mask[:, :1]
            return flat(*self._portable(x[:, :1], states, now, kept_x, kept_h))

        def more():
            return flat(*several(x, states, mask, kept_x, kept_h))

        taken = ops.cond(ops.shape(x)[1] == 1, one, more)
        return (taken[0], taken[1:]) if self.return_sequences else (None, taken)

    def _by_hand(self, x, states, mask, kept_x=None, kept_h=None):
        """As `_portable`."""
        return of_backend("bptt").unfold(
            self.equations(),
            x if kept_x is None else x * kept_x[:, None],
            states,
            *self._weights(),
            mask=mask,
            truncate=self.truncate,
            sequences=self.return_sequences,
            share=self.share,
        )

    def _cudnn(self, x, states, mask, kept_x=None, kept_h=None):
        """As `_portable`."""
        x = x if kept_x is None else x * kept_x[:, None]
        return self._by_kernel(of_backend("cudnn"), x, states, mask)

    def _fused(self, x, states, mask, kept_x=None, kept_h=None):
        """As `_portable`, which it is for many rows."""
        fused = of_backend("fused")

        def few():
            # + 0: the gradient of a branch cannot ask for the shape of what is from outside it.
            hidden, last = self._by_kernel(fused, x, [s + 0 for s in states], mask)
            return [*([hidden] if self.return_sequences else []), *last]

        def many():
            hidden, last = self._portable(x, states, mask)
            return [*([hidden] if self.return_sequences else []), *last]

        rows = x.shape[0]
        if rows is None:
            taken = ops.cond(ops.shape(x)[0] <= fused.ROWS, few, many)
        else:
            taken = few() if rows <= fused.ROWS else many()
        return (taken[0], taken[1:]) if self.return_sequences else (None, taken)

    def _by_kernel(self, kernel, x, states, mask):
        """As `_portable`. Kernels know lengths only: the real steps of a row are moved to its
        front, wherever the mask has them, and what was computed of them back."""
        if mask is None:
            count = ops.zeros(ops.shape(x)[:1], dtype="int32") + ops.shape(x)[1]
        else:
            x = zero_unless(mask[..., None], x)
            count = ops.sum(ops.cast(mask, "int32"), axis=1)
            steps = ops.arange(ops.shape(mask)[1], dtype="int32")
            front = ops.argsort(ops.where(mask, 0, ops.shape(mask)[1]) + steps, axis=1)
            x = ops.take_along_axis(x, front[..., None], axis=1)
        # An empty row is given a step too, of which nothing is kept.
        lengths = ops.cast(ops.maximum(count, 1), "int32")
        hidden, last = kernel.sequence(
            self.equations().__name__, x, states, *self._weights(), lengths
        )
        if mask is not None:
            some = count[:, None] > 0
            last = [ops.where(some, new, s) for new, s in zip(last, states, strict=True)]
            place = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1
            moved = ops.take_along_axis(hidden, ops.maximum(place, 0)[..., None], axis=1)
            hidden = ops.where(place[..., None] >= 0, moved, states[0][:, None])
        return hidden, last

    def _weights(self):
        """U, W, b and the recurrent bias b', zero where there is none."""
        W, *biases = self.cell.step_weights()
        zeros = ops.zeros((W.shape[-1],), dtype=W.dtype)
        b, b_recurrent = [zeros + b for b in (*biases, 0.0)[:2]]
        return self.cell.input_weights(), W, b, b_recurrent

    def trace(self, sequences, initial_state=None, mask=None, lengths=None):
        """Every gate, candidate and state of every step, by name.

        Args: those of a call in inference; the layer is not changed, a stateful one neither.

        Returns:
            dict of [batch, time, units] in the compute dtype, time in the order of
            processing. ``hidden_state`` is what a call with ``return_sequences=True``
            returns. Where a step is padding, nothing is computed: gates and candidate are 0
            and the cell state is carried over.
        """
        if not self.built:
            raise ValueError(f"{self.name}: build or call the layer before tracing it")
        sequences = ops.convert_to_tensor(sequences, dtype=self.compute_dtype)
        states = self._states_before(sequences, initial_state)
        x, mask = self._in_order_of_processing(sequences, mask, lengths)
        after, _ = self._states_over_time(x, states, mask)
        traced = self.evaluate_steps(x, states, mask, after)
        traced["hidden_state"] = self._outputs(
            traced["hidden_state"], mask, from_zeros=self._starts_at_zero(initial_state)
        )
        return traced

    def evaluate_steps(self, x, states, mask, after):
        """As `trace`, of a call that `layers.recorder` recorded, in its order of processing;
        where a step is padding, the hidden state is carried over too.

        Args:
            after: each state after every step, [batch, time, units].
        """
        # With the states known, the equations of all steps are evaluated at once.
        before = [
            ops.concatenate([first[:, None], s], axis=1)[:, :-1]
            for first, s in zip(states, after, strict=True)
        ]
        x_U = self.cell.input_product(x, self.cell.input_weights())
        taken = self.cell.step(x_U, before, self.cell.step_weights())._asdict()
        if mask is not None:
            taken = {name: zero_unless(mask[..., None], v) for name, v in taken.items()}
        return taken | dict(zip(self.cell.state_names, after, strict=True))

    def _inputs_and_step(self, x, kept_x=None, kept_h=None):
        """What `unfold` loops over: the inputs of all steps, and the step they go through."""
        cell = self.cell
        U, weights = cell.input_weights(), cell.step_weights()

        def step(x_U_t, states):
            return cell.states_of(cell.step(x_U_t, states, weights, kept_h))

        if multiplies_first(x.shape[-1]):
            return cell.input_product(x, U, kept_x), step
        return x, lambda x_t, states: step(cell.input_product(x_t, U, kept_x), states)

    def _states_before(self, sequences, initial_state):
        """The state before the first step: given, carried from the last batch, or initial."""
        if self.stateful and sequences.shape[0] not in (None, self.states[0].shape[0]):
            raise ValueError(
                f"{self.name} is stateful for batches of {self.states[0].shape[0]} rows, "
                f"received {sequences.shape[0]}"
            )
        if initial_state is None and self.stateful:
            initial_state = self.states
        if initial_state is None:
            return self.get_initial_state(batch_size=ops.shape(sequences)[0])
        if not isinstance(initial_state, (list, tuple)):
            initial_state = [initial_state]
        if len(initial_state) != len(self.cell.state_names):
            raise ValueError(
                f"{self.name}: initial_state must hold {', '.join(self.cell.state_names)}, "
                f"received {len(initial_state)} tensors"
            )
        return [ops.convert_to_tensor(s, dtype=self.compute_dtype) for s in initial_state]

    def _in_order_of_processing(self, sequences, mask, lengths):
        """Inputs and mask [batch, time], the first step to be taken first."""
        if self.unroll and sequences.shape[1] is None:
            raise ValueError(f"{self.name}: unroll=True needs a known number of timesteps")
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if lengths is not None:
            if mask is not None:
                raise ValueError(f"{self.name}: give lengths or a mask, not both")
            mask = lengths_to_mask(lengths, ops.shape(sequences)[1])
        if mask is not None:
            mask = ops.cast(mask, "bool")
            if len(mask.shape) == 3:
                mask = mask[..., 0]
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        return sequences, mask

    def _time_major(self, x, mask):
        """What `unfold` goes over: inputs, mask and gradient cuts, [time, batch, ...]."""
        timesteps = x.shape[1]
        x = time_major(x)
        if mask is not None:
            # Turned as floats: oneDNN under TensorFlow complains of turning anything else.
            mask = time_major(ops.where(mask, 1.0, 0.0)[..., None]) > 0.5
            # Not only ignored: 0 times a padding of inf or NaN would be NaN in U's gradient.
            x = zero_unless(mask, x)
        cuts = None
        if self.truncate is not None and (timesteps is None or self.truncate < timesteps):
            cuts = truncation_cuts(self.truncate, ops.shape(x)[0], mask)
        return x, mask, cuts

    def _starts_at_zero(self, initial_state):
        return initial_state is None and not self.stateful and self.cell.initial == "zeros"

    def _outputs(self, hidden, mask, from_zeros):
        """The hidden states of all steps, [batch, time, units], as outputs.

        At a padded step the output is the previous one (zero with ``zero_output_for_mask``);
        before a row's first real step there is none yet, and the output is zero.
        """
        if mask is not None and self.zero_output_for_mask:
            return zero_unless(mask[..., None], hidden)
        if mask is not None and not from_zeros:
            begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            return zero_unless(begun[..., None], hidden)
        return hidden

    def reset_state(self):
        """Put the carried state of a stateful layer back to the initial state."""
        if self.states is not None:
            first = self.get_initial_state(batch_size=self.states[0].shape[0])
            for variable, state in zip(self.states, first, strict=True):
                variable.assign(ops.cast(state, variable.dtype))

    def get_config(self):
        """Keras's config; what Keras does not know appears only where it was set."""
        config = super().get_config()
        del config["cell"]
        of_cell = self.cell.get_config()
        config |= {k: v for k, v in of_cell.items() if k not in ("name", "trainable", "dtype")}
        config["activity_regularizer"] = keras.regularizers.serialize(self.activity_regularizer)
        if self.truncate is not None:
            config["truncate"] = self.truncate
        if self.use_cudnn != "auto":
            config["use_cudnn"] = self.use_cudnn
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _parameters(keras_class):
    """Names of the arguments of a class of Keras, in order."""
    parameters = inspect.signature(keras_class.__init__).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]


def of_cell(name):
    """A read-only property of the layer that is the cell's property of the same name."""
    return property(lambda self: getattr(self.cell, name), doc=f"``cell.{name}``.")
