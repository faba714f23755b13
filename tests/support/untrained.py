"""A finished run of a small model that was not trained, made in this process."""

from __future__ import annotations

import keras

from pipelines.engine.core import plotting
from pipelines.engine.core.files import write_text
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.sentiment.config import CONFIG
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.task import TASK


def write_run() -> Run:
    """Write a sentiment run with all its files to the current home, still in training."""
    config = CONFIG.model_validate(
        {"name": "tiny", "data": {"source": "mine.csv"}, "model": {"units": [3], "embedding": 2}}
    )
    processor = TextClasses(config.text, ["good", "bad"], ["no", "yes"])
    data = {"fingerprint": "abc123", "records": {"train": 8, "validation": 1, "test": 1}}
    run = Run.create(config, processor, data=data, backend="tensorflow", device="cpu")
    keras.utils.set_random_seed(3)
    model = TASK.build(config, processor)
    model.save(run.folder / "model.keras")
    endpoints = TASK.endpoints(config, processor, model)
    savedmodel.write(run.folder / "savedmodel", model, endpoints, processor.resources())
    plotting.save_figure(plotting.new_figure()[0], run.folder / "figures" / "empty.png")
    write_text(run.folder / "tables" / "t.csv", "a\r\n")
    return run


def finish(run: Run) -> None:
    run.update(status="finished", scores={"accuracy": 0.75}, parameters=29, train_seconds=1.5)
