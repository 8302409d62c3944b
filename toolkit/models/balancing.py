"""Answers to unequal classes, for training rows and no others.

A synthetic row lies between two rows of one class that lack the same features: neighbours are
looked for inside such a group, on features divided by their standard deviation over the
training rows, and what the group lacks the new row lacks as well. Whatever a strategy could
not do as asked stands in its record.

References
----------
Chawla et al. (2002), SMOTE: synthetic minority over-sampling technique, JAIR 16.
Han et al. (2005), Borderline-SMOTE, ICIC.
Batista et al. (2003), Balancing training data for automated annotation of keywords: a case
study (SMOTE, then Tomek links removed), WOB.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from imblearn.over_sampling import SMOTE, BorderlineSMOTE, RandomOverSampler
from imblearn.under_sampling import TomekLinks

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.screening import standard_deviations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

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
    scales, patterns = standard_deviations(X), missing_patterns(X)
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


#: The strategies, from doing nothing to doing most.
IMBALANCE: Final = ("none", "weights", "oversample", "smote", "borderline", "smote_tomek")


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """Training rows after balancing, and where each of them comes from.

    Given rows come first and keep their order; copies and synthetic rows follow. Only the
    removal of Tomek links takes rows away.

    - X: shape (n_out, n_features); Features; NaN where missing.
    - y: shape (n_out,); Class positions.
    - weights: shape (n_out,); Row weights of mean 1, of the strategy ``weights`` only.
    - rows: shape (n_out,); The given row that a row is, kept or copied; -1 for a synthetic one.
    - parents: Groups of given rows, each of one class and one pattern of missing features,
      between which synthetic rows lie.
    - group: shape (n_out,); A synthetic row's group in ``parents``; -1 for a kept or copied
      row.
    - n_given: Number of given rows that are still there; those that were added follow them.
    - record: What was done, in plain types: ``strategy``; class counts ``before`` and
      ``after``; numbers of rows ``copied`` and ``made`` a class; ``clipped`` neighbourhoods;
      ``fallbacks`` with their reason; the given rows ``removed``, and how many of those made
      (``removed_made``).
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    rows: NDArray[np.int64]
    parents: tuple[NDArray[np.int64], ...] = field(repr=False)
    group: NDArray[np.int64] = field(repr=False)
    n_given: int
    record: Mapping[str, Any]

    def parents_of(self, position: int) -> NDArray[np.int64]:
        """List the given rows that one row may come from."""
        if self.rows[position] >= 0:
            return self.rows[[position]]
        return self.parents[int(self.group[position])]

    def origins(self) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """List where the added rows come from, those of one origin together.

        Examples
        --------
        >>> X = [[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [7.0, 8.0], [9.0, 9.0]]
        >>> [(label, added.tolist(), given.tolist()) for label, added, given in
        ...     balance(X, [0, 0, 0, 1, 1], "smote", seed=0).origins()]
        [(1, [5], [3, 4])]
        """
        made = [
            (added, self.parents[number])
            for number in range(len(self.parents))
            if len(added := np.flatnonzero(self.group == number))
        ]
        copied = (np.arange(len(self.rows)) >= self.n_given) & (self.rows >= 0)
        made += [
            (added, np.unique(self.rows[added]))
            for label in np.unique(self.y)
            if len(added := np.flatnonzero(copied & (self.y == label)))
        ]
        return [(int(self.y[added[0]]), added, given) for added, given in made]


def balance(X: ArrayLike, y: ArrayLike, strategy: str, *, seed: int) -> Balanced:
    """Balance the classes of training rows.

    Parameters
    ----------
    X : array-like, shape (n_rows, n_features)
        Features; NaN where missing.
    y : array-like of int, shape (n_rows,)
        Class positions.

    Examples
    --------
    >>> X = [[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [7.0, 8.0], [9.0, 9.0]]
    >>> balanced = balance(X, [0, 0, 0, 1, 1], "smote", seed=0)
    >>> balanced.y.tolist(), balanced.rows.tolist(), balanced.parents_of(5).tolist()
    ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, -1], [3, 4])
    """
    matrix = check_matrix(X)
    labels = check_labels(y, len(matrix))
    if strategy not in IMBALANCE:
        raise ValueError(
            f"Unknown imbalance strategy {strategy!r}; choose among {list(IMBALANCE)}."
        )
    additions: list[Addition] = []
    if strategy == "oversample":
        additions = copy_rows(matrix, labels, seed)
    elif strategy not in ("none", "weights"):
        additions = make_rows(matrix, labels, borderline=strategy == "borderline", seed=seed)
    grown = np.vstack([matrix, *(new.X for new in additions)]) if additions else matrix
    y_grown = np.concatenate([labels, *(np.full(len(new.X), new.label) for new in additions)])
    rows = np.concatenate([np.arange(len(labels)), *(new.rows for new in additions)])
    synthetic = [new for new in additions if len(new.parents)]
    group = np.full(len(rows), -1)
    group[rows < 0] = np.repeat(np.arange(len(synthetic)), [len(new.X) for new in synthetic])
    kept = np.arange(len(rows))
    if strategy == "smote_tomek":
        kept = find_unlinked(grown, y_grown, standard_deviations(matrix))
        grown = grown[kept]
    weights = _balanced_weights(labels) if strategy == "weights" else None
    record = _make_record(strategy, labels, y_grown[kept], additions)
    gone = np.delete(rows, kept)
    record |= {"removed": gone[gone >= 0].tolist(), "removed_made": int((gone < 0).sum())}
    return Balanced(
        X=grown,
        y=_read_only(y_grown[kept]),
        weights=None if weights is None else _read_only(weights),
        rows=_read_only(rows[kept]),
        parents=tuple(_read_only(new.parents) for new in synthetic),
        group=_read_only(group[kept]),
        n_given=int((kept < len(labels)).sum()),
        record=record,
    )


def _balanced_weights(y: NDArray[np.int64]) -> NDArray[np.float64]:
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray((len(y) / (len(counts) * counts))[codes])


def _make_record(
    strategy: str,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    additions: Sequence[Addition],
) -> dict[str, Any]:
    """Tell what was done in types that JSON has; groups of a class are counted together."""
    made, copied = Counter[str](), Counter[str]()
    clipped, fallbacks = Counter[tuple[int, int]](), Counter[tuple[int, str]]()
    for new in additions:
        (made if len(new.parents) else copied)[str(new.label)] += len(new.X)
        if 0 < new.n_neighbors < N_NEIGHBORS:
            clipped[new.label, new.n_neighbors] += 1
        if new.fallback:
            fallbacks[new.label, new.fallback] += len(new.X)
    return {
        "strategy": strategy,
        "before": _count(before),
        "after": _count(after),
        "made": dict(made),
        "copied": dict(copied),
        "clipped": [
            {"class": label, "n_neighbors": k, "groups": n}
            for (label, k), n in sorted(clipped.items())
        ],
        "fallbacks": [
            {"class": label, "rows": n, "why": why}
            for (label, why), n in sorted(fallbacks.items())
        ],
    }


def _count(y: NDArray[np.int64]) -> dict[str, int]:
    labels, counts = np.unique(y, return_counts=True)
    return {str(label): int(n) for label, n in zip(labels, counts, strict=True)}


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
