"""Racing: prune a trial that can hardly win, without fitting its remaining inner folds.

After each inner fold a trial has an intermediate value: its score on the rows predicted so
far, and that score with each of ten blocks of these rows left out. The same rows under the
best trial so far give a paired difference d with a jackknife standard error s. If n of N rows
are still to come and nothing is known but d, the difference over all rows is normal about d
with standard deviation s * sqrt(n / N) (the predictive distribution under a flat prior). A
trial with less than one chance in ten of ending above the best is pruned.

Scores alone decide, never the time, so a race is the same on every machine. It ends trials
early without changing the score of any that runs to its end.

Maron and Moore (1994), Hoeffding races, NIPS 6. Birattari et al. (2002), A racing algorithm
for configuring metaheuristics, GECCO. Spiegelhalter, Freedman and Blackburn (1986), Monitoring
clinical trials: conditional or predictive power?, Controlled Clinical Trials 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.metrics import METRICS, GroupedRows

_N_BLOCKS: Final = 10
# The normal quantile of one chance in ten.
_Z: Final = 1.2815515655446004


@dataclass(frozen=True, slots=True)
class IntermediateValue:
    """The score over the rows predicted so far, and `without` each block of them."""

    n_rows: int
    score: float
    without: tuple[float, ...]

    @classmethod
    def compute(
        cls, metric: str, labels: NDArray[np.int64], proba: NDArray[np.float64]
    ) -> "IntermediateValue":
        """Score the rows predicted so far, whole and with each block left out.

        Labels have shape (n,) and the same order for every trial of a search; probabilities
        have shape (n, n_classes).
        """
        blocks = np.arange(len(labels)) % _N_BLOCKS
        chosen = METRICS[metric]
        rows = GroupedRows(labels, proba.argmax(axis=1), proba, blocks, _N_BLOCKS)
        tallies = chosen.tally(rows)
        total = tallies.sum(axis=0)
        return cls(
            n_rows=len(labels),
            score=float(chosen.value(total)),
            without=tuple(chosen.value(total - tallies).tolist()),
        )


def should_prune(
    trial: Sequence[IntermediateValue], best: Sequence[IntermediateValue], *, metric: str
) -> bool:
    """Decide whether a trial will hardly end above the best one."""
    now, then = trial[-1], best[len(trial) - 1]
    if now.n_rows != then.n_rows:
        raise ValueError(
            f"Intermediate values of {now.n_rows} and {then.n_rows} rows cannot be compared; "
            "expected the same rows."
        )
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    differences = np.array(now.without) - np.array(then.without)
    spread = sqrt((_N_BLOCKS - 1) * float(differences.var()))
    ahead = sign * (now.score - then.score)
    n_rows = best[-1].n_rows
    n_left = n_rows - now.n_rows
    return n_left > 0 and ahead < -_Z * spread * sqrt(n_left / n_rows)
