"""The pooled features of one modality: a float32 matrix on disk with a name a column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.pooling.statistics import VALUE, resolve_statistics


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """One row an utterance, one column a statistic and dimension.

    Parameters
    ----------
    modality : str
        Name of the modality.
    statistics : tuple of str
        Statistics in column order; ``("value",)`` where the files have no time axis.
    names : tuple of str
        ``modality__statistic__dimension`` for each column, statistic by statistic.
    values : ndarray of shape (n_utterances, n_features), float32
        Read-only and memory-mapped, C order; NaN where the modality is missing.
    present : ndarray of shape (n_utterances,), bool
        Whether the modality is there.
    n_frames : ndarray of shape (n_utterances,), int64
        Frames that were pooled; 0 where missing or without a time axis.
    digest : str
        Hash of the content: which utterance has which numbers, whatever the statistics.
    counts : mapping of str to int
        What was not as it should be: ``files_absent`` (empty cells), ``files_unreadable``,
        ``files_without_finite_frames``, ``files_with_dropped_frames``, ``frames_dropped``,
        ``files_with_interpolated_frames``, ``frames_interpolated``, ``values_missing``.
    """

    modality: str
    statistics: tuple[str, ...]
    names: tuple[str, ...]
    values: NDArray[np.float32]
    present: NDArray[np.bool_]
    n_frames: NDArray[np.int64]
    digest: str
    counts: Mapping[str, int]

    @property
    def n_dims(self) -> int:
        """Number of dimensions under each statistic."""
        return len(self.names) // len(self.statistics)

    def select(self, statistics: str | Sequence[str]) -> NDArray[np.int64]:
        """Columns of some of the statistics.

        Parameters
        ----------
        statistics : str or sequence of str
            A preset or names; all columns are meant where there is no time axis.

        Returns
        -------
        ndarray of shape (n_selected,), int64
            Positions in `names`, in the order of the statistics asked for.

        Raises
        ------
        ValueError
            If the table does not hold one of them.
        """
        if self.statistics == (VALUE,):
            return np.arange(len(self.names), dtype=np.int64)
        wanted = resolve_statistics(statistics)
        if absent := [name for name in wanted if name not in self.statistics]:
            raise ValueError(
                f"The table of modality {self.modality!r} does not hold {', '.join(absent)}; "
                f"it was pooled with {', '.join(self.statistics)}."
            )
        starts = np.array([self.statistics.index(name) for name in wanted]) * self.n_dims
        return (starts[:, None] + np.arange(self.n_dims)).reshape(-1).astype(np.int64)
