"""What a search may choose, and how the next trial's parameters are proposed.

The sampler of every trial is made afresh from the unit's name and the number of finished
trials, so that a search taken up again proposes what an uninterrupted one would have. A grid
goes through Optuna's GridSampler, one grid a booster, in an order drawn from the unit's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Final

import optuna

from toolkit.models import (
    GRIDS,
    first_params,
    grid_size,
    grid_space,
    lightgbm_space,
    parse_screening,
    xgboost_space,
)
from toolkit.validation.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.models.spaces import Space
    from toolkit.validation.fits import InnerFits

#: What `auto` searches; the first of each is the first trial's.
IMBALANCE_AUTO: Final = ("none", "weights", "smote")
SCREENING_AUTO: Final = ("none", "ftest-2000", "ftest-500")

#: What `auto` means where a grid is crossed with it.
IMBALANCE_GRID: Final = ("none", "weights")
SCREENING_GRID: Final = ("none",)

_N_STARTUP_TRIALS: Final = 8
#: Of a user's space that does not speak of bins.
_MAX_BIN: Final = 63


def _built_in_spaces() -> dict[str, Space]:
    return {"lightgbm": lightgbm_space, "xgboost": xgboost_space}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search may choose, and how long it looks.

    Parameters
    ----------
    boosters, statistics, screening, imbalance : tuple of str
        The candidates; a single one is fixed rather than searched. ``statistics`` are keys
        of ``Features.presets``.
    n_trials : int
        Number of finished trials to reach; a grid ends earlier where it has fewer points.
    max_rounds : int
        Most boosting rounds of a fit.
    patience : int
        Rounds without a better validation log-loss before a fit stops.
    metric : str
        Key of :data:`toolkit.validation.METRICS` that trials are compared by.
    sampler : {"tpe", "random", "grid"}
        How parameters are proposed. ``grid`` takes every combination of the booster's grid
        and the candidates above.
    timeout : float, optional
        Worker-seconds in finished trials after which no further trial starts.
    racing : bool, default=True
        Whether a trial that can hardly win any more skips the inner folds that are left
        (:mod:`toolkit.validation.racing`).
    spaces : mapping of str to Space
        Booster to its search space: a function of a trial and the size of the data, such as
        :func:`toolkit.models.make_space` gives. The first trial takes what comes nearest to
        the strong default. Searches in other processes need functions that can be pickled.
    grids : mapping of str to mapping
        Booster to its grid, values a name (:func:`toolkit.models.make_grid`), used by the
        sampler ``grid`` instead of the space.
    most_columns : int, optional
        Pooled columns of a modality above which
        :func:`toolkit.validation.make_features` takes a smaller statistics preset.
    """

    boosters: tuple[str, ...] = ("lightgbm",)
    statistics: tuple[str, ...] = ("rich",)
    screening: tuple[str, ...] = SCREENING_AUTO
    imbalance: tuple[str, ...] = IMBALANCE_AUTO
    n_trials: int = 20
    max_rounds: int = 300
    patience: int = 20
    metric: str = "f1_micro"
    sampler: str = "tpe"
    timeout: float | None = None
    racing: bool = True
    spaces: Mapping[str, Space] = field(default_factory=_built_in_spaces)
    grids: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(
        default_factory=lambda: dict(GRIDS)
    )
    most_columns: int | None = None


def ask_trial(
    study: optuna.Study, fits: InnerFits, options: SearchOptions
) -> tuple[optuna.Trial, dict[str, Any]]:
    """Propose the next trial."""
    number = len(study.trials)
    if options.sampler == "grid":
        booster = _schedule(fits, options)[number]
        own: dict[str, tuple[Any, ...]] = {"booster": (booster,), **options.grids[booster]}
        points = _choices(fits, options) | own
        study.sampler = optuna.samplers.GridSampler(
            {name: list(values) for name, values in points.items()},
            seed=derive_seed(fits.seed, "grid"),
        )
    else:
        study.sampler = _make_sampler(options.sampler, derive_seed(fits.seed, "trial", number))
        if not number:
            study.enqueue_trial(_first_params(fits, options))
    trial = study.ask()
    params = _suggest_params(trial, fits, options)
    if options.sampler == "grid":
        # Told of its last point, GridSampler would stop a loop that is not Optuna's.
        study.sampler = optuna.samplers.RandomSampler(seed=0)
    return trial, params


def count_points(fits: InnerFits, options: SearchOptions) -> int | None:
    """Count the points that there are to try."""
    if options.sampler != "grid":
        return None
    return len(_schedule(fits, options))


def _schedule(fits: InnerFits, options: SearchOptions) -> list[str]:
    """Say whose grid each trial is a point of: the boosters take turns by their sizes."""
    crossed = prod(
        len(values) for name, values in _choices(fits, options).items() if name != "booster"
    )
    sizes = {name: crossed * grid_size(options.grids[name]) for name in options.boosters}
    turns = sorted((k / size, name) for name, size in sizes.items() for k in range(size))
    return [name for _, name in turns]


def _suggest_params(
    trial: optuna.Trial, fits: InnerFits, options: SearchOptions
) -> dict[str, Any]:
    chosen = {
        name: values[0] if len(values) == 1 else trial.suggest_categorical(name, values)
        for name, values in _choices(fits, options).items()
    }
    booster = chosen["booster"]
    space = options.spaces[booster]
    if options.sampler == "grid":
        space = grid_space(booster, options.grids[booster])
    size = {"n_rows": len(fits.outer_rows), "n_features": _n_features(fits, chosen)}
    return chosen | {"max_bin": _MAX_BIN} | space(trial, **size)


def _first_params(fits: InnerFits, options: SearchOptions) -> dict[str, Any]:
    choices = _choices(fits, options)
    chosen = {name: values[0] for name, values in choices.items()}
    own = first_params(
        chosen["booster"],
        options.spaces[chosen["booster"]],
        n_rows=len(fits.outer_rows),
        n_features=_n_features(fits, chosen),
    )
    return {name: chosen[name] for name, values in choices.items() if len(values) > 1} | own


def _n_features(fits: InnerFits, chosen: Mapping[str, str]) -> int:
    n_features = len(fits.features.presets[chosen["statistics"]])
    n_kept = parse_screening(chosen["screening"])[1]
    return min(n_features, n_kept) if n_kept else n_features


def _choices(fits: InnerFits, options: SearchOptions) -> dict[str, tuple[str, ...]]:
    """Name the candidates of every discrete choice, without screens that keep everything."""
    widest = max(len(fits.features.presets[name]) for name in options.statistics)
    screening = tuple(name for name in options.screening if parse_screening(name)[1] < widest)
    return {
        "booster": options.boosters,
        "statistics": options.statistics,
        "screening": screening or ("none",),
        "imbalance": options.imbalance,
    }


def _make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=_N_STARTUP_TRIALS, multivariate=True, constant_liar=False
    )
