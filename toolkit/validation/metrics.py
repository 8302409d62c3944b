"""The metrics: what each is called, which way is better, and how it is computed.

F1-micro comes first because it is what studies of emotion report; where every row has one
label it is the accuracy. Macro averages of pooled rows are over all classes of the study.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.predictions import Predictions

Floats = NDArray[np.float64]


def confusion_matrices(
    labels: NDArray[np.int64],
    y_pred: NDArray[np.int64],
    n_classes: int,
    groups: NDArray[np.int64] | None = None,
    n_groups: int = 1,
) -> NDArray[np.int64]:
    """Count true against predicted classes, group by group.

    Parameters
    ----------
    labels, y_pred : ndarray of int64, shape (n,)
        True and predicted class positions.
    n_classes : int
        Number of classes.
    groups : ndarray of int64, shape (n,), optional
        Group number of every row; all rows are one group by default.
    n_groups : int, default=1
        Number of groups.

    Returns
    -------
    ndarray of int64, shape (n_groups, n_classes, n_classes)
        Counts, true classes in rows.

    Examples
    --------
    >>> import numpy as np
    >>> confusion_matrices(np.array([0, 0, 1]), np.array([0, 1, 1]), n_classes=2)
    array([[[1, 1],
            [0, 1]]])
    """
    numbers = np.zeros_like(labels) if groups is None else groups
    cells = (numbers * n_classes + labels) * n_classes + y_pred
    counts = np.bincount(cells, minlength=n_groups * n_classes**2)
    return counts.astype(np.int64).reshape(n_groups, n_classes, n_classes)


def class_counts(matrices: NDArray[np.int64]) -> Floats:
    """Reduce confusion matrices to what scores need.

    Parameters
    ----------
    matrices : ndarray of int64, shape (..., n_classes, n_classes)
        Confusion matrices, true classes in rows.

    Returns
    -------
    ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows of every class.

    Examples
    --------
    >>> import numpy as np
    >>> class_counts(np.array([[3, 1], [0, 4]]))
    array([[3., 4.],
           [4., 4.],
           [3., 5.]])
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    parts = [hits, matrices.sum(axis=-1), matrices.sum(axis=-2)]
    return np.stack(parts, axis=-2).astype(np.float64)


def class_recall(counts: Floats) -> Floats:
    """Share of the rows of every class that were found.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        Recall of every class.
    """
    return ratio(counts[..., 0, :], counts[..., 1, :])


def class_precision(counts: Floats) -> Floats:
    """Share of the rows given to every class that belong to it.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        Precision of every class.
    """
    return ratio(counts[..., 0, :], counts[..., 2, :])


