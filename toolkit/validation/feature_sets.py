"""Feature tables laid side by side, and what is done about very wide ones.

A fit costs what its columns cost, whatever share of them a tree may use: a Dataset of 36,864
columns takes a minute to bin and five times as long to boost as one of 7,000. Where a
modality has more pooled columns than a limit, a smaller preset of statistics stands in for
the one asked for: the largest that stays below it. Statistics of one dimension correlate far
more than dimensions do, so fewer statistics of all dimensions lose less than all statistics of
fewer dimensions. What was reduced stands in the record of every unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.models import Features
from toolkit.pooling import PRESETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from toolkit.pooling import FeatureTable

#: Pooled columns of a modality above which fewer statistics are taken, unless all are wanted:
#: 18 statistics of 1,024 dimensions stay whole, those of 2,048 do not.
MOST_COLUMNS: Final = 20_000

_SMALLER: Final = ("rich", "basic", "minimal")


def make_features(
    tables: Sequence[FeatureTable],
    presets: Sequence[str],
    *,
    most_columns: int | None = None,
) -> Features:
    """Lay feature tables side by side for the models.

    Parameters
    ----------
    tables : sequence of FeatureTable
        At least one, over the same utterances.
    presets : sequence of str
        Statistics presets (or comma-separated statistics) that a search may choose among.
    most_columns : int, optional
        Columns of a table above which a smaller preset is taken. Statistics that were
        named one by one are taken as they are.

    Returns
    -------
    Features
        With one column set a preset; an utterance is present where any table has it.
        ``reduced`` tells which preset stands for which, a modality.
    """
    taken = [make_presets(table, presets, most_columns) for table in tables]
    reduced = {
        table.modality: found for table, (_, found) in zip(tables, taken, strict=True) if found
    }
    present = np.any([table.present for table in tables], axis=0)
    if len(tables) == 1:
        table, (columns, _) = tables[0], taken[0]
        return Features(table.values, table.names, present, columns, reduced)
    # Side by side tables are a copy in memory: columns that no preset takes stay out of it.
    needed = [np.unique(np.concatenate(list(columns.values()))) for columns, _ in taken]
    starts = np.cumsum([0, *map(len, needed)])
    return Features(
        values=np.hstack(
            [
                table.values if len(kept) == len(table.names) else table.values[:, kept]
                for table, kept in zip(tables, needed, strict=True)
            ]
        ),
        names=tuple(
            table.names[column]
            for table, kept in zip(tables, needed, strict=True)
            for column in kept
        ),
        present=present,
        presets={
            preset: np.concatenate(
                [
                    start + np.searchsorted(kept, columns[preset])
                    for start, kept, (columns, _) in zip(starts, needed, taken, strict=False)
                ]
            )
            for preset in presets
        },
        reduced=reduced,
    )


def make_presets(
    table: FeatureTable, presets: Sequence[str], most_columns: int | None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Choose a table's columns under each preset, and say where a smaller one stands in.

    Parameters
    ----------
    table : FeatureTable
        The pooled features of one modality.
    presets : sequence of str
        What is asked of it.
    most_columns : int or None
        As in :func:`make_features`.

    Returns
    -------
    tuple of dict
        Preset to its columns; and of those with a stand-in its name and numbers of columns.
    """
    columns, reduced = {}, {}
    for preset in presets:
        columns[preset] = table.select(preset)
        n_asked = len(columns[preset])
        if most_columns is None or n_asked <= most_columns or preset not in PRESETS:
            continue
        stand_in = _smaller_preset(table, n_asked, most_columns)
        if stand_in is not None:
            columns[preset] = table.select(stand_in)
            reduced[preset] = {
                "statistics": stand_in,
                "n_columns": len(columns[preset]),
                "n_asked": n_asked,
            }
    return columns, reduced


def _smaller_preset(table: FeatureTable, n_asked: int, most_columns: int) -> str | None:
    """Find the largest preset that the table holds and the limit allows, or the smallest."""
    held = [name for name in _SMALLER if set(PRESETS[name]) <= set(table.statistics)]
    smaller = [name for name in held if len(PRESETS[name]) * table.n_dims < n_asked]
    fitting = [name for name in smaller if len(PRESETS[name]) * table.n_dims <= most_columns]
    return next(iter(fitting or smaller[-1:]), None)
