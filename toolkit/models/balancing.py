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

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.columns import column_scales
from toolkit.models.synthesis import (
    N_NEIGHBORS,
    Addition,
    copy_rows,
    find_unlinked,
    make_rows,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

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
        kept = find_unlinked(grown, y_grown, column_scales(matrix))
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
