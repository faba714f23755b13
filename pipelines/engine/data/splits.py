"""Train, validation and test splits, and the fingerprints of their records."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.engine.config.folds import Fold


def split_shares(
    keys: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray,
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Split indices into ``train`` and the named shares; equal keys always stay together.

    Args:
        keys: One for each record, of one type; records with equal keys stay in one split.
        strata: One for each record, of one type; every stratum is split in the same proportion.
        shares: Held-out share of the distinct keys, by name, e.g. ``{"test": 0.1}``. Each stratum
            keeps at least one key for training.
        seed: The same seed gives the same split.

    Returns:
        Sorted indices by name; ``train`` has the remaining ones.
    """
    names = ("train", *shares)
    first, key_of, stratum_of = _number(keys, strata)
    by_appearance = np.argsort(first, kind="stable")
    rng = np.random.default_rng([seed, 0x5B117])
    side = np.zeros(len(first), np.int8)
    for stratum in np.unique(stratum_of):
        members = rng.permutation(by_appearance[stratum_of[by_appearance] == stratum])
        start = 0
        for number, share in enumerate(shares.values(), 1):
            count = min(round(share * len(members)), len(members) - 1 - start)
            side[members[start : start + count]] = number
            start += count
    sides = side[key_of]
    return {name: np.flatnonzero(sides == number) for number, name in enumerate(names)}


def split_fold(
    keys: np.ndarray,
    strata: np.ndarray,
    fold: Fold,
    validation: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Split indices for one fold of a cross-validation; equal keys always stay together.

    Over all folds, every index is in exactly one test split.

    Args:
        keys: As for `split_shares`.
        strata: As for `split_shares`; each has at least as many distinct keys as there are folds.
        fold: The test fold.
        validation: The share of all distinct keys for the validation split.
        seed: The same seed gives the same folds.

    Returns:
        Sorted indices of ``train``, ``validation`` and ``test``.
    """
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    number, folds = fold
    first, key_of, stratum_of = _number(keys, strata)
    by_appearance = np.argsort(first, kind="stable")
    divided = StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        by_appearance, stratum_of[by_appearance]
    )
    _, tested = next(itertools.islice(divided, number - 1, None))
    in_test = np.isin(key_of, by_appearance[tested])
    rest = np.flatnonzero(~in_test)
    share = validation * folds / (folds - 1)
    parts = split_shares(keys[rest], strata[rest], {"validation": share}, seed)
    return {name: rest[part] for name, part in parts.items()} | {"test": np.flatnonzero(in_test)}


def smallest_stratum(keys: np.ndarray, strata: np.ndarray) -> tuple[int, int]:
    """Return an index of the stratum with the fewest distinct keys, and their number."""
    first, _, stratum_of = _number(keys, strata)
    counts = np.bincount(stratum_of)
    # The stratum of a key is that of its first record, so a stratum may have no key of its own.
    smallest = min(np.flatnonzero(counts), key=lambda stratum: counts[stratum])
    return int(first[stratum_of == smallest].min()), int(counts[smallest])


def _number(
    keys: Sequence[Any] | np.ndarray, strata: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the distinct keys and strata, so that memory holds arrays instead of objects.

    Returns:
        For each distinct key, the index of its first record; for each record, its key; and for
        each distinct key, its stratum.
    """
    _, first, key_of = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    _, strata_of = np.unique(np.asarray(strata), return_inverse=True)
    return first, key_of, strata_of[first] if len(first) else first


def digests(keys: Iterable[str], count: int) -> np.ndarray:
    """Hash ``count`` keys: ``<uint64>[count]``.

    Any two of a hundred million distinct keys collide with a probability of 0.03 %.
    """

    def hashed(key: str) -> int:
        raw = key.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")

    return np.fromiter(map(hashed, keys), np.uint64, count)


def fingerprint(parts: Iterable[str]) -> str:
    """Return a SHA-256 over texts, in order (its first 16 hex digits)."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]


@dataclass
class Splits:
    """The records of each split, with fingerprints and a report of how they were loaded."""

    train: Sequence[Any]
    validation: Sequence[Any]
    test: Sequence[Any]
    #: Hash of all records: two runs with one fingerprint saw the same data.
    fingerprint: str
    #: Counts and messages: rows read, skipped, duplicates, sizes. Saved and logged with the run.
    report: dict[str, Any]
    #: Hash of the test records: two scores with one fingerprint can be compared.
    test_fingerprint: str = ""
