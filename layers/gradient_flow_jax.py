"""∂L/∂h_t on JAX: see `layers.gradient_flow`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import keras

from layers.recorder import CallRecord, Recorder, zero_perturbations

Gradients = tuple[dict[str, CallRecord], dict[str, jax.Array]]


def gradients(loss: Callable[[], jax.Array]) -> Gradients:
    """Return the calls of recurrent layers and ∂L/∂δ of each, by layer; 0 without a path."""
    recorder = Recorder()
    with keras.StatelessScope(), recorder.recording():
        loss()

    # A second call, as a function of δ: JAX needs δ, and so its shape, before the call.
    def perturbed_loss(deltas: dict[str, jax.Array]) -> jax.Array:
        perturber = Recorder(lambda layer, inputs, states: deltas[layer.name])
        with keras.StatelessScope(), perturber.recording():
            return loss()

    deltas = {
        name: zero_perturbations(call.layer, call.inputs, call.initial_states)
        for name, call in recorder.calls.items()
    }
    return recorder.calls, jax.grad(perturbed_loss)(deltas)


def make_gradients(loss: Callable[[], Any]) -> Callable[[], Gradients]:
    """Return `gradients` of ``loss`` as a function."""
    return functools.partial(gradients, loss)
