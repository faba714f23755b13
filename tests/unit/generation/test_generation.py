"""The generation task's own parts: documents, the model, the writer."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.engine.config import loader as configs
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.data.splits import Splits
from pipelines.engine.data.token_streams import TokenStreams
from pipelines.engine.export import savedmodel
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.training.loop import without_autotune
from pipelines.engine.training.losses import MaskedCrossentropy, PerToken
from pipelines.generation import evaluation
from pipelines.generation.config import CONFIG, GenerationModelConfig, GenerationTextConfig
from pipelines.generation.feed import StreamFeed
from pipelines.generation.model import LanguageModel, build, network, run_network
from pipelines.generation.records import tidy_tune
from pipelines.generation.serving import GenerationServing, sampling_request
from pipelines.generation.task import TASK
from tests.support import ROOT
from tests.support.matrix import thorough_after

TEXTS = [
    "It was the best of times, it was the worst of times.\n",
    "Don't (ever) say: never!\nÉté – naïve 🙂",
]


# Documents


def test_a_tune_is_reduced_to_what_a_player_needs():
    text = (
        "X: 117\nT: The Ranting Highlandman.\nT: The White Cockade\nN:a remark\nM: C|\nL:1/8\n"
        "Q:1/2=112\nZ:somebody\nK: G\nAG|B2B2   B2AG| \n\nM:6/8\nN:remark\n|:ABc def:|\n\n\n"
    )
    assert tidy_tune(text) == (
        "X:1\nT:The Ranting Highlandman.\nM:C|\nL:1/8\nK:G\nAG|B2B2 B2AG|\nM:6/8\n|:ABc def:|\n"
    )
    assert tidy_tune("X:1\nT:no music\nK:G\n") == ""


def load(text=None, **data):
    return TASK.load(CONFIG.model_validate({"data": data, "text": text or {}}))


TUNE = "X:{n}\nT:No. {n}\nM:4/4\nL:1/4\nK:C\nCDEF|GABc|{notes}\nG:|\n"


def test_tunes_are_never_cut_and_prose_is_no_tune(tmp_path):
    notes = ["".join(c) for c in zip("CDEFGABcdefgab" * 3, "cdefgab" * 6, strict=True)]
    (tmp_path / "tunes.abc").write_text(
        "\n".join(TUNE.format(n=i + 1, notes=note * 2) for i, note in enumerate(notes[:14]))
    )
    splits = load(source=str(tmp_path / "tunes.abc"), text={"format": "abc"})
    tunes = [d.text for part in (splits.train, splits.validation, splits.test) for d in part]
    assert len(tunes) == 14
    assert all(t.startswith("X:1\nT:") and t.endswith("\nG:|\n") for t in tunes)
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"Это {i} не музыка\n")
    with pytest.raises(UserError, match="not a tune in ABC notation"):
        load(source=str(tmp_path), text={"format": "abc"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {"level": "word"}},
        {"model": {"level": "subword"}},
        {"text": {"format": "abc", "lowercase": True}},
    ],
)
def test_keys_that_contradict_each_other(wrong):
    settings = {"data": {"source": "x"}, "text": {"format": "abc"}} | wrong
    with pytest.raises(ValueError, match="each letter is a note"):
        CONFIG.model_validate(settings)


def test_one_text_is_cut_into_its_beginning_and_its_end(tmp_path):
    text = "".join(f"line {i}\n" for i in range(200))
    (tmp_path / "play.txt").write_text(text)
    splits = load(source=str(tmp_path / "play.txt"))
    parts = [splits.train, splits.validation, splits.test]
    assert "".join(p[0].text for p in parts) == text
    assert [len(p) for p in parts] == [1, 1, 1]
    assert len(splits.train[0].text) == pytest.approx(0.8 * len(text), abs=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"\x89PNG\r\n\x1a\n\x00\x00", "not text"), (b"a", "split is empty")],
)
def test_files_that_are_no_text(tmp_path, content, says):
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        load(source=str(path))
    assert "broken.txt" in str(error.value)


# The model

CELLS = ["rnn", "lstm", "gru", "feedforward"]


def small(cell="lstm", rows=3, **settings) -> LanguageModel:
    config = GenerationModelConfig(cell=cell, units=[6, 5], embedding=4, **settings)
    return build(config, vocabulary=9, rows=rows, seed=3)


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_loss_is_that_of_knowing_nothing(cell):
    model = small(cell)
    logits = model({"ids": np.full((3, 7), 4), "fresh": np.ones(3, bool)})
    loss = float(MaskedCrossentropy()(np.full((3, 7), 5), logits))
    assert loss == pytest.approx(math.log(9), abs=0.3)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("known", [True, False])
def test_windows_with_the_state_carried_are_one_long_pass(cell, known):
    """Also where a row begins anew, or has nothing, in a window."""
    model = small(cell)
    model.set_weights([np.random.default_rng(i).normal(size=w.shape, scale=0.5)
                       for i, w in enumerate(model.weights)])  # fmt: skip
    steps = 4 if known else None
    signature = {"ids": tf.TensorSpec([3, steps], tf.int32), "fresh": tf.TensorSpec([3], tf.bool)}
    run = tf.function(lambda inputs: model(inputs), input_signature=[signature], autograph=False)
    ids = np.random.default_rng(0).integers(3, 9, (3, 12)).astype("int32")
    zeros = [np.zeros((3, s.shape[-1]), "float32") for s in model.network.inputs[1:]]
    whole = run_network(model.network, ids, zeros)[0].numpy()
    for start in range(0, 12, 4):
        inputs = {"ids": tf.constant(ids[:, start : start + 4]), "fresh": tf.fill([3], start == 0)}
        np.testing.assert_allclose(run(inputs), whole[:, start : start + 4], atol=1e-5)
    fresh = {"ids": tf.constant(ids[:, :4]), "fresh": tf.constant([True, True, True])}
    np.testing.assert_allclose(run(fresh), whole[:, :4], atol=1e-5)
    # A row of padding keeps its state: it goes on where it was.
    paused = ids[:, 4:8].copy()
    paused[1] = 0
    run({"ids": tf.constant(paused), "fresh": tf.fill([3], False)})
    last = run({"ids": tf.constant(ids[:, 4:8]), "fresh": tf.fill([3], False)})
    np.testing.assert_allclose(last[1], whole[1, 4:8], atol=1e-5)


def gradients(model, ids, targets, window):
    """Of one long row, window by window, by name."""
    total = None
    for start in range(0, ids.shape[1], window):
        part = slice(start, start + window)
        with tf.GradientTape() as tape:
            logits = model(
                {"ids": ids[:, part], "fresh": tf.fill([len(ids)], start == 0)}, training=True
            )
            loss = MaskedCrossentropy()(targets[:, part], logits) * window
        found = [tf.convert_to_tensor(g) for g in
                 tape.gradient(loss, [v.value for v in model.trainable_variables])]  # fmt: skip
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    return [g.numpy() for g in total]


def test_a_window_of_the_whole_text_is_full_backpropagation_and_a_shorter_one_is_not():
    model = small()
    ids = np.random.default_rng(0).integers(3, 9, (3, 9)).astype("int32")
    inputs, targets = ids[:, :-1], ids[:, 1:]

    zeros = [np.zeros((3, s.shape[-1]), "float32") for s in model.network.inputs[1:]]
    with tf.GradientTape() as tape:
        loss = MaskedCrossentropy()(targets, model.network([inputs, *zeros])[0]) * 8
    full = [tf.convert_to_tensor(g).numpy() for g in
            tape.gradient(loss, [v.value for v in model.network.trainable_variables])]  # fmt: skip
    for a, b in zip(gradients(model, inputs, targets, 8), full, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    cut = gradients(model, inputs, targets, 2)
    assert max(np.abs(a - b).max() for a, b in zip(cut, full, strict=True)) > 1e-3


@pytest.mark.parametrize("tied", [False, True])
def test_one_batch_is_learned_by_heart(tied):
    keras.utils.set_random_seed(1)
    model = build(
        GenerationModelConfig(units=[32], embedding=12, tied=tied), vocabulary=9, rows=2, seed=3
    )
    rows = Ragged(np.random.default_rng(0).integers(3, 9, 40).astype("int32"), np.array([20, 20]))
    windows = TokenStreams(rows, rows=2, window=21, end=END).arrange()
    model.compile(keras.optimizers.Adam(0.02), loss=MaskedCrossentropy(),
                  metrics=[PerToken("nats", name="nats")])  # fmt: skip
    history = model.fit(
        without_autotune(windows.dataset().repeat(150)), verbose=0, epochs=1
    ).history
    assert model.evaluate(windows.dataset(), verbose=0, return_dict=True)["nats"] < 0.1
    assert history["nats"][0] < math.log(9)
    assert any(w.path.startswith("V/") for w in model.trainable_weights) != tied


def test_saved_and_loaded(tmp_path):
    model = small("gru", dropout=0.3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.rows == 3
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_is_for_training():
    model = small(dropout=0.5)
    inputs = {"ids": np.full((3, 4), 5), "fresh": np.ones(3, bool)}
    still = [model(inputs).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert (model(inputs, training=True).numpy() != still[0]).any()


# Scores


@pytest.mark.parametrize("cell", CELLS)
def test_surprise_is_that_of_every_document_read_from_its_beginning(cell, monkeypatch):
    model = small(cell)
    rng = np.random.default_rng(2)
    monkeypatch.setattr(evaluation, "_WINDOW", 16)
    lengths = np.array([35, 0, 5, 17])
    rows = Ragged(rng.integers(3, 9, lengths.sum()).astype("int32"), lengths)
    losses, places, documents_of = evaluation.token_losses(model, rows)
    expected = []
    zeros = [np.zeros((1, s.shape[-1]), "float32") for s in model.network.inputs[1:]]
    for i in range(4):
        whole = np.array([[END, *rows[i], END]], "int32")
        logits = run_network(model.network, whole[:, :-1], zeros)[0].numpy()[0]
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected.append(-np.take_along_axis(logp, whole[0, 1:, None], -1)[:, 0])
    np.testing.assert_allclose(np.sort(losses), np.sort(np.concatenate(expected)), atol=1e-4)
    assert np.bincount(places)[:7].tolist() == [4, 3, 3, 3, 3, 3, 2]
    of_each = np.bincount(documents_of, losses)
    np.testing.assert_allclose(np.sort(of_each), np.sort([e.sum() for e in expected]), atol=1e-3)
    at_first = losses[places == 0]
    np.testing.assert_allclose(np.sort(at_first), np.sort([e[0] for e in expected]), atol=1e-4)
    found = evaluation.summarize_losses(losses, rows, "character")
    assert found["perplexity"] == pytest.approx(math.exp(losses.mean()))
    assert found["bits_per_character"] == pytest.approx(losses.mean() / math.log(2))
    assert found["unknown_share"] == 0
    for level in ("word", "subword"):
        assert "bits_per_character" not in evaluation.summarize_losses(losses, rows, level)


# Writing


def configured(level="character", **sampling):
    return CONFIG.model_validate(
        {
            "data": {"source": "x.txt"},
            "model": {"level": level, "units": [16], "embedding": 8},
            "sampling": {"max_length": 12} | sampling,
        }
    )


@pytest.fixture(scope="module")
def parrot():
    """A model that knows one text by heart."""
    return taught("The sun rises in the east.", "character")


def taught(text: str, level: str, **settings):
    keras.utils.set_random_seed(1)
    processor = DocumentTokenizer.fit([text], GenerationTextConfig(**settings), level)
    model = build(
        GenerationModelConfig(units=[48], embedding=16), vocabulary=processor.size, rows=1, seed=1
    )
    windows = TokenStreams(processor.encode([text]), rows=1, window=32, end=END).arrange()
    model.compile(keras.optimizers.Adam(0.01), loss=MaskedCrossentropy())
    model.fit(without_autotune(windows.dataset().repeat(200)), verbose=0)
    return text, processor, model


def write(parrot, prompts, **sampling):
    _, processor, model = parrot
    config = configured(**sampling)
    answer = GenerationServing(config, processor, model.network).write(
        **sampling_request(prompts, config.sampling)
    )
    return [t.decode() for t in answer["text"].numpy()]


def test_a_prompt_is_read_and_gone_on_with_until_the_end_mark(parrot):
    text = parrot[0]
    prompts = ["", "The sun", "The sun rises in the "]
    assert write(parrot, prompts, temperature=0.0, max_length=40) == [text] * 3
    assert write(parrot, prompts, temperature=0.0, max_length=3) == [
        "The", "The sun ri", "The sun rises in the eas",
    ]  # fmt: skip


def test_unknown_characters_in_a_prompt_are_kept_and_none_is_written(parrot):
    written = write(parrot, ["Ωλ The sun"], temperature=1.5, max_length=30)[0]
    assert written.startswith("Ωλ The sun")
    assert set(written[len("Ωλ The sun") :]) <= set(parrot[0])


def test_same_seed_same_text(parrot):
    hot = {"temperature": 3.0, "max_length": 10}
    first = write(parrot, ["The"], seed=4, **hot)
    assert write(parrot, ["The"], seed=4, **hot) == first
    assert write(parrot, ["The"], seed=5, **hot) != first
    # Each prompt has a seed of its own, whatever stands beside it.
    assert write(parrot, ["", "The"], seed=3, **hot)[1] == first[0]


@pytest.mark.parametrize("cell", thorough_after(2, ["lstm", "feedforward", "rnn", "gru"]))
def test_a_prompt_is_read_alike_alone_and_beside_longer_ones(cell):
    processor = DocumentTokenizer.fit(TEXTS, GenerationTextConfig(), "character")
    model = build(
        GenerationModelConfig(cell=cell, units=[7], embedding=5),
        vocabulary=processor.size,
        rows=2,
        seed=3,
    )
    writer = GenerationServing(configured(), processor, model.network)
    prompts = ["It", "", "It was the", "Ω"]
    together = writer.next(tf.constant(prompts))["probabilities"].numpy()
    all_of_them = configured(temperature=1.0, max_length=6).sampling
    written = writer.write(**sampling_request(prompts, all_of_them))["text"].numpy()
    for i, prompt in enumerate(prompts):
        alone = writer.next(tf.constant([prompt]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(alone, together[i], rtol=1e-5)
        single = configured(temperature=1.0, seed=1 + i, max_length=6).sampling
        assert writer.write(**sampling_request([prompt], single))["text"].numpy()[0] == written[i]


@pytest.mark.parametrize(
    ("temperature", "max_length", "seed"),
    [
        ([float("nan")], [5], [1]),
        ([float("inf"), -1.0], [5], [1]),
        ([1e30], [5, -3], [2**31 - 1, -5]),
        ([1.0], [0], [1]),
    ],
)
def test_any_request_is_answered(parrot, temperature, max_length, seed):
    _, processor, model = parrot
    writer = GenerationServing(configured(), processor, model.network)
    texts = writer.write(
        tf.constant([b"The \xff", b"sun"]),
        tf.constant(temperature, tf.float32),
        tf.constant(max_length, tf.int32),
        tf.constant(seed, tf.int32),
    )["text"].numpy()
    assert [t.decode()[:3] for t in texts] == ["The", "sun"]
    # Nothing unknown is written, however hot.
    assert "\N{REPLACEMENT CHARACTER}" not in texts[0].decode()[5:] + texts[1].decode()


@pytest.mark.parametrize("count", [1, 2])
def test_examples_of_a_few_prompts(count):
    """One prompt must not fix the number of rows while the graph is traced."""
    prompts = ["The sun", "east"][:count]
    config = CONFIG.model_validate(
        {
            "data": {"source": "x"},
            "model": {"level": "word", "cell": "lstm", "units": [8], "embedding": 4},
            "train": {"batch_size": 2},
            "sampling": {"prompts": prompts, "max_length": 5},
        }
    )
    tunes = [d("The sun rises in the east.")]
    splits = Splits(tunes, tunes, tunes, fingerprint="", report={})
    processor = TASK.fit_processor(config, splits)
    table = TASK.examples(config, processor, TASK.build(config, processor), splits)()
    assert [row[0] for row in table.rows] == prompts
    assert all(row[1].startswith(row[0]) for row in table.rows)


def exported(config, processor, model, folder):
    """Return the export with the two endpoints that ``predict`` asks."""
    endpoints = TASK.endpoints(config, processor, model)
    asked = {name: endpoints[name] for name in ("serving_default", "next")}
    savedmodel.write(folder, model, asked, processor.resources())
    return savedmodel.load(folder)


def test_served_as_it_is_in_process(parrot, tmp_path):
    text, processor, model = parrot
    config = configured(temperature=0.0, max_length=100)
    served = exported(config, processor, model, tmp_path / "m")
    answer = served.signatures["serving_default"](
        **sampling_request(["The sun r", ""], config.sampling)
    )
    assert [t.decode() for t in answer["text"].numpy()] == [text, text]
    following = served.signatures["next"](
        prompt=tf.constant(["The su", "The sun rises in the east."])
    )
    assert [row[0].decode() for row in following["tokens"].numpy()] == ["n", ""]
    assert (following["probabilities"].numpy()[:, 0] > 0.8).all()
    np.testing.assert_array_less(following["probabilities"].numpy().sum(-1), 1.0001)
    none = sampling_request([], config.sampling) | {"prompt": tf.zeros([0], tf.string)}
    assert served.signatures["serving_default"](**none)["text"].shape == (0,)
    prediction = TASK.predict(config, served, "The sun\\n")
    assert prediction.title.startswith("The sun\n")
    assert prediction.json["text"] == prediction.title
    json.dumps(prediction.json)


@pytest.mark.parametrize(
    ("min_count", "prompt", "token"), [(1, "The", " sün"), (2, "The s", "\\xc3")]
)
def test_sub_words_are_written_and_told(min_count, prompt, token):
    """Also where a character is two bytes."""
    text, processor, model = taught("The sün rises.", "subword", min_count=min_count)
    config = configured("subword", temperature=0.0, max_length=40)
    endpoints = TASK.endpoints(config, processor, model)
    called = {name: endpoints[name].function for name in ("serving_default", "next")}
    prediction = TASK.predict(config, SimpleNamespace(signatures=called), prompt)
    assert prediction.title == text
    assert prediction.json["next"][token] > 0.8
    assert prediction.rows[0][0] == repr(token)[1:-1]


# Feeding


def test_the_feed_is_what_the_model_is_built_for():
    config = configs_of(rows=4, window=5)
    texts = [d("abcdefghij"[:n] * n) for n in range(1, 11)]
    splits = Splits(texts, texts[:1], texts[:1], fingerprint="", report={})
    processor = TASK.fit_processor(config, splits)
    feed = StreamFeed(config, processor, splits)
    model = TASK.build(config, processor)
    batches = list(feed.train(0))
    assert len(batches) == feed.steps
    assert feed.tokens == sum(len(t.text) + 1 for t in texts)
    for inputs, targets in [*batches, *feed.validation()]:
        assert inputs["ids"].shape == targets.shape == (4, 5)
        assert model(inputs).shape == (4, 5, processor.size)
    again, other = list(feed.train(0)), list(feed.train(1))
    assert all((a[1].numpy() == b[1].numpy()).all() for a, b in zip(batches, again, strict=True))
    assert any((a[1].numpy() != b[1].numpy()).any() for a, b in zip(batches, other, strict=True))


def configs_of(rows: int, window: int):
    return CONFIG.model_validate(
        {
            "data": {"source": "x.txt"},
            "model": {"units": [4], "embedding": 3},
            "train": {"batch_size": rows, "window": window},
        }
    )


def d(text: str):
    from pipelines.generation.records import Document

    return Document(text, "x.txt")


def test_every_config_of_the_task_is_valid():

    for file in (ROOT / "configs/generation").glob("*.yaml"):
        configs.load(file, CONFIG)


def test_network_takes_any_batch():
    model = network(GenerationModelConfig(units=[4], embedding=3), vocabulary=7, seed=0)
    for batch, time in ((1, 1), (2, 5), (0, 3)):
        states = [np.zeros((batch, 4), "float32")] * 2
        logits, *after = model([np.full((batch, time), 3), *states])
        assert logits.shape == (batch, time, 7)
        assert [s.shape for s in after] == [(batch, 4)] * 2
