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
from toolkit.report.facts import LOGISTIC
from toolkit.study.seed_noise import list_seeded, quick_config
from toolkit.study.systems import has_final, has_logistic, list_systems
from toolkit.validation import FINAL, fold_name

if TYPE_CHECKING:
    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.study.plan import Plan

TERMS: Final = ("fit", "row", "column", "cell")
"""Once a fit; and once a fit and class, a row, a column, a value of the table."""

#: Seconds of one core a term, from the benchmark.
FACTORS: Final = (6.5e-2, 8.1e-6, 2.1e-6, 2.8e-8)
#: A logistic regression a fold: seconds a value of its table.
_LOGISTIC: Final = 4e-7
#: Bytes a second that are read and pooled.
_POOLING: Final = 150e6
#: A process with its libraries; a row with its names and predictions; copies of a table.
_PROCESS_BYTES: Final = 240e6
_ROW_BYTES: Final = 2_500
_COPIES: Final = 8
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
    (10.0, 4000.0, 400.0, 40000.0)
    """
    # Every trial fits each inner fold; then the fresh partition and the refit.
    fits = float(inner * n_trials + inner + 1)
    # A round grows a tree a class, and a single one where there are two.
    trees = fits * (n_classes if n_classes > 2 else 1)
    return (fits, trees * n_rows, trees * n_features, trees * n_rows * n_features)


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
    modalities = plan.manifest.modalities
    widths = {name: count_features(plan.manifest, name, config) for name in modalities}
    quick = config.n_inner_rounds / 300
    cost: dict[str, float] = {}
    widest = 0
    for system, seen in list_systems(config, modalities).items():
        width = sum(widths[name] for name in seen)
        widest = max(widest, width)
        terms = unit_terms(n_rows, width, n_classes, config.inner, config.n_trials)
        boosted = float(np.dot(terms, FACTORS)) * quick
        folds = [fold.name for fold in plan.folds]
        cost |= {f"{system}/{fold}": boosted for fold in folds}
        if has_final(system):
            cost[f"{system}/{fold_name(FINAL)}"] = boosted
        if has_logistic(system):
            linear = _LOGISTIC * n_rows * width
            cost |= {f"{system}{LOGISTIC}/{fold}": linear for fold in folds}
    quick_plan = quick_config(config)
    narrow = {name: count_features(plan.manifest, name, quick_plan) for name in modalities}
    for name, (_, seen) in list_seeded(config, modalities).items():
        width = sum(narrow[modality] for modality in seen)
        n_trials = quick_plan.n_trials
        terms = unit_terms(n_rows, width, n_classes, config.inner, n_trials)
        seconds = float(np.dot(terms, FACTORS)) * quick_plan.n_inner_rounds / 300
        cost |= {f"{name}/{fold.name}": seconds for fold in plan.folds}
    used = max(min(workers, len(cost)), 1)
    pooling = _count_bytes(plan.manifest) / _POOLING
    table = 4.0 * n_rows * widest
    return Estimate(
        units=tuple(cost),
        seconds=pooling + max(sum(cost.values()) / used, *cost.values()),
        memory=used * (_PROCESS_BYTES + _ROW_BYTES * n_rows + _COPIES * table),
        disk=4.0 * n_rows * sum(widths.values()) + _UNIT_BYTES * len(cost),
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
