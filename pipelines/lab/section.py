"""One section of the report: a claim of the chapter and its measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

from matplotlib.figure import Figure

from pipelines.engine.core.tables import Table


@dataclass(frozen=True)
class Settings:
    """Settings of all experiments.

    Attributes:
        fast: do about a tenth of the work, to try the command; the verdicts are less certain.
        seed: of all random numbers.
    """

    fast: bool = False
    seed: int = 1

    def choose(self, full: int, fast: int) -> int:
        """Return ``fast`` in the fast edition, and ``full`` otherwise."""
        return fast if self.fast else full


@dataclass
class Section:
    """What an experiment reports.

    Attributes:
        title: heading of the section.
        claim: the chapter's claim, in a sentence.
        equation: the claim's equation, in plain characters.
        method: how the claim was measured.
        holds: whether the numbers support the claim as stated.
        verdict: what the numbers say, in words.
        numbers: the numbers behind the verdict, by name.
        figures: pictures of the numbers.
        table: the numbers as a table; None if there is none.
    """

    title: str
    claim: str
    equation: str
    method: str
    holds: bool
    verdict: str
    numbers: dict[str, float]
    figures: list[Figure] = field(default_factory=list)
    table: Table | None = None
