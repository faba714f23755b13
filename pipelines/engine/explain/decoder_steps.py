"""Explain a decoder: the probability of each written token, and the likeliest alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from scipy.special import softmax

from layers.recorder import Recorder
from pipelines.engine.explain.explanation import Attention, Segment
from pipelines.engine.models.seq2seq import Seq2Seq
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.text.vocabulary import UNKNOWN

#: Number of the likeliest tokens listed for each step.
TOP_TOKENS = 5
#: Labels of the end mark, and of the step before the first token.
END_LABEL, START_LABEL = "[end]", "[start]"
_LABELS = {END: END_LABEL, UNKNOWN: "[unknown]"}


def token_names(tokenizer: DocumentTokenizer, ids: np.ndarray) -> list[str]:
    """Texts of tokens, the end mark included. A token may be a single byte of a character."""
    names = np.asarray(tokenizer.ids_to_tokens(ids)).tolist()
    return [
        _LABELS.get(i) or name.decode("utf-8", "replace")
        for i, name in zip(ids.tolist(), names, strict=True)
    ]


def token_probabilities(logits: Any) -> np.ndarray:
    """Softmax over the vocabulary in double precision.

    Args:
        logits: ``<float>[steps, vocabulary]``.

    Returns:
        ``<float64>[steps, vocabulary]``.
    """
    scores = ops.convert_to_numpy(ops.cast(logits, "float32")).astype(np.float64)
    probabilities: np.ndarray = softmax(scores, axis=-1)
    return probabilities


def top_tokens(
    tokenizer: DocumentTokenizer, probabilities: np.ndarray
) -> list[list[tuple[str, float]]]:
    """The likeliest tokens of each step, with their probabilities, likeliest first.

    Args:
        tokenizer: names the tokens.
        probabilities: ``<float>[steps, vocabulary]``.
    """
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :TOP_TOKENS]
    return [
        list(zip(token_names(tokenizer, ids), row[ids].tolist(), strict=True))
        for ids, row in zip(best, probabilities, strict=True)
    ]


def decoder_segment(
    model: Seq2Seq,
    tokenizer: DocumentTokenizer,
    states: list[Any],
    memory: list[Any],
    ids: np.ndarray,
    tokens: Sequence[str],
    *,
    first: int,
    **attention: Any,
) -> Segment:
    """Explain how the decoder writes a given text.

    Args:
        model: the encoder and decoder.
        tokenizer: of the written text.
        states, memory: of one row, as returned by `Seq2Seq.encode`.
        ids: the written text without the end mark, ``<int32>[time]``.
        tokens: labels of ``ids``.
        first: the lowest id that may be written.
        attention: arguments of `Attention` other than the weights.
    """
    with Recorder().recording() as recorder:
        written = ops.convert_to_tensor([[END, *ids]], dtype="int32")
        logits, _, weights = model.decode(written, states, memory)
    forbidden = np.arange(tokenizer.size) < first
    probabilities = token_probabilities(ops.where(forbidden, -1e9, ops.cast(logits[0], "float32")))
    chosen = probabilities[np.arange(len(ids) + 1), [*ids, END]]
    return Segment(
        name="writes",
        description="Each step writes one token after reading the one before it. The curve is the "
        "probability of the written token.",
        tokens=[*tokens, END_LABEL],
        recorder=recorder,
        curves={"what is written": chosen},
        top_tokens=top_tokens(tokenizer, probabilities),
        attention=None
        if weights is None
        else Attention(ops.convert_to_numpy(ops.cast(weights[0], "float32")), **attention),
    )
