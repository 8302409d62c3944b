"""Checks of a model's input, before a library sees it.

LightGBM accepts NaN labels, infinite features and permuted columns without a word, so nothing
is left to the libraries.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

# XGBoost refuses "[", "]" and "<" in a name, LightGBM turns spaces into underscores.
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")

# Rows checked together: the temporary mask stays small beside a wide matrix.
_BLOCK_ROWS: Final = 256


def check_matrix(X: ArrayLike, *, n_features: int | None = None) -> NDArray[np.float32]:
    """Convert features to C-contiguous float32; without a copy where they are that already.

    NaN is a missing value; infinite values, and another width than ``n_features``, are refused.
    """
    given = np.asarray(X)
    # bool and object are refused too: they may hold text, None or masks of values.
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        raise ValueError(
            f"Features have shape {given.shape} and type {given.dtype}; expected a matrix of "
            "numbers, one row an utterance."
        )
    if n_features is not None and given.shape[1] != n_features:
        raise ValueError(
            f"Features have {given.shape[1]} columns; expected the {n_features} of training."
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        # Boosters give other results for other memory orders.
        matrix = np.ascontiguousarray(given, dtype=np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        infinite = np.isinf(matrix[start : start + _BLOCK_ROWS])
        if infinite.any():
            row, column = np.argwhere(infinite)[0].tolist()
            raise ValueError(
                f"Features hold {given[start + row, column]} at row {start + row}, column "
                f"{column}, which float32 takes as infinite; expected finite numbers, or NaN "
                "where a value is missing."
            )
    return matrix


def check_labels(y: ArrayLike, n_rows: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """Check that labels are positions of classes, one per row; None allows any number."""
    labels = np.asarray(y)
    # Whole floats are refused too: a NaN may hide among them.
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"Labels have shape {labels.shape} and type {labels.dtype}; expected one whole "
            "number a row, the position of its class."
        )
    if len(labels) != n_rows:
        raise ValueError(f"There are {len(labels)} labels for {n_rows} rows of features.")
    outside = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        positions = "0 or more" if n_classes is None else f"0 to {n_classes - 1}"
        raise ValueError(f"The label of row {row} is {labels[row]}; expected {positions}.")
    return labels.astype(np.int64)


def check_rows(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_classes: int,
    names: Sequence[str],
    weights: ArrayLike | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[str, ...], NDArray[np.float64] | None]:
    """Check the rows that a booster is given: at least one value, labels, names, weights."""
    matrix = check_matrix(X)
    if matrix.size == 0:
        raise ValueError(f"Features have shape {matrix.shape}; expected at least one value.")
    labels = check_labels(y, len(matrix), n_classes)
    checked_names = _check_names(names, matrix.shape[1])
    checked_weights = None if weights is None else _check_weights(weights, len(matrix))
    return matrix, labels, checked_names, checked_weights


def _check_names(names: Sequence[str], n_features: int) -> tuple[str, ...]:
    """Check that both boosters keep the features' names as they are."""
    names = tuple(names)
    if len(names) != n_features:
        raise ValueError(f"There are {len(names)} names for {n_features} features.")
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(
            f"Feature names {odd[:5]} are refused or changed by a booster; expected ASCII "
            "letters, digits and underscores."
        )
    if len(set(names)) < n_features:
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"The feature name {twice!r} occurs twice.")
    return names


def _check_weights(weights: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Check that weights are positive and finite, one per row."""
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n_rows,):
        raise ValueError(f"Weights have shape {array.shape}; expected one for {n_rows} rows.")
    valid = np.isfinite(array) & (array > 0)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"The weight of row {row} is {array[row]}; expected a positive finite number."
        )
    return array
