"""Attention: each step of one sequence reads a weighted mean of all steps of another."""

from typing import Any

import keras
from keras import ops

from layers.backends import Tensor


@keras.saving.register_keras_serializable(package="unfold")
class AdditiveAttention(keras.layers.Layer):
    """Additive attention (Bahdanau, Cho & Bengio 2015)::

        e_tj = vᵀ tanh(W s_t + k_j)         how well step j of the memory matches the query s_t
        α_tj = exp(e_tj) / Σ_i exp(e_ti)    over the real steps i only
        c_t  = Σ_j α_tj h_j                 the context

    s_t are the queries and h_j the memory. The keys k_j are the paper's U h_j. They are the same
    for every t, so they are an input of the layer, computed once together with the memory (by a
    `keras.layers.Dense`), even if the s_t come one at a time.

    Args:
        units: size of the space in which s_t and k_j are compared.
        seed: seed of the initial weights.

    Weights: ``W`` [query size, units], ``v`` [units].

    Call arguments:
        query: <float>[batch, steps, query size], the s_t.
        keys: <float>[batch, time, units].
        memory: <float>[batch, time, features], the h_j.
        mask: bool [batch, time], True where a step of the memory is real.

    Returns:
        The contexts <float>[batch, steps, features] and the weights α <float>[batch, steps,
        time]. Both are zero in a row whose memory has no real step.

    Raises:
        ValueError: the size of the keys is not ``units``.
    """

    def __init__(self, units: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.seed = units, seed
        self.supports_masking = True

    def build(
        self, query_shape: Any, keys_shape: Any, memory_shape: Any = None, mask_shape: Any = None
    ) -> None:
        if keys_shape[-1] != self.units:
            raise ValueError(
                f"{self.name}: keys must be of size {self.units}, received {keys_shape}"
            )
        self.W = self.add_weight(
            shape=(query_shape[-1], self.units),
            initializer=keras.initializers.GlorotUniform(self.seed),
            name="W",
        )
        self.v = self.add_weight(
            shape=(self.units,),
            initializer=keras.initializers.RandomUniform(-0.1, 0.1, self.seed),
            name="v",
        )

    def compute_mask(self, query: Tensor, previous_mask: Any = None) -> None:
        return None

    def call(
        self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return contexts and weights, see `AdditiveAttention`."""
        W_s = ops.matmul(query, self.W)
        e = ops.matmul(ops.tanh(W_s[:, :, None, :] + keys[:, None, :, :]), self.v[:, None])
        real = mask[:, None, :]
        # In float32: 16 bits lose small weights. Padded steps get -1e9, not -inf, which gives NaN
        # in a row without real steps.
        e = ops.where(real, ops.cast(e[..., 0], "float32"), -1e9)
        alpha = ops.where(real, ops.softmax(e, axis=-1), 0.0)
        alpha = ops.cast(alpha, self.compute_dtype)
        return ops.matmul(alpha, memory), alpha

    def compute_output_shape(
        self, query_shape: Any, keys_shape: Any, memory_shape: Any, mask_shape: Any = None
    ) -> tuple[Any, Any]:
        return (
            (*query_shape[:2], memory_shape[-1]),
            (*query_shape[:2], memory_shape[1]),
        )

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"units": self.units, "seed": self.seed}
