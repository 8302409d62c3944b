"""The search: kills, crashes and resumes change no proposal; failed trials stay failed."""

import os
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from toolkit.models import SPACES, BoosterError, Features
from toolkit.models.preparation import rank_columns, split_params
from toolkit.models.spaces import make_grid
from toolkit.validation import search
from toolkit.validation import search as proposals
from toolkit.validation.fits import InnerFits, _best_rounds
from toolkit.validation.folds import inner_folds, speaker_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.search import (
    SearchOptions,
    count_trials,
    create_studies,
    search_params,
)

OPTIONS = SearchOptions(
    statistics=("rich",),
    screening=("none", "ftest-6"),
    imbalance=("none", "weights"),
    n_trials=10,
    max_rounds=12,
    patience=4,
)


@pytest.fixture(scope="module")
def features(manifest):
    values = np.random.default_rng(1).normal(size=(len(manifest), 12)).astype(np.float32)
    values[:, 0] += manifest.labels
    return Features(
        values=values,
        names=tuple(f"text__value__{i:04d}" for i in range(12)),
        present=np.ones(len(manifest), dtype=bool),
        presets={"rich": np.arange(12)},
    )


@pytest.fixture
def make_fits(manifest, features):
    fold = speaker_folds(manifest)[0]

    def make(seed=0):
        return InnerFits(
            features,
            manifest.labels,
            fold.train,
            n_classes=4,
            ledger=Ledger("text", fold, manifest.utterances, manifest.speakers),
            seed=seed,
        )

    return make


