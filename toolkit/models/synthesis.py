"""Rows made between rows: the SMOTE family inside groups that lack the same features.

imbalanced-learn draws and interpolates; this file hands it one group at a time, since
neighbours may only be looked for where the same features are there, and falls back to copies
where a group is too small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from imblearn.over_sampling import SMOTE, BorderlineSMOTE, RandomOverSampler
from imblearn.under_sampling import TomekLinks

from toolkit.models.columns import column_scales

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: Neighbours between which a row is made, and those that tell whether a row is near a border.
N_NEIGHBORS: Final = 5
N_BORDER_NEIGHBORS: Final = 10

_TOO_FEW: Final = "fewer than two rows of the class have the same features"
_NO_BORDER: Final = "no row is near another class"


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """Rows to be added for one class, and how they came about.

    - label: The class.
    - X: shape (n_new, n_features); The rows; NaN where missing.
    - rows: shape (n_new,); The rows they copy; -1 where they are synthetic.
    - parents: The group of rows that synthetic rows lie between; empty for copies.
    - n_neighbors: Neighbours that were looked at; 0 for copies.
    - fallback: Why something else was done than was asked; empty where it was done.
    """

    label: int
    X: NDArray[np.float32]
    rows: NDArray[np.int64]
    parents: NDArray[np.int64] = field(repr=False)
    n_neighbors: int = 0
    fallback: str = ""


def copy_rows(X: NDArray[np.float32], y: NDArray[np.int64], seed: int) -> list[Addition]:
    """Copy rows at random until each class is as large as the largest.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
        Features; NaN where missing.
    y : ndarray of int64, shape (n_rows,)
        Class positions.
    """
    shortfalls = list(_shortfalls(y))
    if not shortfalls:
        return []
    sampler = RandomOverSampler(random_state=_child_seed(seed))
    sampler.fit_resample(np.arange(len(y))[:, None], y)
    drawn = sampler.sample_indices_[len(y) :]
    return [_copies(X, label, drawn[y[drawn] == label]) for label, _ in shortfalls]


def make_rows(
    X: NDArray[np.float32], y: NDArray[np.int64], *, borderline: bool, seed: int
) -> list[Addition]:
    """Make rows between neighbours until each class is as large as the largest.

    A class's new rows are shared out among its groups by their size.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
        Features; NaN where missing.
    y : ndarray of int64, shape (n_rows,)
        Class positions.
    """
    scales, patterns = column_scales(X), missing_patterns(X)
    additions = []
    for label, n_new in _shortfalls(y):
        here = np.flatnonzero(y == label)
        kinds, sizes = np.unique(patterns[here], return_counts=True)
        for pattern, n_wanted in zip(kinds, _share_out(n_new, sizes), strict=True):
            if n_wanted:
                alike = np.flatnonzero(patterns == pattern)
                additions.append(
                    _grow(
                        X,
                        y,
                        scales,
                        alike,
                        label=label,
                        n_new=n_wanted,
                        borderline=borderline,
                        seed=_child_seed(seed, label, int(pattern)),
                    )
                )
    return additions


def find_unlinked(
    X: NDArray[np.float32], y: NDArray[np.int64], scales: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Find the rows that are in no Tomek link.

    A Tomek link is a pair of rows of different classes, each the other's nearest neighbour.
    They too are looked for among rows that lack the same features.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
        Features; NaN where missing.
    y : ndarray of int64, shape (n_rows,)
        Class positions.
    scales : ndarray of float64, shape (n_features,)
        What features are divided by.
    """
    patterns = missing_patterns(X)
    keep = np.ones(len(y), dtype=bool)
    for pattern in np.unique(patterns):
        alike = np.flatnonzero(patterns == pattern)
        observed = np.flatnonzero(~np.isnan(X[alike[0]]))
        if len(np.unique(y[alike])) < 2 or len(observed) == 0:
            continue
        cleaner = TomekLinks(sampling_strategy="all")
        cleaner.fit_resample(X[alike][:, observed] / scales[observed], y[alike])
        keep[np.delete(alike, cleaner.sample_indices_)] = False
    for label in np.setdiff1d(y, y[keep]):
        keep[y == label] = True
    return np.flatnonzero(keep)


