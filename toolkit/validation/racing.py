"""Racing: a trial that can hardly win any more is not fitted on the inner folds that are left.

After each inner fold a trial leaves a checkpoint: its score on the rows predicted so far, and
that score with each of ten blocks of these rows left out. The same rows under the best trial
so far give a paired difference d with a jackknife standard error s. If n of N rows are still
to come and nothing is known but d, the difference over all rows is normal about d with
standard deviation s * sqrt(n / N) (the predictive distribution under a flat prior). Where it
leaves the trial less than one chance in ten of ending above the best, it has lost.

Scores alone decide, never the time, so a race is the same wherever it is run; and it ends
trials early without changing the score of any that runs to its end.

References
----------
Maron and Moore (1994), Hoeffding races, NIPS 6. Birattari et al. (2002), A racing algorithm
for configuring metaheuristics, GECCO. Spiegelhalter, Freedman and Blackburn (1986), Monitoring
clinical trials: conditional or predictive power?, Controlled Clinical Trials 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.validation.metrics import METRICS, Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_N_BLOCKS: Final = 10
# The normal quantile of one chance in ten.
_Z: Final = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How a trial stands after some of its inner folds.

    - n_rows: Rows predicted so far.
    - score: The metric over them.
    - without: The metric with each block of them left out.
    """

    n_rows: int
    score: float
    without: tuple[float, ...]


def take_checkpoint(
    metric: str, labels: NDArray[np.int64], proba: NDArray[np.float64]
) -> Checkpoint:
    """Score the rows predicted so far, whole and with each block left out.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True class positions, in the same order for every trial of a search.
    proba : ndarray of float64, shape (n, n_classes)
        Their class probabilities.

    Examples
    --------
    >>> take_checkpoint("f1_micro", np.array([0, 1, 0]), np.eye(2)[[0, 1, 1]]).score
    0.667
    """
    blocks = np.arange(len(labels)) % _N_BLOCKS
    how = METRICS[metric]
    tallies = how.tally(Rows(labels, proba.argmax(axis=1), proba, blocks, _N_BLOCKS))
    total = tallies.sum(axis=0)
    return Checkpoint(
        n_rows=len(labels),
        score=float(how.value(total)),
        without=tuple(how.value(total - tallies).tolist()),
    )


def should_prune(
    trial: Sequence[Checkpoint], best: Sequence[Checkpoint], *, metric: str
) -> bool:
    """Tell whether a trial will hardly end above the best one.

    Examples
    --------
    >>> labels = np.arange(300) % 2
    >>> def stand(n, n_wrong):
    ...     guesses = np.where(np.arange(n) < n_wrong, 1, labels[:n])
    ...     return take_checkpoint("f1_micro", labels[:n], np.eye(2)[guesses])
    >>> best = [stand(100, 0), stand(300, 0)]
    >>> for n_wrong in (1, 30):
    ...     print(should_prune([stand(100, n_wrong)], best, metric="f1_micro"))
    False
    True
    """
    now, then = trial[-1], best[len(trial) - 1]
    if now.n_rows != then.n_rows:
        raise ValueError(
            f"Checkpoints of {now.n_rows} and {then.n_rows} rows cannot be compared; "
            "expected the same rows."
        )
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    differences = np.array(now.without) - np.array(then.without)
    spread = sqrt((_N_BLOCKS - 1) * float(differences.var()))
    ahead = sign * (now.score - then.score)
    n_rows = best[-1].n_rows
    n_left = n_rows - now.n_rows
    return n_left > 0 and ahead < -_Z * spread * sqrt(n_left / n_rows)