@pytest.fixture(scope="module")
def folds(manifest):
    fold = speaker_folds(manifest)[0]
    return inner_folds(manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search")


@pytest.fixture
def storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    create_studies(url, {"text/00": ["text"]}, metric="f1_micro")
    return url


@pytest.fixture(scope="module")
def uninterrupted(manifest, features, folds):
    fold = speaker_folds(manifest)[0]
    ledger = Ledger("text", fold, manifest.utterances, manifest.speakers)
    fits = InnerFits(features, manifest.labels, fold.train, n_classes=4, ledger=ledger, seed=0)
    return search_params(fits, folds, OPTIONS)


@contextmanager
def opened(url):
    """An Optuna storage whose connections are closed again: left open, they are warned of."""
    storage = optuna.storages.RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def with_trials(n_trials):
    return replace(OPTIONS, n_trials=n_trials)


def test_the_best_trial_is_chosen_with_its_own_rounds(uninterrupted):
    whole = [trial for trial in uninterrupted.trials if trial["state"] == "complete"]
    best = max(whole, key=lambda trial: trial["score"])

    assert uninterrupted.score == best["score"]
    assert uninterrupted.params == best["params"]
    assert uninterrupted.n_rounds == best["n_rounds"]
    assert uninterrupted.stopped_by == "trials"


def test_the_first_trial_is_the_strong_default(uninterrupted):
    first = uninterrupted.trials[0]["params"]

    assert (first["num_leaves"], first["screening"], first["imbalance"]) == (7, "none", "none")


def test_no_two_trials_are_alike(uninterrupted):
    # Samplers of one seed would all begin with the same point.
    proposed = {str(sorted(trial["params"].items())) for trial in uninterrupted.trials}

    assert len(proposed) == len(uninterrupted.trials) == 10


def share():
    return optuna.search_space.IntersectionSearchSpace(include_pruned=True)


def test_later_trials_compare_no_more_distributions_and_propose_the_same(monkeypatch):
    """Proposals are those of a sampler that is made anew for every trial."""
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    outcomes = [states[k] for k in np.random.default_rng(0).integers(3, size=80)]

    def run(make):
        compared = []
        study = optuna.create_study(direction="maximize")
        for number, state in enumerate(outcomes):
            study.sampler = make(number)
            before = len(comparisons)
            trial = study.ask()
            kind = trial.suggest_categorical("kind", ["a", "b"])
            x = trial.suggest_float("x", 0, 1) + trial.suggest_float(f"only {kind}", 0, 1)
            trial.report(x, 0)
            study.tell(trial, x if state == TrialState.COMPLETE else None, state)
            compared.append(len(comparisons) - before)
        return [trial.params for trial in study.get_trials(deepcopy=False)], compared

    comparisons = []
    equal = FloatDistribution.__eq__

    def count(self, other):
        comparisons.append(1)
        return equal(self, other)

    monkeypatch.setattr(FloatDistribution, "__eq__", count)
    settings = {"n_startup_trials": 8, "multivariate": True, "constant_liar": False}
    plain, _ = run(lambda number: optuna.samplers.TPESampler(seed=number, **settings))
    shared = share()
    found, compared = run(lambda number: proposals._make_sampler(OPTIONS, number, shared))

    assert found == plain
    assert max(compared[40:]) <= max(compared[:40])


def test_a_trial_that_runs_elsewhere_moves_no_proposal():
    # A constant liar takes it for a bad one; what a kill left behind would count.
    space = {"x": FloatDistribution(0, 1)}
    trials = [
        optuna.create_trial(params={"x": x}, distributions=space, value=(x - 0.3) ** 2)
        for x in np.linspace(0, 1, 12).tolist()
    ]
    running = optuna.create_trial(
        params={"x": 0.3}, distributions=space, state=TrialState.RUNNING
    )

    def propose(others):
        study = optuna.create_study(sampler=proposals._make_sampler(OPTIONS, 5, share()))
        study.add_trials([*trials, *others])
        return study.ask(space).params

    assert propose([running] * 6) == propose([])


def test_a_search_taken_up_again_proposes_what_an_uninterrupted_one_does(
    make_fits, folds, storage, uninterrupted
):
    # With TPESampler(seed) and load_if_exists the first trials would come twice.
    for n_trials in (2, 9, 10):
        found = search_params(
            make_fits(), folds, with_trials(n_trials), storage=storage, study_name="text/00"
        )

    assert found == uninterrupted


def test_a_search_of_both_boosters_taken_up_again_goes_on_as_it_would_have(
    make_fits, folds, storage
):
    options = replace(OPTIONS, boosters=("xgboost", "lightgbm"), max_rounds=4)
    whole = search_params(make_fits(), folds, options)

    for n_trials in (3, 10):
        some = replace(options, n_trials=n_trials)
        found = search_params(make_fits(), folds, some, storage=storage, study_name="text/00")

    assert found == whole
    assert whole.trials[0]["params"]["booster"] == "xgboost"


def test_the_ledger_of_a_search_taken_up_again_is_that_of_an_uninterrupted_one(
    make_fits, folds, storage
):
    whole, resumed = make_fits(), make_fits()
    search_params(whole, folds, with_trials(4))
    search_params(make_fits(), folds, with_trials(3), storage=storage, study_name="text/00")

    search_params(resumed, folds, with_trials(4), storage=storage, study_name="text/00")

    assert resumed.ledger.entries() == whole.ledger.entries()


def test_trials_left_running_or_written_twice_count_once(
    make_fits, folds, storage, uninterrupted
):
    search_params(make_fits(), folds, with_trials(9), storage=storage, study_name="text/00")
    with opened(storage) as rdb:
        study = optuna.load_study(storage=rdb, study_name="text/00")
        study.ask()  # killed while it ran
        study.add_trial(study.get_trials()[3])  # finished by an orphan and by its successor

    found = search_params(make_fits(), folds, OPTIONS, storage=storage, study_name="text/00")

    assert found == uninterrupted


def test_trials_count_in_the_order_of_their_numbers(make_fits, folds, storage, uninterrupted):
    search_params(make_fits(), folds, with_trials(9), storage=storage, study_name="text/00")
    create_studies(storage, {"turned/00": ["text"]}, metric="f1_micro")
    with opened(storage) as rdb:
        trials = optuna.load_study(storage=rdb, study_name="text/00").get_trials()
        optuna.load_study(storage=rdb, study_name="turned/00").add_trials(trials[::-1])

    found = search_params(make_fits(), folds, OPTIONS, storage=storage, study_name="turned/00")

    assert found == uninterrupted


def test_trials_beyond_those_asked_for_choose_nothing(make_fits, folds, storage):
    search_params(make_fits(), folds, with_trials(6), storage=storage, study_name="text/00")

    found = search_params(
        make_fits(), folds, with_trials(2), storage=storage, study_name="text/00"
    )

    assert found == search_params(make_fits(), folds, with_trials(2))


def test_the_seconds_of_earlier_runs_count(make_fits, folds, storage):
    search_params(make_fits(), folds, with_trials(2), storage=storage, study_name="text/00")

    found = search_params(
        make_fits(),
        folds,
        replace(OPTIONS, timeout=1e-9),
        storage=storage,
        study_name="text/00",
    )

    assert (len(found.trials), found.stopped_by) == (2, "time")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_storage_is_closed_when_its_search_ends(make_fits, folds, storage):
    search_params(make_fits(), folds, with_trials(1), storage=storage, study_name="text/00")
    count_trials(storage)

    opened_files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened_files if path.endswith("search.db")]


