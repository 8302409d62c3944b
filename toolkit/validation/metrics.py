"""The metrics: their names, their better direction, and their formulas.

F1-micro comes first because studies of emotion report it; where every row has one label it is
the accuracy. Macro averages of pooled rows are over all classes of the study.

A metric is computed in two steps: sums over the rows of every group (a tally), and a function
of these sums. So pooled scores, jackknife and permutation tests need one pass over the rows.
`counts` is the tally of the first five metrics, shape (..., 3, n_classes): hits, true rows and
predicted rows of every class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.models.boosters import row_log_loss
from toolkit.validation.predictions import Predictions

Floats = NDArray[np.float64]
_Codes = NDArray[np.int64]

_N_BINS: Final = 15


def confusion_matrices(
    labels: NDArray[np.int64],
    y_pred: NDArray[np.int64],
    n_classes: int,
    groups: NDArray[np.int64] | None = None,
    n_groups: int = 1,
) -> NDArray[np.int64]:
    """Count true against predicted classes (n,): shape (n_groups, n_classes, n_classes).

    True classes are in rows. `groups` (n,) are the group numbers of the rows, by default one.
    """
    numbers = np.zeros_like(labels) if groups is None else groups
    # One number per cell of all matrices, so that a single bincount fills them.
    cells = (numbers * n_classes + labels) * n_classes + y_pred
    counts = np.bincount(cells, minlength=n_groups * n_classes**2)
    return counts.astype(np.int64).reshape(n_groups, n_classes, n_classes)


def _class_counts(matrices: NDArray[np.int64]) -> Floats:
    """Reduce confusion matrices (true classes in rows) to counts."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    parts = [hits, matrices.sum(axis=-1), matrices.sum(axis=-2)]
    return np.stack(parts, axis=-2).astype(np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide arrays of one shape; the result is 0 where the denominator is not above 0."""
    quotient = np.zeros(np.shape(numerator))
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def _recall(counts: Floats) -> Floats:
    return ratio(counts[..., 0, :], counts[..., 1, :])


def _precision(counts: Floats) -> Floats:
    return ratio(counts[..., 0, :], counts[..., 2, :])


def _f1(counts: Floats) -> Floats:
    return ratio(2 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def _micro_f1(counts: Floats) -> Floats:
    # Where a row has one label, there are as many false positives as false negatives.
    return ratio(counts[..., 0, :].sum(axis=-1), counts[..., 1, :].sum(axis=-1))


def _class_mean(
    counts: Floats, per_class: Callable[[Floats], Floats], *, present_only: bool = False
) -> Floats:
    """Average over the classes, all of them or those with true rows."""
    values = per_class(counts)
    if not present_only:
        return np.asarray(values.mean(axis=-1))
    present = (counts[..., 1, :] > 0).astype(np.float64)
    return ratio((values * present).sum(axis=-1), present.sum(axis=-1))


def _weighted_f1(counts: Floats) -> Floats:
    rows = counts[..., 1, :]
    return ratio((_f1(counts) * rows).sum(axis=-1), rows.sum(axis=-1))


def _matthews_correlation(counts: Floats) -> Floats:
    """Correlate true and predicted classes; 0 where either is constant.

    Gorodkin (2004), Comparing two K-category assignments by a K-category correlation
    coefficient, Computational Biology and Chemistry 28, equation 8.
    """
    hits, true, predicted = (counts[..., part, :] for part in range(3))
    n = true.sum(axis=-1)
    covariance = n * hits.sum(axis=-1) - (true * predicted).sum(axis=-1)
    spread_true = n**2 - (true**2).sum(axis=-1)
    spread_predicted = n**2 - (predicted**2).sum(axis=-1)
    return ratio(covariance, np.sqrt(spread_true * spread_predicted))


def _confidence_bins(confidence: Floats) -> _Codes:
    """Sort confidences into 15 equal bins (m / 15, (m + 1) / 15].

    Guo et al. (2017), On calibration of modern neural networks, ICML, section 2.
    """
    return np.clip(np.ceil(confidence * _N_BINS).astype(np.int64) - 1, 0, _N_BINS - 1)


def reliability_bins(predictions: Predictions) -> Floats:
    """Give mean confidence and accuracy of the most probable class: shape (2, n_bins).

    At most 10 bins of at least 40 rows, by increasing confidence; a single bin below 80 rows.
    Rows of the same confidence share a bin. Bins of equal width, as those of the calibration
    error, hold few rows where confidences are rare: a curve through them is noise.
    """
    confidence = predictions.proba.max(axis=1)
    right = predictions.proba.argmax(axis=1) == predictions.labels
    n_bins = min(10, max(1, len(confidence) // 40))
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins)
    numbers = np.searchsorted(edges, confidence)
    bins = (numbers == m for m in np.unique(numbers))
    return np.array([(confidence[own].mean(), right[own].mean()) for own in bins]).T


def perfect_calibration_errors(proba: Floats, *, n_draws: int = 200, seed: int = 0) -> Floats:
    """Draw calibration errors of a system that is right as often as it is confident."""
    # Only whether the most probable class is right matters: no label needs to be drawn.
    rng = np.random.default_rng(seed)
    confidence = proba.max(axis=1)
    bins = _confidence_bins(confidence)
    errors = np.empty(n_draws)
    for draw in range(n_draws):
        right = rng.random(len(confidence)) < confidence
        gaps = np.bincount(bins, weights=right - confidence, minlength=_N_BINS)
        errors[draw] = np.abs(gaps).sum() / len(confidence)
    return errors


@dataclass(frozen=True, slots=True)
class GroupedRows:
    """Rows to sum over, with the group number of every row; `proba` has a column per class."""

    labels: _Codes
    y_pred: _Codes
    proba: Floats
    groups: _Codes
    n_groups: int

    def sum_losses(self, loss: Floats) -> Floats:
        """Sum a loss per row, shape (n,), and count the rows: shape (n_groups, 2)."""
        sums = np.zeros((self.n_groups, 2))
        np.add.at(sums[:, 0], self.groups, loss)
        np.add.at(sums[:, 1], self.groups, 1.0)
        return sums


def _tally_counts(rows: GroupedRows) -> Floats:
    n_classes = rows.proba.shape[1]
    return _class_counts(
        confusion_matrices(rows.labels, rows.y_pred, n_classes, rows.groups, rows.n_groups)
    )


def _tally_log_loss(rows: GroupedRows) -> Floats:
    return rows.sum_losses(row_log_loss(rows.labels, rows.proba))


def _tally_brier(rows: GroupedRows) -> Floats:
    """Sum squared distances of probabilities from the true class, each from 0 to 2.

    Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather
    Review 78, equation 2.
    """
    gaps: Floats = rows.proba - np.eye(rows.proba.shape[1])[rows.labels]
    return rows.sum_losses((gaps**2).sum(axis=1))


def _tally_gaps(rows: GroupedRows) -> Floats:
    """Sum the difference of accuracy and confidence per bin, shape (n_groups, n_bins, 2).

    The confidence is that of the most probable class, not of the predicted one: class offsets
    change predictions, not probabilities.
    """
    confidence = rows.proba.max(axis=1)
    right = rows.proba.argmax(axis=1) == rows.labels
    cells = rows.groups * _N_BINS + _confidence_bins(confidence)
    binned = GroupedRows(rows.labels, rows.y_pred, rows.proba, cells, rows.n_groups * _N_BINS)
    return binned.sum_losses(right - confidence).reshape(rows.n_groups, _N_BINS, 2)


def _mean_loss(tally: Floats) -> Floats:
    return ratio(tally[..., 0], tally[..., 1])


def _calibration_error(tally: Floats) -> Floats:
    """Weight the gap of every bin by its share of the rows."""
    return ratio(np.abs(tally[..., 0]).sum(axis=-1), tally[..., 1].sum(axis=-1))


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that scores predictions.

    - name: Key in :data:`METRICS` and in every file, for example ``"f1_micro"``.
    - title: Name for readers, for example ``"F1-micro"``.
    - value: The metric of tallies ``(..., *shape)``, shape ``(...)``, over all the classes.
    - local: The metric of one fold or speaker, over the classes that occur there; None where a
      single speaker has too few rows for it to mean anything.
    - direction: The better one.
    - low, high: Range, to which intervals are clipped.
    - tally: Sums over :class:`~toolkit.validation.metrics.GroupedRows`, first axis the group.
    """

    name: str
    title: str
    value: Callable[[Floats], Floats]
    local: Callable[[Floats], Floats] | None
    direction: Literal["maximize", "minimize"] = "maximize"
    low: float = 0
    high: float = 1
    tally: Callable[[GroupedRows], Floats] = _tally_counts

    @property
    def needs_proba(self) -> bool:
        """Whether it reads probabilities and not the decisions alone."""
        return self.tally is not _tally_counts

    def compute(self, labels: _Codes, proba: Floats, y_pred: _Codes | None = None) -> float:
        """Score rows pooled together, over all classes; no rows raise ValueError.

        `labels` and `y_pred` (n,) are positions, the latter by default the most probable;
        `proba` has shape (n, n_classes).
        """
        if len(labels) == 0:
            raise ValueError(f"No rows to score by {self.name}; expected at least one.")
        chosen = proba.argmax(axis=1) if y_pred is None else y_pred
        rows = GroupedRows(labels, chosen, proba, np.zeros_like(labels), 1)
        return float(self.value(self.tally(rows)[0]))


_macro_f1 = partial(_class_mean, per_class=_f1)
_uar = partial(_class_mean, per_class=_recall)
_loss = partial(Metric, value=_mean_loss, local=_mean_loss, direction="minimize")
_ALL = (
    Metric("f1_micro", "F1-micro", _micro_f1, _micro_f1),
    Metric("f1_macro", "F1-macro", _macro_f1, partial(_macro_f1, present_only=True)),
    Metric("uar", "UAR", _uar, partial(_uar, present_only=True)),
    Metric("f1_weighted", "F1-weighted", _weighted_f1, _weighted_f1),
    Metric("mcc", "MCC", _matthews_correlation, _matthews_correlation, low=-1),
    _loss("log_loss", "Log-loss", high=np.inf, tally=_tally_log_loss),
    _loss("brier", "Brier score", high=2, tally=_tally_brier),
    _loss("ece", "Calibration error", value=_calibration_error, local=None, tally=_tally_gaps),
)
METRICS: Final[Mapping[str, Metric]] = MappingProxyType({each.name: each for each in _ALL})
"""Every metric by name, in the order of the tables."""

CLASS_METRICS: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {"recall": _recall, "precision": _precision, "f1": _f1}
)
"""The metrics of one class: functions of counts, shape (..., n_classes)."""
