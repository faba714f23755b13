"""How good translations are: BLEU and chrF on raw text, and where they are better and worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sacrebleu
from matplotlib.figure import Figure

from pipelines.engine.config.decoding import DecodingConfig
from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.intervals import Interval
from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.encoder_decoder import decoding_request

#: Texts translated side by side.
_ROWS = 64
#: Pairs in the table of best and worst, of each.
_SHOWN = 20


def answers(serve: Any, texts: Sequence[str], decoding: DecodingConfig) -> list[str]:
    """What a SavedModel's signature answers, in the order of ``texts``."""
    found = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), _ROWS):
        some = order[start : start + _ROWS]
        answer = serve(**decoding_request("text", [texts[i] for i in some], decoding))
        for i, text in zip(some, answer["text"].numpy(), strict=True):
            found[i] = text.decode()
    return found


def scores(
    outputs: Sequence[str], references: Sequence[str], words: str = "13a"
) -> tuple[dict[str, float], Table]:
    """BLEU and chrF (Post 2018; Popović 2015), and how exactly they were computed.

    Args:
        words: sacreBLEU's name for how texts are divided into words.
    """
    found, how = {}, []
    for metric in (sacrebleu.BLEU(tokenize=words), sacrebleu.CHRF()):
        score = metric.corpus_score(list(outputs), [list(references)])
        found[score.name.lower()] = float(score.score)
        how.append([score.name.lower(), str(metric.get_signature())])
    return found, Table(["metric", "signature"], how)


def bleu_interval(
    outputs: Sequence[str], references: Sequence[str], words: str, *, seed: int
) -> Interval | None:
    """The 95 % bootstrap interval of BLEU over texts (Koehn 2004); None for too few texts."""
    metric = sacrebleu.BLEU(tokenize=words, effective_order=True)
    each = [metric.sentence_score(o, [r]) for o, r in zip(outputs, references, strict=True)]
    counts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in each])

    def score(drawn: np.ndarray) -> float:
        *grams, length, reference_length = counts[drawn].sum(axis=0).tolist()
        half = len(grams) // 2
        found = sacrebleu.BLEU.compute_bleu(
            grams[:half], grams[half:], length, reference_length, smooth_method="exp"
        )
        return float(found.score)

    return intervals.bootstrap(score, len(each), seed=seed)


def by_length(
    inputs: Sequence[str], outputs: Sequence[str], references: Sequence[str], words: str = "13a"
) -> Table:
    """BLEU by how many words are read; about as many texts in each row."""
    counts = np.array([len(text.split()) for text in inputs])
    edges = np.unique(np.quantile(counts, np.linspace(0, 1, 7), method="higher"))
    rows: list[list[Any]] = []
    least = 0
    for most in edges[1:] if len(edges) > 1 else edges:
        some = np.flatnonzero((counts > least) & (counts <= most)).tolist()
        if len(some):
            mine, true = ([texts[i] for i in some] for texts in (outputs, references))
            bleu = scores(mine, true, words)[0]["bleu"]
            rows.append([int(counts[some].min()), int(most), len(some), bleu])
        least = int(most)
    return Table(["from_words", "to_words", "texts", "bleu"], rows)


def draw_by_length(table: Table) -> Figure:
    figure, ax = plotting.new_figure()
    names = [f"{least}–{most}" if least != most else str(most) for least, most, *_ in table.rows]
    bars = ax.bar(names, [bleu for *_, bleu in table.rows], color=plotting.BLUE)
    ax.bar_label(bars, [f"{bleu:.1f}" for *_, bleu in table.rows])
    ax.set(xlabel="words read", ylabel="BLEU", title="BLEU by length")
    return figure


def best_and_worst(
    inputs: Sequence[str], outputs: Sequence[str], references: Sequence[str]
) -> Table:
    """The texts whose translation is most and least like the reference (chrF of each)."""
    each = [
        sacrebleu.sentence_chrf(output, [reference]).score
        for output, reference in zip(outputs, references, strict=True)
    ]
    order = sorted(range(len(each)), key=lambda i: -each[i])
    shown = [*order[:_SHOWN], *order[_SHOWN:][-_SHOWN:]]
    return Table(
        ["chrf", "input", "output", "reference"],
        [[f"{each[i]:.1f}", inputs[i], outputs[i], references[i]] for i in shown],
    )
