"""What a fit says of held-back rows round by round, and after how many it is best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class RoundPath:
    """Keep the validation probabilities of every round, in half the memory they came in.

    Examples
    --------
    >>> import numpy as np
    >>> path = RoundPath()
    >>> for sure in (0.5, 0.75):
    ...     path.follow(np.array([[sure, 1 - sure]]))
    >>> path.after(1).tolist(), path.after(9).tolist()
    ([[0.5, 0.5]], [[0.75, 0.25]])
    """

    def __init__(self) -> None:
        self._rounds: list[NDArray[np.float32]] = []

    def follow(self, proba: NDArray[np.float64]) -> None:
        """Add the next round.

        Parameters
        ----------
        proba : ndarray of float64, shape (n, n_classes)
            Class probabilities of the validation rows after it.
        """
        self._rounds.append(proba.astype(np.float32))

    def after(self, n_rounds: int) -> NDArray[np.float64]:
        """Give the probabilities after some rounds, or at the end of a shorter path.

        Returns
        -------
        ndarray of float64, shape (n, n_classes)
            Class probabilities of the validation rows.
        """
        return self._rounds[min(n_rounds, len(self._rounds)) - 1].astype(np.float64)


def best_rounds(curves: Sequence[NDArray[np.float64]]) -> int:
    """Find the number of rounds at which the mean validation curve is lowest.

    Examples
    --------
    >>> import numpy as np
    >>> best_rounds([np.array([3.0, 2.0, 2.5]), np.array([3.0, 2.5, 2.0, 1.0])])
    4
    """
    length = max(len(curve) for curve in curves)
    padded = [np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves]
    return int(np.argmin(np.mean(padded, axis=0))) + 1
