"""What a vocabulary does not cover, counted."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("level", "values", "expected"),
    [
        ("word", [1, 2, 1, 3, 2, 2, 2, 2], "It knows 3 words, all from the training texts; of the "
         "test texts, 25.0% of the words are unknown to it."),
        ("character", [2, 2], "0.0% of the characters are unknown"),
        ("word", [], "0.0% of the words are unknown"),
        ("subword", [2, 2], "It reads any text"),
    ],
)  # fmt: skip
def test_the_share_of_unknown_tokens(level, values, expected):
    rows = Ragged(np.array(values, np.int32), np.array([len(values)]))
    assert expected in coverage(Vocabulary(["a", "b", "c"]), rows, level, "test texts")
