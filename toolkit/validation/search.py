"""The search inside one outer fold: Optuna proposes, inner folds of unseen people decide.

One search is sequential and belongs to one unit, a system and an outer fold. The trials run
in memory, and each finished one is added to the Optuna storage in a single transaction: a
process that is killed leaves no half-written trial, and a resumed search continues from the
stored trials.

With many training rows a search has two stages, as successive halving has several: a sample of
people compares all trials, and all rows compare the best few.

References
----------
Jamieson and Talwalkar (2016), Non-stochastic best arm identification and hyperparameter
optimization, AISTATS.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from toolkit.models import GRIDS, SPACES, BoosterError, parse_screening
from toolkit.models.spaces import (
    IMBALANCE_AUTO,
    SCREENING_AUTO,
    Grid,
    Space,
    first_params,
    grid_size,
    suggest_values,
    to_params,
)
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import Fold, derive_seed, groups_of
from toolkit.validation.metrics import METRICS
from toolkit.validation.racing import IntermediateValue, should_prune
from toolkit.validation.trials import finished_trials, open_storage

#: Training rows above which a sample of them compares the trials.
_MANY_ROWS: Final = 20_000
#: Trials that all rows compare after the sample.
_N_FINALISTS: Final = 3
#: Groups of the sample at least, where there are so many.
_FEWEST_GROUPS: Final = 30
#: Ends the name of the Optuna study of the finalists.
_FINALISTS: Final = " on all rows"


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Candidates of a search, and its budget.

    Parameters
    ----------
    boosters, statistics, screening, imbalance : tuple of str
        The candidates; a single one is fixed, not searched. ``statistics`` are keys of
        ``Features.presets``.
    n_trials : int
        Finished trials to reach; a grid with fewer points ends earlier.
    max_rounds : int
        Most boosting rounds of a model; the coarse fits before it have fewer.
    patience : int
        Rounds without a better validation log-loss before a fit stops; coarse fits have fewer.
    metric : str
        Key of :data:`toolkit.validation.METRICS` that ranks the trials.
    sampler : {"tpe", "random", "grid"}
        Source of the proposals. ``grid`` takes every combination of the booster's grid and
        the candidates above.
    timeout : float, optional
        Worker-seconds in finished trials after which no further trial starts.
    racing : bool, default=True
        Whether a trial that can hardly win skips its remaining inner folds
        (:mod:`toolkit.validation.racing`).
    spaces : mapping of str to mapping
        Booster to its search space, an Optuna distribution per name, such as
        :func:`toolkit.models.make_space` gives. The first trial takes the values nearest to
        the strong default.
    grids : mapping of str to mapping
        Booster to its grid, choices per name (:func:`toolkit.models.make_grid`), used by the
        sampler ``grid`` instead of the space.
    most_columns : int, optional
        Pooled columns of a modality above which
        :func:`toolkit.validation.make_features` takes a smaller statistics preset.
    screen_above : int, optional
        Pooled columns of a modality above which the screening ``none`` becomes an F-test
        screen, which the logistic regression beside it gets as well.
    linear : {"auto", "none"}
        Whether the model gets a linear part beside its trees.
    many_rows : int, default=20000
        Training rows above which half as many, of a sample of people, compare the trials, and
        all rows compare the best three.
    """

    boosters: tuple[str, ...] = ("lightgbm",)
    statistics: tuple[str, ...] = ("rich",)
    screening: tuple[str, ...] = SCREENING_AUTO
    imbalance: tuple[str, ...] = IMBALANCE_AUTO
    n_trials: int = 20
    max_rounds: int = 1_200
    patience: int = 40
    metric: str = "f1_micro"
    sampler: str = "tpe"
    timeout: float | None = None
    racing: bool = True
    spaces: Mapping[str, Space] = field(default_factory=lambda: dict(SPACES))
    grids: Mapping[str, Grid] = field(default_factory=lambda: dict(GRIDS))
    most_columns: int | None = None
    screen_above: int | None = None
    linear: str = "auto"
    many_rows: int = _MANY_ROWS


