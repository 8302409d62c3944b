"""What a study will cost, told before it runs: units, time, memory and disk.

The cost of a unit is a sum of few terms whose factors were fitted to measured units by
``studies/benchmarks/scaling.py``, which also compares it with sizes held out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.data import SequenceError, read_header
from toolkit.data.containers import split_member
from toolkit.pooling import PRESETS, resolve_statistics
from toolkit.report.facts import LOGISTIC
from toolkit.study.seed_noise import list_seeded, quick_config
from toolkit.study.systems import EARLY, has_final, has_logistic, list_systems
from toolkit.validation import FINAL, MOST_COLUMNS, fold_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.study.plan import Plan

TERMS: Final = ("unit", "value", "tree", "row")
"""Once a unit; a value of the table; a tree and root of the columns; and that times the rows.

The built-in search space lets a tree see columns in proportion to the root of all there are,
and a training set is made once for all trials that ask for the same.
"""

#: Part of the inner folds that a trial fits before it has lost the race, of up to 20 trials;
#: more trials lose more often, but none without its first fold. Measured: .70 of 20, .58 of 50.
_RACED: Final = 0.7
_RACED_LONGER: Final = (1 / 3, 1.64)
#: Seconds of one core a term, from the benchmark.
FACTORS: Final = (0.26, 7.1e-7, 5.7e-4, 1.0e-6)
#: Fits a fold for what is explained: five refits on permuted labels, and contributions.
_EXPLAINED: Final = 6
#: Seconds of one core: a process imports its libraries; figures and page, once and a system.
_START: Final = 3.0
_REPORT: Final = 2.5
#: A logistic regression a fold: seconds a value of its table.
_LOGISTIC: Final = 4e-7
#: Bytes a second that are read and pooled.
_POOLING: Final = 150e6
#: A process with its libraries; a row with its names and predictions; copies of a table.
_PROCESS_BYTES: Final = 285e6
_ROW_BYTES: Final = 2_500
_COPIES: Final = 8
#: Bytes of a model, its record and its predictions beside the tables.
_UNIT_BYTES: Final = 1.5e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a study will cost.

    - units: Names of all units, as ``--only`` takes them.
    - seconds: With the workers asked for, pooling included.
    - memory: Bytes of the largest moment, over all workers.
    - disk: Bytes of the study's folder and the cache.
    """

    units: tuple[str, ...]
    seconds: float
    memory: float
    disk: float


def unit_terms(
    n_rows: int, n_features: int, n_classes: int, inner: int, n_trials: int
) -> tuple[float, ...]:
    """Count what the time of a unit is a sum of.

    Examples
    --------
    >>> unit_terms(100, 9, 4, 3, 1)
    (1.0, 900.0, 84.0, 8400.0)
    """
    # A round grows a tree a class, and a single one where there are two.
    trees = count_fits(inner, n_trials) * (n_classes if n_classes > 2 else 1)
    seen = trees * n_features**0.5
    return (1.0, float(n_rows * n_features), seen, n_rows * seen)


def count_fits(inner: int, n_trials: int) -> float:
    """Count the fits of a unit.

    Examples
    --------
    >>> count_fits(3, 1)
    7.0
    """
    least, falling = _RACED_LONGER
    raced = min(_RACED, least + falling / sqrt(n_trials))
    return inner * (1 + raced * (n_trials - 1)) + inner + 1


def estimate_study(plan: Plan, config: StudyConfig, workers: int) -> Estimate:
    """Estimate what a study will cost if none of it is done yet."""
    manifest = plan.manifest
    cost: dict[str, float] = {}
    systems = list_systems(config, manifest.modalities)
    widths = {system: _count_all(manifest, seen, config) for system, seen in systems.items()}
    folds = [fold.name for fold in plan.folds]
    for system, width in widths.items():
        boosted = _time_unit(manifest, width, config)
        cost |= {f"{system}/{fold}": boosted for fold in folds}
        if has_final(system):
            cost[f"{system}/{fold_name(FINAL)}"] = boosted
        if has_logistic(system):
            linear = _LOGISTIC * len(manifest) * width
            cost |= {f"{system}{LOGISTIC}/{fold}": linear for fold in folds}
    quick = quick_config(config)
    for name, (_, seen) in list_seeded(config, manifest.modalities).items():
        seconds = _time_unit(manifest, _count_all(manifest, seen, quick), quick)
        cost |= {f"{name}/{fold}": seconds for fold in folds}
    used = max(min(workers, len(cost)), 1)
    width = max(widths.values())
    # Labels are permuted for the system of all modalities, or for the only one.
    explained = config.contributions != "none" and (EARLY in systems or len(systems) == 1)
    again = len(folds) * _EXPLAINED * _time_fit(manifest, width, config) if explained else 0.0
    return Estimate(
        units=tuple(cost),
        seconds=(
            _count_bytes(manifest) / _POOLING
            # Workers start side by side, after this process.
            + _START * (1 + (used > 1))
            + max((sum(cost.values()) + again) / used, *cost.values())
            + _REPORT * (1 + len(systems))
        ),
        memory=used * (_PROCESS_BYTES + len(manifest) * (_ROW_BYTES + _COPIES * 4.0 * width)),
        disk=4.0 * len(manifest) * sum(widths[m] for m in manifest.modalities)
        + _UNIT_BYTES * len(cost),
    )


def count_features(manifest: Manifest, modality: str, config: StudyConfig) -> int:
    """Count the columns that a modality will have, from the head of one file."""
    for path in manifest.paths[modality]:
        if path is None:
            continue
        try:
            header = read_header(path)
        except SequenceError:
            continue
        if len(header.shape) == 1:
            return int(header.n_dims)
        return max(
            _count_columns(int(header.n_dims), spec, config)
            for spec in config.searched_statistics
        )
    return 0


def _count_columns(n_dims: int, statistics: str, config: StudyConfig) -> int:
    """Count pooled columns, of a smaller preset where the study takes one."""
    width = n_dims * len(resolve_statistics(statistics))
    if config.wide == "keep" or width <= MOST_COLUMNS or statistics not in PRESETS:
        return width
    smaller = [n_dims * len(names) for names in PRESETS.values()]
    return max((n for n in smaller if n <= MOST_COLUMNS), default=min(smaller))


def _count_all(manifest: Manifest, modalities: Sequence[str], config: StudyConfig) -> int:
    return sum(count_features(manifest, modality, config) for modality in modalities)


def _time_unit(manifest: Manifest, width: int, config: StudyConfig) -> float:
    n_classes = len(manifest.classes)
    terms = unit_terms(len(manifest), width, n_classes, config.inner, config.n_trials)
    # Half the rounds are half the trees; what is done once a unit stays.
    part = np.array([1.0, 1.0] + [config.n_inner_rounds / 300] * (len(terms) - 2))
    return float(np.dot(np.multiply(terms, FACTORS), part))


def _time_fit(manifest: Manifest, width: int, config: StudyConfig) -> float:
    """Time one of a unit's fits."""
    terms = unit_terms(len(manifest), width, len(manifest.classes), config.inner, 1)
    fits = count_fits(config.inner, 1)
    return float(np.dot(terms[2:], FACTORS[2:])) / fits * config.n_inner_rounds / 300


def _count_bytes(manifest: Manifest) -> float:
    named = {path for files in manifest.paths.values() for path in files if path is not None}
    # Several utterances may be arrays of one file.
    files = {path if (member := split_member(path)) is None else member.file for path in named}
    return float(sum(file.stat().st_size for file in files if file.exists()))
