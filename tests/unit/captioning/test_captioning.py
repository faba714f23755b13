"""The captioning task's own parts: records, model, scores, what is served."""

from __future__ import annotations

import csv
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.captioning import evaluation, task
from pipelines.captioning.config import CONFIG, CaptioningConfig, CaptioningModelConfig
from pipelines.captioning.model import Captioner, build
from pipelines.captioning.records import Picture
from pipelines.captioning.task import TASK, CaptioningServing, PictureFeed
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import images
from pipelines.engine.data.splits import Splits
from pipelines.engine.export import savedmodel
from pipelines.engine.models import beam_search
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.encoder_decoder import decoding_request
from pipelines.engine.text.tokenizer import END
from pipelines.engine.training.losses import MaskedCrossentropy
from tests.support.pictures import COLOURS, SHAPES, encoded, scene, shape

CELLS = ["rnn", "gru", "lstm"]
ATTENTION = ["additive", "none"]
SIZE = 64


def request(inputs, decoding):
    return decoding_request("image", inputs, decoding)


def small(cell="lstm", attention="additive", *, layers=1, dropout=0.0, tied=True, **encoder):
    return CaptioningModelConfig.model_validate(
        {
            "encoder": {"features": 6, "dropout": dropout, "size": SIZE, **encoder},
            "decoder": {"cell": cell, "units": [8] * layers, "embedding": 10, "tied": tied,
                        "attention": attention, "dropout": dropout},
        }
    )  # fmt: skip


def eye(seed=0) -> keras.Model:
    """An encoder in an instant: a grid of 4 × 4 places with 5 channels."""
    pictures = keras.Input((SIZE, SIZE, 3))
    init = keras.initializers.GlorotUniform(seed)
    x = keras.layers.Rescaling(1 / 128, -1)(pictures)
    x = keras.layers.Conv2D(5, 16, 16, kernel_initializer=init, activation="tanh")(x)
    return keras.Model(pictures, x)


def batch(rows=4, time=6, seed=0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    written = rng.integers(3, 15, (rows, time)).astype("int32")
    for row in range(1, rows):
        written[row, time - row :] = 0
    targets = np.roll(written, -1, axis=1)
    targets[:, -1] = 0
    return {
        "picture": rng.normal(size=(rows, 16, 5)).astype("float32"),
        "written": written,
    }, targets


# The model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ATTENTION)
def test_padding_changes_neither_loss_nor_gradient(cell, attention):
    model = build(small(cell, attention, layers=2), eye(), vocabulary=15, seed=1)
    inputs, targets = batch()
    wider = inputs | {"written": np.pad(inputs["written"], [[0, 0], [0, 3]])}
    found = []
    for some, wanted in ((inputs, targets), (wider, np.pad(targets, [[0, 0], [0, 3]]))):
        with tf.GradientTape() as tape:
            value = MaskedCrossentropy(0.1)(wanted, model(some, training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        found.append([value, *map(tf.convert_to_tensor, gradients)])
    for whole, wide in zip(*found, strict=True):
        np.testing.assert_allclose(whole, wide, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ATTENTION)
def test_one_token_at_a_time_is_the_same_as_all_at_once(cell, attention):
    model = build(small(cell, attention, layers=2), eye(), vocabulary=15, seed=1)
    inputs, _ = batch(rows=2)
    whole = np.asarray(model(inputs))
    states, attended = model.encode(tf.constant(inputs["picture"]))
    for t in range(5):
        ids = tf.constant(inputs["written"][:, t : t + 1])
        logits, states, weights = model.decode(ids, states, attended)
        np.testing.assert_allclose(logits[0, 0], whole[0, t], rtol=1e-4, atol=1e-5)
        if attention == "none":
            assert weights is None
        else:
            np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-5)


def test_where_the_decoder_starts_from_is_the_mean_of_what_is_kept_of_the_places():
    model = build(small(attention="none"), eye(), vocabulary=15, seed=1)
    grid = batch()[0]["picture"]
    states, attended = model.encode(grid)
    assert attended == []
    P, *bridges = (model.reader.get_layer(n) for n in ("P", "bridge_0", "bridge_1"))
    kept = np.maximum(grid @ np.asarray(P.kernel) + np.asarray(P.bias), 0).mean(axis=1)
    for state, bridge in zip(states, bridges, strict=True):
        expected = np.tanh(kept @ np.asarray(bridge.kernel) + np.asarray(bridge.bias))
        np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTION)
def test_at_the_start_every_token_is_as_likely_as_any(attention):
    model = build(small(attention=attention), eye(), vocabulary=15, seed=1)
    inputs, targets = batch(rows=6, seed=2)
    assert float(MaskedCrossentropy()(targets, model(inputs))) == pytest.approx(
        math.log(15), rel=0.05
    )


@pytest.mark.parametrize("attention", ATTENTION)
def test_one_batch_is_learned_by_heart(attention):
    keras.utils.set_random_seed(1)
    model = build(small("gru", attention, tied=False), eye(), vocabulary=15, seed=1)
    inputs, targets = batch()
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss=MaskedCrossentropy())
    losses = [float(model.train_on_batch(inputs, targets)) for _ in range(150)]
    assert losses[-1] < 0.1


