"""How good captions are: beside what people said of the same pictures."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from pipelines.engine.config.decoding import DecodingConfig
from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.intervals import Interval
from pipelines.engine.data import images
from pipelines.engine.tasks.encoder_decoder import decoding_request

#: Pictures captioned side by side.
_ROWS = 32
#: n-grams up to this length count.
_ORDER = 4
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a caption as they are scored: lower case, without punctuation."""
    return _WORD.findall(text.lower())


def answers(serve: Any, files: Sequence[Path], decoding: DecodingConfig) -> list[str]:
    """What a SavedModel's signature answers, in the order of ``files``."""
    found = []
    for start in range(0, len(files), _ROWS):
        some = [file.read_bytes() for file in files[start : start + _ROWS]]
        found += serve(**decoding_request("image", some, decoding))["caption"].numpy().tolist()
    return [caption.decode() for caption in found]


def scores(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to 4, ROUGE-L and CIDEr-D against all references of each picture."""
    mine = [words(text) for text in outputs]
    true = [[words(text) for text in texts] for texts in references]
    return {**bleu(mine, true), "rouge_l": rouge_l(mine, true), "cider_d": cider_d(mine, true)}


def cider_d_interval(
    outputs: Sequence[str], references: Sequence[Sequence[str]], *, seed: int
) -> Interval | None:
    """The 95 % bootstrap interval of CIDEr-D over pictures; None for too few pictures."""
    true = [[words(text) for text in texts] for texts in references]
    each = cider_d_of_each([words(text) for text in outputs], true)
    return intervals.bootstrap(lambda drawn: float(each[drawn].mean()), len(each), seed=seed)


def bleu(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> dict[str, float]:
    """BLEU of n-grams up to 1, 2, 3 and 4 (Papineni et al. 2002), over all texts together, from 0
    to 100."""
    mine = [" ".join(output) for output in outputs]
    most = max(map(len, references))
    # None where a picture has fewer references than others.
    columns: list[Any] = [
        [" ".join(texts[i]) if i < len(texts) else None for texts in references]
        for i in range(most)
    ]
    found = {}
    for order in range(1, _ORDER + 1):
        metric = sacrebleu.BLEU(
            tokenize="none", smooth_method="none", max_ngram_order=order, force=True
        )
        found[f"bleu_{order}"] = float(metric.corpus_score(mine, columns).score)
    return found


def rouge_l(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    """ROUGE-L (Lin 2004), the mean over texts, from 0 to 1: of the longest common subsequence's
    share in the output, P, and in the reference, R, each the best over references::

        (1 + β²) P R / (R + β² P)    β = 1.2
    """
    total = 0.0
    for output, texts in zip(outputs, references, strict=True):
        common = [_common(output, text) for text in texts]
        p = max(c / max(len(output), 1) for c in common)
        r = max(c / max(len(text), 1) for c, text in zip(common, texts, strict=True))
        total += (1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p and r else 0.0
    return total / len(outputs)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for a in one:
        before = 0
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], before + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]


def cider_d(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    """CIDEr-D, the mean of `cider_d_of_each`."""
    return float(cider_d_of_each(outputs, references).mean())


def cider_d_of_each(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> np.ndarray:
    """CIDEr-D (Vedantam et al. 2015) of each text: how much the output and each reference
    have in common, n-grams that few pictures have counting more. The mean over n = 1 … 4 and
    over references of ::

        10 e^(−(l − l')² / 2σ²) · Σ min(g, g') g' / (|g| |g'|)    σ = 6

    g are the counts of an output's n-grams, each times log(N / pictures whose references have it),
    g' those of a reference; l and l' are their lengths, N all pictures.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for texts in references:
        seen.update({gram for text in texts for gram in _grams(text)})
    log_n = math.log(len(references))

    def weigh(text: Sequence[str]) -> list[dict[tuple[str, ...], float]]:
        found: list[dict[tuple[str, ...], float]] = [{} for _ in range(_ORDER)]
        for gram, count in _grams(text).items():
            found[len(gram) - 1][gram] = count * (log_n - math.log(max(seen[gram], 1)))
        return found

    def norm(vector: dict[tuple[str, ...], float]) -> float:
        return math.sqrt(math.fsum(v * v for v in vector.values()))

    found = np.zeros(len(outputs))
    for i, (output, texts) in enumerate(zip(outputs, references, strict=True)):
        mine = weigh(output)
        for text in texts:
            gap = max(len(output) - 1, 0) - max(len(text) - 1, 0)  # as the reference counts
            alike = 0.0
            for a, b in zip(mine, weigh(text), strict=True):
                size = norm(a) * norm(b)
                shared = math.fsum(min(v, b[gram]) * b[gram] for gram, v in a.items() if gram in b)
                alike += shared / size if size else 0.0
            found[i] += 10 * math.exp(-(gap**2) / (2 * 6.0**2)) * alike / _ORDER / len(texts)
    return found


def _grams(text: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(text[i : i + n]) for n in range(1, _ORDER + 1) for i in range(len(text) - n + 1)
    )


def variety(outputs: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """How many captions were not learned by heart, and how they differ: the share that no training
    picture has (``novel``), of different ones (``distinct``), and of different words and pairs of
    words among all that were written (Li et al. 2016)."""
    mine = [tuple(words(text)) for text in outputs]
    heart = {tuple(words(text)) for text in known}
    found = {
        "novel": sum(text not in heart for text in mine) / len(mine),
        "distinct": len(set(mine)) / len(mine),
    }
    for n in (1, 2):
        grams = [text[i : i + n] for text in mine for i in range(len(text) - n + 1)]
        found[f"distinct_{n}"] = len(set(grams)) / max(len(grams), 1)
    return found


def shown(file: Path, size: int = 224) -> np.ndarray:
    """A picture as the model sees it, a square, ``<uint8>[size, size, 3]``."""
    pixels, _ = images.compiled_decoder(size)(tf.constant([file.read_bytes()]))
    return np.asarray(pixels.numpy()[0].round(), "uint8")


def contact_sheet(
    files: Sequence[Path], outputs: Sequence[str], references: Sequence[Sequence[str]]
) -> Figure:
    """Pictures, each with our caption and below it one of a person."""
    columns = min(4, len(files))
    rows = -(-len(files) // columns)
    figure, axes = plotting.image_grid(rows, columns, 2.7, 3.7)
    for ax, file, output, texts in zip(axes, files, outputs, references, strict=False):
        ax.imshow(shown(file))
        ax.set_title(plotting.wrap(output, 32), fontsize=9, color=plotting.BLUE, parse_math=False)
        ax.set_xlabel(
            plotting.wrap(texts[0], 36), fontsize=7.5, color=plotting.GREY, parse_math=False
        )
    return figure


def attention(file: Path, tokens: Sequence[str], weights: np.ndarray) -> Figure:
    """A picture once for each word, bright where the word looked.

    Args:
        weights: ``<float>[words, height, width]``.
    """
    picture = shown(file)
    columns = min(6, len(tokens) + 1)
    rows = -(-(len(tokens) + 1) // columns)
    figure, axes = plotting.image_grid(rows, columns, 1.7, 1.95)
    axes[0].imshow(picture)
    for ax, token, weight in zip(axes[1:], tokens, weights, strict=False):
        map_ = Image.fromarray((weight / max(weight.max(), 1e-9)).astype("float32"))
        light = np.asarray(map_.resize(picture.shape[1::-1], Image.Resampling.BICUBIC))
        ax.imshow((picture * (0.25 + 0.75 * light.clip(0, 1)[..., None])).astype("uint8"))
        ax.set_title(token.strip(), fontsize=10, parse_math=False)
    return figure
