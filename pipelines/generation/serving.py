"""The serving signatures of generation: continue prompts, and stream text token by token."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.export import stateful
from pipelines.engine.models import sampling
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.text.vocabulary import RESERVED
from pipelines.generation.config import (
    MAX_LENGTH,
    MAX_TEMPERATURE,
    GenerationConfig,
    SamplingConfig,
)
from pipelines.generation.model import run_network

#: Number of most probable next tokens that are returned.
_TOP_TOKENS = 10


def sampling_request(prompts: Sequence[str], sampling: SamplingConfig) -> dict[str, tf.Tensor]:
    """Return the inputs of the serving signature for several prompts.

    Prompt i is sampled with the seed ``sampling.seed + i``.
    """
    seeds = (sampling.seed + np.arange(len(prompts))) % 2**31
    return {
        "prompt": tf.constant(list(prompts)),
        "temperature": tf.constant([sampling.temperature], tf.float32),
        "max_length": tf.constant([sampling.max_length], tf.int32),
        "seed": tf.constant(seeds, tf.int32),
    }


class GenerationServing:
    """The serving signatures of a language model.

    Args:
        config: The config of the run.
        processor: The tokenizer.
        network: The model's `model.network`.
    """

    def __init__(
        self, config: GenerationConfig, processor: DocumentTokenizer, network: keras.Model
    ) -> None:
        self._sampling, self._processor, self._network = config.sampling, processor, network

    def write(
        self, prompt: tf.Tensor, temperature: tf.Tensor, max_length: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Continue each prompt, up to an end mark or ``max_length`` tokens.

        Requests are not trusted: temperatures that are not a number count as 0, and all arguments
        are clipped to their limits.

        Args:
            prompt: ``<string>[batch]``.
            temperature: ``<float32>[batch]``, or ``[1]`` for all prompts.
            max_length: ``<int32>[batch]``, or ``[1]`` for all prompts.
            seed: ``<int32>[batch]``, or ``[1]`` for all prompts.

        Returns:
            ``text <string>[batch]``: each prompt followed by its continuation.
        """
        prompt = tf.strings.unicode_transcode(prompt, "UTF-8", "UTF-8", errors="replace")
        rows = tf.shape(prompt)
        temperature, max_length, seed = _clip_arguments(rows, temperature, max_length, seed)
        ids = sampling.sample(
            self._step,
            *self._read(self._initial_states(rows[0]), self._encode_prompts(prompt)),
            end=END,
            max_length=max_length,
            temperature=temperature,
            seed=seed,
            top_k=self._sampling.top_k,
            top_p=self._sampling.top_p,
        ).ids
        return {"text": self._processor.detokenize(ids, prefix=prompt)}

    def next(self, prompt: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predict the token after each prompt.

        Returns:
            ``tokens <string>[batch, n]`` and ``probabilities <float32>[batch, n]`` of the most
            probable tokens.
        """
        scores, _ = self._read(
            self._initial_states(tf.shape(prompt)[0]), self._encode_prompts(prompt)
        )
        return self._top_tokens(scores)

    def initial_state(self) -> stateful.State:
        """Return the state before the first call of `step`."""
        scores, states = self._step(tf.constant([END]), self._initial_states(1))
        return {
            **{f"cells_{i}": state for i, state in enumerate(states)},
            "scores": scores,
            "open": tf.constant([""]),
            "before": tf.constant([""]),
            "drawn": tf.constant([0]),
            "ended": tf.constant([False]),
        }

    def step(
        self, inputs: dict[str, tf.Tensor], state: stateful.State
    ) -> tuple[dict[str, tf.Tensor], stateful.State]:
        """Append text to a stream, then let the model continue it.

        A word that may continue is kept back until more text arrives, or until the model is to
        write. After text written by the model a new word begins.

        Args:
            inputs: ``text``, which may be empty, and the arguments of `write`. With a
                ``max_length`` of 0, the text is read and nothing is written.
            state: The state of the stream.

        Returns:
            The outputs and the new state. The outputs are ``text``, what the model wrote;
            ``ended``, whether it wrote an end mark, after which it writes nothing until more text
            is appended; and the most probable next ``tokens`` with their ``probabilities``.
        """
        text = state["open"] + inputs["text"]
        temperature, limit, seed = _clip_arguments(
            tf.shape(text), inputs["temperature"], inputs["max_length"], inputs["seed"]
        )
        ended = state["ended"] & (inputs["text"] == "")
        limit = tf.where(ended, 0, limit)
        complete, pending = self._processor.split_pending(text)
        complete = tf.where(limit > 0, text, complete)
        pending = tf.where(limit > 0, "", pending)

        fresh = (state["before"] == "") & (state["drawn"] == 0)
        cells = [state[f"cells_{i}"] for i in range(len(self._network.inputs) - 1)]
        scores, cells = self._read_continuation(state["scores"], cells, complete, fresh)
        written = sampling.sample(
            self._step,
            scores,
            cells,
            end=END,
            max_length=limit,
            temperature=temperature,
            seed=seed,
            drawn=state["drawn"] % MAX_LENGTH,
            top_k=self._sampling.top_k,
            top_p=self._sampling.top_p,
        )
        count = tf.math.count_nonzero(written.ids, axis=1, dtype=tf.int32)
        context = _last_character(state["before"] + complete)
        whole = self._processor.detokenize(written.ids, prefix=context)
        size = tf.strings.length(context)
        continuation = tf.strings.substr(whole, size, tf.strings.length(whole))
        ended |= count < limit
        following, _ = self._read_continuation(
            written.logits, written.states, pending, fresh & (complete == "")
        )
        return {"text": continuation, "ended": ended} | self._top_tokens(following), {
            **{f"cells_{i}": cell for i, cell in enumerate(written.states)},
            "scores": written.logits,
            "open": pending,
            "before": _last_character(context + continuation),
            "drawn": state["drawn"] + count,
            "ended": ended,
        }

    def _top_tokens(self, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        best = tf.math.top_k(
            tf.nn.softmax(scores), min(_TOP_TOKENS, self._processor.size - RESERVED)
        )
        return {"tokens": self._processor.ids_to_tokens(best.indices), "probabilities": best.values}

    def _initial_states(self, rows: tf.Tensor | int) -> list[tf.Tensor]:
        """Return states of zeros."""
        return [tf.zeros([rows, s.shape[-1]]) for s in self._network.inputs[1:]]

    def _encode_prompts(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Return the ids of texts, each preceded by the start token."""
        ids = self._processor(texts)
        return tf.concat([tf.fill([ids.nrows(tf.int32), 1], END), ids], axis=1)

    def _read(
        self, states: list[tf.Tensor], ids: tf.RaggedTensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Read ``ids`` and return the logits of the next token and the new states.

        The logits of rows without ids are meaningless.
        """

        # All tokens but the last are read for the states only, so that no logits are computed for
        # them.
        def read_all_but_last() -> list[tf.Tensor]:
            return self._run(ids[:, :-1].to_tensor(PADDING), states)[1]

        if states:
            states = tf.cond(
                tf.reduce_max(ids.row_lengths()) > 1, read_all_but_last, lambda: states
            )
        last = ids[:, -1:].to_tensor(PADDING, shape=[None, 1])
        return self._step(last[:, 0], states)

    def _read_continuation(
        self, scores: tf.Tensor, states: list[tf.Tensor], texts: tf.Tensor, fresh: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Read the next parts of texts, which may be empty, and return logits and states."""

        def read() -> tuple[tf.Tensor, list[tf.Tensor]]:
            ids = self._processor.encode_continuation(texts, fresh)
            logits, final = self._read(states, ids)
            return tf.where(ids.row_lengths()[:, None] > 0, logits, scores), final

        result: tuple[tf.Tensor, list[tf.Tensor]] = tf.cond(
            tf.reduce_any(texts != ""), read, lambda: (scores, states)
        )
        return result

    def _step(self, ids: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, states = self._run(ids[:, None], states)
        # Padding and unknown are never sampled.
        allowed = tf.range(self._processor.size) >= RESERVED
        return tf.where(allowed, logits[:, -1], -1e9), states

    def _run(self, ids: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, states = run_network(self._network, ids, states)
        # Layers of half precision return float16 states; those of a stream are always float32.
        return logits, [tf.cast(s, tf.float32) for s in states]


def _clip_arguments(
    rows: tf.Tensor, temperature: tf.Tensor, max_length: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Broadcast the arguments to all rows and clip them to their limits."""
    temperature, max_length, seed = (
        tf.broadcast_to(a, rows) for a in (temperature, max_length, seed)
    )
    temperature = tf.where(tf.math.is_nan(temperature), 0.0, temperature)
    temperature = tf.clip_by_value(temperature, 0.0, MAX_TEMPERATURE)
    return temperature, tf.clip_by_value(max_length, 0, MAX_LENGTH), seed


def _last_character(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(texts, r"^(?s:.*)((?s:.))$", r"\1")
