"""What a study's searches may choose, from its configuration."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from toolkit.models import GRIDS, grid_size, make_grid, make_space
from toolkit.study.config import ConfigError
from toolkit.validation import (
    IMBALANCE_AUTO,
    IMBALANCE_GRID,
    MOST_COLUMNS,
    SCREENING_AUTO,
    SCREENING_GRID,
    SearchOptions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.models.spaces import Grid, Space
    from toolkit.study.config import StudyConfig


def make_search_options(config: StudyConfig) -> SearchOptions:
    """Say what the search of a study may choose."""
    screening, imbalance = _candidates(config)
    try:
        own: dict[str, Space] = {
            kind: make_space(kind, table) for kind, table in config.space.items()
        }
        grids = _grids(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    built_in = SearchOptions()
    return SearchOptions(
        boosters=config.searched_boosters,
        statistics=config.searched_statistics,
        screening=screening,
        imbalance=imbalance,
        n_trials=config.n_trials,
        max_rounds=config.n_inner_rounds,
        metric=config.metric,
        sampler=config.sampler,
        timeout=config.timeout,
        spaces={**built_in.spaces, **own},
        grids=grids,
        most_columns=MOST_COLUMNS if config.wide == "reduce" else None,
    )


def count_grid(config: StudyConfig) -> int:
    """Count the points of a study's grid, crossed with the other choices."""
    choices = (config.searched_statistics, *_candidates(config))
    crossed = prod(len(values) for values in choices)
    try:
        grids = _grids(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return crossed * sum(grid_size(grids[kind]) for kind in config.searched_boosters)


def _grids(config: StudyConfig) -> Mapping[str, Grid]:
    own: dict[str, Grid] = {kind: make_grid(kind, table) for kind, table in config.grid.items()}
    return {**GRIDS, **own}


def _candidates(config: StudyConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the screens and the answers to imbalance that a search chooses among."""
    auto: tuple[tuple[str, ...], tuple[str, ...]] = (SCREENING_AUTO, IMBALANCE_AUTO)
    if config.sampler == "grid":
        auto = (SCREENING_GRID, IMBALANCE_GRID)
    screening, imbalance = (
        known if said == "auto" else tuple(dict.fromkeys(said.split(",")))
        for said, known in zip((config.screening, config.imbalance), auto, strict=True)
    )
    return screening, imbalance
