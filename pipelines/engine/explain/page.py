"""Write explanations as files: a self-contained HTML page and a picture."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine.core import plotting
from pipelines.engine.core.files import write_text
from pipelines.engine.core.pages import data_url, templates
from pipelines.engine.explain import plots
from pipelines.engine.explain.explanation import QUANTITIES, Explanation, to_dict


def page(explanation: Explanation, *, task: str, run: str) -> str:
    """Render the HTML page, with its script and data inside.

    Args:
        explanation: what to show.
        task: name of the task.
        run: id of the run.
    """
    environment = templates(__package__)
    # Unsorted, because the order of the curves matters: the first is the answer.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    data = to_dict(explanation, _pack) | {"meanings": QUANTITIES}
    for segment, segment_data in zip(explanation.segments, data["parts"], strict=True):
        if segment.attention is not None and segment.attention.image:
            picture = data_url(segment.attention.image, "image/png")
            segment_data["attention"]["picture"] = picture
    return environment.get_template("page.html.jinja").render(
        explanation=explanation, task=task, run=run, data=data
    )


def _pack(array: np.ndarray) -> dict[str, Any]:
    """Encode an array as little-endian 16-bit integers in base64, with a scale factor."""
    largest = float(np.abs(array).max(initial=0.0)) or 1.0
    integers = np.round(array / largest * 32767).astype("<i2")
    return {
        "shape": list(array.shape),
        "scale": largest / 32767,
        "data": base64.b64encode(integers.tobytes()).decode(),
    }


def stem(text: str, run: str) -> str:
    """A file name without extension: the first words of the input, and a hash of input and run."""
    words = re.findall(r"[a-z0-9]+", text.lower())[:5]
    digest = hashlib.sha256(f"{run}\n{text}".encode()).hexdigest()[:8]
    return "-".join([*words, digest])[-60:]


def files(
    explain: Callable[[], Explanation], stem: str, *, task: str, run: str
) -> dict[str, Callable[[Path], None]]:
    """The functions that write the HTML page and the PNG picture, by file name.

    Args:
        explain: computes the explanation; called once, when the first file is written.
        stem: the files' name without extension.
        task: name of the task.
        run: id of the run.
    """
    explain = cache(explain)
    return {
        f"{stem}.html": lambda path: write_text(path, page(explain(), task=task, run=run)),
        f"{stem}.png": lambda path: plotting.save_figure(plots.draw(explain()), path),
    }
