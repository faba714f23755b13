"""The generation tab: writes a text token by token; a tune also as a score and as sound."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import tensorflow as tf

from pipelines.demo.models import errors_on_page, find_model
from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import UserError
from pipelines.engine.export.stateful import STATE
from pipelines.generation import playback, tunes

#: Tokens between two updates of the page.
_TOKENS_PER_UPDATE = 8


def add_tab(name: gr.Dropdown) -> None:
    """Add the contents of the tab.

    Args:
        name: The name of the model that answers.
    """
    prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt")
    with gr.Row():
        temperature = gr.Slider(0.0, 1.5, 0.7, step=0.05, label="Temperature")
        seed = gr.Number(1, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    max_tokens = gr.Slider(50, 1000, 600, step=50, label="Maximum tokens", elem_id="most")
    button = gr.Button("Compose", variant="primary", elem_id="compose")
    text = gr.Textbox(label="Text", lines=8, elem_id="written", interactive=False)
    score = gr.HTML(elem_id="score")
    sound = gr.Audio(label="Listen", elem_id="sound")
    inputs = [prompt, temperature, max_tokens, seed, name]
    button.click(compose, inputs, [text, score, sound], api_visibility="private")


def compose(
    prompt: str, temperature: float, max_tokens: float, seed: float, name: str
) -> Iterator[tuple[str, str, str | None]]:
    """Write a text that continues a prompt.

    Args:
        prompt: The beginning of the text.
        temperature: Temperature of sampling.
        max_tokens: Maximum number of tokens to write.
        seed: Seed of sampling.
        name: The model's name.

    Yields:
        The text so far, and at the end, if it is a tune, its score (HTML) and its sound (a path).
    """
    with errors_on_page():
        text = prompt
        for text in _write(prompt, temperature, int(max_tokens), int(seed), name):
            yield text, "", None
        if tunes.check(text).valid:
            yield text, _score(text), _sound(text)


def _write(prompt: str, temperature: float, max_tokens: int, seed: int, name: str) -> Iterator[str]:
    """Yield the text after each few tokens."""
    model = find_model("generation", name)
    if "step" not in model.signatures:
        train = command("train", "generation", name=name)
        raise UserError(f"this run is older than its signature `step`: {train}")
    state = dict(model.signatures["start"]())
    text, unread = prompt, prompt
    for written in range(0, max_tokens, _TOKENS_PER_UPDATE):
        outputs = model.signatures["step"](
            text=tf.constant([unread]),
            temperature=tf.constant([float(temperature)]),
            max_length=tf.constant([min(_TOKENS_PER_UPDATE, max_tokens - written)]),
            seed=tf.constant([seed]),
            **state,
        )
        state = {name: t for name, t in outputs.items() if name.startswith(STATE)}
        text, unread = text + outputs["text"].numpy()[0].decode(), ""
        yield text
        if outputs["ended"].numpy()[0]:
            break


def _score(tune: str) -> str:
    """Return the score of a tune as SVG, or why it cannot be drawn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.svg"
        try:
            playback.write_score(tune, path)
        except UserError as error:
            return f"<p>{html.escape(str(error))}</p>"
        return path.read_text(encoding="utf-8")


def _sound(tune: str) -> str:
    """Write a tune as a WAV file, and return its path."""
    path = Path(tempfile.mkdtemp(prefix="unfold-")) / "tune.wav"
    playback.write_wav(tune, path)
    return str(path)
