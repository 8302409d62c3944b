"""What a unit of work keeps in memory: a bound on what is kept for later, and an estimate.

The estimate is an upper one, made of what the code allocates; memory-mapped tables do not
count, since the system may drop their pages.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from toolkit.models import TrainingData

#: Bytes of binned rows that a worker keeps for later trials.
CACHE_BYTES: Final = 2**30

#: A worker with every library imported and nothing to do.
_IDLE: Final = 250 * 2**20
# Bytes a value of binned rows: XGBoost keeps them by rows and by columns.
_BINNED: Final = {"lightgbm": 1, "xgboost": 3}
# A histogram holds two float64 numbers a bin; leaves and bins are the most that the built-in
# spaces ask for.
_HISTOGRAMS: Final = 16 * 64 * 24
# Float32 rows once; where rows are made, once more with the new ones and in float64 while
# neighbours are looked for.
_ROWS, _ROWS_RESAMPLED = 4, 12
# The same rows in float64 and their complete, standardised copy.
_LOGISTIC: Final = 4 + 8 + 4


class SizedCache:
    """Keep what was made last, as long as all of it stays below a number of bytes.

    - n_bytes: The bound. What was made last is kept even if it alone is larger.

    Examples
    --------
    >>> cache = SizedCache(10)
    >>> cache.get("a", lambda: ("made", 4)), cache.get("a", lambda: ("made again", 4))
    ('made', 'made')
    """

    def __init__(self, n_bytes: int) -> None:
        self._most = n_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Look something up, or make it."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 1 and self.n_bytes > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(size for _, size in self._kept.values())


def binned_bytes(*data: TrainingData) -> int:
    """Tell how much memory binned rows take."""
    return sum(_BINNED[each.kind] * len(each.labels) * len(each.names) for each in data)


def estimate_memory(
    n_rows: int,
    n_columns: int,
    *,
    side_by_side: int = 0,
    resampled: bool = True,
    logistic: bool = False,
) -> int:
    """Estimate the most memory that one unit takes at a time.

    Parameters
    ----------
    n_rows : int
        Utterances.
    n_columns : int
        Columns of the widest preset that the unit may choose.
    side_by_side : int, default=0
        Columns of the tables that are copied side by side into memory, as early fusion does.
    resampled : bool, default=True
        Whether training rows may be made or copied.
    logistic : bool, default=False
        Whether it is a logistic regression.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> round(estimate_memory(5531, 36_864) / 2**30, 1)
    4.4
    """
    table = 4 * n_rows * side_by_side
    values = n_rows * n_columns
    if logistic:
        return _IDLE + table + _LOGISTIC * values
    rows = (_ROWS_RESAMPLED if resampled else _ROWS) * values
    # The cache may go over its bound by what was put into it last.
    return _IDLE + table + rows + CACHE_BYTES + _HISTOGRAMS * n_columns
