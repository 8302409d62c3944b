"""Class priors, and multinomial logistic regressions on standardised, clipped columns.

The latter are the baseline of every boosted system, and the linear part of a model
``margin = a x linear + b x trees``. A path of penalties is fitted on the same rows, each fit
from the coefficients of the one before.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from toolkit.models.checks import check_labels, check_matrix

#: Candidate multiples of C = 1 / p for p columns that vary. Under the prior of C = 1 / p a
#: row's margin has the same spread for 50 columns and for 14,000.
MULTIPLES: Final = (1, 3, 10, 30, 100)
#: Standardised values are clipped: pooled columns reach 35 standard deviations.
_CLIP: Final = 3.0
#: The prior of mixing weights is worth this many rows.
_PRIOR_ROWS: Final = 30
#: Below it, a probability counts as this much.
_FLOOR: Final = 1e-12
_BLOCK_ROWS: Final = 512
# Columns computed together: temporary copies stay small beside a wide or long table.
_BLOCK_COLUMNS: Final = 1024
_BLOCK_VALUES: Final = 2**25


def column_blocks(n_rows: int, n_features: int) -> Iterator[slice]:
    """Cut the positions of columns into blocks."""
    # One column alone would be summed in another order.
    width = min(_BLOCK_COLUMNS, max(_BLOCK_VALUES // max(n_rows, 1), 16))
    for start in range(0, n_features, width):
        yield slice(start, min(start + width, n_features))


def standard_deviations(X: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute each column's population standard deviation; 1 in a constant or empty column."""
    scales = np.ones(X.shape[1])
    for block in column_blocks(*X.shape):
        values = X[:, block].astype(np.float64)
        # Rounding gives a constant column a tiny deviation; its extremes show that it is none.
        varies = np.fmax.reduce(values, axis=0) > np.fmin.reduce(values, axis=0)
        values[:, ~varies] = 0.0  # NumPy warns of columns without any value
        scales[block][varies] = np.nanstd(values, axis=0)[varies]
    return scales


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """A fitted multinomial logistic regression.

    A column's part of a margin is a function of the column alone, ``w (z - mean z)`` of its
    standardised, clipped value z. A missing value counts as mean z: its part is 0.

    - classes: The classes that the training rows had.
    - means, scales: shape (n_features,); ``z = clip((x - mean) * scale)``; the scale of a
      constant column is 0.
    - centre: shape (n_features,); Mean z of the training rows, which clipping moves from 0.
    - coefficients: shape (len(classes), n_features); They sum to 0 over the classes.
    - base: shape (len(classes),); Margins of a row whose z are all at their mean.
    - flagged: Columns whose missing values have an effect of their own.
    - effects: shape (len(classes), len(flagged)); That effect on the margins.
    """

    n_classes: int
    classes: tuple[int, ...]
    means: NDArray[np.float64] = field(repr=False)
    scales: NDArray[np.float64] = field(repr=False)
    centre: NDArray[np.float64] = field(repr=False)
    coefficients: NDArray[np.float64] = field(repr=False)
    base: NDArray[np.float64] = field(repr=False)
    flagged: NDArray[np.int64] = field(repr=False)
    effects: NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        """Keep the arrays from being written to."""
        for each in fields(self):
            if isinstance(array := getattr(self, each.name), np.ndarray):
                array.flags.writeable = False

    def margins(self, X: ArrayLike) -> NDArray[np.float64]:
        """Compute margins of the classes trained on, up to a shift common to all classes.

        `X` (n_rows, n_features) has the order of training, NaN where missing.
        """
        matrix = check_matrix(X, n_features=len(self.means))
        margins = np.tile(self.base, (len(matrix), 1))
        for start in range(0, len(matrix), _BLOCK_ROWS):
            rows = matrix[start : start + _BLOCK_ROWS]
            margins[start : start + len(rows)] += self.centred(rows) @ self.coefficients.T
        return margins + np.isnan(matrix[:, self.flagged]) @ self.effects.T

    def centred(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute ``z - mean z``, 0 where the value is missing.

        Times a class's coefficients these are the columns' contributions to its margin, where
        no column is flagged.
        """
        z = _standardise(X, self.means, self.scales)
        z -= self.centre
        z[np.isnan(z)] = 0
        return z

    def sum_by(
        self, X: NDArray[np.float32], belongs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Add up the columns' contributions by group: shape (n_rows, len(classes), n_groups).

        `belongs` (n_features, n_groups) is 1 where a column belongs to a group, else 0.
        """
        sums = np.zeros((len(X), len(self.classes), belongs.shape[1]))
        for start in range(0, len(X), _BLOCK_ROWS):
            z = self.centred(X[start : start + _BLOCK_ROWS])
            for k, own in enumerate(self.coefficients):
                sums[start : start + len(z), k] = z @ (own[:, None] * belongs)
        return sums

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict probabilities (n_rows, n_classes), 0 for a class without training rows."""
        margins = self.margins(X)
        proba = np.zeros((len(margins), self.n_classes))
        proba[:, self.classes] = softmax(margins, axis=1)
        return proba

    def to_arrays(self) -> tuple[NDArray[np.float64], list[float]]:
        """Give the columns' numbers, shape (3 + len(classes), n_features), and ``base``.

        A model with flagged columns has no such form.
        """
        rows = [self.means, self.scales, self.centre, *self.coefficients]
        return np.array(rows), self.base.tolist()

    @classmethod
    def of_arrays(
        cls,
        numbers: NDArray[Any],
        base: Sequence[float],
        *,
        n_classes: int,
        classes: Sequence[int],
        n_features: int,
    ) -> Self:
        """Read back the result of :meth:`to_arrays`: margins are the same to the last bit.

        Shapes that do not fit, or numbers that are not finite, raise ValueError.
        """
        n_trained = len(classes)
        shape = (3 + n_trained, n_features)
        if numbers.dtype != np.float64 or numbers.shape != shape:
            raise ValueError(
                f"its linear part has shape {numbers.shape} and type {numbers.dtype}; expected "
                f"{shape} and float64"
            )
        means, scales, centre, *coefficients = numbers
        finite = np.isfinite(numbers).all() and np.isfinite(base).all()
        if not finite or len(base) != n_trained or (scales < 0).any():
            raise ValueError("its linear part holds numbers that no fit gives")
        return cls(
            n_classes=n_classes,
            classes=tuple(classes),
            means=means,
            scales=scales,
            centre=centre,
            coefficients=np.array(coefficients),
            base=np.array(base, dtype=np.float64),
            flagged=np.empty(0, dtype=np.int64),
            effects=np.empty((n_trained, 0)),
        )


class LinearPath:
    """Logistic regressions of the same rows under several penalties.

    Rows of a single class, or rows and labels that do not fit one another, raise ValueError.

    - X, y: shapes (n_rows, n_features), NaN where missing, and (n_rows,), class positions.
    - weights: shape (n_rows,); Row weights of mean 1.
    - indicators: Whether each distinct set of rows with missing values gets an effect of its
      own, so that a modality that is absent as a block has one.

    Examples
    --------
    >>> path = LinearPath([[0.0], [1.0], [4.0], [5.0]], [0, 0, 2, 2], n_classes=3)
    >>> path.fit(1).predict_proba([[0.0], [5.0]]).argmax(axis=1).tolist()
    [0, 2]
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        n_classes: int,
        weights: NDArray[np.float64] | None = None,
        indicators: bool = False,
    ) -> None:
        matrix = check_matrix(X)
        self._y = check_labels(y, len(matrix), n_classes)
        self._classes = np.unique(self._y)
        if len(self._classes) < 2:
            raise ValueError(
                f"The {len(self._y)} training rows have {len(self._classes)} class(es); a "
                "logistic regression needs at least two."
            )
        self._n_classes, self._weights = n_classes, weights
        missing = np.isnan(matrix)
        n_values = np.maximum(len(matrix) - missing.sum(axis=0), 1)
        self._means, self._scales = _moments(matrix, missing, n_values)
        flagged = _distinct_missing(missing) if indicators else np.empty(0, dtype=np.int64)
        self._flagged = flagged
        n_features = matrix.shape[1]
        # Indicators stand behind the columns from the start: no copy of a wide table.
        self._z = np.empty((len(matrix), n_features + len(flagged)), dtype=np.float32)
        z = self._z[:, :n_features]
        for start in range(0, len(matrix), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            z[rows] = _standardise(matrix[rows], self._means, self._scales)
        self._centre = z.sum(axis=0, dtype=np.float64, where=~missing) / n_values
        np.copyto(z, self._centre.astype(np.float32), where=missing)
        self._z[:, n_features:] = missing[:, flagged]
        # As accurate and several times as quick in float32; one C after the other starts from
        # the coefficients of the one before.
        self._model = LogisticRegression(tol=1e-5, max_iter=1000, warm_start=True)

    def fit(self, multiple: float) -> LinearModel:
        """Fit with ``C = multiple / p`` for p columns that vary, indicators included."""
        n_varying = int((self._scales > 0).sum()) + len(self._flagged)
        self._model.set_params(C=multiple / max(n_varying, 1))
        with warnings.catch_warnings():
            # Float32 may keep the gradient a little above the tolerance.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._z, self._y, sample_weight=self._weights)
        coefficients = self._model.coef_.astype(np.float64)
        intercepts = self._model.intercept_.astype(np.float64)
        # Of two classes scikit-learn gives the second one's margin over the first.
        if len(self._classes) == 2:
            coefficients = np.vstack([-coefficients / 2, coefficients / 2])
            intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
        n_features = len(self._means)
        own = coefficients[:, :n_features] - coefficients[:, :n_features].mean(axis=0)
        return LinearModel(
            n_classes=self._n_classes,
            classes=tuple(self._classes.tolist()),
            means=self._means,
            scales=self._scales,
            centre=self._centre,
            coefficients=own,
            base=intercepts - intercepts.mean() + own @ self._centre,
            flagged=self._flagged,
            effects=coefficients[:, n_features:],
        )


def weigh_margins(
    members: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Find the weights (n_members,), from 0, of a sum of margins that minimise the log-loss.

    Gives them and the penalised loss; equal weights without any row. A quadratic prior pulls
    the weights to the plain mean; it is worth 30 rows, which matters for few rows alone.
    `members` (n_members, n_rows, n_classes) are out-of-fold probabilities. A row whose true
    class has probability 0 in one of them is left out: its model was trained without that
    class.
    """
    equal = np.full(len(members), 1 / len(members))
    known = (members[:, np.arange(len(labels)), labels] > 0).all(axis=0)
    margins, truth = _log_margins(members[:, known]), labels[known]
    n = len(truth)
    if n == 0:
        return equal, 0.0
    rows = np.arange(n)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = log_softmax(np.tensordot(w, margins, 1), axis=1)
        gaps = np.exp(logs)
        gaps[rows, truth] -= 1
        pull = _PRIOR_ROWS / n * (w - equal)
        value = -logs[rows, truth].mean() + pull @ (w - equal)
        return float(value), np.tensordot(margins, gaps, 2) / n + 2 * pull

    found = minimize(loss, equal, jac=True, bounds=[(0, None)] * len(equal))
    return np.asarray(found.x), float(found.fun)


def _log_margins(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take logarithms of probabilities, at least 1e-12, less their mean over the last axis.

    Their softmax are the probabilities.
    """
    logs = np.log(np.maximum(proba, _FLOOR))
    return np.asarray(logs - logs.mean(axis=-1, keepdims=True))


def mix_margins(
    weights: NDArray[np.float64] | Sequence[float], members: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute probabilities (n_rows, n_classes) of weighted margins.

    Those of a class that no member (n_members, n_rows, n_classes) gives any probability are 0.
    """
    mixed = np.tensordot(np.asarray(weights), _log_margins(members), 1)
    mixed[~(members > 0).any(axis=0)] = -np.inf
    return np.asarray(softmax(mixed, axis=1))


def _moments(
    X: NDArray[np.float32], missing: NDArray[np.bool_], n_values: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute means and reciprocal standard deviations; the latter 0 in a constant column."""
    means = X.sum(axis=0, dtype=np.float64, where=~missing) / n_values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without any value
        varies = np.fmax.reduce(X, axis=0) > np.fmin.reduce(X, axis=0)
    return means, np.where(varies, 1 / standard_deviations(X), 0.0)


def _standardise(
    X: NDArray[np.float32], means: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standardise and clip; missing values stay missing."""
    z = X - means
    z *= scales
    return np.asarray(np.clip(z, -_CLIP, _CLIP, out=z))


def _distinct_missing(missing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find the first column of each distinct set of some, not all, rows without values."""
    columns = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))
    _, first = np.unique(np.packbits(missing[:, columns], axis=0), axis=1, return_index=True)
    return np.sort(columns[first])


def class_priors(y: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Compute each class's share of the training rows, at least one.

    Parameters
    ----------
    y : array-like of int, shape (n_rows,)
        Positions of the classes.
    n_classes : int

    Returns
    -------
    ndarray of float64, shape (n_classes,)
        Their ``argmax`` is the majority class, and the lowest of equal ones.

    Examples
    --------
    >>> class_priors([0, 2, 2, 2], n_classes=4).tolist()
    [0.25, 0.0, 0.75, 0.0]
    """
    labels = check_labels(y, len(np.atleast_1d(y)), n_classes)
    if len(labels) == 0:
        raise ValueError("Cannot take class shares of no rows.")
    return np.bincount(labels, minlength=n_classes) / len(labels)
