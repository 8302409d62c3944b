"""A sample of people compares the trials, and all training rows compare the best three."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from toolkit.data import Manifest
from toolkit.models import Features
from toolkit.validation import search
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import inner_folds, make_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.search import (
    SearchOptions,
    create_studies,
    search_params,
    size_searches,
)

N, MANY = 600, 300
OPTIONS = SearchOptions(n_trials=6, max_rounds=8, patience=4, many_rows=MANY)


def make_manifest(n_people):
    rng = np.random.default_rng(0)
    return Manifest(
        source="made",
        root=None,
        modalities=("x",),
        classes=tuple("abc"),
        codes=tuple("abc"),
        utterances=np.array([f"u{row:04d}" for row in range(N)]),
        labels=rng.integers(3, size=N),
        speakers=np.array([f"p{row % n_people:02d}" for row in range(N)]),
        sessions=None,
        dialogues=None,
        splits=None,
        paths={},
    )


class Unit:
    """One outer fold of people, its inner folds, and new fits on demand."""

    def __init__(self, n_people=60):
        self.manifest = make_manifest(n_people)
        values = np.random.default_rng(1).normal(size=(N, 6)).astype(np.float32)
        values[:, 0] += self.manifest.labels
        names = tuple(f"x__mean__{k}" for k in range(6))
        self.features = Features(values, names, np.ones(N, dtype=bool), {"rich": np.arange(6)})
        self.fold = make_folds(self.manifest, "5", seed=0)[0]
        self.folds = inner_folds(
            self.manifest, self.fold, grouping="speaker", n_folds=3, seed=0, purpose="search"
        )

    def fits(self):
        ledger = Ledger(
            "x", self.fold, self.manifest.utterances, self.manifest.groups("speaker")
        )
        labels = self.manifest.labels
        return InnerFits(
            self.features, labels, self.fold.train, n_classes=3, ledger=ledger, seed=4
        )

    def search(self, storage=None, fits=None, **changes):
        options = replace(OPTIONS, **changes)
        return search_params(
            fits or self.fits(), self.folds, options, storage=storage, study_name="h/x/00"
        )

    def score(self, params):
        """Score parameters on all rows, without a race."""
        *_, (value, n_rounds) = self.fits().evaluate(
            params, self.folds, metric="f1_micro", max_rounds=8, patience=4
        )
        return value.score, n_rounds


@pytest.fixture(scope="module")
def unit():
    return Unit()


@pytest.fixture(scope="module")
def found(unit):
    return unit.search()


@pytest.fixture
def storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    names = size_searches("h/x/00", N, OPTIONS)
    create_studies(url, {name: ["x"] for name in names}, metric="f1_micro")
    return url


def read_rows(fits):
    """Read the rows of each fit and role from the ledger, as sets."""
    ledger = fits.ledger
    return {key: set(np.flatnonzero(mask).tolist()) for key, mask in ledger._masks.items()}


def test_the_best_trials_of_the_sample_are_compared_by_all_rows(unit, found):
    complete = [trial for trial in found.trials if trial["state"] == "complete"]
    best = sorted(complete, key=lambda trial: -trial["score"])[:3]

    assert [f["number"] for f in found.finalists] == [t["number"] for t in best]
    for finalist in found.finalists:
        if finalist["state"] == "complete":
            assert (finalist["score"], finalist["n_rounds"]) == unit.score(finalist["params"])


def test_the_chosen_trial_is_the_best_finalist_with_its_rounds_on_all_rows(found):
    complete = [trial for trial in found.finalists if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["score"])

    assert (found.params, found.score) == (best["params"], best["score"])
    assert found.n_rounds == best["n_rounds"]


def test_leaf_sizes_follow_the_rows_of_the_stage(found):
    """The least rows of a leaf grow with the root of the rows, 2 times from 150 to 480 rows."""
    for finalist in found.finalists:
        sampled = found.trials[finalist["number"]]["params"]["min_data_in_leaf"]
        ratio = finalist["params"]["min_data_in_leaf"] / sampled
        assert ratio == pytest.approx(np.sqrt(480 / 150), abs=0.5 / sampled + 0.3)


def test_the_sample_holds_whole_people_of_the_training_rows(unit):
    fits = unit.fits()
    result = unit.search(fits=fits)
    rows = read_rows(fits)
    sampled = rows["sample bins", "bin edges"]
    people = unit.manifest.speakers[sorted(sampled)]
    sizes = {name: int((unit.manifest.speakers == name).sum()) for name in set(people)}
    cut = [name for name in sizes if (people == name).sum() < sizes[name]]

    assert len(sampled) == result.n_sampled == MANY // 2
    assert sampled <= set(unit.fold.train.tolist())
    # Both choices are in the ledger: that of the finalists, and that of the parameters.
    assert rows["sample search", "choose"] == sampled
    assert rows["search", "choose"] == set(unit.fold.train.tolist())
    assert len(sizes) == search._FEWEST_GROUPS
    # 30 people have twice as many rows, so each of them is thinned.
    assert len(cut) > len(sizes) / 2
    for inner in unit.folds:
        name = f"sample inner {inner.number}"
        assert rows[name, "train"] == sampled & set(inner.train.tolist())
        assert rows[name, "validate"] == sampled & set(inner.test.tolist())
        assert rows[f"inner {inner.number}", "train"] == set(inner.train.tolist())


def test_people_are_drawn_whole_where_there_are_many(monkeypatch):
    monkeypatch.setattr(search, "_FEWEST_GROUPS", 2)
    unit = Unit()
    rows = search._draw_rows(unit.fits(), 100)
    people, counts = np.unique(unit.manifest.speakers[rows], return_counts=True)

    # Ten rows of each: as many people as hold 100 rows, and no more.
    assert dict(zip(people.tolist(), counts.tolist(), strict=True)) == dict.fromkeys(
        people.tolist(), 10
    )
    assert len(people) == 10


def test_few_people_are_all_in_the_sample():
    unit = Unit(n_people=8)
    rows = search._draw_rows(unit.fits(), 150)
    trained = np.unique(unit.manifest.speakers[unit.fold.train])

    assert np.array_equal(np.unique(unit.manifest.speakers[rows]), trained)


def test_a_search_taken_up_again_at_either_stage_ends_as_an_uninterrupted_one(
    unit, found, storage, monkeypatch
):
    runs = []
    run_trial = search._run_trial

    def stop(study, stage):
        if len(runs) in {3, 7}:
            runs.append("killed")
            raise KeyboardInterrupt
        runs.append(run_trial(study, stage))
        return runs[-1]

    monkeypatch.setattr(search, "_run_trial", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            unit.search(storage)
    fits, whole = unit.fits(), unit.fits()
    resumed = unit.search(storage, fits)
    unit.search(fits=whole)

    assert resumed == found
    assert runs.count("killed") == 2
    assert fits.ledger.entries() == whole.ledger.entries()


def test_more_trials_later_choose_as_if_asked_for_at_once(unit, storage, monkeypatch):
    monkeypatch.setattr(search, "should_prune", lambda *_, **__: False)
    at_once, few = unit.search(), unit.search(storage, n_trials=3)

    # Other trials are finalists, so those of fewer trials must not be taken for them.
    assert [f["number"] for f in few.finalists] != [f["number"] for f in at_once.finalists]
    assert unit.search(storage) == at_once
    assert unit.search(storage) == at_once


def test_time_ends_the_sample_and_the_finalists_are_compared(unit, monkeypatch):
    # A trial reads the clock twice: trials take 1, 3, 5, ... seconds, so finalists take longer.
    seconds = itertools.accumulate(itertools.count())
    monkeypatch.setattr(search.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(search, "should_prune", lambda *_, **__: False)

    found = unit.search(timeout=8)

    assert (len(found.trials), found.stopped_by) == (3, "time")
    assert len(found.finalists) == 3


def test_up_to_the_limit_nothing_is_sampled(unit):
    at_limit = unit.search(many_rows=len(unit.fold.train))

    assert at_limit == unit.search(many_rows=10**6)
    assert (at_limit.n_sampled, at_limit.finalists) == (0, ())


def test_another_seed_draws_other_people(unit):
    one, other = unit.fits(), replace(unit.fits(), seed=5)

    assert not np.array_equal(search._draw_rows(one, 150), search._draw_rows(other, 150))


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_every_sampler_ends_with_finalists(unit, sampler):
    found = unit.search(sampler=sampler, screening=("none",))

    assert len(found.trials) == 6
    assert 1 <= len(found.finalists) <= 3
    assert found.params in [finalist["params"] for finalist in found.finalists]
