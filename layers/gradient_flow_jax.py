"""∂L/∂h_t on JAX: see `layers.gradient_flow`."""

import functools

import jax
import keras

from layers.recorder import Recorder, zero_perturbations


def gradients(loss):
    """The recurrent calls of ``loss`` by layer, and ∂L/∂δ of each; 0 where there is no path."""
    watch = Recorder()
    with keras.StatelessScope(), watch.looking():
        loss()

    # Anew, as a function of the nudges: JAX wants them, and so their shapes, before the call.
    def nudged_loss(nudges):
        nudge = Recorder(lambda layer, inputs, states: nudges[layer.name])
        with keras.StatelessScope(), nudge.looking():
            return loss()

    nudges = {name: zero_perturbations(*seen[:3]) for name, seen in watch.seen.items()}
    return watch.seen, jax.grad(nudged_loss)(nudges)


def repeated(loss):
    """`gradients` of ``loss``, as a function."""
    return functools.partial(gradients, loss)
