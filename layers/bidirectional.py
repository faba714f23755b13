"""Reading a sequence in both directions."""

import keras
from keras import ops

from layers.unfold import lengths_to_mask


@keras.saving.register_keras_serializable(package="unfold")
class Bidirectional(keras.layers.Bidirectional):
    """One layer reads forwards, one backwards, their outputs are merged."""

    def call(self, sequences, initial_state=None, mask=None, training=None, lengths=None):
        if lengths is not None:
            if mask is not None:
                raise ValueError(f"{self.name}: give lengths or a mask, not both")
            mask = lengths_to_mask(lengths, ops.shape(sequences)[1])
        states = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            states = [list(initial_state[:half]), list(initial_state[half:])]
        forward, backward = (
            layer(sequences, initial_state=state, mask=mask, training=training)
            for layer, state in zip((self.forward_layer, self.backward_layer), states, strict=True)
        )
        last_states = ()
        if self.return_state:
            last_states = (*forward[1:], *backward[1:])
            forward, backward = forward[0], backward[0]
        if self.return_sequences:
            backward = ops.flip(backward, axis=1)
        merged = self._merge(forward, backward)
        if not self.return_state:
            return merged
        return (*merged, *last_states) if self.merge_mode is None else (merged, *last_states)

    def _merge(self, forward, backward):
        forward = ops.cast(forward, self.compute_dtype)
        backward = ops.cast(backward, self.compute_dtype)
        match self.merge_mode:
            case "concat":
                return ops.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "ave":
                return (forward + backward) / 2
            case "mul":
                return forward * backward
            case None:
                return forward, backward

    def trace(self, sequences, initial_state=None, mask=None, lengths=None):
        """``{"forward": ..., "backward": ...}``, both in the order of the input."""
        states = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            states = [list(initial_state[:half]), list(initial_state[half:])]
        traced = {}
        for name, layer, state in zip(
            ("forward", "backward"), (self.forward_layer, self.backward_layer), states, strict=True
        ):
            steps = layer.trace(sequences, initial_state=state, mask=mask, lengths=lengths)
            if layer.go_backwards:
                steps = {key: ops.flip(value, axis=1) for key, value in steps.items()}
            traced[name] = steps
        return traced
