"""Attention: at each step of one sequence, a look at all steps of another."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="unfold")
class AdditiveAttention(keras.layers.Layer):
    """Additive attention (Bahdanau, Cho & Bengio 2015)::

        e_tj = vᵀ tanh(W s_t + k_j)         how well step j answers the question s_t
        α_tj = exp(e_tj) / Σ_i exp(e_ti)    over the real steps i only
        c_t  = Σ_j α_tj h_j                 the context

    s_t are the states that ask, h_j the memory that is looked at. The paper's U h_j are the keys
    k_j, given: they are the same for every t, so whoever makes the memory makes them once (a
    `keras.layers.Dense` on it), also where the s_t come one at a time.

    Args:
        units: size of the space in which s_t and k_j meet.
        seed: of the initial weights.

    Weights: ``W`` [query size, units], ``v`` [units].

    Call arguments:
        query: float [batch, steps, query size], the s_t.
        keys: float [batch, time, units].
        memory: float [batch, time, features], the h_j.
        mask: bool [batch, time], True where a step of the memory is real.

    Returns: the contexts [batch, steps, features], and the weights α [batch, steps, time]. Both
    are zero in a row whose memory has no real step.

    Raises:
        ValueError: the keys are not of size ``units``.
    """

    def __init__(self, units, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.seed = units, seed
        self.supports_masking = True

    def build(self, query_shape, keys_shape, memory_shape=None, mask_shape=None):
        if keys_shape[-1] != self.units:
            raise ValueError(
                f"{self.name}: keys must be of size {self.units}, received {keys_shape}"
            )
        init = keras.initializers.GlorotUniform(self.seed)
        self.W = self.add_weight(shape=(query_shape[-1], self.units), initializer=init, name="W")
        self.v = self.add_weight(
            shape=(self.units,), initializer=keras.initializers.RandomUniform(-0.1, 0.1, self.seed),
            name="v",
        )  # fmt: skip

    def compute_mask(self, query, previous_mask=None):
        return None

    def call(self, query, keys, memory, mask):
        asked = ops.matmul(query, self.W)
        scores = ops.matmul(ops.tanh(asked[:, :, None, :] + keys[:, None, :, :]), self.v[:, None])[
            ..., 0
        ]
        real = mask[:, None, :]
        # In float32: half of it loses small weights. Left out, not -inf, which gives NaN where
        # nothing is real.
        scores = ops.where(real, ops.cast(scores, "float32"), -1e9)
        weights = ops.where(real, ops.softmax(scores, axis=-1), 0.0)
        weights = ops.cast(weights, self.compute_dtype)
        return ops.matmul(weights, memory), weights

    def compute_output_shape(self, query_shape, keys_shape, memory_shape, mask_shape=None):
        return (
            (*query_shape[:2], memory_shape[-1]),
            (*query_shape[:2], memory_shape[1]),
        )

    def get_config(self):
        return super().get_config() | {"units": self.units, "seed": self.seed}