def test_finished_trials_are_not_run_again(make_fits, folds, storage, monkeypatch):
    search_params(make_fits(), folds, OPTIONS, storage=storage, study_name="text/00")
    fits = make_fits()
    monkeypatch.setattr(fits, "evaluate", lambda *_, **__: pytest.fail("run again"))

    search_params(fits, folds, OPTIONS, storage=storage, study_name="text/00")


def test_a_trial_that_lost_the_race_is_pruned_and_cannot_be_chosen(
    make_fits, folds, monkeypatch
):
    monkeypatch.setattr(search, "should_prune", lambda *_, **__: True)

    found = search_params(make_fits(), folds, OPTIONS)

    assert [t["state"] for t in found.trials] == ["complete"] + ["pruned"] * 9
    assert [t["folds"] for t in found.trials] == [3] + [1] * 9
    assert found.params == found.trials[0]["params"]


def test_racing_changes_no_trial_that_runs_to_its_end(make_fits, folds, uninterrupted):
    still = search_params(make_fits(), folds, replace(OPTIONS, racing=False))

    first = next(k for k, t in enumerate(uninterrupted.trials) if t["state"] == "pruned")
    assert {t["state"] for t in still.trials} == {"complete"}
    assert still.trials[:first] == uninterrupted.trials[:first]
    assert still.trials[first]["params"] == uninterrupted.trials[first]["params"]


def test_the_ledger_has_the_folds_that_a_raced_trial_ran_on_and_no_other(
    make_fits, folds, monkeypatch
):
    monkeypatch.setattr(search, "should_prune", lambda trial, *_, **__: len(trial) == 2)
    fits = make_fits()

    search_params(fits, folds, with_trials(4))

    times = {
        entry["fit"]: entry["times"]
        for entry in fits.ledger.entries()
        if entry["role"] == "validate"
    }
    assert times == {"inner 0": 4, "inner 1": 4, "inner 2": 1}


def test_another_seed_proposes_otherwise(make_fits, folds, uninterrupted):
    other = search_params(make_fits(seed=1), folds, OPTIONS)

    assert [t["params"] for t in other.trials[1:]] != [
        t["params"] for t in uninterrupted.trials[1:]
    ]


def crash_at(monkeypatch, numbers):
    """Let the booster crash in the trials of these numbers."""
    evaluate = InnerFits.evaluate
    calls = iter(range(1000))

    def crash(self, *args, **kwargs):
        if next(calls) in numbers:
            raise BoosterError("Check failed: (best_split_info.right_count) > (0)")
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(InnerFits, "evaluate", crash)


def test_a_crash_of_the_booster_is_a_failed_trial_and_the_search_goes_on(
    make_fits, folds, storage, monkeypatch
):
    crash_at(monkeypatch, {0, 4})

    found = search_params(make_fits(), folds, OPTIONS, storage=storage, study_name="text/00")

    assert [t["number"] for t in found.trials if t["state"] == "fail"] == [0, 4]
    assert "right_count" in found.trials[4]["failure"]
    assert len(found.trials) == OPTIONS.n_trials
    assert len({str(t["params"]) for t in found.trials}) == OPTIONS.n_trials


def test_a_failed_trial_counts_after_a_resume(make_fits, folds, storage, monkeypatch):
    crash_at(monkeypatch, {1})
    whole = search_params(make_fits(), folds, OPTIONS)
    crash_at(monkeypatch, {1})
    search_params(make_fits(), folds, with_trials(3), storage=storage, study_name="text/00")

    monkeypatch.undo()
    found = search_params(make_fits(), folds, OPTIONS, storage=storage, study_name="text/00")

    assert found == whole


def test_a_search_without_a_successful_trial_says_why(make_fits, folds, monkeypatch):
    crash_at(monkeypatch, set(range(100)))

    with pytest.raises(ValueError, match=r"No trial of the search succeeded.*right_count"):
        search_params(make_fits(), folds, with_trials(2))