def class_f1(counts: Floats) -> Floats:
    """Harmonic mean of precision and recall of every class.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (..., n_classes)
        F1 of every class.
    """
    return ratio(2 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def micro_f1(counts: Floats) -> Floats:
    """Share of the rows that were predicted right: F1-micro where a row has one label.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        F1-micro, equal to the accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> float(micro_f1(class_counts(np.array([[3, 1], [0, 4]]))))
    0.875
    """
    return ratio(counts[..., 0, :].sum(axis=-1), counts[..., 1, :].sum(axis=-1))


def macro_f1(counts: Floats, *, present_only: bool = False) -> Floats:
    """Mean of the classes' F1.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Macro-F1.
    """
    return _class_mean(class_f1(counts), counts, present_only=present_only)


def unweighted_recall(counts: Floats, *, present_only: bool = False) -> Floats:
    """Mean of the classes' recall, known in speech as UAR.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Unweighted average recall.

    Examples
    --------
    A speaker who never shows the third class is not punished for it:

    >>> import numpy as np
    >>> counts = class_counts(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    >>> float(unweighted_recall(counts, present_only=True))
    0.625
    """
    return _class_mean(class_recall(counts), counts, present_only=present_only)


def weighted_f1(counts: Floats) -> Floats:
    """Mean of the classes' F1, weighted by their rows.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Weighted F1.
    """
    rows = counts[..., 1, :]
    return ratio((class_f1(counts) * rows).sum(axis=-1), rows.sum(axis=-1))


def matthews_correlation(counts: Floats) -> Floats:
    """Correlation of true and predicted classes, 0 where either is constant.

    Parameters
    ----------
    counts : ndarray of float64, shape (..., 3, n_classes)
        Hits, true rows and given rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Coefficient, from -1 to 1.

    References
    ----------
    Gorodkin, J. (2004). Comparing two K-category assignments by a K-category correlation
    coefficient. Computational Biology and Chemistry 28, equation 8.

    Examples
    --------
    >>> import numpy as np
    >>> float(matthews_correlation(class_counts(np.array([[6, 2], [1, 3]]))))
    0.478
    """
    hits, true, given = (counts[..., part, :] for part in range(3))
    n = true.sum(axis=-1)
    covariance = n * hits.sum(axis=-1) - (true * given).sum(axis=-1)
    spread_true = n**2 - (true**2).sum(axis=-1)
    spread_given = n**2 - (given**2).sum(axis=-1)
    return ratio(covariance, np.sqrt(spread_true * spread_given))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, taking 0 where the denominator is not above 0.

    Parameters
    ----------
    numerator, denominator : ndarray of float64
        Of one shape.
    """
    quotient = np.zeros(np.shape(numerator))
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def _class_mean(per_class: Floats, counts: Floats, *, present_only: bool) -> Floats:
    if not present_only:
        return np.asarray(per_class.mean(axis=-1))
    chosen = (counts[..., 1, :] > 0).astype(np.float64)
    return ratio((per_class * chosen).sum(axis=-1), chosen.sum(axis=-1))


N_BINS: Final = 15
N_DRAWS: Final = 200


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    - low, high: The bin holds confidences above `low` up to and including `high`.
    - n: Rows in the bin.
    - confidence: Mean probability of the most probable class; the bin's middle where it is
      empty.
    - accuracy: Share of those rows whose most probable class is right; None where it is empty.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float | None


def confidence_bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort confidences into 15 equal bins (m / 15, (m + 1) / 15].

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        Probabilities above 0.

    Returns
    -------
    ndarray of int64, shape (n,)
        Bin of every row.

    References
    ----------
    Guo, C. et al. (2017). On calibration of modern neural networks. ICML, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> confidence_bins(np.array([0.25, 0.5, 1.0])).tolist()
    [3, 7, 14]
    """
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


def reliability_bins(predictions: Predictions) -> list[ReliabilityBin]:
    """Compare confidence and accuracy of the most probable class, bin by bin.

    Parameters
    ----------
    predictions : Predictions
        The system to look at.

    Returns
    -------
    list of ReliabilityBin
        15 bins of equal width, empty ones included.
    """
    confidence = predictions.proba.max(axis=1)
    right = predictions.proba.argmax(axis=1) == predictions.labels
    bins = confidence_bins(confidence)
    rows = []
    for m in range(N_BINS):
        here = bins == m
        n = int(here.sum())
        rows.append(
            ReliabilityBin(
                low=m / N_BINS,
                high=(m + 1) / N_BINS,
                n=n,
                confidence=float(confidence[here].mean()) if n else (m + 0.5) / N_BINS,
                accuracy=float(right[here].mean()) if n else None,
            )
        )
    return rows


def perfect_calibration_errors(
    proba: NDArray[np.float64], *, n_draws: int = N_DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Draw the expected calibration error of a perfectly calibrated system.

    Parameters
    ----------
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities, taken to be the truth: the most probable class of a row is right with
        just its probability.

    Returns
    -------
    ndarray of float64, shape (n_draws,)
        One error a draw.

    Examples
    --------
    With few rows even a perfect system looks wrong:

    >>> import numpy as np
    >>> few, many = np.full((50, 2), 0.5), np.full((5000, 2), 0.5)
    >>> errors = [perfect_calibration_errors(p).mean() for p in (few, many)]
    >>> [round(float(error), 3) for error in errors]
    [0.060, 0.006]
    """
    rng = np.random.default_rng(seed)
    confidence = proba.max(axis=1)
    bins = confidence_bins(confidence)
    errors = np.empty(n_draws)
    for draw in range(n_draws):
        right = rng.random(len(confidence)) < confidence
        gaps = np.bincount(bins, weights=right - confidence, minlength=N_BINS)
        errors[draw] = np.abs(gaps).sum() / len(confidence)
    return errors


Codes = NDArray[np.int64]

CLIP: Final = 1e-6
"""Smallest probability that the log-loss believes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to sum over, numbered by group.

    Parameters
    ----------
    labels, y_pred : ndarray of int64, shape (n,)
        True and predicted class positions.
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities; their width is the number of classes.
    groups : ndarray of int64, shape (n,)
        Group number of every row.
    n_groups : int
        Number of groups.
    """

    labels: Codes
    y_pred: Codes
    proba: Floats
    groups: Codes
    n_groups: int

    def sum(self, values: Floats) -> Floats:
        """Add up one value a row.

        Parameters
        ----------
        values : ndarray, shape (n,)
            What to add up.

        Returns
        -------
        ndarray of float64, shape (n_groups,)
            Sum of every group.
        """
        sums = np.zeros(self.n_groups)
        np.add.at(sums, self.groups, values)
        return sums


def tally_counts(rows: Rows) -> Floats:
    """Count hits, true rows and given rows of every class.

    Returns
    -------
    ndarray of float64, shape (n_groups, 3, n_classes)
        What the scores of :mod:`toolkit.validation.metrics` take.
    """
    n_classes = rows.proba.shape[1]
    return class_counts(
        confusion_matrices(rows.labels, rows.y_pred, n_classes, rows.groups, rows.n_groups)
    )


def tally_log_loss(rows: Rows) -> Floats:
    """Sum up the log-loss.

    Returns
    -------
    ndarray of float64, shape (n_groups, 2)
        Summed loss and number of rows.
    """
    return _with_number(rows, row_log_loss(rows.labels, rows.proba))


def tally_brier(rows: Rows) -> Floats:
    """Sum up the Brier score.

    Returns
    -------
    ndarray of float64, shape (n_groups, 2)
        Summed loss and number of rows.
    """
    return _with_number(rows, row_brier(rows.labels, rows.proba))


def tally_gaps(rows: Rows) -> Floats:
    """Sum up, bin of confidence by bin, how far being right is from being confident.

    The confidence is that of the most probable class, whatever was decided: class offsets
    change decisions and not what the system believes.

    Returns
    -------
    ndarray of float64, shape (n_groups, n_bins, 2)
        Summed gap and number of rows.
    """
    confidence = rows.proba.max(axis=1)
    right = rows.proba.argmax(axis=1) == rows.labels
    cells = rows.groups * N_BINS + confidence_bins(confidence)
    binned = Rows(rows.labels, rows.y_pred, rows.proba, cells, rows.n_groups * N_BINS)
    return _with_number(binned, right - confidence).reshape(rows.n_groups, N_BINS, 2)


def row_log_loss(labels: Codes, proba: Floats) -> Floats:
    """Give minus the log-probability of every row's true class.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True class positions.
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities; raised to 1e-6 where lower, then renormalised, so that one certain
        mistake costs 13.8 and not infinity.

    Returns
    -------
    ndarray of float64, shape (n,)
        Loss of every row, in nats.
    """
    clipped = np.maximum(proba, CLIP)
    believed: Floats = clipped[np.arange(len(labels)), labels] / clipped.sum(axis=1)
    return -np.log(believed)


def row_brier(labels: Codes, proba: Floats) -> Floats:
    """Give the squared distance of every row's probabilities from its true class.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True class positions.
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities.

    Returns
    -------
    ndarray of float64, shape (n,)
        Sum over classes of squared differences, from 0 to 2.

    References
    ----------
    Brier, G. W. (1950). Verification of forecasts expressed in terms of probability. Monthly
    Weather Review 78, equation 2.
    """
    gaps: Floats = proba - np.eye(proba.shape[1])[labels]
    distances: Floats = (gaps**2).sum(axis=1)
    return distances


def mean_loss(tally: Floats) -> Floats:
    """Divide summed losses by the number of rows.

    Parameters
    ----------
    tally : ndarray of float64, shape (..., 2)
        Summed loss and number of rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Loss per row.
    """
    return ratio(tally[..., 0], tally[..., 1])


def calibration_error(tally: Floats) -> Floats:
    """Weigh the gap of every bin by its share of the rows.

    Parameters
    ----------
    tally : ndarray of float64, shape (..., n_bins, 2)
        Summed gap and number of rows.

    Returns
    -------
    ndarray of float64, shape (...)
        Expected calibration error.
    """
    return ratio(np.abs(tally[..., 0]).sum(axis=-1), tally[..., 1].sum(axis=-1))


def _with_number(rows: Rows, loss: Floats) -> Floats:
    return np.stack([rows.sum(loss), rows.sum(np.ones_like(loss))], axis=1)


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that says how good predictions are.

    Parameters
    ----------
    name : str
        Key in :data:`METRICS` and in every file, for example ``"f1_micro"``.
    title : str
        Name for readers, for example ``"F1-micro"``.
    direction : {"maximize", "minimize"}
        Which way is better.
    low, high : float
        Range, to which intervals are clipped.
    tally : callable
        Sums over :class:`~toolkit.validation.metrics.Rows`, first axis the group.
    value : callable
        The metric of tallies ``(..., *shape)``, shape ``(...)``, over all the classes.
    local : callable or None
        The metric of one fold or speaker, over the classes that occur there; None where a
        single speaker has too few rows for it to mean anything.
    """

    name: str
    title: str
    direction: Literal["maximize", "minimize"]
    low: float
    high: float
    tally: Callable[[Rows], Floats]
    value: Callable[[Floats], Floats]
    local: Callable[[Floats], Floats] | None

    def compute(self, labels: Codes, proba: Floats, y_pred: Codes | None = None) -> float:
        """Score rows pooled together.

        Parameters
        ----------
        labels : ndarray of int64, shape (n,)
            True class positions.
        proba : ndarray of float64, shape (n, n_classes)
            Probabilities; their width is the number of classes.
        y_pred : ndarray of int64, shape (n,), optional
            Predicted class positions; the most probable class by default.

        Returns
        -------
        float
            The metric over all rows and all classes.

        Raises
        ------
        ValueError
            If there are no rows.

        Examples
        --------
        >>> import numpy as np
        >>> labels, proba = np.array([0, 0, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0, 1]])
        >>> METRICS["f1_micro"].compute(labels, proba)
        0.667
        >>> METRICS["log_loss"].compute(labels, proba)
        0.380
        """
        if len(labels) == 0:
            raise ValueError(f"No rows to score by {self.name}; expected at least one.")
        given = proba.argmax(axis=1) if y_pred is None else y_pred
        rows = Rows(labels, given, proba, np.zeros_like(labels), 1)
        return float(self.value(self.tally(rows)[0]))


_macro_f1_present = partial(macro_f1, present_only=True)
_recall_present = partial(unweighted_recall, present_only=True)
_CONFUSION = (
    ("f1_micro", "F1-micro", 0, micro_f1, micro_f1),
    ("f1_macro", "F1-macro", 0, macro_f1, _macro_f1_present),
    ("uar", "UAR", 0, unweighted_recall, _recall_present),
    ("f1_weighted", "F1-weighted", 0, weighted_f1, weighted_f1),
    ("mcc", "MCC", -1, matthews_correlation, matthews_correlation),
)
_LOSSES = (
    ("log_loss", "Log-loss", np.inf, tally_log_loss, mean_loss, mean_loss),
    ("brier", "Brier score", 2, tally_brier, mean_loss, mean_loss),
    ("ece", "Calibration error", 1, tally_gaps, calibration_error, None),
)
METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        name: Metric(name, title, "maximize", low, 1, tally_counts, value, local)
        for name, title, low, value, local in _CONFUSION
    }
    | {
        name: Metric(name, title, "minimize", 0, high, tally, value, local)
        for name, title, high, tally, value, local in _LOSSES
    }
)
"""Every metric by name, in the order of the tables."""

CLASS_METRICS: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {
        "recall": class_recall,
        "precision": class_precision,
        "f1": class_f1,
    }
)
"""What is said of every class: functions of confusion counts."""
