"""Measure the latency of the exported sentiment model for batches of 1, 8 and 64 strings.

    python -m benchmarks.serving

The default config's model with random weights is exported like a run and called

- through the SavedModel's signature, as a server does;
- through ``model.predict`` on the same texts, tokenized by the same tokenizer.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf

from benchmarks.measure import Table, best_of, report
from pipelines.engine.config import loader as configs
from pipelines.engine.export import savedmodel
from pipelines.sentiment.task import TASK

DEFAULT = Path(__file__).parents[1] / "configs/sentiment/default.yaml"
BATCHES = [1, 8, 64]


def main():
    config = configs.load(DEFAULT, TASK.config, [])
    splits = TASK.load(config)
    processor = TASK.fit_processor(config, splits)
    model = TASK.build(config, processor)
    texts = [r.text for r in splits.test[: max(BATCHES)]]
    words = sum(len(text.split()) for text in texts) / len(texts)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        savedmodel.write(
            target, model, TASK.endpoints(config, processor, model), processor.resources()
        )
        served = savedmodel.load(target)
        signature = served.signatures["serving_default"]
        table = Table(f"One call on reviews of {words:.0f} words on average, ms", BATCHES)
        for batch in BATCHES:
            some = tf.constant(texts[:batch])
            ids = processor.tokenizer.padded(some)
            calls = {
                "unfold": lambda some=some: signature(text=some)["label"].numpy(),
                "model.predict": lambda some=some, ids=ids: model.predict(
                    processor.tokenizer.padded(some), verbose=0, batch_size=len(ids)
                ),
            }
            table.add(batch, best_of(calls, rounds=3, seconds=1.0))
    report("serving", [table])


if __name__ == "__main__":
    main()
