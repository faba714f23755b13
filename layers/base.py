"""The Keras layer around an unfolded cell: what `SimpleRNN`, `LSTM` and `GRU` have in common.

Which steps of a row are real, what the state is before the first one, and what is returned. The
loop over time is in `layers.unfold`, the choice of its implementation in `layers.routing`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from layers.backends import Tensor
from layers.recorder import CallRecord, Recorder, current_recorder
from layers.routing import Result, Route, choose_route, is_compiled, run
from layers.streaming import current_state
from layers.unfold import (
    Sequences,
    check_truncate,
    lengths_to_mask,
    unfold_states,
    zero_unless,
)


class RecurrentLayer(keras.layers.RNN):
    """A cell unfolded over a sequence.

    Subclasses name their cell and the classes of Keras that they replace: the arguments are
    Keras's, in Keras's order, plus ``initial`` and ``truncate``. See `layers.recurrent` for
    arguments, shapes and errors.
    """

    cell_class: ClassVar[Any]
    cell_name: ClassVar[str]
    keras_class: ClassVar[Any]
    keras_cell_class: ClassVar[Any]
    concurrent_layers = 1  # how many layers run at once and share the cores

    def equations(self) -> Any:
        """Return the class of `layers.derivatives` for this layer's cell."""
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the layer its cell's arguments, as Keras does, and views as properties."""
        super().__init_subclass__(**kwargs)
        views = [name for name in dir(cls.cell_class) if name.split("_")[0] in ("U", "W", "b")]
        for name in (*_parameters(cls.keras_cell_class), "initial", *views):
            setattr(cls, name, _cell_property(name))

    def __init__(
        self, *args: Any, initial: str = "zeros", truncate: int | None = None, **kwargs: Any
    ) -> None:
        truncate = check_truncate(truncate)
        kwargs = self._by_name(args, kwargs)
        use_cudnn = kwargs.pop("use_cudnn", "auto")
        if use_cudnn not in ("auto", True, False):
            raise ValueError(f"use_cudnn must be 'auto', True or False, received {use_cudnn!r}")
        if initial == "learned" and kwargs.get("stateful"):
            raise ValueError(
                "initial='learned' cannot be trained with stateful=True: "
                "the state a stateful layer starts from is a variable, not the learned vector"
            )
        for_cell = [*_parameters(self.keras_cell_class), "implementation"]
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

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by their names in Keras's layer, in whose order ``args`` are."""
        bound = inspect.signature(self.keras_class.__init__).bind_partial(self, *args, **kwargs)
        by_name = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        return {name: v for name, v in by_name.items() if name not in ("self", "kwargs")}

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
        lengths: Tensor | None = None,
    ) -> Any:
        """Run the layer; see `layers.recurrent` for arguments and results."""
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
        dropout = self.cell.dropout_masks(
            ops.zeros((ops.shape(x)[0], x.shape[2]), dtype=x.dtype), states[0], training
        )
        self.cell.reset_dropout_mask()
        self.cell.reset_recurrent_dropout_mask()

        given = Sequences(x, states, mask, *dropout)
        route = self.route(training, compiled=is_compiled(x))
        recorder = current_recorder()
        if recorder is not None:
            hidden, last_states = self._run_recorded(recorder, given)
        else:
            continues = not training and initial_state is not None
            hidden, last_states = run(route, self, given, may_be_one_step=continues)
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

    def route(self, training: bool = False, compiled: bool = True) -> Route:
        """Return which of the implementations over the same weights a call runs, and why.

        Args:
            training: as in the call.
            compiled: whether the call is part of a compiled function, as in `fit`.

        Returns:
            `layers.routing.Route`: ``cudnn``, NVIDIA's kernel; ``by_hand``, the gradient derived
            in `layers.bptt`; ``fused``, TensorFlow's kernel for inference; or ``portable``, the
            loop of `layers.unfold` with the backend's own gradient; and the reason.

        Raises:
            ValueError: ``use_cudnn=True``, but a training call cannot take that route.
        """
        route = choose_route(self, training, compiled)
        if self.use_cudnn is True and training and route.name != "cudnn":
            raise ValueError(f"{self.name}: use_cudnn=True, but the route is {route}")
        return route

    def _run_recorded(self, recorder: Recorder, given: Sequences) -> Result:
        """Run the portable route, keep all states and record the call."""
        x, states, mask, *_ = given
        perturb = recorder.perturbation
        perturbations = None if perturb is None else perturb(self, x, states)
        after, last_states = unfold_states(self, given, perturbations)
        recorder.record(CallRecord(self, x, states, mask, after))
        return after[0], last_states

    def trace(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return every gate, candidate and state of every step, by name.

        The layer is not changed, not even a stateful one.

        Args: those of a call in inference.

        Returns:
            dict of <float>[batch, time, units] in the compute dtype, time in the order of
            processing. ``hidden_state`` is what a call with ``return_sequences=True`` returns.
            At a padded step nothing is computed: gates and candidate are 0, and the cell state
            stays as it was.

        Raises:
            ValueError: the layer is not built, or as for a call.
        """
        if not self.built:
            raise ValueError(f"{self.name}: build or call the layer before tracing it")
        sequences = ops.convert_to_tensor(sequences, dtype=self.compute_dtype)
        states = self._states_before(sequences, initial_state)
        x, mask = self._in_order_of_processing(sequences, mask, lengths)
        after, _ = unfold_states(self, Sequences(x, states, mask))
        values = self.evaluate_steps(x, states, mask, after)
        values["hidden_state"] = self._outputs(
            values["hidden_state"], mask, from_zeros=self._starts_at_zero(initial_state)
        )
        return values

    def evaluate_steps(
        self,
        inputs: Tensor,
        initial_states: list[Tensor],
        mask: Tensor | None,
        states: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the values of all steps, given the states: the equations, evaluated at once.

        Args: those of `layers.recorder.CallRecord`, in the order of processing.

        Returns:
            As `trace`, but at a padded step the hidden state stays as it was, too.
        """
        before = [
            ops.concatenate([first[:, None], s], axis=1)[:, :-1]
            for first, s in zip(initial_states, states, strict=True)
        ]
        x_U = self.cell.input_product(inputs, self.cell.input_weights())
        values: dict[str, Tensor] = self.cell.step(x_U, before, self.cell.step_weights())._asdict()
        if mask is not None:
            values = {name: zero_unless(mask[..., None], v) for name, v in values.items()}
        return values | dict(zip(self.cell.state_names, states, strict=True))

    def _states_before(self, sequences: Tensor, initial_state: Any) -> list[Tensor]:
        """Return the states before the first step: given, of the last batch, or initial."""
        if self.stateful and sequences.shape[0] not in (None, self.states[0].shape[0]):
            raise ValueError(
                f"{self.name} is stateful for batches of {self.states[0].shape[0]} rows, "
                f"received {sequences.shape[0]}"
            )
        if initial_state is None and self.stateful:
            initial_state = self.states
        if initial_state is None:
            states: list[Tensor] = self.get_initial_state(batch_size=ops.shape(sequences)[0])
            return states
        if not isinstance(initial_state, (list, tuple)):
            initial_state = [initial_state]
        if len(initial_state) != len(self.cell.state_names):
            raise ValueError(
                f"{self.name}: initial_state must hold {', '.join(self.cell.state_names)}, "
                f"received {len(initial_state)} tensors"
            )
        return [ops.convert_to_tensor(s, dtype=self.compute_dtype) for s in initial_state]

    def _in_order_of_processing(
        self, sequences: Tensor, mask: Any, lengths: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return inputs and mask [batch, time], the first step to process first."""
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

    def _starts_at_zero(self, initial_state: Any) -> bool:
        return initial_state is None and not self.stateful and self.cell.initial == "zeros"

    def _outputs(self, hidden: Tensor, mask: Tensor | None, from_zeros: bool) -> Tensor:
        """Return the outputs of all steps, given their hidden states [batch, time, units].

        At a padded step the output is the previous one (zero with ``zero_output_for_mask``);
        before a row's first real step there is none, and the output is zero.
        """
        if mask is not None and self.zero_output_for_mask:
            return zero_unless(mask[..., None], hidden)
        if mask is not None and not from_zeros:
            begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            return zero_unless(begun[..., None], hidden)
        return hidden

    def reset_state(self) -> None:
        """Set the states of a stateful layer back to the initial state."""
        if self.states is not None:
            first = self.get_initial_state(batch_size=self.states[0].shape[0])
            for variable, state in zip(self.states, first, strict=True):
                variable.assign(ops.cast(state, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return Keras's config, and what Keras does not know where it was set."""
        config: dict[str, Any] = super().get_config()
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
    def from_config(cls, config: dict[str, Any]) -> "RecurrentLayer":
        return cls(**config)


def _parameters(keras_class: Any) -> list[str]:
    """Return the names of the arguments of a class of Keras, in order."""
    parameters = inspect.signature(keras_class.__init__).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]


def _cell_property(name: str) -> property:
    """Return a read-only property of the layer that shows the cell's of the same name."""
    return property(lambda self: getattr(self.cell, name), doc=f"``cell.{name}``.")