def test_a_frozen_encoder_stays_as_it_is_and_one_that_is_tuned_learns():
    pictures = np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype("float32")
    inputs, targets = batch()
    for fine_tune in (False, True):
        model = build(small(fine_tune=fine_tune), eye(), vocabulary=15, seed=1)
        if fine_tune:
            inputs = inputs | {"picture": pictures.reshape(4, -1, 3)}
        before = [np.array(w) for w in model.encoder.weights]
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss=MaskedCrossentropy())
        model.train_on_batch(inputs, targets)
        after = [np.array(w) for w in model.encoder.weights]
        same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert same is not fine_tune


@pytest.mark.parametrize("fine_tune", [True, False])
def test_saved_and_loaded_it_says_the_same(tmp_path, fine_tune):
    model = build(small(layers=2, fine_tune=fine_tune), eye(), vocabulary=15, seed=1)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, Captioner)
    assert again.encoder.trainable is fine_tune
    written = tf.constant(batch(rows=2)[0]["written"])
    found = [m.decode(written, *m.encode(m.see(pictures)))[0].numpy() for m in (model, again)]
    np.testing.assert_allclose(*found, rtol=1e-6)


# Records


def saved(path, raw: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def config_of(**more) -> CaptioningConfig:
    sections = {
        "data": {"source": "captions.csv"},
        "text": {"vocabulary": 300},
        "model": small(layers=2).model_dump(),
        "decoding": {"beam_width": 3, "max_length": 12},
    }
    return CONFIG.model_validate(sections | more)


def load(source, **data) -> Splits:
    return TASK.load(config_of(data={"source": str(source), "max_bad_rows": 0.9, **data}))


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "caption"], *rows])
    return path


def test_rows_with_the_same_picture_are_one_record(tmp_path):
    rows = []
    for i in range(20):
        saved(tmp_path / f"p/{i}.png", encoded(scene().rotate(i)))
        rows += [[f"p/{i}.png", f"picture {i}"], [f"p/{i}.png", "  a \n scene "]]
    saved(tmp_path / "copy.png", encoded(scene().rotate(3)))  # another file with the same bytes
    rows += [["copy.png", "a copy"], ["p/4.png", "a scene"], [str(tmp_path / "p/5.png"), "five"]]
    splits = load(table(tmp_path / "captions.csv", rows), validation=0.2, test=0.2)
    parts = [splits.train, splits.validation, splits.test]
    assert [len(p) for p in parts] == [12, 4, 4]
    assert splits.report["records"] == {"train": 12, "validation": 4, "test": 4}
    assert sum(splits.report["captions"].values()) == 42
    every = {p.captions[0]: p.captions for part in parts for p in part}
    assert every["picture 3"] == ("picture 3", "a scene", "a copy")
    assert every["picture 4"] == ("picture 4", "a scene")
    assert every["picture 5"] == ("picture 5", "a scene", "five")


def test_several_captions_may_stand_in_one_row(tmp_path):
    lines = []
    for i in range(10):
        saved(tmp_path / f"{i}.png", encoded(scene().rotate(i)))
        lines.append(json.dumps({"image": f"{i}.png", "caption": [f"one {i}", f"two {i}"]}))
    lines += [json.dumps({"image": "0.png", "caption": caption}) for caption in ([], [3], "", 5)]
    source = saved(tmp_path / "captions.jsonl", "\n".join(lines).encode())
    splits = load(source)
    assert all(len(p.captions) == 2 for p in splits.train)
    assert splits.report[str(source)]["unusable"] == {
        "'caption' is empty": 2, "'caption' is not text": 2
    }  # fmt: skip


