"""Train, validation and test splits, and the fingerprints of their records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


def split_shares(
    keys: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray,
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Indices for ``train`` and each named share; equal keys always fall on one side.

    Args:
        keys: one a record, of one kind; records with equal keys (exact duplicates) stay together.
        strata: one a record, of one kind; every stratum is split in the same proportion.
        shares: held-out share of the distinct keys, by name, e.g. ``{"test": 0.1}``. However
            large, each stratum keeps one key to train on.
        seed: same seed, same split.

    Returns:
        Sorted indices by name; ``train`` has what the shares leave.
    """
    names = ("train", *shares)
    # Numbers for keys and strata, so that many rows are a few arrays.
    _, first, key_of = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    _, strata_of = np.unique(np.asarray(strata), return_inverse=True)
    stratum_of = strata_of[first] if len(first) else first
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


def digests(keys: Iterable[str], count: int) -> np.ndarray:
    """``<uint64>[count]``: a hash of each of so many keys.

    Two of a hundred million different ones are the same with a probability of 0.03 %.
    """

    def hashed(key: str) -> int:
        raw = key.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")

    return np.fromiter(map(hashed, keys), np.uint64, count)


def fingerprint(parts: Iterable[str]) -> str:
    """SHA-256 over texts, in order: two runs with one fingerprint saw the same data."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]


@dataclass
class Splits:
    """The records of each split, and what is to be known about them."""

    train: Sequence[Any]
    validation: Sequence[Any]
    test: Sequence[Any]
    #: Hash of all records: two runs with one fingerprint saw the same data.
    fingerprint: str
    #: Counts and messages: rows read, skipped, duplicates, sizes. Saved and logged with the run.
    report: dict[str, Any]
    #: Hash of the test records: two scores with one fingerprint can be compared.
    test_fingerprint: str = ""
