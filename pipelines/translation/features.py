"""Features of texts and their translations, which `unfold drift` compares."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from pipelines.engine.config.schema import TokenLevel
from pipelines.engine.data.bucketing import ordered_batches
from pipelines.engine.export.digest import Measure
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.tasks.text_features import UNITS, length_feature, token_features
from pipelines.engine.training.losses import row_cross_entropies
from pipelines.translation.config import TranslationConfig
from pipelines.translation.processor import Pairs
from pipelines.translation.records import Pair

#: What a server sees of a request and its answer.
MEASURES = (
    Measure(name="characters", side="input", tensor="text", how="characters"),
    Measure(name="words", side="input", tensor="text", how="words"),
    Measure(name="answer_words", side="output", tensor="text", how="words"),
    Measure(name="score", side="output", tensor="score", how="value"),
)


def features(
    config: TranslationConfig, processor: Pairs, model: keras.Model, records: Sequence[Pair]
) -> dict[str, Feature]:
    """Return the features of texts and, if some have one, of their true translations."""
    level: TokenLevel = config.model.level
    rows = processor.input.encode([pair.input for pair in records])
    found = {
        "tokens": length_feature(rows, "Texts", UNITS[level]),
        **token_features(rows, processor.input, UNITS[level], has_unknown=level != "subword"),
    }
    translated = [pair for pair in records if pair.output]
    if translated:
        inputs, targets = processor.encode(
            [pair.input for pair in translated], [pair.output for pair in translated]
        )
        written = processor.output.encode([pair.output for pair in translated])
        losses = row_cross_entropies(model, ordered_batches(config.train, inputs, targets))
        found["output_tokens"] = length_feature(written, "True translations", UNITS[level])
        found["loss"] = Feature(losses, Wording("Losses", unit="nats a token"))
    return found
