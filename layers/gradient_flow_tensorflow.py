"""∂L/∂h_t on TensorFlow: see `layers.gradient_flow`."""

import keras
import tensorflow as tf

from layers.recorder import CallRecord, Recorder, zero_perturbations


def gradients(loss):
    """The recurrent calls of ``loss`` by layer, and ∂L/∂δ of each; 0 where there is no path."""
    nudges = {}

    def nudge(layer, inputs, states):
        nudges[layer.name] = zero_perturbations(layer, inputs, states)
        tape.watch(nudges[layer.name])
        return nudges[layer.name]

    watch = Recorder(nudge)
    with tf.GradientTape() as tape, keras.StatelessScope(), watch.looking():
        result = loss()
    return watch.seen, tape.gradient(result, nudges, unconnected_gradients="zero")


def repeated(loss):
    """`gradients` of ``loss`` as a function that is traced once: some thousand eager operations
    a call take seconds."""
    layers = {}

    @tf.function(autograph=False)
    def look():
        calls, found = gradients(loss)
        layers.update({name: seen.layer for name, seen in calls.items()})
        return {name: tuple(seen[1:]) for name, seen in calls.items()}, found

    def again():
        calls, found = look()
        # A function gives its dicts in the order of their names, the layers are in that of calls.
        return {name: CallRecord(layer, *calls[name]) for name, layer in layers.items()}, found

    return again
