"""What a frozen encoder sees in pictures, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pipelines.engine.core._compat import flatten_layers
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable, write_bytes
from pipelines.engine.data import images

#: Pictures that are looked at side by side.
_ROWS = 32
#: What says nothing of what a layer does.
_NO_PART = ("name", "trainable", "dtype", "batch_shape", "registered_name")


class Features:
    """The grids of an encoder by picture: ``<float16>[positions, channels]``.

    A grid is a file, named by the picture's bytes, in a folder named by the encoder's weights, its
    structure, the size of its pictures and the version of the decoder. Behind the numbers there is
    their checksum: a file that is damaged is made anew.

    Args:
        encoder: ``<float>[batch, size, size, 3]`` → ``<float>[batch, height, width, channels]``;
            None: the pixels themselves, ``<float16>[size · size, 3]``, as a model that trains
            its encoder needs them.
        size: of the pictures.
        folder: where all features are kept.
    """

    def __init__(self, encoder: keras.Model | None, size: int, folder: Path) -> None:
        self._encoder, self._size = encoder, size
        if encoder is None:
            self.shape, name = (size * size, 3), "pixels"
        else:
            _, height, width, channels = encoder.output_shape
            self.shape, name = (height * width, channels), fingerprint(encoder)
        self._folder = folder / f"{name}-{size}-{images.VERSION}"
        self._bytes = 2 * int(np.prod(self.shape))

    def path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def prepare(self, pictures: Sequence[tuple[str, Path]], console: Console | None = None) -> int:
        """See that every picture's grid is on disk, and whole.

        Args:
            pictures: the digest of each, and its file.

        Returns:
            How many had to be computed.
        """
        missing = [p for p in dict(pictures).items() if not self._whole(self.path(p[0]))]
        if missing:
            require_writable(self._folder, "the folder of features")
        console = console or Console()
        steps = -(-len(missing) // _ROWS)
        with console.progress("looking at pictures", steps, "pictures") as bar:
            for start in range(0, len(missing), _ROWS):
                some = missing[start : start + _ROWS]
                for (name, _), grid in zip(some, self._grids(some), strict=True):
                    self._write(self.path(name), grid.tobytes())
                bar.advance(len(some))
        return len(missing)

    def _grids(self, pictures: Sequence[tuple[str, Path]]) -> np.ndarray:
        raw = [path.read_bytes() for _, path in pictures]
        pixels, readable = images.compiled_decoder(self._size)(tf.constant(raw))
        for (_, path), fine in zip(pictures, readable.numpy(), strict=True):
            if not fine:
                raise UserError(f"{path}: a damaged picture")
        grids: np.ndarray = pixels.numpy()
        if self._encoder is not None:
            grids = ops.convert_to_numpy(self._encoder.predict_on_batch(grids))
        return grids.reshape(len(raw), *self.shape).astype("<f2")

    def _write(self, path: Path, raw: bytes) -> None:
        check = zlib.crc32(raw).to_bytes(4, "little")
        write_bytes(path, lambda file: file.write(raw + check))

    def _whole(self, path: Path) -> bool:
        try:
            raw = path.read_bytes()
        except OSError:
            return False
        body = raw[: self._bytes]
        return len(raw) == self._bytes + 4 and zlib.crc32(body) == int.from_bytes(
            raw[-4:], "little"
        )

    def load(self, paths: tf.Tensor) -> tf.Tensor:
        """The grids of files ``<string>[batch]``: ``<float16>[batch, positions, channels]``.

        In a graph, so that batches are made ready while the model works.
        """
        raw = tf.map_fn(
            lambda path: tf.strings.substr(tf.io.read_file(path), 0, self._bytes), paths
        )
        flat = tf.io.decode_raw(raw, tf.float16)
        return tf.reshape(flat, [-1, *self.shape])


def fingerprint(encoder: keras.Model) -> str:
    """A hash of an encoder's layers and weights: the same before and after it was saved."""
    found = hashlib.sha256()
    for layer in flatten_layers(encoder, include_self=False):
        if not isinstance(layer, keras.Model):
            settings = {k: v for k, v in layer.get_config().items() if k not in _NO_PART}
            found.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for weight in encoder.weights:
        found.update(np.ascontiguousarray(ops.convert_to_numpy(weight)).tobytes())
    return found.hexdigest()[:16]
