"""What is in the cache of picture features is whole, whenever its writer was killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support import photos as captions
from tests.support.commands import Command, ok, unfold


@pytest.mark.parametrize("grids", [1, 60])
def test_killed_while_the_cache_of_pictures_is_written(grids, photos, captioned, tmp_path):
    """What is in the cache then is whole, and the next training makes what is missing: the same but
    for the last bit of some numbers, which depends on what was looked at beside a picture."""
    home = tmp_path / "home"
    home.mkdir()
    command = Command(home, "train", "captioning", *captions.small(photos))
    while len(cached(home)) < grids:
        assert command.process.exitcode is None, command.err.read_text()
        time.sleep(0.002)
    os.kill(command.process.pid, signal.SIGKILL)
    command.wait()
    left, whole = cached(home), cached(captioned)
    assert grids <= len(left) < len(whole)
    for name, path in left.items():
        assert path.read_bytes() == whole[name].read_bytes()
    one_epoch = captions.small(photos, "train.epochs=1")
    ok(unfold(home, "train", "captioning", "--json", *one_epoch))
    now = cached(home)
    assert now.keys() == whole.keys()
    for name, path in now.items():
        made, expected = (np.frombuffer(p.read_bytes()[:-4], "<f2") for p in (path, whole[name]))
        np.testing.assert_allclose(made, expected, rtol=2e-3, atol=2e-3)


@pytest.fixture(scope="module")
def photos(trained_once) -> str:
    return trained_once("captioning").source


@pytest.fixture(scope="module")
def captioned(trained_once) -> Path:
    return trained_once("captioning").home


def cached(home: Path) -> dict[str, Path]:
    """The finished files of the features' cache, by name."""
    return {p.name: p for p in (home / "features").rglob("[!.]*") if p.is_file()}
