"""Features of documents, of which long ones count in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.text.tokenizer import DocumentTokenizer
from pipelines.generation import evaluation
from pipelines.generation import features as module
from pipelines.generation.config import GenerationModelConfig, GenerationTextConfig
from pipelines.generation.features import features
from pipelines.generation.model import build
from pipelines.generation.records import Document

TEXTS = ["it was the best of times , it was the worst of times", "", "it was new", "of times"]


@pytest.fixture(scope="module")
def tokenizer() -> DocumentTokenizer:
    return DocumentTokenizer.fit(TEXTS[:1], GenerationTextConfig(), "word")


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(
        GenerationModelConfig(units=[5], embedding=4), vocabulary=tokenizer.size, rows=2, seed=1
    )


def test_losses_of_pieces_are_means_of_those_of_their_tokens(tokenizer, model, monkeypatch):
    monkeypatch.setattr(evaluation, "_WINDOW", 4)
    rows = tokenizer.encode(TEXTS)
    losses, numbers = evaluation.piece_losses(model, rows, 5)
    expected = []
    for i in range(len(rows)):
        alone = Ragged(rows[i], rows.lengths[i : i + 1])
        of_document, positions, _ = evaluation.token_losses(model, alone)
        ordered = of_document[np.argsort(positions)]
        expected += [ordered[n : n + 5].mean() for n in range(0, len(ordered), 5)]
    np.testing.assert_allclose(np.sort(losses), np.sort(expected), atol=1e-5)
    # Each document has a number of its own; the end mark counts as a token.
    counts = np.unique(numbers, return_counts=True)[1]
    assert sorted(counts) == sorted(-(-(rows.lengths + 1) // 5))


def test_documents_have_lengths_and_pieces_have_unknown_words(tokenizer, model, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 5)
    found = features(tokenizer, model, [Document(text, "new.txt") for text in TEXTS])
    lengths = [13, 0, 3, 2]
    assert found["tokens"].values.tolist() == lengths
    unknown = found["unknown_words"]
    np.testing.assert_allclose(unknown.values, [0, 0, 0, 1 / 3, 0])
    assert unknown.groups.tolist() == [0, 0, 0, 2, 3]
    assert np.bincount(found["vocabulary"].groups).tolist() == lengths
    assert len(found["loss"].values) == len(found["loss"].groups) == 3 + 1 + 1 + 1


def test_sub_words_are_never_unknown(model):
    tokenizer = DocumentTokenizer.fit(TEXTS[:1], GenerationTextConfig(vocabulary=300), "subword")
    wide = build(
        GenerationModelConfig(units=[5], embedding=4, level="subword"),
        vocabulary=tokenizer.size, rows=2, seed=1,
    )  # fmt: skip
    found = features(tokenizer, wide, [Document("né it was", "new.txt")])
    assert found.keys() == {"tokens", "vocabulary", "loss"}
    name = found["vocabulary"].wording.categories
    assert all(isinstance(name(str(i)), str) for i in found["vocabulary"].values)
