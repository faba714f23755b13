"""Several models of one task: which run is meant, and what a model may be called."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.options import Parser, add_name
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.model_names import require_free, tasks_of
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import task_names
from pipelines.sentiment.config import CONFIG

LETTERS = string.ascii_letters + string.digits + "-_"


def finished(home: Path, task: str, name: str, **info: object) -> Run:
    run = Run(home / "runs" / task / name)
    run.update(**{"status": "running", "config_name": "default", **info})
    run.finish(scores={})
    return run


def test_the_latest_run_is_that_of_the_model(home):
    finished(home, "sentiment", "a")
    finished(home, "sentiment", "b", registered_model="tickets")
    finished(home, "sentiment", "c", registered_model="mails", config_name="live")
    finished(home, "sentiment", "d", registered_model="sentiment")  # its own name, written out
    finished(home, "sentiment", "e", registered_model="tickets", config_name="live")
    assert Run.find("sentiment", None).id == "d"
    assert Run.find("sentiment", None, model="tickets").id == "e"
    assert Run.find("sentiment", None, "default", "tickets").id == "b"
    assert Run.find("sentiment", "b").model_name == "tickets"
    assert Run.models("sentiment") == ["sentiment", "mails", "tickets"]
    assert tasks_of("tickets") == ["sentiment"]


def test_a_run_of_another_name_is_never_the_latest(home):
    finished(home, "sentiment", "a", registered_model="tickets")
    with pytest.raises(UserError, match=r"no finished sentiment run yet.*tickets.*--name tickets"):
        Run.find("sentiment", None)
    with pytest.raises(UserError, match="'tickets', not of 'mails'"):
        Run.find("sentiment", "a", model="mails")


def config(name: str | None) -> Experiment:
    return CONFIG.model_validate({"data": {"source": "a.csv"}, "registered_model": name})


def test_a_name_belongs_to_one_task(home):
    require_free(config("tickets"))
    run = finished(home, "translation", "a", registered_model="tickets")
    with pytest.raises(UserError, match="the translation run a is of the model 'tickets'"):
        require_free(config("tickets"))
    (run.folder / "run.json").write_text("damaged")
    require_free(config("tickets"))
    require_free(config(None))
    require_free(config("sentiment"))


def name_of(text: str) -> str | None:
    """The name as the command line takes it; None where it is refused."""
    parser = Parser()
    add_name(parser, "the task")
    try:
        return str(parser.parse_args([f"--name={text}"]).name)
    except UserError:
        return None


@given(st.text(max_size=80) | st.text(LETTERS + "./\\ \n", max_size=8))
def test_a_name_is_a_folder_and_part_of_a_url_or_refused(text):
    allowed = 0 < len(text) <= 64 and set(text) <= set(LETTERS) and text[0] not in "-_"
    assert name_of(text) == (text if allowed else None)
    if allowed:
        assert config(text).model_name == text
        assert (Path("/exports") / text).resolve().parent == Path("/exports")
    else:
        with pytest.raises(ValueError, match="registered_model"):
            config(text)


@given(st.sampled_from(task_names()), st.data())
def test_the_name_of_another_task_is_refused_in_any_case(task, data):
    name = "".join(data.draw(st.sampled_from([c, c.upper()])) for c in task)
    if name == "sentiment":
        require_free(config(name))
    else:
        with pytest.raises(UserError, match=repr(name)):
            require_free(config(name))
