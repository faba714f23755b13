"""The folds of a cross-validation, as configs write them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Fold(NamedTuple):
    """One fold of several, e.g. ``2/5``.

    Attributes:
        number: The number of the fold, from 1.
        folds: How many there are.
    """

    number: int
    folds: int

    @classmethod
    def parse(cls, text: str) -> Fold:
        """Parse ``NUMBER/FOLDS``.

        Raises:
            ValueError: The text is not of this form, or there is no such fold.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
        fold = cls(*map(int, match.groups())) if match else cls(0, 0)
        if fold.folds < 2 or fold.number > fold.folds:
            raise ValueError("must be NUMBER/FOLDS with at least 2 folds, e.g. 1/5")
        return fold