@dataclass(frozen=True, slots=True)
class _Stage:
    """Fits on some rows, and the proposals that come before the sampler's own."""

    fits: InnerFits
    folds: Sequence[Fold]
    options: SearchOptions
    queue: Sequence[Mapping[str, Any]]
    shared: optuna.search_space.IntersectionSearchSpace = field(
        default_factory=lambda: optuna.search_space.IntersectionSearchSpace(include_pruned=True)
    )


def _ask_trial(study: optuna.Study, stage: _Stage) -> tuple[optuna.Trial, dict[str, Any]]:
    """Propose the next trial, by a sampler that depends on its number alone."""
    fits, options = stage.fits, stage.options
    # A sampler kept over trials would repeat the first proposals after a resume.
    number = len(_read_trials(study))
    if number < len(stage.queue):
        study.sampler = optuna.samplers.RandomSampler(seed=0)  # nothing is left to draw
        study.enqueue_trial(dict(stage.queue[number]))
    elif options.sampler == "grid":
        booster = _schedule(fits, options)[number]
        own = {name: each.choices for name, each in options.grids[booster].items()}
        points = _choices(fits, options) | {"booster": (booster,)} | own
        study.sampler = optuna.samplers.GridSampler(
            {name: list(values) for name, values in points.items()},
            seed=derive_seed(fits.seed, "grid"),
        )
    else:
        seed = derive_seed(fits.seed, "trial", number)
        study.sampler = _make_sampler(options, seed, stage.shared)
    trial = study.ask()
    params = _suggest_params(trial, fits, options)
    if options.sampler == "grid":
        # After its last point GridSampler calls Study.stop, which needs Optuna's own loop.
        study.sampler = optuna.samplers.RandomSampler(seed=0)
    return trial, params


def _schedule(fits: InnerFits, options: SearchOptions) -> list[str]:
    """List the booster of every grid point: boosters alternate in proportion to grid size."""
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
    space = (options.grids if options.sampler == "grid" else options.spaces)[booster]
    n_features = len(fits.features.presets[chosen["statistics"]])
    params = to_params(
        booster,
        suggest_values(trial, space),
        n_rows=len(fits.outer_rows),
        n_features=min(n_features, parse_screening(chosen["screening"])[1] or n_features),
    )
    # A user's space may have no `max_bin`.
    return chosen | {"max_bin": 63} | params


def _first_params(fits: InnerFits, options: SearchOptions) -> dict[str, Any]:
    choices = _choices(fits, options)
    chosen = {name: values[0] for name, values in choices.items()}
    own = first_params(chosen["booster"], options.spaces[chosen["booster"]])
    return {name: chosen[name] for name, values in choices.items() if len(values) > 1} | own


def _choices(fits: InnerFits, options: SearchOptions) -> dict[str, tuple[str, ...]]:
    """List the candidates of every discrete choice; a screen of every column is ``none``."""
    widest = max(len(fits.features.presets[name]) for name in options.statistics)
    whole = fits.features.screen
    named = (n if 0 < parse_screening(n)[1] < widest else whole for n in options.screening)
    return {
        "booster": options.boosters,
        "statistics": options.statistics,
        "screening": tuple(dict.fromkeys(named)),
        "imbalance": options.imbalance,
    }


def _make_sampler(
    options: SearchOptions, seed: int, shared: optuna.search_space.IntersectionSearchSpace
) -> optuna.samplers.BaseSampler:
    if options.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # A constant liar is for parallel trials; it would change sequential ones.
    fixed = {"n_startup_trials": 8, "multivariate": True, "constant_liar": False}
    return _Sampler(shared, options.spaces, seed=seed, **fixed)