def test_pictures_that_cannot_be_used_are_counted_and_named(tmp_path):
    whole = encoded(scene(), "JPEG")
    files = {
        "cut.jpg": whole[: len(whole) // 2],
        "text.jpg": b"a text",
        "empty.jpg": b"",
        "tiff.tif": encoded(scene(), "TIFF"),
    }
    for name, raw in files.items():
        saved(tmp_path / name, raw)
    rows = [[f"{i}.png", f"text {i}"] for i in range(20)]
    for i in range(20):
        saved(tmp_path / f"{i}.png", encoded(scene().rotate(i)))
    rows += [[name, "broken"] for name in files] + [["cut.jpg", "again"], ["gone.jpg", "x"]]
    rows += [["", "no name"], ["0.png", " "]]
    source = table(tmp_path / "captions.csv", rows)
    report = load(source, validation=0.1, test=0.1).report[str(source)]
    assert report["unusable"] == {
        "a truncated picture": 2,
        "not a picture": 1,
        "an empty file": 1,
        "a TIFF picture; JPEG, PNG, GIF, BMP, WEBP can be read": 1,
        "no such picture": 1,
        "'image' is empty": 1,
        "'caption' is empty": 1,
    }
    assert report["first_unusable"][0] == "captions.csv:22: a truncated picture"
    with pytest.raises(UserError, match="8 of 28 rows cannot be used"):
        load(source, max_bad_rows=0.1)


def test_captions_may_be_held_out_instead_of_pictures(tmp_path):
    rows = []
    for i in range(60):
        saved(tmp_path / f"{i}.png", encoded(scene().rotate(i)))
        rows.append([f"{i}.png", f"Text {i // 3}"])
    source = table(tmp_path / "captions.csv", rows)
    splits = load(source, apart="caption", validation=0.2, test=0.2)
    parts = [{p.captions for p in s} for s in (splits.train, splits.validation, splits.test)]
    assert not parts[0] & (parts[1] | parts[2])
    assert not parts[1] & parts[2]
    mixed = load(source, validation=0.2, test=0.2)
    assert {p.captions for p in mixed.test} & {p.captions for p in mixed.train}


def test_captions_that_are_too_long_are_left_out(tmp_path):
    rows = [[f"{i}.png", f"text {i}"] for i in range(20)] + [["0.png", "long " * 30]]
    for i in range(21):
        saved(tmp_path / f"{i}.png", encoded(scene().rotate(i)))
    source = table(tmp_path / "captions.csv", [*rows, ["20.png", "word " * 30]])
    splits = load(source, max_characters=50)
    assert splits.report[str(source)]["left_out"] == 2
    assert sum(splits.report["captions"].values()) == 20


# Scores: the numbers are those of pycocoevalcap 1.2, the field's reference implementation

OUTPUTS = [
    "a dog runs through the green grass", "two children are playing", "", "a man a man a man",
    "a girl in a red dress jumps over a puddle of water",
]  # fmt: skip
REFERENCES = [
    ["a brown dog runs through the grass", "a dog is running in the green grass"],
    ["two children are playing", "kids play outside", "two small children play in the sand"],
    ["a bird on a branch", "a small bird"],
    ["a man rides a bike", "a cyclist"],
    ["a girl jumps over a puddle", "a child in a red dress leaps over water", "a girl in a dress"],
]
REFERENCE = {
    "bleu": [0.8275862068680143, 0.7719210250544649, 0.6783279468596168, 0.5504400851808122],
    "rouge_l": 0.6370478072651986,
    "cider_d": 2.1254519054169356,
}


def split(texts):
    return [text.split() for text in texts]


def test_scores_are_those_of_the_reference_implementation():
    true = list(map(split, REFERENCES))
    found = evaluation.bleu(split(OUTPUTS), true)
    expected = REFERENCE["bleu"]
    for n in range(1, 5):
        assert found[f"bleu_{n}"] == pytest.approx(100 * expected[n - 1], rel=1e-6)
    assert evaluation.rouge_l(split(OUTPUTS), true) == pytest.approx(REFERENCE["rouge_l"])
    assert evaluation.cider_d(split(OUTPUTS), true) == pytest.approx(REFERENCE["cider_d"])


def test_the_interval_of_cider_is_over_pictures():
    outputs, references = OUTPUTS * 4, REFERENCES * 4
    low, high = evaluation.cider_d_interval(outputs, references, seed=1)
    mean = evaluation.scores(outputs, references)["cider_d"]
    each = evaluation.cider_d_of_each(split(outputs), [list(map(str.split, t)) for t in references])
    assert each.mean() == pytest.approx(mean)
    error = each.std() / math.sqrt(len(each))
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=error)
    assert evaluation.cider_d_interval(OUTPUTS, REFERENCES, seed=1) is None


