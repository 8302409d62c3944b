"""Class offsets: predict another class than the most probable one where a metric rewards it.

Probabilities fitted to the log-loss rarely make a rare class the most probable one. One offset
per class, added to the log-probabilities before the largest is taken, corrects that for one
metric. Offsets are learnt from training groups; the probabilities stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.fusion.inputs import TIE, InnerPredictions
from toolkit.validation.folds import groups_of
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS, Floats, GroupedRows
from toolkit.validation.scores import pooled_and_left_out

OFFSET_METRICS: Final[Mapping[str, str]] = MappingProxyType({"f1": "f1_micro", "uar": "uar"})
"""End of a variant's name (``text-offset-uar``) to the metric that it raises."""

_GRID: Final[NDArray[np.float64]] = np.arange(-20, 21) / 10
"""Values an offset may take."""
_GRID.setflags(write=False)


@dataclass(frozen=True, slots=True)
class ClassOffsets:
    """Offsets fitted on one outer fold's training groups, and their gain there.

    - values: One per class, summing to 0; all 0 where they are not kept.
    - standard_error: Jackknife standard error of the gain over groups.
    - kept: Whether the gain exceeds its standard error.
    """

    values: tuple[float, ...]
    gain: float
    standard_error: float
    kept: bool

    @classmethod
    def learn(cls, inner: InnerPredictions, metric: str, ledger: Ledger) -> "ClassOffsets":
        """Learn a system's offsets from the rows of one outer fold that it is present in."""
        seen = inner.present
        ledger.record("offsets", "calibrate", inner.rows[seen])
        groups = groups_of(inner.groups[seen])
        return _fit_offsets(inner.proba[seen], inner.labels[seen], groups, metric)

    def decide(self, proba: Floats) -> NDArray[np.int64]:
        """Predict positions of classes, shape (n,), as the offsets move them."""
        return _decide(proba, np.array(self.values))


def _decide(proba: Floats, offsets: Floats) -> NDArray[np.int64]:
    """Predict the class with the largest log-probability plus offset: positions, shape (n,).

    A class of probability 0 is never predicted.
    """
    return np.asarray(np.argmax(_log(proba) + offsets, axis=1))


def _fit_offsets(
    proba: Floats, labels: NDArray[np.int64], groups: NDArray[np.str_], metric: str
) -> ClassOffsets:
    """Find the offsets of the largest metric from out-of-fold probabilities (n, n_classes).

    One class after the other takes the best value from -2 to 2 in steps of 0.1, the smallest
    in magnitude of equally good ones, until none gains anything; then their mean is taken
    off. The start is 0 for F1-micro and, for UAR, minus the logarithm of the class shares,
    which would be right if the probabilities were calibrated. A class without training rows,
    of probability 0, keeps 0.
    """
    support = np.bincount(labels, minlength=proba.shape[1])
    # A single group has no jackknife, so nothing would show whether a gain is chance.
    n_groups = len(np.unique(groups))
    zeros = np.zeros(proba.shape[1])
    if n_groups < 2:
        return ClassOffsets(tuple(zeros.tolist()), 0.0, 0.0, kept=False)
    found = support > 0
    offsets = zeros.copy()
    if metric == "uar":
        offsets[found] = -np.log(support[found] / support.sum())
        offsets[found] -= offsets[found].mean()
        credit = 1 / (len(support) * np.maximum(support, 1))
    else:
        credit = np.full(len(support), 1 / support.sum())
    offsets = _ascend(_log(proba), labels, offsets, credit)
    offsets[found] -= offsets[found].mean()
    gain, error = _gain(proba, labels, groups, offsets, metric)
    kept = gain > error + TIE
    return ClassOffsets(tuple((offsets if kept else zeros).tolist()), gain, error, kept)


def _ascend(logs: Floats, labels: NDArray[np.int64], offsets: Floats, credit: Floats) -> Floats:
    """Move one offset after the other to its best value until none gains anything.

    Both metrics are sums over hits, of the ``credit`` (n_classes,) of each hit's class: in UAR
    a hit of a rare class counts more.
    """
    best = -np.inf
    while True:
        before = best
        for code in range(len(offsets)):
            candidates = np.sort(np.append(_GRID, offsets[code]))
            hits = _candidate_hits(logs, labels, offsets, code, candidates)
            values = (hits * credit).sum(axis=1)
            best = float(values.max())
            # Equal values differ by rounding; the smallest offset among them changes least.
            sizes = np.where(values >= best - TIE, np.abs(candidates), np.inf)
            offsets[code] = candidates[sizes.argmin()]
        if best <= before + TIE:
            return offsets


def _candidate_hits(
    logs: Floats, labels: NDArray[np.int64], offsets: Floats, code: int, candidates: Floats
) -> NDArray[np.int64]:
    """Count hits per candidate offset of one class: shape (n_candidates, n_classes).

    A row is predicted as that class or as the best of the others, and this changes once: where
    the offset reaches the lead of the other. So rows are counted by the bin of their lead, not
    predicted again for every candidate.
    """
    n_classes, n_bins = logs.shape[1], len(candidates) + 1
    others = [k for k in range(n_classes) if k != code]
    other = np.full(len(labels), others[0])
    rival = logs[:, others[0]] + offsets[others[0]]
    for k in others[1:]:  # argmax over a short axis is ten times slower
        score = logs[:, k] + offsets[k]
        other[score > rival] = k
        rival = np.maximum(rival, score)
    lead = rival - logs[:, code]
    bins = np.searchsorted(candidates, lead, side="right")
    # A tie goes to the lower code, as in `_decide`.
    tied = (other > code) & (candidates[bins - 1] == lead)
    bins[tied] -= 1
    counts = np.zeros((2, n_classes, n_bins), dtype=np.int64)
    for kind, right in enumerate((labels == code, labels == other)):
        cells = labels[right] * n_bins + bins[right]
        counts[kind] = np.bincount(cells, minlength=n_classes * n_bins).reshape(
            n_classes, n_bins
        )
    # Larger offsets win rows for this class, and lose them for the others.
    won = counts[0].cumsum(axis=1)[:, :-1]
    kept = counts[1].sum(axis=1, keepdims=True) - counts[1].cumsum(axis=1)[:, :-1]
    return np.asarray((won + kept).T)


def _gain(
    proba: Floats,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    offsets: Floats,
    metric: str,
) -> tuple[float, float]:
    """Compute the gain of a metric by offsets, and its jackknife standard error over groups."""
    names, numbers = np.unique(groups, return_inverse=True)
    n, scored = len(names), METRICS[metric]
    moved, plain = (
        pooled_and_left_out(
            scored.value,
            scored.tally(GroupedRows(labels, _decide(proba, values), proba, numbers, n)),
        )
        for values in (offsets, np.zeros_like(offsets))
    )
    left_out = moved[1] - plain[1]
    spread = ((left_out - left_out.mean()) ** 2).sum()
    return float(moved[0] - plain[0]), float(np.sqrt((n - 1) / n * spread))


def _log(proba: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(proba)
