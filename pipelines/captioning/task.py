"""The captioning pipeline."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from pipelines.captioning import evaluation, features, records
from pipelines.captioning import model as models
from pipelines.captioning.config import CaptioningConfig
from pipelines.captioning.model import Captioner
from pipelines.captioning.records import Picture
from pipelines.engine.core import intervals
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import home
from pipelines.engine.core.tables import Table
from pipelines.engine.data import images
from pipelines.engine.data.bucketing import BucketFeed, ordered_batches
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain import decoder_steps
from pipelines.engine.explain.explanation import Explanation
from pipelines.engine.export.digest import Measure
from pipelines.engine.models import beam_search, image_encoders, seq2seq
from pipelines.engine.models.feature_cache import Features
from pipelines.engine.tasks.base import Evaluation, Prediction
from pipelines.engine.tasks.comparable import Feature
from pipelines.engine.tasks.encoder_decoder import EncoderDecoderTask, n_best, trim
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training.losses import cross_entropy, row_cross_entropies

#: Test pictures on the contact sheet, and those whose attention map is drawn.
_SHEET, _DRAWN = 12, 4


class Captioning(EncoderDecoderTask):
    """A picture in, a sentence out."""

    name = "captioning"
    config = CaptioningConfig
    processor = DocumentTokenizer
    input_name = "image"
    output_name = "caption"
    example_columns = ("picture", "reference", "output")
    answer_column = "caption"

    def load(self, config: CaptioningConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: CaptioningConfig, splits: Splits) -> DocumentTokenizer:
        return DocumentTokenizer.fit(_captions(splits.train), config.text, config.model.level)

    def build(self, config: CaptioningConfig, processor: DocumentTokenizer) -> Captioner:
        encoder = image_encoders.load(config.model.encoder.name, config.model.encoder.size)
        return models.build(config.model, encoder, vocabulary=processor.size, seed=config.seed)

    def feed(
        self, config: CaptioningConfig, processor: DocumentTokenizer, splits: Splits
    ) -> PictureFeed:
        return PictureFeed(config, processor, splits)

    def serving(
        self, config: CaptioningConfig, processor: DocumentTokenizer, model: Captioner
    ) -> CaptioningServing:
        return CaptioningServing(config, processor, model)

    def content(self, example: Picture | str) -> bytes:
        if isinstance(example, Picture):
            return example.file.read_bytes()
        try:
            return Path(example).read_bytes()
        except (OSError, ValueError):
            return b""  # no caption is found for it, and `present` says why

    def cell_input(self, column: str, value: Any, folder: Path) -> str:
        """Return the path of the picture in a cell, which is relative to the table's folder.

        A cell with the bytes of a picture is stored, as in training.
        """
        if isinstance(value, bytes):
            if (reason := images.find_defect(value)) is not None:
                raise UserError(reason)
            return str(images.store(value, home() / "pictures"))
        return str(folder / super().cell_input(column, value, folder).strip())

    def example_labels(self, record: Picture) -> tuple[str, str]:
        return record.place, record.captions[0]

    def evaluate(
        self,
        config: CaptioningConfig,
        processor: DocumentTokenizer,
        model: Captioner,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        test = splits.test
        files, references = [p.file for p in test], [p.captions for p in test]
        nats = cross_entropy(model, _batches(config, processor, model, test))
        serve = served.signatures["serving_default"]
        greedy, outputs = (
            evaluation.answers(serve, files, limits)
            for limits in (config.decoding.model_copy(update={"beam_width": 1}), config.decoding)
        )
        found = evaluation.scores(outputs, references)
        first = evaluation.scores(greedy, references)
        drawn = {
            f"attention_{i + 1}": self.attention_figure(
                self.predict(config, served, str(file)).json
            )
            for i, file in enumerate(files[:_DRAWN])
            if seq2seq.has_attention(model.decoder)
        }
        pairs = zip(test, outputs, strict=True)
        cider_d = evaluation.cider_d_interval(outputs, references, seed=config.seed)
        return Evaluation(
            intervals=intervals.known(cider_d=cider_d),
            scores={
                **found,
                **evaluation.variety(outputs, _captions(splits.train)),
                "greedy_bleu_4": first["bleu_4"],
                "greedy_cider_d": first["cider_d"],
                "cross_entropy": nats,
                "perplexity": math.exp(nats),
            },
            figures={
                "contact_sheet": evaluation.contact_sheet(files[:_SHEET], outputs, references),
                **drawn,
            },
            tables={
                "captions": Table(
                    ["picture", "output", "references"],
                    [[p.place, text, " | ".join(p.captions)] for p, text in pairs],
                )
            },
        )

    def limits(
        self, config: CaptioningConfig, processor: DocumentTokenizer, splits: Splits
    ) -> list[str]:
        rows = processor.encode(_captions(splits.test))
        encoder = config.model.encoder
        fixed = "" if encoder.fine_tune else ", which was not trained for this task"
        return [
            coverage(processor, rows, config.model.level, "test captions"),
            f"It sees images as squares of {encoder.size} pixels, through {encoder.name}{fixed}.",
            "It says what people said of images like those of the training; whether a caption is "
            "true was measured only by its likeness to theirs.",
        ]

    def present(
        self, config: CaptioningConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        ranked = n_best(answer["captions"], answer["scores"], "caption")
        if not ranked:
            images.read(Path(example))  # raises the reason
            raise UserError(f"{example}: a damaged picture")
        found: dict[str, Any] = {"input": example, **ranked[0], "n_best": ranked}
        if "alignment" in answer:
            alignment, (tokens,) = trim(answer["alignment"], answer["tokens"])
            found |= {"tokens": tokens, "alignment": alignment}
        return Prediction(
            title=example,
            columns=["caption", "score"],
            rows=[[one["caption"], f"{one['score']:.3f}"] for one in ranked],
            json=found,
        )

    @classmethod
    def draw_attention(cls, answer: dict[str, Any]) -> Figure:
        return evaluation.attention(
            Path(answer["input"]), answer["tokens"], np.asarray(answer["alignment"])
        )

    def read_inputs(
        self, config: CaptioningConfig, source: str, report: dict[str, Any]
    ) -> Sequence[Picture]:
        return records.load_inputs(config, source, report)

    def features(
        self,
        config: CaptioningConfig,
        processor: DocumentTokenizer,
        model: Captioner,
        records: Sequence[Picture],
    ) -> dict[str, Feature]:
        def losses_of(pictures: Sequence[Picture]) -> np.ndarray:
            return row_cross_entropies(model, _batches(config, processor, model, pictures))

        return features.features(config.model.level, processor, records, losses_of)

    def measures(self, config: CaptioningConfig) -> Sequence[Measure]:
        return features.MEASURES

    def explanation_examples(
        self, config: CaptioningConfig, splits: Splits, count: int
    ) -> list[str]:
        return [str(picture.file) for picture in splits.test[:count]]


class PictureFeed:
    """Batches of captions, each with what the encoder sees in its picture.

    Captions of like length come together; the features of their pictures are read from the disk.
    """

    def __init__(
        self, config: CaptioningConfig, processor: DocumentTokenizer, splits: Splits
    ) -> None:
        encoder = image_encoders.load(config.model.encoder.name, config.model.encoder.size)
        self._seen = {
            part: _features(config, encoder, getattr(splits, part))
            for part in ("train", "validation")
        }
        train, validation = (_encode(processor, part) for part in (splits.train, splits.validation))
        self._captions = BucketFeed(config.train, train, validation, seed=config.seed)
        self.steps, self.tokens = self._captions.steps, self._captions.tokens
        self.padded_tokens = self._captions.padded_tokens

    def train(self, epoch: int) -> tf.data.Dataset:
        return self._with("train", self._captions.train(epoch))

    def validation(self) -> tf.data.Dataset:
        return self._with("validation", self._captions.validation())

    def _with(self, part: str, batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(self._seen[part], num_parallel_calls=2, deterministic=True).prefetch(4)


def _features(
    config: CaptioningConfig, encoder: keras.Model, pictures: Sequence[Picture]
) -> Callable[[dict[str, tf.Tensor], tf.Tensor], Any]:
    """What puts the features of pictures into batches that have their numbers."""
    settings = config.model.encoder
    features = Features(None if settings.fine_tune else encoder, settings.size, home() / "features")
    features.prepare([(p.digest, p.file) for p in pictures])
    paths = tf.constant([str(features.path(p.digest)) for p in pictures])

    def look_up(inputs: dict[str, tf.Tensor], targets: tf.Tensor) -> Any:
        grids = features.load(tf.gather(paths, inputs["picture"]))
        return inputs | {"picture": tf.cast(grids, tf.float32)}, targets

    return look_up


def _batches(
    config: CaptioningConfig,
    processor: DocumentTokenizer,
    model: Captioner,
    pictures: Sequence[Picture],
) -> tf.data.Dataset:
    """Batches of all captions, with the features of their pictures."""
    rows, targets = _encode(processor, pictures)
    seen = _features(config, model.encoder, pictures)
    return ordered_batches(config.train, rows, targets).map(seen)


def _encode(
    processor: DocumentTokenizer, pictures: Sequence[Picture]
) -> tuple[dict[str, Any], Ragged]:
    """A row for each caption: its picture's number, what is written, and token by token what is to
    be written next."""
    text = processor.encode(_captions(pictures))
    number = np.repeat(np.arange(len(pictures)), [len(p.captions) for p in pictures])
    return {"picture": number, "written": text.with_prefix(END)}, text.with_suffix(END)


def _captions(pictures: Sequence[Picture]) -> list[str]:
    return [caption for picture in pictures for caption in picture.captions]


class CaptioningServing:
    """The model as it is served: files of pictures in, captions out.

    The other arguments have one entry for each picture, or one for all. A file that is no picture
    has an empty caption with the score `beam_search.IMPOSSIBLE`, and does not disturb the others.
    """

    def __init__(
        self, config: CaptioningConfig, processor: DocumentTokenizer, model: Captioner
    ) -> None:
        self._config, self._processor, self._model = config, processor, model

    def answer(
        self, image: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the best caption of each picture, and its log p by length.

        The whole beam comes with it, the best first: ``captions <string>[batch, beam]`` and
        ``scores``, which are `beam_search.IMPOSSIBLE` where no more were found.

        With attention also ``alignment <float>[batch, time, height, width]``, how much each token
        looked at each place of the picture, and the ``tokens``, "" behind the ends.
        """
        readable, states, attended = self._look(image)
        found = self.search(readable, states, attended, beam_width, max_length)
        rows, beam, time, _ = tf.unstack(tf.shape(found.annotations))
        names = self._processor.ids_to_tokens(found.ids)
        captions = self._processor.join_tokens(tf.reshape(names, [rows * beam, time]))
        captions = tf.reshape(captions, [rows, beam])
        scores = tf.where(readable[:, None], found.scores, beam_search.IMPOSSIBLE)
        answer = {
            "caption": captions[:, 0],
            "score": scores[:, 0],
            "captions": captions,
            "scores": scores,
        }
        if attended:
            # The best of each picture; all may be shorter than other hypotheses.
            longest = tf.reduce_max(tf.math.count_nonzero(found.ids[:, 0], axis=1))
            places = self._model.encoder.output_shape[1:3]
            shape = tf.stack([rows, tf.cast(longest, tf.int32), *places])
            answer |= {
                "alignment": tf.reshape(found.annotations[:, 0, :longest], shape),
                "tokens": tf.strings.unicode_transcode(
                    names[:, 0, :longest], "UTF-8", "UTF-8", errors="replace"
                ),
            }
        return answer

    def explain(self, given: str) -> Explanation:
        """Return the steps of the decoder that generate the best caption of a file."""
        file = Path(given)
        limits = self._config.decoding
        readable, states, attended = tf.function(self._look, autograph=False)(
            tf.constant([images.read(file)])
        )
        if not readable[0]:
            raise UserError(f"{file}: a damaged picture")
        found = self.search(
            readable, states, attended,
            tf.constant([limits.beam_width]), tf.constant([limits.max_length]),
        )  # fmt: skip
        ids = found.ids[0, 0].numpy()
        ids = ids[: np.count_nonzero(ids)]
        picture = io.BytesIO()
        Image.fromarray(evaluation.shown(file)).save(picture, "PNG")
        part = decoder_steps.decoder_segment(
            self._model,
            self._processor,
            states,
            attended,
            ids,
            decoder_steps.token_names(self._processor, ids),
            first=UNKNOWN + 1,
            grid=self._model.encoder.output_shape[1:3],
            image=picture.getvalue(),
        )
        caption = self._processor.detokenize(tf.constant(ids)[None])[0].numpy().decode()
        return Explanation(file.name, caption, [part])

    def _look(self, image: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Which files can be read, and what the decoder is told of each (`Captioner.read`)."""
        pixels, readable = images.decode(image, self._config.model.encoder.size)
        # A convolution cannot go over no pictures at all: then it goes over a black one.
        none = tf.cast(tf.shape(image)[0] == 0, tf.int32)
        grids = self._model.see(tf.pad(pixels, [[0, none], [0, 0], [0, 0], [0, 0]]))
        return readable, *self._model.encode(grids[: tf.shape(image)[0]])

    def search(
        self, readable: tf.Tensor, states: list[tf.Tensor], attended: list[tf.Tensor],
        beam_width: tf.Tensor, max_length: tf.Tensor,
    ) -> beam_search.BeamSearchResult:  # fmt: skip
        """The likeliest captions of pictures that the model has been told of."""
        return beam_search.generate(
            self._model.decode,
            states,
            attended,
            self._config.decoding,
            end=END,
            first=UNKNOWN + 1,
            has_input=readable,
            beam_width=beam_width,
            max_length=max_length,
        )


TASK = Captioning()
