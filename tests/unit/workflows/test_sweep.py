"""A search for the best keys: what is proposed, allowed and refused."""

from __future__ import annotations

import warnings

import optuna
import pytest

from pipelines.engine.config import loader as configs
from pipelines.engine.config import yaml12
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.group import Group
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from pipelines.workflows import search_space as spaces
from pipelines.workflows.search_space import Space
from pipelines.workflows.study import Proposer, Searcher
from tests.support import ROOT
from tests.support.commands import unfold_in_process


def toy(seed: int, counts: list[int]) -> list[dict]:
    """The keys of a search of a parabola, made by as many processes as there are counts."""
    storage = optuna.storages.InMemoryStorage()
    for count in counts:
        study = optuna.create_study(
            storage=storage, study_name="toy", load_if_exists=True, sampler=Proposer(seed, 3)
        )
        for _ in range(count):
            trial = study.ask()
            x = trial.suggest_float("x", -1, 1)
            c = trial.suggest_categorical("c", ["[1]", "[2]"])
            study.tell(trial, (x - 0.3) ** 2 + len(c))
    return [trial.params for trial in study.trials]


def test_proposals_are_the_same_however_often_it_was_interrupted():
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        whole = toy(1, [9])
    assert whole == toy(1, [2, 1, 5, 1])
    assert whole != toy(2, [9])
    assert len({trial["x"] for trial in whole}) == 9


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{low: 1}", "space.yaml:1:8: keys.train.epochs: needs choices, or low and high"),
        ("{low: 3, high: 2}", "low (3) must be less than high (2)"),
        ("{choices: [1], low: 1}", "choices stand alone"),
        ("{choices: []}", "must have 1 entries or more"),
        ("{low: 0, high: 2, log: true}", "log: true needs a low above 0"),
        ("{low: 1.5, high: 2, integer: true}", "integer: true needs whole numbers"),
        ("{lo: 1}", "unknown key (did you mean low?)"),
    ],
)
def test_a_mistake_in_a_space_is_one_line(tmp_path, text, part):
    file = tmp_path / "space.yaml"
    file.write_text(f"keys: {{train.epochs: {text}}}\n")
    with pytest.raises(UserError) as caught:
        configs.load(file, Space)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "axis", "part"),
    [
        ("model.cel", "{choices: [gru]}", "did you mean cell?"),
        ("model.cell", "{choices: [gru, elman]}", "not 'elman'"),
        ("train.epochs", "{low: 1, high: 3}", "must be a whole number"),
        ("model.dropout", "{low: 0, high: 1.5}", "must be less than 1"),
    ],
)
def test_a_key_that_a_config_does_not_allow_is_noticed_before_any_trial(
    home, tmp_path, key, axis, part
):
    file = tmp_path / "space.yaml"
    file.write_text(f"keys: {{{key}: {axis}}}\n")
    done = unfold_in_process("sweep", "sentiment", "--space", str(file))
    assert done.returncode == 2
    assert f"{file}: keys.{key}" in done.stderr
    assert part in done.stderr
    assert not home.exists()


def test_a_storage_that_cannot_be_used(home, tmp_path):
    done = unfold_in_process("sweep", "sentiment", "--storage", "nosql://nowhere/study")
    assert done.returncode == 2
    assert "the storage of the sweep cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_that_do_not_go_together_fail_their_trial_only(home, tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("keys: {a: {choices: [1]}}\ntrials: 3\n")
    config = get_config("sentiment").model_validate({"data": {"source": "x.csv"}})

    def make(values: list[str], name: str) -> None:
        raise UserError("a and b do not go together")

    search = Searcher(
        group=Group.of("sweeps", config), space=configs.load(file, Space), make=make, total=3,
        storage=None, worker=(), console=Console(),
    )  # fmt: skip
    search.work(2)
    assert [t.state.name for t in search.trials] == ["FAIL"] * 3


@pytest.mark.parametrize("task", BUILT_IN)
def test_the_ready_made_spaces_are_allowed(task):
    file = ROOT / "configs" / task / "default.yaml"
    ready = spaces.find_space(file, None)
    found = configs.load(ready, Space)
    spaces.check(found, ready, file, get_config(task), [])
    assert f"make sweep-{task}" in ready.read_text()
    base = configs.flatten(configs.load(file, get_config(task)))
    for key, axis in found.keys.items():
        value = yaml12.parse(base[key], key)[0]
        if axis.choices is not None:
            assert value in axis.choices, f"{key}: what the config has can be found again"
        else:
            assert axis.low <= value <= axis.high, key


def test_a_config_without_a_space_says_which_file_is_missing(tmp_path):
    done = unfold_in_process("sweep", "sentiment", "--config", "configs/sentiment/live.yaml")
    assert done.returncode == 2
    assert "configs/sentiment/sweeps/live.yaml: no such search space; name one" in done.stderr
