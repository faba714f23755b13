"""∂L/∂h_t on JAX: see `layers.flow`."""

import functools

import jax
import keras

from layers.watch import Watch, no_nudges


def gradients(loss):
    """The recurrent calls of ``loss`` by layer, and ∂L/∂δ of each; 0 where there is no path."""
    watch = Watch()
    with keras.StatelessScope(), watch.looking():
        loss()

    # Anew, as a function of the nudges: JAX wants them, and so their shapes, before the call.
    def nudged_loss(nudges):
        nudge = Watch(lambda layer, inputs, states: nudges[layer.name])
        with keras.StatelessScope(), nudge.looking():
            return loss()

    nudges = {name: no_nudges(*seen[:3]) for name, seen in watch.seen.items()}
    return watch.seen, jax.grad(nudged_loss)(nudges)


def repeated(loss):
    """`gradients` of ``loss``, as a function."""
    return functools.partial(gradients, loss)
