"""The page: a tab for each task, answered as `predict` answers, by the latest finished run.

Sentiment is answered by the latest run of the config ``live``, if there is one: it reads forwards,
so its label can follow each word.
"""

from __future__ import annotations

import contextlib
import functools
import html
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before gradio is imported: nothing of this page leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import Experiment, as_list
from pipelines.engine.core import plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.export import savedmodel
from pipelines.engine.export.stateful import STATE
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.catalog import get_task
from pipelines.forecasting.plots import chart
from pipelines.generation import abc_notation

#: Words of a text that are shown; a longer one is followed by its end.
_MOST_WORDS = 300
#: Notes that are written between two looks at the page.
_NOTES = 8
#: Fonts of this machine: none is fetched.
_FONTS = ["system-ui", "sans-serif"]


@dataclass(frozen=True)
class Model:
    """A run that can be asked."""

    task: Any
    config: Experiment
    served: Any

    def predict(self, given: str) -> Prediction:
        return self.task.predict(self.config, self.served, given)


def find(name: str) -> Model:
    """The model that a tab asks; one whose run is finished later is found later.

    Raises:
        UserError: there is none; it names the command that trains one.
    """
    return _load(name, _latest(name).folder)


def _latest(name: str) -> Run:
    if name == "sentiment":
        with contextlib.suppress(UserError):
            return Run.find(name, None, "live")
    return Run.find(name, None)


@functools.cache
def _load(name: str, folder: Path) -> Model:
    run = Run(folder)
    return Model(get_task(name), run.config(), savedmodel.load(run.need("savedmodel")))


def build() -> gr.Blocks:
    """The page, ready to be launched."""
    with gr.Blocks(title="Unfold") as page:
        gr.Markdown("# Unfold\nRecurrent networks, trained on this machine.")
        for name, tab in (
            ("Sentiment", _sentiment),
            ("Translation", _translation),
            ("Captioning", _captioning),
            ("Forecasting", _forecasting),
            ("Generation", _generation),
        ):
            with gr.Tab(name, id=name.lower()):
                told = gr.Markdown(elem_id=f"told-{name.lower()}")
                tab()
            page.load(functools.partial(_told, name.lower()), None, told, api_visibility="private")
    return page


def launch(host: str, port: int) -> None:
    """Show the page until the process is told to end."""
    build().launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Default(font=_FONTS, font_mono=["monospace"]),
        footer_links=[],
        share=False,
        quiet=True,
    )


def _told(name: str) -> str:
    """Which model a tab asks, or what to do so that it has one."""
    try:
        run = _latest(name)
    except UserError as error:
        return f"**Not trained yet:** {error}"
    return f"Run `{run.id}`."