def missing_patterns(X: NDArray[np.float32]) -> NDArray[np.int64]:
    """Tell rows apart by which features they lack.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
        Features; NaN where missing.

    Returns
    -------
    ndarray of int64, shape (n_rows,)
        Equal for rows that lack the same features.

    Examples
    --------
    >>> X = np.array([[1, np.nan], [2, 3], [4, np.nan]], dtype=np.float32)
    >>> missing_patterns(X).tolist()
    [1, 0, 1]
    """
    packed = np.packbits(np.isnan(X), axis=1)
    _, numbers = np.unique(packed, axis=0, return_inverse=True)
    return numbers.reshape(-1)


def _grow(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    scales: NDArray[np.float64],
    alike: NDArray[np.int64],
    *,
    label: int,
    n_new: int,
    borderline: bool,
    seed: int,
) -> Addition:
    """Make rows of one class among rows that lack the same features."""
    group, others = alike[y[alike] == label], alike[y[alike] != label]
    observed = np.flatnonzero(~np.isnan(X[group[0]]))
    if len(group) < 2 or len(observed) == 0:
        drawn = np.random.default_rng(seed).choice(group, n_new)
        return _copies(X, label, drawn, _TOO_FEW)
    neighbours = np.concatenate([group, others]) if borderline else group
    scaled = X[neighbours][:, observed] / scales[observed]
    made, fallback = _interpolate(scaled, len(group), n_new, borderline=borderline, seed=seed)
    filled = np.full((n_new, X.shape[1]), np.nan, dtype=np.float32)
    filled[:, observed] = made * scales[observed]
    return Addition(
        label,
        filled,
        np.full(n_new, -1),
        parents=group,
        n_neighbors=_n_neighbors(len(group)),
        fallback=fallback,
    )


def _interpolate(
    scaled: NDArray[np.float64], n_group: int, n_new: int, *, borderline: bool, seed: int
) -> tuple[NDArray[np.float64], str]:
    """Make rows in the group that ``scaled`` starts with; the others stand around it."""
    if borderline:
        sampler = BorderlineSMOTE(
            k_neighbors=_n_neighbors(n_group),
            m_neighbors=min(N_BORDER_NEIGHBORS, len(scaled) - 1),
            random_state=seed,
        )
        made = (
            _resample(sampler, scaled, n_group, n_new) if n_group < len(scaled) else scaled[:0]
        )
        if len(made):
            return made, ""
    sampler = SMOTE(k_neighbors=_n_neighbors(n_group), random_state=seed)
    # The sampler wants a second class to be there, and does not look at it.
    made = _resample(sampler, np.vstack([scaled[:n_group], scaled[:1]]), n_group, n_new)
    return made, _NO_BORDER if borderline else ""


def _resample(
    sampler: SMOTE, scaled: NDArray[np.float64], n_group: int, n_new: int
) -> NDArray[np.float64]:
    inside = np.arange(len(scaled)) < n_group
    sampler.set_params(sampling_strategy={1: n_group + n_new})
    grown, _ = sampler.fit_resample(scaled, inside.astype(np.int64))
    return np.asarray(grown[len(scaled) :])


def _n_neighbors(n_group: int) -> int:
    return min(N_NEIGHBORS, n_group - 1)


def _copies(
    X: NDArray[np.float32], label: int, rows: NDArray[np.int64], fallback: str = ""
) -> Addition:
    return Addition(label, X[rows], rows, parents=rows[:0], fallback=fallback)


def _shortfalls(y: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    labels, counts = np.unique(y, return_counts=True)
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        if count < counts.max():
            yield label, int(counts.max()) - count


def _share_out(n: int, sizes: NDArray[np.int64]) -> list[int]:
    """Split a number by sizes; what rounding leaves goes to the largest remainders."""
    shares, remainders = np.divmod(n * sizes, sizes.sum())
    left = n - shares.sum()
    shares[np.argsort(-remainders, kind="stable")[:left]] += 1
    return [int(share) for share in shares]


def _child_seed(seed: int, *place: int) -> int:
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])
