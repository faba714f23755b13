"""∂L/∂h_t on TensorFlow: see `layers.flow`."""

import keras
import tensorflow as tf

from layers.watch import Seen, Watch, no_nudges


def gradients(loss):
    """The recurrent calls of ``loss`` by layer, and ∂L/∂δ of each; 0 where there is no path."""
    nudges = {}

    def nudge(layer, inputs, states):
        nudges[layer.name] = no_nudges(layer, inputs, states)
        tape.watch(nudges[layer.name])
        return nudges[layer.name]

    watch = Watch(nudge)
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
        return {name: Seen(layer, *calls[name]) for name, layer in layers.items()}, found

    return again
