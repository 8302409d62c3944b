"""Whether probabilities mean what they say.

The expected calibration error is biased upwards: it is far from 0 for a perfectly calibrated
system when rows are few (some .09 at 134 rows, .03 at 1,336), so it never stands without
the error that a perfect system with the same probabilities would show.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.predictions import Predictions

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
