"""Read a sequence in both directions."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from layers.backends import Tensor
from layers.unfold import lengths_to_mask


@keras.saving.register_keras_serializable(package="unfold")
class Bidirectional(keras.layers.Bidirectional):
    """Bidirectional wrapper: one layer reads forwards, another backwards, and outputs are merged.

    For step functions f and f' (Schuster & Paliwal 1997)::

        →h_t = f(x_t, →h_{t-1})        t = 1, ..., T
        ←h_t = f'(x_t, ←h_{t+1})       t = T, ..., 1
        y_t  = [→h_t ; ←h_t]           or their sum, mean or product

    The backward layer starts a padded row at its last real step, whatever the padding.

    Args: those of `keras.layers.Bidirectional`, with any layer of `layers` (or of Keras). The
    backward layer gets every setting of the forward one but the direction, `truncate` and
    `initial` included; a given ``backward_layer`` keeps its own. As in Keras,
    ``zero_output_for_mask`` is set to ``return_sequences``. ``weights``, which Keras accepts
    and ignores, are set when the layer is built.

    Call arguments: ``sequences`` float [batch, time, inputs]; ``initial_state``, the forward
    states followed by the backward ones; ``mask`` bool [batch, time] or ``lengths`` int
    [batch]; ``training``.

    Returns: the merged output, if concatenated [batch, time, 2 units] with ``return_sequences``
    and [batch, 2 units] without; two tensors with ``merge_mode=None``. With ``return_state``,
    the last states follow.

    Raises:
        ValueError: mask and lengths were both given; the number of states is odd; or the two
            layers differ in what they return.
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Sequence[Any] | None = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        use_cudnn = getattr(backward_layer, "use_cudnn", None)
        super().__init__(
            layer, merge_mode=merge_mode, weights=None, backward_layer=backward_layer, **kwargs
        )
        if use_cudnn is not None:  # Keras would copy the forward layer's
            self.backward_layer.use_cudnn = use_cudnn
        self.forward_layer.concurrent_layers = self.backward_layer.concurrent_layers = 2
        self._given_weights = weights

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        if self._given_weights:
            self.set_weights(self._given_weights)
            self._given_weights = None

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: bool | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        """Return the merged outputs, see `Bidirectional`."""
        mask = self._one_mask(sequences, mask, lengths)
        forward, backward = (
            layer(sequences, initial_state=state, mask=mask, training=training)
            for layer, state in self._layers_and_states(initial_state)
        )
        last_states: tuple[Tensor, ...] = ()
        if self.return_state:
            last_states = (*forward[1:], *backward[1:])
            forward, backward = forward[0], backward[0]
        if self.return_sequences:
            backward = ops.flip(backward, axis=1)
        merged = self._merge(
            ops.cast(forward, self.compute_dtype), ops.cast(backward, self.compute_dtype)
        )
        if not self.return_state:
            return merged
        return (*merged, *last_states) if self.merge_mode is None else (merged, *last_states)

    def trace(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        lengths: Tensor | None = None,
    ) -> dict[str, dict[str, Tensor]]:
        """Return the traces of the two layers, ``{"forward": ..., "backward": ...}``.

        Both are in the order of the input: entry t of either belongs to step t.
        """
        mask = self._one_mask(sequences, mask, lengths)
        traces = []
        for layer, state in self._layers_and_states(initial_state):
            steps = layer.trace(sequences, initial_state=state, mask=mask)
            if layer.go_backwards:
                steps = {name: ops.flip(value, axis=1) for name, value in steps.items()}
            traces.append(steps)
        return {"forward": traces[0], "backward": traces[1]}

    def _one_mask(self, sequences: Tensor, mask: Any, lengths: Tensor | None) -> Any:
        """Return the mask, whether it was given as such or by lengths."""
        if lengths is None:
            return mask
        if mask is not None:
            raise ValueError(f"{self.name}: give lengths or a mask, not both")
        return lengths_to_mask(lengths, ops.shape(sequences)[1])

    def _layers_and_states(self, initial_state: Any) -> Iterator[tuple[Any, Any]]:
        states: tuple[Any, Any] = (None, None)
        if initial_state is not None:
            half, odd = divmod(len(initial_state), 2)
            if odd:
                raise ValueError(
                    f"{self.name}: initial_state must hold the forward states and then as many "
                    f"backward states, received {len(initial_state)} tensors"
                )
            states = (list(initial_state[:half]), list(initial_state[half:]))
        return zip((self.forward_layer, self.backward_layer), states, strict=True)

    def _merge(self, forward: Tensor, backward: Tensor) -> Any:
        match self.merge_mode:
            case "concat":
                return ops.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "ave":
                return (forward + backward) / 2
            case "mul":
                return forward * backward
            case _:
                return forward, backward
