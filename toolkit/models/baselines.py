"""Baselines that every boosted system must beat: the class priors, and a linear model."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.screening import column_medians, standard_deviations


def class_priors(y: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Compute each class's share of the training rows.

    Their ``argmax`` is the majority class, and the lowest of equal ones.

    Parameters
    ----------
    y : array-like of int, shape (n_rows,)
        Class positions.
    n_classes : int
        Number of the study's classes.

    Returns
    -------
    ndarray of float64, shape (n_classes,)
        Priors, which sum to 1.

    Raises
    ------
    ValueError
        If there are no rows, or labels are not class positions.

    Examples
    --------
    >>> class_priors([0, 2, 2, 2], n_classes=4).tolist()
    [0.25, 0.0, 0.75, 0.0]
    """
    labels = check_labels(y, len(np.atleast_1d(y)), n_classes)
    if len(labels) == 0:
        raise ValueError("Cannot take class shares of no rows.")
    return np.bincount(labels, minlength=n_classes) / len(labels)


@dataclass(frozen=True, slots=True, eq=False)
class _FittedLogistic:
    """A fitted multinomial logistic regression, with the preparation of its columns.

    - medians: shape (n_features,); Replace missing values.
    - flagged: Columns whose missing values have an indicator column behind the features.
    - means, scales: shape (n_columns,); Of the columns, indicators included.
    - coefficients: shape (len(classes), n_columns); On the standardised columns.
    - intercepts: shape (len(classes),); Margins of an average row.
    """

    n_classes: int
    classes: tuple[int, ...]
    medians: NDArray[np.float64] = field(repr=False)
    flagged: NDArray[np.int64] = field(repr=False)
    means: NDArray[np.float64] = field(repr=False)
    scales: NDArray[np.float64] = field(repr=False)
    coefficients: NDArray[np.float64] = field(repr=False)
    intercepts: NDArray[np.float64] = field(repr=False)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict shape (n_rows, n_classes); 0 for a class without training rows."""
        matrix = check_matrix(X, n_features=len(self.medians))
        columns = (_complete(matrix, self.medians, self.flagged) - self.means) / self.scales
        proba = np.zeros((len(matrix), self.n_classes))
        margins = columns @ self.coefficients.T + self.intercepts
        proba[:, self.classes] = softmax(margins, axis=1)
        return proba


def fit_logistic(
    X: ArrayLike, y: ArrayLike, *, n_classes: int, seed: int = 0
) -> _FittedLogistic:
    """Fit a multinomial logistic regression.

    Missing values become the column's training median. Each distinct set of rows with missing
    values adds one indicator column, so a modality that is absent as a block adds one. Columns
    are standardised. The ridge penalty is that of ``C = 1 / n`` for n columns that are not
    constant: under its prior a row's margin has the same spread for 50 columns and for 14,000.

    Parameters
    ----------
    X, y : array-like, shapes (n_rows, n_features) and (n_rows,)
        Training rows, NaN where missing, and their class positions.
    n_classes : int
        Number of the study's classes.
    seed : int, default=0
        Passed to the solver, which draws nothing.

    Returns
    -------
    _FittedLogistic
        The fitted model.

    Raises
    ------
    ValueError
        If the rows have a single class, or rows and labels do not fit one another.

    Examples
    --------
    >>> model = fit_logistic([[0.0], [1.0], [4.0], [5.0]], [0, 0, 2, 2], n_classes=3)
    >>> model.predict_proba([[0.0], [5.0]]).argmax(axis=1).tolist()
    [0, 2]
    """
    matrix = check_matrix(X)
    labels = check_labels(y, len(matrix), n_classes)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"The {len(labels)} training rows have {len(classes)} class(es); a logistic "
            "regression needs at least two."
        )
    medians, flagged = column_medians(matrix), _distinct_missing(matrix)
    columns = _complete(matrix, medians, flagged)
    n_varying = int((columns.max(axis=0) > columns.min(axis=0)).sum())
    means = columns.mean(axis=0)
    columns -= means  # in place: the matrix may be as large as the table
    scales = standard_deviations(columns)
    columns /= scales
    model = LogisticRegression(
        C=1 / max(n_varying, 1), tol=1e-6, max_iter=1000, random_state=seed
    ).fit(columns, labels)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(classes) == 2:  # scikit-learn gives the second class's margin over the first
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros(1), intercepts])
    for array in (medians, flagged, means, scales, coefficients, intercepts):
        array.flags.writeable = False
    return _FittedLogistic(
        n_classes=n_classes,
        classes=tuple(classes.tolist()),
        medians=medians,
        flagged=flagged,
        means=means,
        scales=scales,
        coefficients=coefficients,
        intercepts=intercepts,
    )


def _distinct_missing(X: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find the first column of each distinct set of rows with missing values."""
    missing = np.isnan(X)
    columns = np.flatnonzero(missing.any(axis=0))
    _, first = np.unique(np.packbits(missing[:, columns], axis=0), axis=1, return_index=True)
    return np.sort(columns[first])


def _complete(
    X: NDArray[np.float32], medians: NDArray[np.float64], flagged: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Impute medians, and append the indicator columns."""
    missing = np.isnan(X)
    return np.hstack([np.where(missing, medians, X), missing[:, flagged]])
