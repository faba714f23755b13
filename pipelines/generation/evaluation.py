"""Scores of a language model on held-out text, and plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.intervals import Interval
from pipelines.engine.data.ragged import PADDING, Ragged
from pipelines.engine.data.token_streams import TokenStreams
from pipelines.engine.text.tokenizer import END
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training.losses import TokenLosses
from pipelines.generation.model import LanguageModel, run_network

#: Steps in a window, and maximum number of documents in a batch.
_WINDOW, _MAX_ROWS = 128, 64
#: Maximum number of logits in a window: 64 MB.
_MAX_LOGITS = 2**24


def token_losses(
    model: LanguageModel, documents: Ragged
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute −log p of every token given all earlier tokens of its document.

    The end mark of each document counts as a token. The state is kept from the beginning of a
    document to its end.

    Args:
        model: A trained model.
        documents: Token ids of each document.

    Returns:
        The losses in nats ``<float64>[tokens]``, the position of each token in its document and the
        number of its document ``<int64>[tokens]``. The order of the documents is unspecified.
    """
    losses, positions, numbers = map(np.concatenate, zip(*_windows(model, documents), strict=True))
    return losses, positions, numbers


def piece_losses(
    model: LanguageModel, documents: Ragged, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean of `token_losses` over each piece of ``size`` tokens of a document.

    Returns:
        The losses ``<float64>[pieces]``, and the number of the document of each piece, in an
        unspecified order, ``<int64>[pieces]``.
    """
    losses, positions, numbers = token_losses(model, documents)
    keys = np.stack([numbers, positions // size])
    pieces, piece_of = np.unique(keys, axis=1, return_inverse=True)
    sums = np.bincount(piece_of.ravel(), weights=losses)
    return sums / np.bincount(piece_of.ravel()), pieces[0]


def _windows(
    model: LanguageModel, documents: Ragged
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield losses and positions of `token_losses`, and each token's document, by window."""
    # More rows than the total length divided by the longest document would run empty; fewer keep
    # the logits within memory.
    useful = -(-int(documents.lengths.sum()) // max(1, int(documents.lengths.max())))
    affordable = _MAX_LOGITS // (_WINDOW * model.network.outputs[0].shape[-1])
    rows = max(1, min(len(documents), _MAX_ROWS, useful, affordable))
    windows = TokenStreams(documents, rows=rows, window=_WINDOW, end=END, cut=False).arrange()
    scorer = _scorer(model.network)
    states = [np.zeros((rows, s.shape[-1]), np.float32) for s in model.network.inputs[1:]]
    starts = np.zeros(rows, np.int64)
    numbers, seen = np.zeros(rows, np.int64), 0
    for inputs, targets, fresh in windows:
        states = [np.where(fresh[:, None], np.float32(0), s) for s in states]
        starts = np.where(fresh, 0, starts)
        numbers, seen = np.where(fresh, seen + np.cumsum(fresh) - 1, numbers), seen + fresh.sum()
        outputs = scorer.predict_on_batch([inputs, targets, *states])
        loss, *states = (np.asarray(a) for a in (outputs if states else [outputs]))
        real = targets != PADDING
        positions = starts[:, None] + np.arange(_WINDOW)
        row_of = np.repeat(numbers[:, None], _WINDOW, axis=1)
        yield loss[real].astype(np.float64), positions[real], row_of[real]
        starts = starts + _WINDOW


def _scorer(network: keras.Model) -> keras.Model:
    """Build a model ``[ids, targets, state…]`` → ``[−log p of the targets, state…]``."""
    targets = keras.Input((None,), dtype="int32", name="targets")
    logits, final = run_network(network, network.inputs[0], network.inputs[1:])
    losses = TokenLosses(dtype="float32")(targets, logits)
    return keras.Model([network.inputs[0], targets, *network.inputs[1:]], [losses, *final])


def summarize_losses(losses: np.ndarray, documents: Ragged, level: str) -> dict[str, float]:
    """Summarize the losses of `token_losses`.

    Args:
        losses: Loss of each token of ``documents``, in nats.
        documents: Token ids of each document.
        level: ``character``, ``subword`` or ``word``.

    Returns:
        ``cross_entropy`` (nats per token), ``perplexity``, ``unknown_share``, and at the level
        ``character`` also ``bits_per_character``.
    """
    nats = float(losses.mean())
    scores = {"cross_entropy": nats, "perplexity": math.exp(nats)}
    if level == "character":
        scores["bits_per_character"] = nats / math.log(2)
    # Unknown tokens are easy to predict, so a perplexity is only meaningful if they are few.
    scores["unknown_share"] = float((documents.values == UNKNOWN).mean()) if len(losses) else 0.0
    return scores


def loss_intervals(
    losses: np.ndarray, documents_of: np.ndarray, *, seed: int
) -> dict[str, Interval]:
    """Return the 95 % intervals of the cross-entropy and the perplexity, over documents.

    The tokens of one document are not independent, so documents are resampled.

    Args:
        losses: ``<float64>[tokens]`` in nats.
        documents_of: The number of the document of each token, ``<int64>[tokens]``.
        seed: Seed of the resamples.
    """
    sizes = np.bincount(documents_of)
    totals = np.bincount(documents_of, losses)[sizes > 0]
    sizes = sizes[sizes > 0]
    found = intervals.bootstrap(
        lambda drawn: totals[drawn].sum() / sizes[drawn].sum(), len(totals), seed=seed
    )
    if found is None:
        return {}
    low, high = found
    return {"cross_entropy": found, "perplexity": (math.exp(low), math.exp(high))}


def plot_loss_by_position(losses: np.ndarray, positions: np.ndarray) -> Figure:
    """Plot the mean loss against the position in the document.

    Args:
        losses: ``<float64>[tokens]`` in nats.
        positions: ``<int64>[tokens]``, 0 for the first token of a document.
    """
    figure, ax = plotting.new_figure()
    edges = np.unique(np.logspace(0, math.log2(positions.max() + 2), 24, base=2).astype(int)) - 1
    bins = np.digitize(positions, edges) - 1
    filled = np.unique(bins)
    ax.plot([edges[b] + 1 for b in filled], [losses[bins == b].mean() for b in filled], "o-",
            color=plotting.BLUE, ms=3)  # fmt: skip
    ax.axhline(losses.mean(), color=plotting.GREY, lw=1, ls="--")
    ax.set(xscale="log", xlabel="position in the document", ylabel="nats per token",
           title="Loss by position")  # fmt: skip
    return figure


def plot_lengths(generated: Sequence[int], held_out: Sequence[int]) -> Figure:
    """Plot the lengths of generated and of held-out texts, in characters."""
    figure, ax = plotting.new_figure()
    highest = max(*generated, *held_out, 1)
    for values, name, color in (
        (held_out, "held out", plotting.GREY),
        (generated, "generated", plotting.BLUE),
    ):
        ax.hist(
            values, bins=20, range=(0, highest), density=True, alpha=0.5, label=name, color=color
        )
    ax.set(xlabel="characters", yticks=[], title="Length of texts")
    ax.legend(frameon=False)
    return figure
