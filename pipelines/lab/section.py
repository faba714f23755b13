"""One claim of the chapter, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from matplotlib.figure import Figure

from pipelines.engine.core.tables import Table


@dataclass(frozen=True)
class Size:
    """How much work an experiment does.

    Attributes:
        fast: a tenth of it, to see that all works; the verdicts may then be less sure.
        seed: of all draws.
    """

    fast: bool = False
    seed: int = 1

    def of(self, full: int, fast: int) -> int:
        return fast if self.fast else full


@dataclass
class Section:
    """
    Attributes:
        claim: as the chapter has it, in a sentence.
        equation: in plain characters.
        how: what was done.
        holds: whether the numbers bear the claim out, as it is stated.
        verdict: what they say, in words.
        numbers: what the verdict was computed from, by name.
    """

    title: str
    claim: str
    equation: str
    how: str
    holds: bool
    verdict: str
    numbers: dict[str, float]
    figures: list[Figure] = field(default_factory=list)
    table: Table | None = None