def test_time_stops_a_search_after_a_finished_trial(make_fits, folds):
    options = SearchOptions(
        imbalance=("none",), screening=("none",), n_trials=50, max_rounds=5, timeout=1e-9
    )

    found = search_params(make_fits(), folds, options)

    assert (len(found.trials), found.stopped_by) == (1, "time")


def test_the_dashboards_view_counts_the_trials(make_fits, folds, storage):
    assert count_trials(storage) == {"text/00": (0, None)}
    found = search_params(
        make_fits(), folds, with_trials(2), storage=storage, study_name="text/00"
    )

    assert count_trials(storage) == {"text/00": (2, found.score)}


def test_trials_that_saw_other_modalities_count_for_nothing(make_fits, folds, storage):
    search_params(make_fits(), folds, with_trials(2), storage=storage, study_name="text/00")

    create_studies(storage, {"text/00": ["text", "audio"]}, metric="f1_micro")

    assert count_trials(storage)["text/00"] == (0, None)
    assert count_trials(storage)["text/00 over text"][0] == 2


def test_both_boosters_are_searched_together(make_fits, folds):
    options = SearchOptions(
        boosters=("lightgbm", "xgboost"), imbalance=("none",), n_trials=12, max_rounds=4
    )

    found = search_params(make_fits(), folds, options)

    assert {t["params"]["booster"] for t in found.trials} == {"lightgbm", "xgboost"}


def test_the_parameters_of_one_booster_are_proposed_jointly(make_fits, folds, monkeypatch):
    # Parameter by parameter, each proposal would sort all earlier trials again.
    asked = []
    relative = optuna.samplers.TPESampler.sample_relative

    def sample_relative(self, study, trial, search_space):
        found = relative(self, study, trial, search_space)
        asked.append((len(study.get_trials(deepcopy=False)) - 1, set(found)))
        return found

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", sample_relative)
    options = SearchOptions(boosters=("lightgbm", "xgboost"), n_trials=14, max_rounds=4)

    found = search_params(make_fits(), folds, options)

    shared = {"booster", "imbalance", "columns_over_root", "leaf_rows_over_root", "max_bin"}
    for number in range(8, 14):
        booster = found.trials[number]["params"]["booster"]
        own = set(SPACES[booster]) - shared
        assert [names for trial, names in asked if trial == number] == [shared, own]
    assert not any(names for trial, names in asked if trial < 8)


def test_a_screen_that_keeps_everything_is_no_choice(make_fits):
    options = SearchOptions(screening=("none", "ftest-12", "ftest-6"))

    assert proposals._choices(make_fits(), options)["screening"] == ("none", "ftest-6")


def test_in_a_very_wide_modality_a_screen_stands_for_none(make_fits):
    fits = make_fits()
    fits.features = replace(fits.features, screen="ftest-6")

    for asked, expected in {
        ("none", "ftest-3"): ("ftest-6", "ftest-3"),
        ("gain-3", "none", "ftest-6"): ("gain-3", "ftest-6"),
        ("ftest-3",): ("ftest-3",),
    }.items():
        options = SearchOptions(screening=asked)
        assert proposals._choices(fits, options)["screening"] == expected


def test_rounds_are_where_the_mean_curve_is_lowest():
    # Means 2.0, 1.5, 1.75: each curve alone has its minimum elsewhere.
    curves = [np.array([2.0, 2.0, 1.5]), np.array([2.0, 1.0, 2.0])]

    assert _best_rounds(curves) == 2


def test_a_curve_that_stopped_stays_at_its_last_value():
    # Padded, the means are 2, 1.75, 1.25; cut to the shortest, round 1 and 2 alone would count.
    assert _best_rounds([np.array([2.0, 1.5]), np.array([2.0, 2.0, 1.0])]) == 3


def test_parameters_part_into_recipe_and_booster(uninterrupted):
    recipe, own = split_params(uninterrupted.params)

    assert recipe.booster == "lightgbm"
    assert "max_bin" not in own
    assert not {"booster", "imbalance", "screening", "statistics"} & set(own)


GRID = replace(
    OPTIONS,
    sampler="grid",
    imbalance=("none", "weights"),
    screening=("none",),
    grids={
        "lightgbm": make_grid("lightgbm", {"num_leaves": [3, 5], "learning_rate": [0.1, 0.2]}),
        "xgboost": make_grid("xgboost", {"max_depth": [2, 3]}),
    },
    n_trials=100,
    max_rounds=4,
)