def test_words_are_scored_without_marks_and_case():
    assert evaluation.words("A dog's T-shirt, is “Red” .") == ["a", "dog's", "t-shirt", "is", "red"]
    one = evaluation.scores(["A dog runs ."], [["a dog runs", "it runs"]])
    assert one == evaluation.scores(["a dog runs"], [["A dog, runs!", "It runs"]])


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=5, max_size=9), min_size=3, max_size=6,
                unique_by=tuple))  # fmt: skip
def test_what_a_person_said_has_full_marks(texts):
    true = [[text] for text in texts]
    assert evaluation.bleu(texts, true)["bleu_4"] == pytest.approx(100)
    assert evaluation.rouge_l(texts, true) == pytest.approx(1)
    others = evaluation.cider_d(texts[::-1], true)
    assert evaluation.cider_d(texts, true) >= others - 1e-9
    assert evaluation.cider_d(texts, true) <= 10 + 1e-9


def test_variety():
    found = evaluation.variety(
        ["A dog runs.", "a dog runs", "a cat", "a new one"], ["a dog runs", "A cat ."]
    )
    assert found["novel"] == 0.25
    assert found["distinct"] == 0.75
    assert found["distinct_1"] == pytest.approx(6 / 11)
    assert found["distinct_2"] == pytest.approx(5 / 7)
    assert evaluation.variety([""], [])["distinct_2"] == 0


# From bytes to a caption


@pytest.fixture
def few(tmp_path) -> list[Picture]:
    found = []
    for colour in COLOURS:
        for kind in SHAPES:
            raw = encoded(shape(colour, kind))
            path = saved(tmp_path / f"{colour}-{kind}.png", raw)
            text = f"a {colour} {kind} on white"
            found.append(Picture(path, images.digest(raw), (text, f"{text} ground"), path.name))
    return found


def narrator(config: CaptioningConfig, pictures) -> CaptioningServing:
    processor = TASK.fit_processor(config, Splits(pictures, pictures, pictures, "", {}))
    keras.utils.set_random_seed(3)
    model = build(config.model, eye(), vocabulary=processor.size, seed=3)
    return CaptioningServing(config, processor, model)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("level", ["word", "character"])
def test_no_caption_depends_on_the_other_pictures(few, attention, level):
    model = small(attention=attention, layers=2).model_dump() | {"level": level}
    config = config_of(model=model)
    caption = tf.function(narrator(config, few).answer, reduce_retracing=True, autograph=False)
    raw = [p.file.read_bytes() for p in few[:3]]
    raw = [raw[0], b"no picture", raw[1], b"", raw[2]]
    together = {k: v.numpy() for k, v in caption(**request(raw, config.decoding)).items()}
    for row, one in enumerate(raw):
        alone = {k: v.numpy()[0] for k, v in caption(**request([one], config.decoding)).items()}
        assert alone["caption"] == together["caption"][row]
        assert alone["score"] == pytest.approx(together["score"][row], rel=1e-4)
        if attention == "additive":
            time = len(alone["tokens"])
            np.testing.assert_allclose(
                alone["alignment"], together["alignment"][row][:time], atol=1e-5
            )
            assert not together["alignment"][row][time:].any()
    for row in (1, 3):
        assert together["caption"][row] == b""
        assert np.all(together["scores"][row] == np.float32(beam_search.IMPOSSIBLE))
    none = caption(**request([], config.decoding))
    assert all(value.shape[0] == 0 for value in none.values())


