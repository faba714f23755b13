"""Wrong paths and columns are reported before TensorFlow is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.engine.config.schema import DataConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.preview import check_sources
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from tests.support import ROOT

COLUMNS = {
    "sentiment": "text,label",
    "captioning": "image,caption",
    "translation": "input,output",
    "forecasting": "date,close",
    "generation": "text",
}


def data_of(task: str, source: Path | str, **keys: object) -> DataConfig:
    given = {"data": {name: str(value) for name, value in {"source": source, **keys}.items()}}
    return get_config(task).model_validate(given).data


@pytest.mark.parametrize("task", BUILT_IN)
def test_the_columns_of_a_task_are_found(task, tmp_path):
    table, header = tmp_path / "table.csv", COLUMNS[task]
    row = ",".join("x" for _ in header.split(","))
    table.write_text(f"{header}\n{row}\n")
    check_sources(data_of(task, table))
    for column in header.split(","):
        table.write_text(f"{header.replace(column, 'other')}\n{row}\n")
        with pytest.raises(UserError, match=rf"no column '{column}'.*data\.\w+=other"):
            check_sources(data_of(task, table))


def test_each_missing_column_has_its_own_proposal(tmp_path):
    table = tmp_path / "tickets.csv"
    table.write_text("message,team\nhello,a\n")
    with pytest.raises(UserError) as caught:
        check_sources(data_of("sentiment", table))
    assert "data.text=message" in str(caught.value)
    assert "data.label=team" in str(caught.value)
    check_sources(data_of("sentiment", table, text="message", label="team"))


def test_of_many_columns_only_a_like_one_is_proposed(tmp_path):
    table = tmp_path / "wide.csv"
    table.write_text("id,a,b,c,d,labels,text\n1,2,3,4,5,6,7\n")
    with pytest.raises(UserError, match=r"data\.label=labels"):
        check_sources(data_of("sentiment", table))
    with pytest.raises(UserError) as caught:
        check_sources(data_of("sentiment", table, label="team"))
    assert "data." not in str(caught.value)


@pytest.mark.parametrize("split", ["source", "validation", "test"])
def test_a_missing_file_is_named(split, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("text,label\nx,y\n")
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file"):
        check_sources(data_of("sentiment", **{"source": table, split: tmp_path / "nowhere.csv"}))


def test_what_needs_more_than_a_look_is_left_to_loading(tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    for source in ("tfds:imdb_reviews@train", "ding:de-en", "train.{en,de}", folder, "*.csv"):
        check_sources(data_of("generation", source))


def test_tensorflow_is_not_imported():
    code = """
import sys
from pathlib import Path
from pipelines.engine.config import loader
from pipelines.engine.data.preview import check_sources
from pipelines.engine.tasks.catalog import get_config
for task in ("sentiment", "forecasting", "generation"):
    check_sources(loader.load(Path(f"configs/{task}/default.yaml"), get_config(task)).data)
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
