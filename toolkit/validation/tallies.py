"""Sums over rows that every metric is a function of, taken group by group.

Taken once for every speaker, they give the pooled score, the score without one speaker and
the score after swapping speakers between two systems, all by adding and subtracting.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.calibration import N_BINS, confidence_bins
from toolkit.validation.confusion import class_counts, confusion_matrices, ratio

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CLIP: Final = 1e-6
"""Smallest probability that the log-loss believes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to sum over, numbered by group.

    Parameters
    ----------
    labels, decided : ndarray of int64, shape (n,)
        True and predicted class positions.
    proba : ndarray of float64, shape (n, n_classes)
        Probabilities; their width is the number of classes.
    groups : ndarray of int64, shape (n,)
        Group number of every row.
    n_groups : int
        Number of groups.
    """

    labels: Codes
    decided: Codes
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
        What the scores of :mod:`toolkit.validation.confusion` take.
    """
    n_classes = rows.proba.shape[1]
    return class_counts(
        confusion_matrices(rows.labels, rows.decided, n_classes, rows.groups, rows.n_groups)
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
    binned = Rows(rows.labels, rows.decided, rows.proba, cells, rows.n_groups * N_BINS)
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