def test_where_words_looked_is_a_map(few):
    config = config_of()
    answer = narrator(config, few).answer(**request([few[0].file.read_bytes()], config.decoding))
    alignment, tokens = answer["alignment"].numpy()[0], answer["tokens"].numpy()[0]
    assert alignment.shape == (len(tokens), 4, 4)
    np.testing.assert_allclose(alignment.sum(axis=(1, 2)), 1, rtol=1e-4)
    assert b"".join(tokens).strip() == answer["caption"].numpy()[0]
    assert answer["captions"].shape == (1, 3)
    assert np.all(np.diff(answer["scores"].numpy()[0]) <= 0)


def test_batches_have_each_caption_with_its_picture(few):
    config = config_of(train={"batch_size": 8}, model=small(name=LITE).model_dump())
    splits = Splits(few, few[:3], few[:2], "", {})
    processor = TASK.fit_processor(config, splits)
    feed = PictureFeed(config, processor, splits)
    seen = {}
    for inputs, targets in feed.train(0):
        for grid, written, wanted in zip(
            inputs["picture"].numpy(), inputs["written"], targets, strict=True
        ):
            assert written[0] == END
            text = processor.detokenize(wanted[None]).numpy()[0].decode()
            seen[text] = grid
    assert set(seen) == {c for p in few for c in p.captions}
    for picture in few:
        first, second = (seen[c] for c in picture.captions)
        np.testing.assert_array_equal(first, second)
    raw, _ = images.compiled_decoder(SIZE)(tf.constant([few[5].file.read_bytes()]))
    model = TASK.build(config, processor)
    np.testing.assert_allclose(seen[few[5].captions[0]], model.see(raw)[0], atol=0.02, rtol=2e-3)
    orders = [[t.numpy().tolist() for _, t in feed.train(e)] for e in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


LITE = "efficientnet-lite0"


def test_the_keys_of_a_config_have_their_effect(few):
    config = config_of(model=small(name=LITE, dropout=0.4).model_dump())
    processor = TASK.fit_processor(config, Splits(few, few, few, "", {}))
    model = TASK.build(config, processor)
    assert model.encoder.name == LITE
    for part in (model.reader, model.decoder):
        rates = {one.rate for one in part.layers if isinstance(one, keras.layers.Dropout)}
        assert rates == {0.4}
    assert TASK.objective(config_of(train={"label_smoothing": 0.3}), None).loss.smoothing == 0.3
    lower = TASK.fit_processor(config_of(text={"min_count": 30}), Splits(few, few, few, "", {}))
    assert lower.size < processor.size


def test_bytes_are_bytes_to_mlflow(few, tmp_path):
    config = config_of()
    found = narrator(config, few)
    served = TASK.endpoints(config, found._processor, found._model)
    savedmodel.write(tmp_path / "m", found._model, served, found._processor.resources())
    signature = savedmodel.mlflow_signature(tmp_path / "m", config.binary_inputs)
    kinds = {c.name: c.type.name for c in signature.inputs}
    assert kinds == {"image": "binary", "beam_width": "integer", "max_length": "integer"}


def test_pictures_of_the_evaluation(few, tmp_path):
    files = [p.file for p in few]
    sheet = evaluation.contact_sheet(files[:5], ["a caption " * 20] * 5, [p.captions for p in few])
    assert len(sheet.axes) == 8
    maps = evaluation.attention(files[0], [" a", " red", " circle"], np.random.rand(3, 4, 4))
    assert [ax.get_title() for ax in maps.axes[:4]] == ["", "a", "red", "circle"]
    evaluation.attention(files[0], [], np.zeros((0, 4, 4)))
    image = Image.new("RGBA", (5, 9), (0, 0, 0, 0))
    assert (evaluation.shown(saved(tmp_path / "a.png", encoded(image))) == 255).all()
    with pytest.raises(UserError, match="without attention"):
        TASK.writers["attention"](Prediction("", [], [], {"caption": "x"}), tmp_path / "b.png")


def test_rows_are_as_many_as_captions(few):
    config = config_of()
    processor = TASK.fit_processor(config, Splits(few, few, few, "", {}))
    rows, targets = task._encode(processor, few)
    assert rows["picture"].tolist() == np.repeat(np.arange(len(few)), 2).tolist()
    assert len(targets) == len(rows["written"]) == 2 * len(few)
