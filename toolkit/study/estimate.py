"""What a study will cost, told before it runs: units, time, memory and disk.

The cost of a unit is a sum of few terms whose factors were fitted to measured units by
``studies/benchmarks/scaling.py``, which also compares it with sizes held out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.data import SequenceError, read_header
from toolkit.data.containers import split_member
from toolkit.pooling import resolve_statistics

if TYPE_CHECKING:
    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.study.runner import Plan

TERMS: Final = ("unit", "fit", "tree", "cell")
"""Once a unit; once a fit; once a fit, class and feature; once a fit, class and value."""

#: Seconds of one core a term. An average core: a slower one takes up to twice as long.
FACTORS: Final = (0.3, 0.05, 1.5e-4, 1.2e-7)
#: A logistic regression a fold: seconds a value of its table.
_LOGISTIC: Final = 4e-7
#: Bytes a second that are read and pooled.
_POOLING: Final = 150e6
#: A process with its libraries, before any table; copies of a table that a unit holds.
_PROCESS_BYTES: Final = 350e6
_COPIES: Final = 3
#: Bytes of a model, its record and its predictions beside the tables.
_UNIT_BYTES: Final = 1.5e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a study will cost.

    Parameters
    ----------
    units : tuple of str
        Names of all units, as ``--only`` takes them.
    seconds : float
        With the workers asked for, pooling included.
    memory : float
        Bytes of the largest moment, over all workers.
    disk : float
        Bytes of the study's folder and the cache.
    """

    units: tuple[str, ...]
    seconds: float
    memory: float
    disk: float


def unit_terms(
    n_rows: int, n_features: int, n_classes: int, inner: int, n_trials: int
) -> tuple[float, ...]:
    """Count what the time of a unit is a sum of.

    Parameters
    ----------
    n_rows, n_features, n_classes : int
        Size of the table.
    inner, n_trials : int
        Inner folds and trials of the search.

    Returns
    -------
    tuple of float
        One number a term of :data:`TERMS`.

    Examples
    --------
    >>> unit_terms(100, 10, 4, 3, 2)
    (1.0, 10.0, 400.0, 40000.0)
    """
    # Every trial fits each inner fold; then the fresh partition and the refit.
    fits = float(inner * n_trials + inner + 1)
    trees = n_classes if n_classes > 2 else 1
    return (1.0, fits, fits * trees * n_features, fits * trees * n_features * n_rows)


def estimate_study(plan: Plan, config: StudyConfig, workers: int) -> Estimate:
    """Estimate what a study will cost if none of it is done yet.

    Parameters
    ----------
    plan : Plan
        The checked study.
    config : StudyConfig
        Its options.
    workers : int
        Processes.

    Returns
    -------
    Estimate
        Right within a factor of two where the machine is like the one measured on.
    """
    n_rows, n_classes = len(plan.manifest), len(plan.manifest.classes)
    widths = {
        name: count_features(plan.manifest, name, config) for name in plan.manifest.modalities
    }
    together = len(widths) > 1 and "early" in config.fusion
    systems = widths | ({"early": sum(widths.values())} if together else {})
    quick = config.n_inner_rounds / 300
    units, cost = [], []
    for system, width in systems.items():
        terms = unit_terms(n_rows, width, n_classes, config.inner, config.n_trials)
        one = float(np.dot(terms, FACTORS)) * quick
        for fold in [*plan.folds, None]:
            units.append(f"{system}/{'final' if fold is None else fold.name}")
            cost.append(one)
        for fold in plan.folds:
            units.append(f"{system}-logistic/{fold.name}")
            cost.append(_LOGISTIC * n_rows * width)
    used = max(min(workers, len(units)), 1)
    pooling = _count_bytes(plan.manifest) / _POOLING
    table = 4.0 * n_rows * max(systems.values())
    return Estimate(
        units=tuple(units),
        seconds=pooling + max(sum(cost) / used, *cost),
        memory=used * (_PROCESS_BYTES + _COPIES * table),
        disk=4.0 * n_rows * sum(widths.values()) + _UNIT_BYTES * len(units),
    )


def count_features(manifest: Manifest, modality: str, config: StudyConfig) -> int:
    """Count the columns that a modality will have, from the head of one file.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    modality : str
        One of its modalities.
    config : StudyConfig
        Statistics.

    Returns
    -------
    int
        Columns of the widest preset; 0 if no file can be read.
    """
    for path in manifest.paths[modality]:
        if path is None:
            continue
        try:
            header = read_header(path)
        except SequenceError:
            continue
        if len(header.shape) == 1:
            return int(header.n_dims)
        wanted = max(len(resolve_statistics(spec)) for spec in config.searched_statistics)
        return int(header.n_dims) * wanted
    return 0


def _count_bytes(manifest: Manifest) -> float:
    named = {path for files in manifest.paths.values() for path in files if path is not None}
    # Several utterances may be arrays of one file.
    files = {path if (member := split_member(path)) is None else member.file for path in named}
    return float(sum(file.stat().st_size for file in files if file.exists()))
