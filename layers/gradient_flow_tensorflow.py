"""∂L/∂h_t on TensorFlow: see `layers.gradient_flow`."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from layers.recorder import CallRecord, Recorder, zero_perturbations

Gradients = tuple[dict[str, CallRecord], dict[str, tf.Tensor]]


def gradients(loss: Callable[[], tf.Tensor]) -> Gradients:
    """Return the calls of recurrent layers and ∂L/∂δ of each, by layer; 0 without a path."""
    deltas: dict[str, tf.Tensor] = {}

    def perturbation(layer: Any, inputs: tf.Tensor, initial_states: list[tf.Tensor]) -> tf.Tensor:
        deltas[layer.name] = zero_perturbations(layer, inputs, initial_states)
        tape.watch(deltas[layer.name])
        return deltas[layer.name]

    recorder = Recorder(perturbation)
    with tf.GradientTape() as tape, keras.StatelessScope(), recorder.recording():
        result = loss()
    return recorder.calls, tape.gradient(result, deltas, unconnected_gradients="zero")


def make_gradients(loss: Callable[[], tf.Tensor]) -> Callable[[], Gradients]:
    """Return `gradients` of ``loss`` as a function that is traced once.

    A call runs about a thousand operations, which take seconds one by one.
    """
    layers: dict[str, Any] = {}

    @tf.function(autograph=False)
    def compiled() -> Any:
        calls, by_layer = gradients(loss)
        layers.update({name: call.layer for name, call in calls.items()})
        return {name: tuple(call[1:]) for name, call in calls.items()}, by_layer

    def computed() -> Gradients:
        calls, by_layer = compiled()
        # A traced function returns dicts sorted by name; ``layers`` is in the order of the calls.
        return {name: CallRecord(layer, *calls[name]) for name, layer in layers.items()}, by_layer

    return computed