def _said(function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's mistake, and a model that is not there, are told on the page."""

    @functools.wraps(function)
    def told(*given: Any) -> Any:
        try:
            return function(*given)
        except UserError as error:
            raise gr.Error(str(error), duration=None) from None

    return told


# Sentiment


def _sentiment() -> None:
    text = gr.Textbox(
        label="Write a review", lines=4, elem_id="review", placeholder="The first half is slow, …"
    )
    label = gr.Label(label="So far", elem_id="label")
    words = gr.HTML(elem_id="words")
    memory = gr.State(None)
    text.change(
        _said(follow), [text, memory], [label, words, memory],
        show_progress="hidden", trigger_mode="always_last", api_visibility="private",
    )  # fmt: skip


@dataclass
class Followed:
    """A text as far as it was read: the state after it, and the probabilities after each word."""

    folder: Any
    text: str
    state: dict[str, tf.Tensor]
    words: list[str]
    found: list[np.ndarray]


def follow(text: str, before: Followed | None) -> tuple[dict[str, float], str, Followed | None]:
    """Probabilities so far, the words in the colour of the label after each, and what was read.

    A model that reads forwards goes on from where it was; any other reads every beginning.
    """
    model = find("sentiment")
    labels = [raw.decode() for raw in model.served.signatures["labels"]()["labels"].numpy()]
    if "step" in model.served.signatures:
        goes_on = before is not None and before.folder is model and text.startswith(before.text)
        if before is None or not goes_on:
            state = dict(model.served.signatures["start"]())
            before = Followed(model, "", state, [], [])
        after = _read_on(model, before, text[len(before.text) :])
        words, found = after.words, after.found
    else:
        after = None
        words = re.findall(r"\s*\S+", text)[-_MOST_WORDS:]
        begun = text[: len(text) - len("".join(words).strip())] if words else ""
        prefixes = [begun + "".join(words[: i + 1]) for i in range(len(words))] or [""]
        serve = model.served.signatures["serving_default"]
        found = list(serve(text=tf.constant(prefixes))["probabilities"].numpy())
    now = dict(zip(labels, map(float, found[-1]), strict=True)) if words else {}
    return now, _coloured(words, found, labels), after


def _read_on(model: Model, before: Followed, more: str) -> Followed:
    state, words, found = before.state, [*before.words], [*before.found]
    for piece in re.findall(r"\S+|\s+", more):
        answer = model.served.signatures["step"](text=tf.constant([piece]), **state)
        state = {name: t for name, t in answer.items() if name.startswith(STATE)}
        probabilities = answer["probabilities"].numpy()[0]
        if piece.isspace() or not words or words[-1].endswith(" "):
            words.append(piece if not piece.isspace() else " ")
            found.append(probabilities)
        else:  # the word goes on
            words[-1], found[-1] = words[-1] + piece, probabilities
    words, found = words[-2 * _MOST_WORDS :], found[-2 * _MOST_WORDS :]
    return Followed(model, before.text + more, state, words, found)


def _coloured(words: list[str], found: list[np.ndarray], labels: list[str]) -> str:
    """Each word on the colour of the likeliest label, as strong as it is sure."""
    spans = []
    for word, probabilities in zip(words, found, strict=False):
        best = int(probabilities.argmax())
        sure = (float(probabilities[best]) - 1 / len(labels)) / (1 - 1 / len(labels))
        hue = 10 + best * 130 / max(len(labels) - 1, 1)
        said = f"{labels[best]} {probabilities[best]:.0%}"
        spans.append(
            f'<span title="{html.escape(said)}" style="background: hsla({hue:.0f}, 80%, 50%, '
            f'{0.05 + 0.5 * sure:.2f}); border-radius: 3px">{html.escape(word)}</span>'
        )
    return f'<p style="line-height: 1.9; white-space: pre-wrap">{"".join(spans)}</p>'


# Translation


def _translation() -> None:
    text = gr.Textbox(label="A text to translate", lines=2, elem_id="source")
    go = gr.Button("Translate", variant="primary", elem_id="translate")
    answer = gr.Textbox(label="Translation", elem_id="translation", interactive=False)
    picture = gr.Plot(label="What each word looked at", elem_id="attention")
    for event in (go.click, text.submit):
        event(_said(translate), text, [answer, picture], api_visibility="private")


def translate(text: str) -> tuple[str, Any]:
    found = find("translation").predict(text).json
    if "alignment" not in found or not found["output_tokens"]:
        return found["text"], None
    weights = np.asarray(found["alignment"])
    picture = plotting.attention_map(weights, found["input_tokens"], found["output_tokens"])
    return found["text"], picture


# Captioning


def _captioning() -> None:
    picture = gr.Image(label="A picture", type="filepath", sources=["upload"], elem_id="picture")
    answer = gr.Textbox(label="What is on it", lines=2, elem_id="caption", interactive=False)
    picture.change(_said(caption), picture, answer, api_visibility="private")


def caption(path: str | None) -> str:
    if path is None:
        return ""
    ranked = find("captioning").predict(path).json["n_best"]
    return "\n".join(one["caption"] for one in ranked[:3])


# Forecasting


def _forecasting() -> None:
    file = gr.File(label="A CSV or Parquet file with dates and numbers", elem_id="series")
    go = gr.Button("Forecast what it was trained on", variant="primary", elem_id="sample")
    picture = gr.Plot(label="What comes next", elem_id="fan")
    file.upload(_said(forecast), file, picture, api_visibility="private")
    go.click(_said(lambda: forecast(None)), None, picture, api_visibility="private")


def forecast(path: str | None) -> Any:
    model = find("forecasting")
    return chart(model.predict(path or as_list(model.config.data.source)[0]).json["series"])


# Generation


def _generation() -> None:
    prompt = gr.Textbox(label="It begins with", lines=3, elem_id="prompt")
    with gr.Row():
        heat = gr.Slider(0.0, 1.5, 0.7, step=0.05, label="Temperature")
        seed = gr.Number(1, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    most = gr.Slider(50, 1000, 600, step=50, label="Tokens at most", elem_id="most")
    go = gr.Button("Compose", variant="primary", elem_id="compose")
    text = gr.Textbox(label="Written", lines=8, elem_id="written", interactive=False)
    score = gr.HTML(elem_id="score")
    sound = gr.Audio(label="Listen", elem_id="sound")
    go.click(_composed, [prompt, heat, most, seed], [text, score, sound], api_visibility="private")


def _composed(*asked: Any) -> Iterator[tuple[str, str, str | None]]:
    try:
        yield from compose(*asked)
    except UserError as error:
        raise gr.Error(str(error), duration=None) from None


def compose(
    prompt: str, heat: float, most: float, seed: float
) -> Iterator[tuple[str, str, str | None]]:
    """The text as it is written; at its end, if it is a tune, its score and how it sounds."""
    model = find("generation")
    if "step" not in model.served.signatures:
        raise UserError("this run is older than its signature `step`: make train-generation")
    text, left = prompt, int(most)
    state = dict(model.served.signatures["start"]())
    piece, ended = prompt, False
    while left > 0 and not ended:
        answer = model.served.signatures["step"](
            text=tf.constant([piece]),
            temperature=tf.constant([float(heat)]),
            max_length=tf.constant([min(_NOTES, left)]),
            seed=tf.constant([int(seed)]),
            **state,
        )
        state = {name: t for name, t in answer.items() if name.startswith(STATE)}
        text += answer["text"].numpy()[0].decode()
        ended, left, piece = bool(answer["ended"].numpy()[0]), left - _NOTES, ""
        yield text, "", None
    if abc_notation.judge(text).parses:
        yield text, _drawn(text), _played(text)


def _drawn(text: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.svg"
        try:
            abc_notation.write_score(text, path)
        except UserError as error:
            return f"<p>{html.escape(str(error))}</p>"
        return path.read_text(encoding="utf-8")


def _played(text: str) -> str:
    path = Path(tempfile.mkdtemp(prefix="unfold-")) / "tune.wav"
    abc_notation.write_wav(text, path)
    return str(path)
