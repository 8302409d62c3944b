"""Features of each speaker brought to mean 0 and standard deviation 1, by that speaker's rows.

This looks at no label and at no other person, but at all utterances of the person who is to be
predicted: an evaluation with it is transductive. It holds for someone of whom many utterances
are at hand before the first is judged, and flatters a system that meets people one utterance
at a time.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from toolkit.pooling.cache import load_table, save_table, table_key
from toolkit.pooling.statistics import VALUE
from toolkit.pooling.table import FeatureTable

_COLUMNS_AT_ONCE = 1_024


def normalise_speakers(
    table: FeatureTable,
    speakers: NDArray[np.str_],
    *,
    cache: Path,
    missing: str = "refuse",
    frames: str = "refuse",
) -> FeatureTable:
    """Standardise every feature within each speaker, or take the table from the cache.

    Parameters
    ----------
    table : FeatureTable
        Pooled features.
    speakers : ndarray of str, shape (n_utterances,)
        Speaker of every utterance.
    cache : Path
        Folder of pooled tables.
    missing, frames : str
        How the table was pooled: it decides its numbers, and so the key in the cache.

    Returns
    -------
    FeatureTable
        The same rows and columns; a feature that is constant within a speaker is 0 there, and
        what is missing stays missing.

    Raises
    ------
    ValueError
        If there is not one speaker an utterance.
    """
    if len(speakers) != len(table.present):
        raise ValueError(
            f"There are {len(speakers)} speakers for {len(table.present)} utterances; expected "
            "one each."
        )
    people = hashlib.sha256(json.dumps(speakers.tolist()).encode()).hexdigest()
    said = ("by speaker", missing, frames, table.digest, people)
    statistics = [name for name in table.statistics if name != VALUE]
    folder = Path(cache).absolute() / table_key(table.modality, statistics, *said)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (known := load_table(folder)) is not None:
            return known
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            _write_values(draft / "values.npy", table, speakers)
            return save_table(
                draft,
                folder,
                modality=table.modality,
                statistics=table.statistics,
                present=table.present,
                n_frames=table.n_frames,
                digest=table.digest,
                counts=table.counts,
            )
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _write_values(path: Path, table: FeatureTable, speakers: NDArray[np.str_]) -> None:
    values = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=table.values.shape
    )
    for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
        block = slice(start, start + _COLUMNS_AT_ONCE)
        columns = np.asarray(table.values[:, block], dtype=np.float64)
        for name in np.unique(speakers):
            rows = speakers == name
            values[rows, block] = standardise(columns[rows])
    values.flush()


def standardise(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bring every column to mean 0 and population standard deviation 1.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features), float64
        NaN where missing.

    Returns
    -------
    ndarray of shape (n_rows, n_features), float32
        0 in constant columns; NaN where missing.

    Examples
    --------
    >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [nan, 0.0]]
    """
    there = ~np.isnan(values)
    n = np.maximum(there.sum(axis=0), 1)
    # Constant is told by the values: the sum of equal numbers can be off by a rounding.
    lowest = np.where(there, values, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(there, values, -np.inf).max(axis=0, initial=-np.inf)
    distance = np.where(there, values, 0) - np.where(there, values, 0).sum(axis=0) / n
    deviation = np.sqrt((np.where(there, distance, 0) ** 2).sum(axis=0) / n)
    varies = (lowest < highest) & (deviation > 0)
    result = np.where(varies, distance / np.where(varies, deviation, 1), 0)
    return np.where(there, result, np.nan).astype(np.float32)