def points(found):
    return [
        tuple(trial["params"][name] for name in ("num_leaves", "learning_rate", "imbalance"))
        for trial in found.trials
    ]


def test_a_grid_tries_every_point_once_and_ends(make_fits, folds):
    found = search_params(make_fits(), folds, GRID)

    expected = product((3, 5), (0.1, 0.2), ("none", "weights"))
    assert sorted(points(found)) == sorted(expected)
    assert found.stopped_by == "grid"
    assert {trial["params"]["max_bin"] for trial in found.trials} == {63}


def test_a_grid_of_fewer_trials_is_a_part_of_it_that_the_seed_draws(make_fits, folds):
    few = replace(GRID, n_trials=4)

    one, other = (search_params(make_fits(seed=seed), folds, few) for seed in (0, 1))

    assert (len(set(points(one))), one.stopped_by) == (4, "trials")
    assert points(one) != points(other)


@pytest.mark.parametrize("boosters", [("lightgbm",), ("lightgbm", "xgboost")])
def test_a_grid_taken_up_again_goes_on_with_the_points_that_are_left(
    make_fits, folds, storage, boosters
):
    options = replace(GRID, boosters=boosters)
    whole = search_params(make_fits(), folds, options)

    for n_trials in (3, 7, 100):
        found = search_params(
            make_fits(),
            folds,
            replace(options, n_trials=n_trials),
            storage=storage,
            study_name="text/00",
        )

    assert found == whole


def test_a_grid_of_both_boosters_is_both_their_grids(make_fits, folds):
    found = search_params(make_fits(), folds, replace(GRID, boosters=("lightgbm", "xgboost")))

    tried = {
        kind: [t["params"] for t in found.trials if t["params"]["booster"] == kind]
        for kind in ("lightgbm", "xgboost")
    }
    assert len({(p["max_depth"], p["imbalance"]) for p in tried["xgboost"]}) == 4
    assert [len(tried[kind]) for kind in tried] == [8, 4]


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_a_user_s_own_space_is_searched_from_its_nearest_point_on(make_fits, folds, kind):
    step = {"lightgbm": "learning_rate", "xgboost": "eta"}[kind]
    space = {step: FloatDistribution(0.5, 0.9), "max_bin": CategoricalDistribution((15,))}

    options = replace(OPTIONS, boosters=(kind,), spaces={kind: space}, n_trials=3)
    found = search_params(make_fits(), folds, options)

    steps = [trial["params"][step] for trial in found.trials]
    assert steps[0] == 0.5
    assert all(0.5 <= each <= 0.9 for each in steps)
    assert {trial["params"]["max_bin"] for trial in found.trials} == {15}


def test_a_space_that_says_nothing_of_bins_has_those_of_the_default(make_fits, folds):
    options = replace(OPTIONS, spaces={"lightgbm": {}}, n_trials=1)

    assert search_params(make_fits(), folds, options).params["max_bin"] == 63


def test_every_trial_has_the_score_of_its_first_fold(uninterrupted):
    raced = [trial for trial in uninterrupted.trials if trial["folds"] == 1]

    assert raced
    assert all(trial["first_score"] == trial["score"] for trial in raced)
    assert all(0 < trial["first_score"] <= 1 for trial in uninterrupted.trials)


def test_what_is_kept_of_earlier_trials_changes_nothing(make_fits, folds, monkeypatch):
    options = replace(OPTIONS, imbalance=("none", "smote"), n_trials=6)
    roomy = search_params(make_fits(), folds, options)
    monkeypatch.setattr("toolkit.validation.fits._CACHE_BYTES", 0)

    assert search_params(make_fits(), folds, options) == roomy


def test_a_ranking_is_made_once_for_all_screens_of_a_method(make_fits, folds, monkeypatch):
    calls = []

    def count(*args):
        calls.append(args)
        return rank_columns(*args)

    monkeypatch.setattr("toolkit.validation.fits.rank_columns", count)
    options = replace(OPTIONS, racing=False, screening=("ftest-6", "ftest-3"), n_trials=6)

    found = search_params(make_fits(), folds, options)

    assert {t["params"]["screening"] for t in found.trials} == {"ftest-6", "ftest-3"}
    assert len(calls) == 3  # one an inner fold
