"""Models: find a trained run, and use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pipelines.api import frames
from pipelines.api.process import settings_restored
from pipelines.api.scores import Scores
from pipelines.engine.config import loader
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import home
from pipelines.engine.data.sources.reading import has_broken_utf8
from pipelines.engine.runs.model_names import tasks_of
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.catalog import get_task, task_names
from pipelines.engine.training import devices

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.api.stream import Stream
    from pipelines.workflows.explain import Explained
    from pipelines.workflows.loaded_model import LoadedModel


class Model:
    """A trained run. Several threads can use one model at the same time.

    Attributes:
        config: The run's config.

    Args:
        run: The run.
        config: Its config, perhaps with other keys for requests.
    """

    def __init__(self, run: Run, config: Experiment | None = None) -> None:
        self._run = run
        self.config = run.config() if config is None else config
        self._loaded: LoadedModel | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<model {self.name}, {self.task} run {self.run}>"

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._run.model_name

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._run.task

    @property
    def run(self) -> str:
        """The id of the run."""
        return self._run.id

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self._run.folder

    @property
    def scores(self) -> dict[str, float]:
        """The scores on the test split, as measured after training."""
        return dict(self._run.info.scores)

    @property
    def verdict(self) -> list[str]:
        """Sentences that compare the scores with the baselines; empty if the task has none."""
        return list(self._run.info.verdict)

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch."""
        return self._run.history

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is an iterable of texts as well
        self, inputs: str | os.PathLike[str], *, column: None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, inputs: Iterable[str | os.PathLike[str]], *, column: None = None
    ) -> list[Prediction]: ...

    @overload
    def predict(self, inputs: pd.DataFrame, *, column: str | None = None) -> pd.DataFrame: ...

    def predict(self, inputs: Any, *, column: str | None = None) -> Any:
        """Answer one or more inputs with the run's SavedModel, exactly as a server of it does.

        Args:
            inputs: A text (or the path of a file, where files are the task's inputs), a list of
                them, or a DataFrame with one in each row.
            column: The column of a DataFrame that holds the inputs, in place of the config's.

        Returns:
            A prediction for one input. A list of predictions for a list; one that cannot be
            answered has an ``error``. For a DataFrame, the same rows with the columns of a file of
            predictions, of which ``error`` says why a row has no answer.

        Raises:
            UserError: The only input cannot be answered, or the inputs have another type or no
                such column.
        """
        if hasattr(inputs, "columns"):
            return self._predict_table(inputs, column)
        if column is not None:
            raise UserError("column is for tables only")
        if isinstance(inputs, str | os.PathLike):
            return self._model().predict(*_checked([inputs]))
        if isinstance(inputs, bytes | Mapping) or not isinstance(inputs, Iterable):
            raise UserError(
                f"predict takes a text, a list of texts or a DataFrame, not {type(inputs).__name__}"
            )
        return self._model().predict_all(_checked(inputs))

    def _predict_table(self, table: Any, column: str | None) -> pd.DataFrame:
        task, frame = get_task(self.task), frames.to_pandas(table)
        examples, errors = frames.inputs_of(task, self.config, frame, column)
        predictions = iter(self._model().predict_all(examples))
        columns = task.answer_columns(self.config, self._model().served)
        rows: list[list[Any]] = []
        for error in errors:
            answers: list[Any] = [None] * len(columns)
            if error is None:
                prediction = next(predictions)
                error = prediction.error
                if error is None:
                    (answers,) = task.answer_rows(self.config, prediction)
            rows.append([*answers, error])
        frames.add_answers(frame, columns | {"error": str}, rows)
        return frame

    def write(self, prediction: Prediction, name: str, file: str | os.PathLike[str]) -> None:
        """Write a prediction to a file, such as a chart.

        Args:
            prediction: The prediction.
            name: What to write: one of the config's ``output_files``.
            file: The file.

        Raises:
            UserError: The task writes no such file, or this model cannot.
        """
        writers = get_task(self.task).writers
        if name not in writers:
            known = ", ".join(writers) or "none"
            raise UserError(f"{name}: {self.task} writes no such file; it writes: {known}")
        writers[name](prediction, Path(file))

    def evaluate(self, test: str | list[str] | None = None) -> Scores:
        """Score the model.

        Args:
            test: A source that replaces the test split; None for the run's own. For series, their
                end is scored, as the config says.

        Returns:
            The scores by name.

        Raises:
            UserError: The data cannot be read.
        """
        config = self.config
        if test is not None:
            if not isinstance(test, str | list):
                raise UserError(f"evaluate: must be a source, not {type(test).__name__}")
            data, locations = loader.read(config.model_dump(mode="json"))
            data["data"] |= config.data.tested_on(test)
            config = loader.build(data, locations, type(config))
        devices.select(config.device)
        from pipelines.workflows.evaluate import evaluate  # Keras fixes the backend

        return Scores(evaluate(self._run, config))

    def explain(self, given: str | os.PathLike[str]) -> Explained:
        """Explain, step by step, what the model does with one input.

        Args:
            given: As for `predict`.

        Returns:
            The explanation; its method ``save`` writes its page and picture.

        Raises:
            UserError: The task has no explanations, the backend is not TensorFlow, or the input
                cannot be explained.
        """
        if not isinstance(given, str | os.PathLike):
            raise UserError(f"explain takes a text, not {type(given).__name__}")
        (text,) = _checked([given])
        devices.select("cpu")
        from pipelines.workflows.explain import explain

        return explain(self._run, self.config, text)

    def stream(self) -> Stream:
        """Start to read a sequence part by part::

            with model.stream() as stream:
                stream.send("The first half ")
                answer = stream.send("is slow.")

        Raises:
            UserError: The model cannot stream.
        """
        served = self._model().served
        from pipelines.api.stream import Stream

        return Stream(served, self.name)

    def _model(self) -> LoadedModel:
        """Return the loaded SavedModel."""
        with self._lock:
            if self._loaded is None:
                self._run.require("savedmodel")
                devices.select("cpu")
                from pipelines.workflows.loaded_model import LoadedModel

                self._loaded = LoadedModel.of(self._run, self.config)
            return self._loaded