class _Sampler(optuna.samplers.TPESampler):
    """TPE of one trial: first the parameters of every trial, then the booster's own, jointly.

    A sampler made anew compares the distributions of all trials again, the costliest part of
    a late proposal, so the parameters of every trial are `shared` over samplers. A proposal
    parameter by parameter, TPE's own way for the others, would sort all trials each time.
    """

    def __init__(
        self,
        shared: optuna.search_space.IntersectionSearchSpace,
        spaces: Mapping[str, Space],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._shared, self._spaces = shared, spaces
        self._own: dict[str, Any] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """Find the parameters that are proposed together."""
        space = self._shared.calculate(study, use_cache=True)
        return {name: values for name, values in space.items() if not values.single()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Propose a parameter that not every trial has, with the others of its booster."""
        space = self._spaces.get(trial.params.get("booster", ""), {})
        if param_name in space and param_name not in self._own:
            shared = self.infer_relative_search_space(study, trial)
            own: dict[str, optuna.distributions.BaseDistribution] = {
                n: d for n, d in space.items() if n not in shared and not d.single()
            }
            self._own = self.sample_relative(study, trial, own)  # empty in the first trials
        if param_name in self._own:
            return self._own[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The parameters chosen by a search, and all its trials.

    Parameters
    ----------
    params : mapping
        The chosen parameters, fixed ones included.
    n_rounds : int
        Boosting rounds of the later fits, from the mean validation curve of the chosen trial.
    score : float
        The metric of the chosen trial's trees over the inner validation rows that have the
        modality: optimistic, being the best of many.
    trials : tuple of mapping
        One per finished trial: ``number``, ``state`` (``complete``, ``pruned``, ``fail``),
        number of ``folds``, ``score`` over these, ``first_score`` over the first of them
        (None where it failed), ``n_rounds``, ``params`` and ``failure`` (None or the error).
    stopped_by : str
        ``"trials"``, ``"time"``, or ``"grid"`` after every point of a grid.
    n_sampled : int
        Rows of the sample that compared the trials; 0 where all rows did.
    finalists : tuple of mapping
        The best trials of the sample, from the best on, compared by all rows: as ``trials``,
        with the ``number`` in the sample. The chosen trial is one of them, with its score here.
    """

    params: Mapping[str, Any]
    n_rounds: int
    score: float
    trials: tuple[Mapping[str, Any], ...]
    stopped_by: str
    n_sampled: int = 0
    finalists: tuple[Mapping[str, Any], ...] = ()


def search_params(
    fits: InnerFits,
    folds: Sequence[Fold],
    options: SearchOptions,
    *,
    storage: str | None = None,
    study_name: str = "search",
) -> SearchResult:
    """Search the parameters of one unit on its inner folds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The strong default goes first; a grid has an order of its own.
    grid = options.sampler == "grid"
    whole = _Stage(fits, folds, options, [] if grid else [_first_params(fits, options)])
    n_trials, ended = options.n_trials, "trials"
    if grid and (n_points := len(_schedule(fits, options))) <= n_trials:
        n_trials, ended = n_points, "grid"
    # The version was checked when the Optuna studies were created.
    with nullcontext() if storage is None else open_storage(storage, check=False) as rdb:
        stage = _take_sample(whole)
        study, in_time = _run_trials(stage, n_trials, rdb, study_name)
        result = _make_result(study, ended if in_time else "time")
        stage.fits.ledger.record(f"{stage.fits.prefix}search", "choose", stage.fits.outer_rows)
        if stage is whole:
            return result
        ranked = _rank_trials(study)[:_N_FINALISTS]
        # Compared without a limit of time: the sample alone chooses nothing.
        final = replace(
            whole, options=replace(options, timeout=None), queue=[t.params for t in ranked]
        )
        if rdb is not None:
            _drop_others(rdb, study_name + _FINALISTS, final)
        rerun, _ = _run_trials(final, len(ranked), rdb, study_name + _FINALISTS)
    fits.ledger.record("search", "choose", fits.outer_rows)
    found = _make_result(rerun, result.stopped_by)
    numbers = [trial.number for trial in ranked]
    finalists = [dict(t) | {"number": n} for t, n in zip(found.trials, numbers, strict=True)]
    return replace(
        found,
        trials=result.trials,
        n_sampled=len(stage.fits.outer_rows),
        finalists=tuple(finalists),
    )


def size_searches(study_name: str, n_rows: int, options: SearchOptions) -> dict[str, int]:
    """Count the trials of a unit by Optuna study.

    Parameters
    ----------
    study_name : str
        Name of the unit's search.
    n_rows : int
        Training rows of the unit.
    options : SearchOptions
        Budget of the search.

    Returns
    -------
    dict of str to int
        The search, and that of the finalists where a sample compares the trials.
    """
    finalists = {study_name + _FINALISTS: min(_N_FINALISTS, options.n_trials)}
    return {study_name: options.n_trials} | (finalists if n_rows > options.many_rows else {})


def _take_sample(whole: _Stage) -> _Stage:
    """Restrict a stage to a sample of the people, where there are many rows."""
    fits, most = whole.fits, whole.options.many_rows
    if len(fits.outer_rows) <= most:
        return whole
    rows = _draw_rows(fits, most // 2)
    folds = [
        replace(
            fold, train=np.intersect1d(fold.train, rows), test=np.intersect1d(fold.test, rows)
        )
        for fold in whole.folds
    ]
    sampled = replace(fits, outer_rows=rows, prefix="sample ")
    return _Stage(sampled, folds, whole.options, whole.queue)


def _draw_rows(fits: InnerFits, n_rows: int) -> NDArray[np.int64]:
    """Draw groups until they have that many rows, and then that many of these rows."""
    rng = np.random.default_rng(derive_seed(fits.seed, "sample"))
    groups = groups_of(fits.ledger.groups)[fits.outer_rows]
    names, codes = np.unique(groups, return_inverse=True)
    drawn = rng.permutation(len(names))
    n_enough = 1 + int(np.searchsorted(np.bincount(codes)[drawn].cumsum(), n_rows))
    rows = fits.outer_rows[np.isin(codes, drawn[: max(n_enough, _FEWEST_GROUPS)])]
    return np.sort(rng.choice(rows, n_rows, replace=False))


def _rank_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """List the complete trials from the best on, the first of equal ones first."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(complete, key=lambda trial: sign * (trial.value or 0.0))


def _drop_others(rdb: optuna.storages.RDBStorage, name: str, final: _Stage) -> None:
    """Empty the study of the finalists where it holds those of fewer trials."""
    archive = optuna.load_study(storage=rdb, study_name=name)
    kept = [trial.params for trial in finished_trials(archive.get_trials(deepcopy=False))]
    if kept != [dict(each) for each in final.queue[: len(kept)]]:
        modalities = archive.user_attrs["modalities"]
        optuna.delete_study(study_name=name, storage=rdb)
        _create_study(rdb, name, modalities, final.options.metric)


def _run_trials(
    stage: _Stage, n_trials: int, rdb: optuna.storages.RDBStorage | None, study_name: str
) -> tuple[optuna.Study, bool]:
    """Run the missing trials of a stage; give all of them, and whether time did not end them.

    In memory: no trial waits for a disk, and only finished trials are stored.
    """
    fits, folds, options = stage.fits, stage.folds, stage.options
    study = optuna.create_study(direction=METRICS[options.metric].direction)
    archive = None
    if rdb is not None:
        archive = optuna.load_study(storage=rdb, study_name=study_name)
        kept = finished_trials(archive.get_trials(deepcopy=False))
        # A resumed search with fewer trials must choose as one that never ran the others.
        study.add_trials(kept[:n_trials])
        for attributes in (trial.user_attrs for trial in _read_trials(study)):
            fits.record_trial(attributes["params"], folds[: attributes["folds"]])
    seconds = sum(trial.user_attrs.get("seconds", 0.0) for trial in _read_trials(study))
    in_time = True
    while (n_done := len(_read_trials(study))) < n_trials:
        if options.timeout is not None and n_done and seconds >= options.timeout:
            in_time = False
            break
        trial = _run_trial(study, stage)
        seconds += trial.user_attrs["seconds"]
        if archive is not None:
            # One transaction: a kill before or after it leaves a whole number of trials.
            archive.add_trial(trial)
    fits.forget()
    return study, in_time


def create_studies(
    storage: str, modalities: Mapping[str, Sequence[str]], *, metric: str
) -> None:
    """Create the missing Optuna studies, before any worker starts.

    Several processes cannot create SQLite's tables at the same time.

    Parameters
    ----------
    storage : str
        URL of the storage.
    modalities : mapping of str to sequence of str
        Name of each study, and the modalities of its system. Trials over other modalities
        are moved to a study with another name.
    metric : str
        Key of :data:`toolkit.validation.METRICS`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_storage(storage) as rdb:
        existing = set(optuna.study.get_all_study_names(rdb))
        for name, seen in modalities.items():
            if name in existing:
                study = optuna.load_study(storage=rdb, study_name=name)
                before = study.user_attrs["modalities"]
                if before == list(seen):
                    continue
                aside = f"{name} over {', '.join(before)}"
                if aside not in existing:
                    optuna.copy_study(
                        from_study_name=name,
                        from_storage=rdb,
                        to_storage=rdb,
                        to_study_name=aside,
                    )
                optuna.delete_study(study_name=name, storage=rdb)
            _create_study(rdb, name, seen, metric)


def _create_study(
    rdb: optuna.storages.RDBStorage, name: str, modalities: Sequence[str], metric: str
) -> None:
    study = optuna.create_study(
        storage=rdb, study_name=name, direction=METRICS[metric].direction
    )
    study.set_user_attr("modalities", list(modalities))
    with warnings.catch_warnings():
        # The dashboard labels its axes by it; Optuna calls the interface experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([metric])


def count_trials(storage: str) -> dict[str, tuple[int, float | None]]:
    """Count the trials of a storage's searches.

    Parameters
    ----------
    storage : str
        URL of the storage.

    Returns
    -------
    dict
        Name of the study to its number of trials and its best score (None without one).
    """
    with open_storage(storage, check=False) as rdb:
        summaries = optuna.get_all_study_summaries(rdb)
    return {
        summary.study_name: (
            summary.n_trials,
            None if summary.best_trial is None else summary.best_trial.value,
        )
        for summary in summaries
    }


def _read_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Read all trials; ``study.trials`` would copy every one of them deeply at each call."""
    return study.get_trials(deepcopy=False)


def _run_trial(study: optuna.Study, stage: _Stage) -> optuna.trial.FrozenTrial:
    fits, options = stage.fits, stage.options
    number = len(_read_trials(study))
    started = time.perf_counter()
    trial, params = _ask_trial(study, stage)
    trial.set_user_attr("number", number)
    trial.set_user_attr("params", params)
    best = _best_trial(study) if options.racing else None
    to_beat = [] if best is None else best.user_attrs["checkpoints"]
    best_values = [IntermediateValue(**plain) for plain in to_beat]
    values: list[IntermediateValue] = []
    state = TrialState.COMPLETE
    try:
        for value, n_rounds in fits.evaluate(
            params,
            stage.folds,
            metric=options.metric,
            max_rounds=options.max_rounds,
            patience=options.patience,
        ):
            trial.report(value.score, len(values))
            trial.set_user_attr("n_rounds", n_rounds)
            values.append(value)
            if best_values and should_prune(values, best_values, metric=options.metric):
                state = TrialState.PRUNED
                break
    except BoosterError as error:
        # The library could not fit this point; the search continues without it.
        trial.set_user_attr("failure", str(error))
        state = TrialState.FAIL
    failed = state == TrialState.FAIL
    trial.set_user_attr("folds", len(values) + failed)
    # The name under which earlier versions stored them: their searches can be resumed.
    trial.set_user_attr("checkpoints", [asdict(value) for value in values])
    trial.set_user_attr("seconds", time.perf_counter() - started)
    complete = state == TrialState.COMPLETE
    return study.tell(trial, values[-1].score if complete else None, state)


def _best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """Return the best trial, None before there is one."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return study.best_trial if complete else None


def _make_result(study: optuna.Study, stopped_by: str) -> SearchResult:
    best = _best_trial(study)
    if best is None:
        trials = _read_trials(study)
        reason = trials[-1].user_attrs["failure"] if trials else "no trial ran"
        raise ValueError(
            f"No trial of the search succeeded; the last one failed with: {reason}. "
            "Try another --booster or --imbalance."
        )
    return SearchResult(
        params=best.user_attrs["params"],
        n_rounds=best.user_attrs["n_rounds"],
        score=float(study.best_value),
        trials=tuple(
            {
                "number": number,
                "state": trial.state.name.lower(),
                "folds": trial.user_attrs["folds"],
                "score": trial.value,
                "first_score": trial.intermediate_values.get(0),
                "n_rounds": trial.user_attrs.get("n_rounds"),
                "params": trial.user_attrs["params"],
                "failure": trial.user_attrs.get("failure"),
            }
            for number, trial in enumerate(_read_trials(study))
        ),
        stopped_by=stopped_by,
    )
