"""Texts as they are written: what was likeliest at each step, and how likely what was taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from layers.recorder import Recorder
from pipelines.engine.explain.explanation import Attention, Segment
from pipelines.engine.models.seq2seq import Seq2Seq
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.text.vocabulary import UNKNOWN

#: The likeliest tokens of each step that are told.
GUESSES = 5
#: What the end of a text is shown as, and what is before its first token.
END_LABEL, START_LABEL = "[end]", "[start]"
_LABELS = {END: END_LABEL, UNKNOWN: "[unknown]"}


def names(documents: DocumentTokenizer, ids: np.ndarray) -> list[str]:
    """Tokens as text; the end mark is one too. A token may be one byte of a character."""
    raw = np.asarray(documents.names(ids)).tolist()
    return [
        _LABELS.get(i) or name.decode("utf-8", "replace")
        for i, name in zip(ids.tolist(), raw, strict=True)
    ]


def probabilities(logits: Any) -> np.ndarray:
    """``<float64>[steps, vocabulary]``."""
    scores = ops.convert_to_numpy(ops.cast(logits, "float32")).astype(np.float64)
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def likeliest(documents: DocumentTokenizer, found: np.ndarray) -> list[list[tuple[str, float]]]:
    """Of each step the tokens with the highest probability in ``found [steps, vocabulary]``."""
    best = np.argsort(-found, axis=-1, kind="stable")[:, :GUESSES]
    return [
        list(zip(names(documents, ids), row[ids].tolist(), strict=True))
        for ids, row in zip(best, found, strict=True)
    ]


def spoken(
    model: Seq2Seq,
    documents: DocumentTokenizer,
    states: list[Any],
    looked_at: list[Any],
    ids: np.ndarray,
    tokens: Sequence[str],
    *,
    first: int,
    **attention: Any,
) -> Segment:
    """What the decoder does while it writes a text.

    Args:
        states, looked_at: of one row, see `Speaker.read`.
        ids: ``<int32>[time]``, what is written, without the end mark.
        tokens: their names.
        first: lower ids are never written.
        attention: of what is looked at, see `Attention`.
    """
    with Recorder().recording() as recorder:
        written = ops.convert_to_tensor([[END, *ids]], dtype="int32")
        logits, _, weights = model.write(written, states, looked_at)
    never = np.arange(documents.size) < first
    found = probabilities(ops.where(never, -1e9, ops.cast(logits[0], "float32")))
    taken = found[np.arange(len(ids) + 1), [*ids, END]]
    return Segment(
        name="writes",
        about="A step is a token that is written, as the one before it is read. The curve is how "
        "likely it was.",
        tokens=[*tokens, END_LABEL],
        recorder=recorder,
        curves={"what is written": taken},
        guesses=likeliest(documents, found),
        attention=None
        if weights is None
        else Attention(ops.convert_to_numpy(ops.cast(weights[0], "float32")), **attention),
    )
