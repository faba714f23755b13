"""Models that the tests of explanations share."""

from __future__ import annotations

import pytest

from tests.support.explaining import HandSet, Reader, hand_set_lstm


@pytest.fixture(scope="session")
def by_hand() -> HandSet:
    return hand_set_lstm()


@pytest.fixture(scope="session")
def two_ways() -> Reader:
    return Reader()
