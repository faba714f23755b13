"""Networks that look at pictures, by name: trained by others, with their weights."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.models import efficientnet

LITE = "efficientnet-lite0"


def load(name: str, size: int) -> keras.Model:
    """Pictures ``<float>[batch, size, size, 3]``, RGB from 0 to 255, to a grid of features
    ``<float>[batch, height, width, channels]``.

    Args:
        name: ``efficientnet-lite0``; a name of ``keras.applications`` such as ``ResNet50``, whose
            weights Keras downloads into its own folder; or the path of a ``.keras`` file.

    Raises:
        UserError: there is no such encoder, its weights cannot be had, or it makes no grid.
    """
    # Features are the same whatever precision the decoder is trained in.
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        if name == LITE:
            return efficientnet.pretrained(size)
        if name.endswith(".keras"):
            return own(Path(name).expanduser(), size)
        return application(name, size)
    finally:
        keras.config.set_dtype_policy(policy)


def own(path: Path, size: int) -> keras.Model:
    """A user's own encoder, a Keras model in a file."""
    if not path.is_file():
        raise UserError(f"model.encoder.name: {path}: no such file")
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"model.encoder.name: {path}: not a model that Keras can load: "
            + str(error).strip().splitlines()[0]
        ) from None
    takes, gives = model.input_shape, model.output_shape
    if not (isinstance(takes, tuple) and len(takes) == 4 and takes[3] == 3):
        raise UserError(f"model.encoder.name: {path}: takes {takes}, not pictures")
    if not (isinstance(gives, tuple) and len(gives) == 4 and None not in gives[1:]):
        raise UserError(
            f"model.encoder.name: {path}: gives {gives}, not [batch, height, width, channels]"
        )
    if takes[1:3] != (size, size):
        raise UserError(f"model.encoder.size: {path} takes pictures of {takes[1:3]}, not {size}")
    return model


def application(name: str, size: int, weights: str | None = "imagenet") -> keras.Model:
    """A network of ``keras.applications`` without its classes, and before it what it wants done
    to pictures.

    Args:
        weights: None: random ones.
    """
    known = {n: f for n, f in vars(keras.applications).items() if inspect.isfunction(f)}
    if name not in known:
        near = difflib.get_close_matches(name, [LITE, *known], n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else f"; there are: {LITE}, {', '.join(known)}"
        raise UserError(f"model.encoder.name: no encoder {name!r}{hint}, or the path of a .keras")
    try:
        network = known[name](include_top=False, weights=weights, input_shape=(size, size, 3))
    except (OSError, ValueError) as error:  # not to be reached, or pictures too small
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"model.encoder.name: {name}: {reason}") from None
    matrix, bias = _preprocessing(known[name])
    pictures = keras.Input((size, size, 3), name="pictures")
    prepare = keras.layers.Conv2D(3, 1, name="preprocess")
    grid = network(prepare(pictures))
    prepare.set_weights([matrix[None, None], bias])
    return keras.Model(pictures, grid, name=name)


def _preprocessing(network: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a network wants done to pictures as x M + b: shifted, scaled, channels turned around.

    Each module has a function of its own for it. All of them are of this form, so four pixels say
    which it is.
    """
    home = inspect.getmodule(network)
    assert home is not None
    pixels = np.concatenate([np.zeros((1, 3)), np.eye(3)]).reshape(1, 1, 4, 3).astype("float32")
    bias, *rows = np.asarray(home.preprocess_input(pixels)).reshape(4, 3)
    return np.stack(rows) - bias, bias
