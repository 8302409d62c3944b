"""Keep the features that tell the classes apart, as the training rows have it.

Screening uses labels, so it is fitted again wherever the training rows change. A further
method is one more function of ``(X, y)`` in :data:`SCORES`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.columns import column_blocks, column_medians

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray


def f_scores(X: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score each feature by the F statistic of a one-way analysis of variance.

    Missing values count as the median of the rows that have one.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
        Features; NaN where missing.
    y : ndarray of int64, shape (n_rows,)
        Class positions, of at least two classes.

    Returns
    -------
    ndarray of float64, shape (n_features,)
        F values; infinite where the classes leave no variance, NaN for a constant feature.

    Examples
    --------
    >>> X = np.array([[0, 7, 0], [0, 7, 1], [1, 7, 2], [1, 7, 3]], dtype=np.float32)
    >>> f_scores(X, np.array([0, 0, 1, 1])).tolist()
    [inf, nan, 8.0]
    """
    order = np.argsort(y, kind="stable")
    _, starts, sizes = np.unique(y[order], return_index=True, return_counts=True)
    within_freedom, between_freedom = max(len(y) - len(sizes), 1), len(sizes) - 1
    medians = column_medians(X)
    scores = np.full(X.shape[1], np.nan)
    for block in column_blocks(X.shape[1]):
        values = X[:, block][order].astype(np.float64)
        values = np.where(np.isnan(values), medians[block], values)
        varies = values.max(axis=0) > values.min(axis=0)
        values = values[:, varies]
        means = np.add.reduceat(values, starts, axis=0) / sizes[:, None]
        within = ((values - np.repeat(means, sizes, axis=0)) ** 2).sum(axis=0)
        between = (sizes[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0)
        with np.errstate(divide="ignore"):  # classes without variance: infinite, as they should
            ratio = (between / between_freedom) / (within / within_freedom)
        scores[block][varies] = ratio
    return scores


#: Screening methods: the higher a feature's score, the sooner it is kept; NaN comes last.
SCORES: Final[
    Mapping[str, Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]]
] = MappingProxyType({"ftest": f_scores})


def screen_features(X: ArrayLike, y: ArrayLike, method: str, n_kept: int) -> NDArray[np.int64]:
    """Choose the features to keep.

    Parameters
    ----------
    X : array-like, shape (n_rows, n_features)
        Features of training rows; NaN where missing.
    y : array-like of int, shape (n_rows,)
        Their class positions.
    method : str
        ``"none"``, which keeps all, or a key of :data:`SCORES`.
    n_kept : int
        Number of features to keep; all where there are no more.

    Returns
    -------
    ndarray of int64
        Positions of the features kept, increasing. Of equal scores the first is kept;
        constant features come last.

    Raises
    ------
    ValueError
        If the method is unknown, nothing would be kept, or there is one class only.

    Examples
    --------
    >>> X = [[0, 7, 0], [0, 7, 1], [1, 7, 2], [1, 7, 3]]
    >>> screen_features(X, [0, 0, 1, 1], "ftest", 2).tolist()
    [0, 2]
    """
    matrix = check_matrix(X)
    labels = check_labels(y, len(matrix))
    if method == "none":
        return np.arange(matrix.shape[1])
    if method not in SCORES:
        raise ValueError(f"Unknown screening {method!r}; choose among {['none', *SCORES]}.")
    if n_kept < 1:
        raise ValueError(f"n_kept must be at least 1, got {n_kept}.")
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"Cannot screen by {len(labels)} rows of a single class; expected two or more."
        )
    scores = SCORES[method](matrix, labels)
    # NaN sorts to the end, and a stable sort keeps the first of equal scores.
    return np.sort(np.argsort(-scores, kind="stable")[:n_kept])