def load(
    name: str | None = None,
    *,
    run: str | None = None,
    version: Literal["latest", "champion"] = "latest",
    device: Literal["auto", "cpu", "gpu"] = "cpu",
    console: Console | None = None,
) -> Model:
    """Load a trained model.

    Args:
        name: The name of the model; the one trained without a name is called like its task.
        run: The id of a run, or a unique part of it; it may be of any model.
        version: Which run of the model: the one that finished last, or the champion.
        device: The device that answers; ``auto`` takes a GPU if there is one.
        console: Where to say which run it is; nowhere by default.

    Raises:
        UserError: There is no such model or run, or it is not finished.
    """
    found = _find(name, run, version)
    model = Model(found)
    if console is not None:
        from pipelines.engine.runs.origin import Origin

        console.say(Origin.of(found).describe("as chosen" if run else f"the {version}"))
    found.require("savedmodel")
    devices.select(device)
    model._model()
    return model


def _find(name: str | None, run: str | None, version: str) -> Run:
    if version not in ("latest", "champion"):
        raise UserError(f"version: must be latest or champion, not {version!r}")
    if run is not None:
        found = find_by_id(run)
        if name not in (None, found.model_name):
            raise UserError(f"run {found.id} is of the model {found.model_name!r}, not of {name!r}")
        return found
    if name is None:
        raise UserError('load: name a model, e.g. load("sentiment"), or a run: load(run="ID")')
    task = _task_of(name)
    return _champion(task, name) if version == "champion" else Run.find(task, None, model=name)


def find_by_id(wanted: str) -> Run:
    """Return the run of any task with an id, or a unique part of it."""
    runs = [run for task in task_names() for run in Run.all(task)]
    return Run.by_id(wanted, sorted(runs, key=lambda run: run.id))


def _task_of(name: str) -> str:
    if name in task_names():
        return name
    tasks = tasks_of(name)
    if not tasks:
        known = [model for task in task_names() for model in Run.models(task)]
        raise UserError(
            f"no model {name!r} in {home() / 'runs'}; there are: {', '.join(known) or 'none'}"
        )
    return tasks[0]


def _champion(task: str, name: str) -> Run:
    with settings_restored():
        from pipelines.engine.runs import registry

        champion = registry.champion(task, name)
    if champion is None:
        raise UserError(f"the model {name!r} has no champion; promote a run, or load the latest")
    for run in Run.all(task):
        if run.id == champion.run:
            return run
    raise UserError(
        f"the champion of {name!r}, run {champion.run}, was trained elsewhere: its folder is not "
        f"in {home() / 'runs' / task}"
    )


def _checked(inputs: Iterable[Any]) -> list[str]:
    """Return inputs as text.

    Raises:
        UserError: One is no text, or holds bytes that are not UTF-8.
    """
    examples = []
    for number, given in enumerate(inputs, 1):
        if not isinstance(given, str | os.PathLike):
            raise UserError(f"input {number}: must be text, not {type(given).__name__}")
        examples.append(str(os.fspath(given)))
    check_utf8(examples)
    return examples


def check_utf8(inputs: Iterable[str]) -> None:
    """Check that inputs were valid UTF-8.

    Raises:
        UserError: One holds surrogates, by which Python keeps bytes that it cannot decode.
    """
    for number, text in enumerate(inputs, 1):
        if has_broken_utf8(text):
            raise UserError(f"input {number}: not text in UTF-8")
