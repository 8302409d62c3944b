"""How far chance moves the games over modalities: the same systems again under other seeds.

``--shapley seeds`` searches every set of modalities once more under each of three seeds, at
the budget of ``--quick`` (5 trials, at most 150 rounds, basic statistics unless others were
named). The seeds decide inner folds, proposals and boosters; the outer folds stay, so that
only chance differs. These units are played with and audited, and neither scored nor compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from toolkit.study.archive import read_modalities, read_unit, unit_folder
from toolkit.study.searching import make_search_options
from toolkit.study.systems import list_systems
from toolkit.validation import derive_seed, gather_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold, Predictions, SearchOptions, UnitResult

N_SEEDS: Final = 3
"""Seeds under which every system is searched again."""

_WIDE: Final = ("rich", "full", "auto")


def seed_name(system: str, number: int) -> str:
    """Name the units of a system under another seed.

    Examples
    --------
    >>> seed_name("early-text-audio", 2)
    'early-text-audio-seed-2'
    """
    return f"{system}-seed-{number}"


def list_seeded(
    config: StudyConfig, modalities: Sequence[str]
) -> dict[str, tuple[int, tuple[str, ...]]]:
    """List the systems that run under other seeds."""
    if config.shapley != "seeds" or len(modalities) < 2:
        return {}
    return {
        seed_name(system, number): (derive_seed(config.seed, "seed noise", number), seen)
        for number in range(1, N_SEEDS + 1)
        for system, seen in list_systems(config, modalities).items()
    }


def quick_config(config: StudyConfig) -> StudyConfig:
    """Give a study the budget of ``--quick``."""
    statistics = "basic" if config.statistics in _WIDE else config.statistics
    return config.model_copy(update={"quick": True, "statistics": statistics})


def make_quick_options(config: StudyConfig) -> SearchOptions:
    """Say what the searches under other seeds may choose."""
    quick = quick_config(config)
    return replace(make_search_options(quick), statistics=(quick.statistics,))


def read_seeded(
    folder: Path,
    manifest: Manifest,
    folds: Sequence[Fold],
    systems: Mapping[str, Sequence[str]],
) -> tuple[list[dict[str, Predictions]], dict[str, Mapping[int, list[dict[str, Any]]]]]:
    """Read what the systems predicted under other seeds."""
    seeds: list[dict[str, Predictions]] = []
    ledgers: dict[str, Mapping[int, list[dict[str, Any]]]] = {}
    for number in range(1, N_SEEDS + 1):
        tables: dict[str, Predictions] = {}
        for system, seen in systems.items():
            name = seed_name(system, number)
            places = [unit_folder(folder, name, fold.number) for fold in folds]
            if any(read_modalities(place) != list(seen) for place in places):
                continue
            units: list[UnitResult] = [u for p in places if (u := read_unit(p)) is not None]
            ledgers[name] = {unit.fold: unit.ledger for unit in units}
            tables[system] = gather_predictions(
                manifest, folds, system, [u.proba for u in units], [u.present for u in units]
            )
        seeds.append(tables)
    return seeds, ledgers
