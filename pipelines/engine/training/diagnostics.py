"""Diagnostics of a training: gradient flow through time, recurrent weights and gate saturation.

All are measured after an epoch, on one fixed batch of the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from layers.gradient_flow import GradientFlow, make_gradient_flow
from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.data.ragged import PADDING

#: Metrics keep the candidate's earlier letter, so that runs stay comparable.
_LOGGED_LABELS = {"W_g": "W_c"}
#: A gate within this distance of an end of its range is saturated: its own gradient is nearly 0.
_EDGE = 0.1
#: The batch is chosen among this many, and has at most this many steps if possible: the time of a
#: measurement grows with the steps, and may be 3 % of an epoch.
_BATCHES, _STEPS = 20, 64
#: Shares of the gradient of the last step below which it has vanished, or above which exploded.
_VANISHED, _EXPLODED = 1e-4, 1e4


@dataclass
class DiagnosticReport:
    """The diagnostics of one epoch.

    Attributes:
        metrics: Finite values by name, for the history of the run.
        norms: By layer, ‖∂L/∂(h_t, c_t)‖ by distance from the last step, see `GradientFlow.norms`.
        warnings: By layer, a message about vanishing or exploding gradients.
    """

    metrics: dict[str, float]
    norms: dict[str, np.ndarray]
    warnings: dict[str, str]

    def table(self) -> Table:
        """Return the norms as rows of layer, distance and norm."""
        rows = [
            [name, distance, f"{norm:.4e}"]
            for name, line in self.norms.items()
            for distance, norm in enumerate(line)
            if math.isfinite(norm)
        ]
        return Table(["layer", "steps_back", "gradient"], rows)


class GradientDiagnostics:
    """Diagnoses a model on one validation batch: the longest of up to 64 steps among the first.

    Where the loss is the mean over all tokens, only the last token of each row counts here, so that
    the distance from it is a number of steps.

    Args:
        model: A built model.
        loss: The task's loss.
        batches: The validation batches.
    """

    def __init__(
        self, model: keras.Model, loss: keras.losses.Loss, batches: tf.data.Dataset
    ) -> None:
        inputs, targets = max(batches.take(_BATCHES), key=_preference)[:2]
        if keras.backend.backend() != "tensorflow":
            inputs, targets = tf.nest.map_structure(lambda t: t.numpy(), (inputs, targets))
        last = _last_only(targets)
        self._flows = make_gradient_flow(lambda: loss(last, model(inputs, training=False)))

    def __call__(self) -> DiagnosticReport:
        found = self._flows()
        health = DiagnosticReport({}, {}, {})
        for name, flow in found.items():
            health.norms[name] = norms = flow.norms()
            health.metrics[f"health/decay/{name}"] = decay(norms)
            # On two busy cores eigenvalues took thirty times as long in two threads as in one.
            with threadpool_limits(1, user_api="blas"):
                health.metrics |= _of_weights(name, flow)
            health.metrics |= _of_gates(name, flow)
            if said := diagnosis(name, norms, gated=len(flow.call.layer.cell.gate_order) > 1):
                health.warnings[name] = said
        health.metrics = {n: v for n, v in health.metrics.items() if math.isfinite(v)}
        return health


def decay(norms: np.ndarray) -> float:
    """Return the factor per step by which a gradient shrinks or grows on its way back.

    It is fitted to the logarithms of the norms by least squares; 1 if fewer than two are positive.
    """
    distance = np.flatnonzero(np.nan_to_num(norms) > 0)
    if len(distance) < 2:
        return 1.0
    slope = np.polyfit(distance, np.log(norms[distance]), 1)[0]
    return float(np.exp(slope))


def diagnosis(name: str, norms: np.ndarray, *, gated: bool) -> str | None:
    """Return a warning about vanishing or exploding gradients; None if there are none.

    Args:
        name: Of the layer.
        norms: By distance from the last step.
        gated: Whether the cell is an LSTM or a GRU; otherwise the warning recommends one.
    """
    known = norms[~np.isnan(norms)]
    if len(known) < 2 or not known[0] > 0:
        return None
    left = known[1:] / known[0]
    if left.max() > _EXPLODED:
        steps = int(left.argmax()) + 1
        return (
            f"{name}: gradients explode: {steps} steps back they are {left.max():.0e} times as "
            "large; lower train.learning_rate or train.clip_norm"
        )
    if left[-1] > _VANISHED:
        return None
    steps = int(np.argmax(left <= _VANISHED)) + 1
    cure = "" if gated else "; try the cell lstm"
    return f"{name}: gradients vanish: {steps} steps back {left[steps - 1]:.0e} is left{cure}"


def _of_weights(name: str, flow: GradientFlow) -> dict[str, float]:
    """Return the largest singular value σ and the spectral radius ρ of each gate's W.

    σ bounds how much one step can amplify a signal; ρ is its growth per step over many.
    """
    cell = flow.call.layer.cell
    found = {}
    for gate in cell.gate_order:
        label = "W" if len(cell.gate_order) == 1 else f"W_{gate}"
        W = ops.convert_to_numpy(getattr(cell, label)).astype(np.float64)
        logged = _LOGGED_LABELS.get(label, label)
        found[f"health/sigma/{name}/{logged}"] = float(np.linalg.norm(W, 2))
        found[f"health/rho/{name}/{logged}"] = float(np.abs(np.linalg.eigvals(W)).max())
    return found


def _of_gates(name: str, flow: GradientFlow) -> dict[str, float]:
    """Return the share of saturated values of each gate, and of h, h̃ or g, padding excluded."""
    mask, taken = flow.call.mask, flow.call.trace()
    bounded = ["candidate"] if "candidate" in taken else ["hidden_state"]
    found = {}
    for part in [*(part for part in taken if part.endswith("gate")), *bounded]:
        values = np.asarray(ops.convert_to_numpy(taken[part]), np.float32)
        if mask is not None:
            values = values[ops.convert_to_numpy(mask)]
        edges = np.abs(values) > 1 - _EDGE
        if part not in bounded:
            edges |= values < _EDGE
        found[f"health/saturated/{name}/{part}"] = float(edges.mean()) if edges.size else 0.0
    return found


def _preference(batch: Any) -> int:
    """Return a key by which longer batches are preferred, but not those longer than `_STEPS`."""
    steps: int = max(t.shape[1] for t in tf.nest.flatten(batch[0]) if len(t.shape) > 1)
    return steps if steps <= _STEPS else -steps


def _last_only(targets: Any) -> Any:
    """Return token targets ``<int>[batch, time]`` with padding in place of all but the last."""
    if len(targets.shape) != 2 or "int" not in keras.backend.standardize_dtype(targets.dtype):
        return targets
    real = np.asarray(targets) != PADDING
    left = np.cumsum(real[:, ::-1], axis=1)[:, ::-1]
    return np.where(real & (left == 1), targets, PADDING)


def plot_gradient_flow(rows: Sequence[Sequence[str]], title: str) -> Figure:
    """Plot the share of the last step's gradient that is left, by distance from that step.

    There is a panel for each layer and a line for each epoch; later epochs are darker.

    Args:
        rows: Epoch, layer, distance, norm, as in `DiagnosticReport.table`.
        title: Of the figure.
    """
    lines: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for epoch, layer, distance, norm in rows:
        of_layer = lines.setdefault(layer, {})
        of_layer.setdefault(int(epoch), []).append((int(distance), float(norm)))
    figure, axes = plotting.new_figure(4.6 * len(lines), 3.8, len(lines))
    for ax, (layer, epochs) in zip(np.atleast_1d(axes), lines.items(), strict=True):
        for place, points in enumerate(epochs.values(), 1):
            distances, norms = np.array(points).T
            if norms[0] > 0:
                shade = (len(epochs) + 4 * place) / (5 * len(epochs))
                ax.semilogy(distances, norms / norms[0], color=plotting.BLUE, alpha=shade)
        ax.set(title=layer, xlabel="steps back from the last")
        # At least two decades, so that a gradient that hardly shrinks looks like one.
        ax.set_ylim(bottom=min(1e-2, ax.get_ylim()[0]))
    np.atleast_1d(axes)[0].set(ylabel="‖∂L/∂(h, c)‖, relative to the last step")
    figure.suptitle(f"{title}: what comes back through time, after epochs {_span(lines)}")
    return figure


def _span(lines: dict[str, dict[int, list[tuple[int, float]]]]) -> str:
    epochs = [epoch for of_layer in lines.values() for epoch in of_layer]
    return f"{min(epochs)} to {max(epochs)}"
