"""ReLU against the vanishing gradient: whether it vanishes depends on W."""

from __future__ import annotations

from matplotlib.figure import Figure

from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.lab.networks import COLOURS, gradient_norms, rotation_network
from pipelines.lab.section import Section, Settings

_SCALES = (0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)


def measure(seed: int) -> dict[float, float]:
    """The signal left after 50 steps, relative to the last step, by σ_max(W)."""
    left = {}
    for scale in _SCALES:
        norms = gradient_norms(rotation_network("relu", scale, seed=seed), length=60, seed=seed)
        left[scale] = float(norms[50] / norms[0])
    return left


def draw(left: dict[float, float]) -> Figure:
    """Draw the remaining signal by σ_max(W)."""
    figure, ax = plotting.new_figure()
    ax.semilogy(_SCALES, [max(v, 1e-30) for v in left.values()], "o-", color=COLOURS["relu"])
    ax.axhline(1, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="σ_max(W)", ylabel="signal left after 50 steps, ReLU")
    return figure


def run(settings: Settings) -> Section:
    """Measure the signal of ReLU networks for several sizes of W."""
    left = measure(settings.seed)
    kept = [scale for scale, value in left.items() if 0.1 < value < 10]
    return Section(
        title="ReLU, and the vanishing gradient",
        claim="The derivative of ReLU is 1 where it is active, so the gradient does not vanish.",
        equation="∂h_t/∂h_{t-1} = Wᵀ diag(1[a_t > 0])",
        method="The same network with ReLU and a scaled W; the signal 50 steps back.",
        holds=bool(kept) and min(kept) <= 0.9 and max(kept) >= 1.5,
        verdict="The claim ignores W. About half of the units are off at each step, and the "
        f"signal left after 50 steps goes from {left[_SCALES[0]]:.0e} at σ_max = {_SCALES[0]} to "
        f"{left[_SCALES[-1]]:.0e} at {_SCALES[-1]}; it stays within a factor of ten "
        + (f"only at {', '.join(map(str, kept))}." if kept else "at none of these scales."),
        numbers={f"left_after_50/sigma_{scale}": value for scale, value in left.items()},
        figures=[draw(left)],
        table=Table(
            ["σ_max(W)", "left after 50 steps"], [[s, f"{v:.1e}"] for s, v in left.items()]
        ),
    )
