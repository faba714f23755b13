"""How good a language model is: its surprise at held-out text, and what it writes itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.core import plotting
from pipelines.engine.data.ragged import PADDING, Ragged
from pipelines.engine.data.token_streams import TokenStreams
from pipelines.engine.text.tokenizer import END
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training.losses import TokenLosses
from pipelines.generation.model import LanguageModel, read_on

#: Steps of a window, and documents read side by side, when texts are scored.
_WINDOW, _ROWS = 128, 64
#: Scores of all tokens of the vocabulary at all steps of a window: 64 MB.
_SCORES = 2**24


def surprise(model: LanguageModel, documents: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """−log p of every token, the end of each document included, given all before it.

    The state is carried through each document from its beginning to its end.

    Returns:
        ``<float64>[tokens]`` in nats, and ``<int>[tokens]``, the place in its document; in no
        particular order of documents.
    """
    # As many rows as the longest document leaves work for, and as scores have room for.
    work = -(-int(documents.lengths.sum()) // max(1, int(documents.lengths.max())))
    room = _SCORES // (_WINDOW * model.network.outputs[0].shape[-1])
    rows = max(1, min(len(documents), _ROWS, work, room))
    windows = TokenStreams(documents, rows=rows, window=_WINDOW, end=END, cut=False).arrange()
    scorer = _scorer(model.network)
    states = [np.zeros((rows, s.shape[-1]), np.float32) for s in model.network.inputs[1:]]
    begun = np.zeros(rows, np.int64)
    losses, places = [], []
    for inputs, targets, fresh in windows:
        states = [np.where(fresh[:, None], np.float32(0), s) for s in states]
        begun = np.where(fresh, 0, begun)
        answer = scorer.predict_on_batch([inputs, targets, *states])
        loss, *states = (np.asarray(a) for a in (answer if states else [answer]))
        real = targets != PADDING
        losses.append(loss[real].astype(np.float64))
        places.append((begun[:, None] + np.arange(_WINDOW))[real])
        begun += _WINDOW
    return np.concatenate(losses), np.concatenate(places)


def _scorer(network: keras.Model) -> keras.Model:
    """``[ids, targets, state…]`` → ``[−log p of the targets, state…]``."""
    targets = keras.Input((None,), dtype="int32", name="targets")
    logits, after = read_on(network, network.inputs[0], network.inputs[1:])
    losses = TokenLosses(dtype="float32")(targets, logits)
    return keras.Model([network.inputs[0], targets, *network.inputs[1:]], [losses, *after])


def scores(losses: np.ndarray, documents: Ragged, level: str) -> dict[str, float]:
    """
    Args:
        losses: nats of each token of ``documents``.
        level: at ``character`` only is a token a character, and its bits told.
    """
    nats = float(losses.mean())
    found = {"cross_entropy": nats, "perplexity": math.exp(nats)}
    if level == "character":
        found["bits_per_character"] = nats / math.log(2)
    # What is unknown costs little: a perplexity is worth what this is small.
    found["unknown_share"] = float((documents.values == UNKNOWN).mean()) if len(losses) else 0.0
    return found


def by_place(losses: np.ndarray, places: np.ndarray) -> Figure:
    """What having read more is worth: the mean surprise by how much of the text is known."""
    figure, ax = plotting.new_figure()
    edges = np.unique(np.logspace(0, math.log2(places.max() + 2), 24, base=2).astype(int)) - 1
    which = np.digitize(places, edges) - 1
    filled = np.unique(which)
    ax.plot([edges[b] + 1 for b in filled], [losses[which == b].mean() for b in filled], "o-",
            color=plotting.BLUE, ms=3)  # fmt: skip
    ax.axhline(losses.mean(), color=plotting.GREY, lw=1, ls="--")
    ax.set(xscale="log", xlabel="place in the document", ylabel="nats a token",
           title="Surprise by how much was read before")  # fmt: skip
    return figure


def lengths(written: Sequence[int], held_out: Sequence[int]) -> Figure:
    """How long texts are, the model's own beside real ones."""
    figure, ax = plotting.new_figure()
    highest = max(*written, *held_out, 1)
    for values, name, color in (
        (held_out, "held out", plotting.GREY),
        (written, "written", plotting.BLUE),
    ):
        ax.hist(
            values, bins=20, range=(0, highest), density=True, alpha=0.5, label=name, color=color
        )
    ax.set(xlabel="characters", yticks=[], title="Length of texts")
    ax.legend(frameon=False)
    return figure
