"""Features of documents, which `unfold drift` compares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.tasks.text_features import UNITS, length_feature, token_features
from pipelines.engine.text.tokenizer import DocumentTokenizer
from pipelines.generation.evaluation import piece_losses
from pipelines.generation.model import LanguageModel
from pipelines.generation.records import Document

#: Tokens of a piece: of one long document, pieces are compared.
_PIECE = 256


def features(
    processor: DocumentTokenizer, model: LanguageModel, records: Sequence[Document]
) -> dict[str, Feature]:
    """Return the features of documents, and how well the model predicts them."""
    documents = processor.encode([document.text for document in records])
    pieces, document_of = _cut(documents)
    losses, numbers = piece_losses(model, documents, _PIECE)
    unit, has_unknown = UNITS[processor.level], processor.level != "subword"
    return {
        "tokens": length_feature(documents, "Texts", unit),
        **token_features(pieces, processor, unit, has_unknown=has_unknown, groups=document_of),
        "loss": Feature(losses, Wording("Losses", unit="nats a token"), numbers),
    }


def _cut(documents: Ragged) -> tuple[Ragged, np.ndarray]:
    """Cut documents into pieces; return these and the document of each, ``<int64>[pieces]``."""
    counts = -(-documents.lengths // _PIECE)
    document_of = np.repeat(np.arange(len(documents)), counts)
    lengths = np.full(len(document_of), _PIECE)
    ends = np.cumsum(counts)[counts > 0] - 1
    lengths[ends] = (documents.lengths - (counts - 1) * _PIECE)[counts > 0]
    return Ragged(documents.values, lengths), document_of
