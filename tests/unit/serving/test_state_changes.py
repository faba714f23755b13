"""Which signatures change a model's state."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from pipelines.serving.state_changes import changes_state


class State(tf.Module):
    """Functions of a number, which read or change something."""

    def __init__(self) -> None:
        self.variable = tf.Variable(1.0)
        self.generator = tf.random.Generator.from_seed(1)
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)

    def reads(self, x):
        return self.variable * x + self.table.lookup(tf.constant("a"))

    def draws(self, x):
        tf.print("a draw")
        return x + tf.random.normal([]) + tf.random.stateless_normal([], [1, 2])

    def loops(self, x):
        return tf.while_loop(lambda i, n: i < 3, lambda i, n: (i + 1, n + self.variable), (0, x))[1]

    def assigns(self, x):
        return self.variable.assign_add(x)

    def assigns_beside(self, x):
        self.variable.assign(x)
        return tf.identity(1.0)

    def assigns_perhaps(self, x):
        return tf.cond(x > 0, lambda: self.variable.assign_add(x), lambda: x)

    def assigns_in_a_loop(self, x):
        def step(i, n):
            return i + 1, self.variable.assign_add(n)

        return tf.while_loop(lambda i, n: i < 3, step, (0, x))[1]

    def inserts(self, x):
        self.table.insert(tf.constant("a"), x)
        return x

    def moves_a_generator(self, x):
        return x + self.generator.normal([])

    def writes(self, x):
        tf.io.write_file("never", tf.strings.as_string(x))
        return x


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reads", False),
        ("draws", False),
        ("loops", False),
        ("assigns", True),
        ("assigns_beside", True),
        ("assigns_perhaps", True),
        ("assigns_in_a_loop", True),
        ("inserts", True),
        ("moves_a_generator", True),
        ("writes", True),
    ],
)
def test_changes_of_state_are_found_wherever_they_are(name, expected):
    inner = tf.function(getattr(State(), name))
    outer = tf.function(lambda x: inner(x) + 1.0).get_concrete_function(
        tf.TensorSpec([], tf.float32)
    )
    definition = SignatureDef(outputs={"y": TensorInfo(name=outer.outputs[0].name)})
    assert changes_state(outer.graph.as_graph_def(), definition) == expected


def test_what_no_output_needs_does_not_count():
    """A graph of TensorFlow 1 holds what initialises and saves its variables too."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        variable = v1.get_variable("v", initializer=1.0, use_resource=False)
        changed = v1.assign_add(variable, 1.0)
        with tf.control_dependencies([changed]):
            after = tf.identity(2.0)
        read = variable * 2.0
    for tensor, expected in ((read, False), (changed, True), (after, True)):
        definition = SignatureDef(outputs={"y": TensorInfo(name=tensor.name)})
        assert changes_state(graph.as_graph_def(), definition) == expected
