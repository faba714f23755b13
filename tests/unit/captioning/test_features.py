"""Features of pictures and captions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.captioning.config import CaptioningTextConfig
from pipelines.captioning.features import features
from pipelines.captioning.records import Picture
from pipelines.engine.text.tokenizer import DocumentTokenizer
from tests.support.pictures import encoded, scene


def test_size_light_and_captions_are_measured(tmp_path):
    processor = DocumentTokenizer.fit(["a red ring ."], CaptioningTextConfig(min_count=1), "word")
    shown = [Image.new("RGB", (40, 20), (10, 20, 200)), scene()]
    pictures = []
    for i, image in enumerate(shown):
        path = tmp_path / f"{i}.png"
        path.write_bytes(encoded(image, "PNG"))
        pictures.append(Picture(path, str(i), ("a red ring .",) if i else (), f"{i}.png"))
    asked: list[Picture] = []

    def losses_of(some):
        asked.extend(some)
        return np.array([1.5])

    found = features("word", processor, pictures, losses_of)
    np.testing.assert_allclose(found["megapixels"].values, [0.0008, 0.06])
    np.testing.assert_allclose(found["aspect"].values, [2.0, 1.5])
    grey = [np.asarray(image.convert("L"), float) for image in shown]
    np.testing.assert_allclose(found["brightness"].values, [g.mean() for g in grey], rtol=0.02)
    assert found["contrast"].values[0] == pytest.approx(0, abs=1e-3)
    assert found["contrast"].values[1] == pytest.approx(grey[1].std(), rel=0.1)
    assert found["caption_tokens"].values.tolist() == [4]
    assert found["loss"].values.tolist() == [1.5]
    assert asked == pictures[1:]


def test_pictures_without_captions_need_no_model(tmp_path):
    processor = DocumentTokenizer.fit(["a ring"], CaptioningTextConfig(min_count=1), "word")
    (tmp_path / "a.png").write_bytes(encoded(scene(), "PNG"))
    found = features("word", processor, [Picture(tmp_path / "a.png", "a", (), "a.png")], None)
    assert found.keys() == {"megapixels", "aspect", "brightness", "contrast"}
