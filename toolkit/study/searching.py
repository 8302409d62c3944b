"""The searches of a study: what they may choose, how often, and of how many columns."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from toolkit.models import GRIDS, parse_screening
from toolkit.models.spaces import grid_size, make_grid, make_space
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.validation import MOST_COLUMNS, WIDE_SCREEN, SearchOptions
from toolkit.validation.search import (
    IMBALANCE_AUTO,
    IMBALANCE_GRID,
    SCREENING_AUTO,
    SCREENING_GRID,
)


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
        metric=config.metric,
        sampler=config.sampler,
        timeout=config.timeout,
        spaces=spaces,
        grids=grids,
        most_columns=MOST_COLUMNS if config.wide == "reduce" else None,
        screen_above=MOST_COLUMNS if config.wide == "screen" else None,
        linear=config.linear,
    )
    if config.sampler != "grid":
        return options
    # A grid is run to its end, unless fewer trials are asked for.
    choices = (options.statistics, options.screening, options.imbalance)
    points = prod(map(len, choices)) * sum(
        grid_size(options.grids[kind]) for kind in options.boosters
    )
    asked = config.trials if "trials" in config.model_fields_set else points
    most = 5 if config.quick and "trials" not in config.model_fields_set else points
    return replace(options, n_trials=min(asked, points, most))


def limit_fixed(config: StudyConfig) -> int | None:
    """Limit the columns of fits of the fixed configuration: its bins take most of its time."""
    return None if config.wide == "keep" else MOST_COLUMNS


def widest_fit(widths: Sequence[Sequence[int]], options: SearchOptions) -> int:
    """Count the columns of a unit's widest fit, given those of each table by preset."""
    width = max(map(sum, widths))
    most = options.screen_above
    screened = most is not None and max(map(max, widths)) > most
    # A gain is computed over all columns.
    if not screened or any(name.startswith("gain") for name in options.screening):
        return width
    return min(width, max(parse_screening(n)[1] for n in (WIDE_SCREEN, *options.screening)))
