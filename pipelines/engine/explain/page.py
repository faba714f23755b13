"""An account as one HTML file that needs nothing else, and all files of one."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from pipelines.engine.core import plotting
from pipelines.engine.core.files import write_text
from pipelines.engine.explain import plots
from pipelines.engine.explain.explanation import MEANINGS, Explanation, data


def page(account: Explanation, *, task: str, run: str) -> str:
    """The page; its script and its numbers are in it."""
    template = resources.files(__package__).joinpath("page.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    # As they come: the first of the curves is the answer.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    found = data(account, _packed) | {"meanings": MEANINGS}
    for part, told in zip(account.parts, found["parts"], strict=True):
        if part.attention is not None and part.attention.picture:
            raw = base64.b64encode(part.attention.picture).decode()
            told["attention"]["picture"] = f"data:image/png;base64,{raw}"
    return environment.from_string(template).render(account=account, task=task, run=run, data=found)


def _packed(array: np.ndarray) -> dict[str, Any]:
    """An array as 16-bit whole numbers, little-endian, in base64, and what to multiply them by."""
    largest = float(np.abs(array).max(initial=0.0)) or 1.0
    whole = np.round(array / largest * 32767).astype("<i2")
    return {
        "shape": list(array.shape),
        "scale": largest / 32767,
        "data": base64.b64encode(whole.tobytes()).decode(),
    }


def stem(given: str, run: str) -> str:
    """A file name that tells inputs and runs apart: its first words, and a hash."""
    words = re.findall(r"[a-z0-9]+", given.lower())[:5]
    digest = hashlib.sha256(f"{run}\n{given}".encode()).hexdigest()[:8]
    return "-".join([*words, digest])[-60:]


def files(
    explain: Callable[[], Explanation], stem: str, *, task: str, run: str
) -> dict[str, Callable[[Path], None]]:
    """By file name what writes it: a page, and a picture.

    Args:
        explain: gives the account; it is called once, when the first file is written.
    """
    explain = cache(explain)
    return {
        f"{stem}.html": lambda path: write_text(path, page(explain(), task=task, run=run)),
        f"{stem}.png": lambda path: plotting.save_figure(plots.draw(explain()), path),
    }
