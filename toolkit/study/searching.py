"""The searches of a study: their candidates, their memory and the storage of their trials."""

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any, Final

from toolkit.files import format_json
from toolkit.models import GRIDS, RESAMPLING, grid_size, make_grid, make_space
from toolkit.study.config import ConfigError, StudyConfig, mask_password
from toolkit.validation import (
    IMBALANCE_AUTO,
    IMBALANCE_GRID,
    MOST_COLUMNS,
    SCREENING_AUTO,
    SCREENING_GRID,
    SearchOptions,
    estimate_memory,
)

#: More processes than this wait on one another for SQLite's single lock.
_MOST_SQLITE_WORKERS: Final = 8
_WIDE: Final = ("rich", "full", "auto")


def make_search_options(config: StudyConfig) -> SearchOptions:
    """Resolve what the searches of a study may choose, and how often."""
    auto: tuple[tuple[str, ...], tuple[str, ...]] = (SCREENING_AUTO, IMBALANCE_AUTO)
    if config.sampler == "grid":
        auto = (SCREENING_GRID, IMBALANCE_GRID)
    screening, imbalance = (
        known if words == "auto" else tuple(dict.fromkeys(words.split(",")))
        for words, known in zip((config.screening, config.imbalance), auto, strict=True)
    )
    try:
        spaces = dict(SearchOptions().spaces)
        spaces |= {kind: make_space(kind, table) for kind, table in config.space.items()}
        grids = dict(GRIDS)
        grids |= {kind: make_grid(kind, table) for kind, table in config.grid.items()}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    options = SearchOptions(
        boosters=config.searched_boosters,
        statistics=config.searched_statistics,
        screening=screening,
        imbalance=imbalance,
        n_trials=config.n_trials,
        max_rounds=config.n_inner_rounds,
        metric=config.metric,
        sampler=config.sampler,
        timeout=config.timeout,
        spaces=spaces,
        grids=grids,
        most_columns=MOST_COLUMNS if config.wide == "reduce" else None,
    )
    if config.sampler != "grid":
        return options
    # A grid is run to its end, unless fewer trials are asked for.
    choices = (options.statistics, options.screening, options.imbalance)
    points = prod(map(len, choices)) * sum(
        grid_size(options.grids[kind]) for kind in options.boosters
    )
    asked = config.trials if "trials" in config.model_fields_set else points
    most = 5 if config.quick else points
    return replace(options, n_trials=min(asked, points, most))


def make_quick_options(config: StudyConfig) -> SearchOptions:
    """Resolve the searches under other seeds, which have the budget of ``--quick``."""
    statistics = "basic" if config.statistics in _WIDE else config.statistics
    quick = config.model_copy(update={"quick": True, "statistics": statistics})
    return replace(make_search_options(quick), statistics=(statistics,))


def bound_memory(
    n_rows: int, width: int, n_tables: int, options: SearchOptions, *, logistic: bool = False
) -> int:
    """Bound the bytes that one unit takes at a time."""
    return estimate_memory(
        n_rows,
        width,
        side_by_side=width if n_tables > 1 else 0,
        resampled=bool(set(options.imbalance) & set(RESAMPLING)),
        logistic=logistic,
    )


def check_driver(url: str) -> None:
    """Refuse a server whose driver is not installed."""
    if url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            f"The storage {mask_password(url)} needs a driver that is not installed: "
            'pip install "modality-toolkit[cluster]".'
        )


def check_storage(url: str, n_workers: int) -> None:
    """Refuse more workers than a storage can take."""
    if url.startswith("sqlite") and n_workers > _MOST_SQLITE_WORKERS:
        raise ConfigError(
            f"{n_workers} workers would write to one SQLite file, which takes one writer at a "
            f"time: beyond {_MOST_SQLITE_WORKERS} they wait for its lock until they fail. Use "
            f"at most {_MOST_SQLITE_WORKERS} (--workers), or --storage "
            "postgresql+psycopg://USER@HOST/DATABASE."
        )


def search_name(
    study: str, provenance: Mapping[str, Any], modalities: Iterable[str], *, shared: bool
) -> str:
    """Name a study's searches in a storage, by all that decides them where it is shared."""
    if not shared:  # the database lies in the study's own folder
        return study
    data = provenance["data"]
    decides = {
        "identity": provenance["identity"],
        "rows": data["rows"],
        "features": [data["modalities"][name] for name in modalities],
        "versions": provenance["versions"],
        "platform": provenance["platform"],
    }
    digest = hashlib.sha256(format_json(decides).encode("utf-8")).hexdigest()
    return f"{study}-{digest[:16]}"
