"""Repeated systems: mean, deviation and ensemble over seeds, and the test of the mean."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import recall_score

from toolkit.validation.comparison import (
    compare_families,
    compare_systems,
    no_information_predictions,
)
from toolkit.validation.scores import (
    average_seeds,
    find_score,
    group_seeds,
    score_predictions,
    score_systems,
)

SIZES = (31, 12, 25, 18, 22, 20, 15)
SPEAKERS = np.array([f"P{k}" for k, n in enumerate(SIZES) for _ in range(n)])


@pytest.fixture(scope="module")
def named(make_predictions):
    """Two repeated systems under three seeds, and one that is not repeated."""

    def make(seed, system):
        n = len(SPEAKERS)
        folds = np.unique(SPEAKERS, return_inverse=True)[1]
        people = {"speakers": SPEAKERS, "folds": folds, "sessions": None}
        return make_predictions(seed, n=n, system=system, **people)

    names = ("text", "audio", "vote", "text-seed-1", "audio-seed-1", "text-seed-2")
    tables = {name: make(seed, name) for seed, name in enumerate((*names, "audio-seed-2"), 1)}
    right = np.where(np.arange(len(SPEAKERS)) % 3 < 2, tables["text"].labels, 0)
    better = {n: replace(t, y_pred=right) for n, t in tables.items() if n == "text-seed-1"}
    return tables | better


@pytest.fixture(scope="module")
def repeated(named):
    return group_seeds(named)


def accuracy(table, rows=slice(None)):
    return np.mean(table.labels[rows] == table.y_pred[rows])


def macro_f1(labels, predicted):
    each = [(labels == code, predicted == code) for code in range(3)]
    return np.mean([2 * np.sum(y & p) / (y.sum() + p.sum()) for y, p in each])


def test_further_seeds_are_grouped_with_their_own_system_alone(make_predictions):
    names = ("text-logistic", "text-seed-2", "text", "early-a-b-seed-1", "early-a-b", "vote")
    table = make_predictions()
    tables = {name: replace(table, system=name) for name in (*names, "text-seed-1")}

    found = group_seeds(tables)

    assert {name: [each.system for each in group] for name, group in found.items()} == {
        "text": ["text", "text-seed-1", "text-seed-2"],
        "early-a-b": ["early-a-b", "early-a-b-seed-1"],
    }


def test_the_ensemble_is_the_mean_of_probabilities(named, repeated):
    first, second, third = (named[f"text{end}"] for end in ("", "-seed-1", "-seed-2"))

    found = average_seeds(repeated["text"])

    mean = (first.proba + second.proba + third.proba) / 3
    assert found.system == "text-ensemble"
    assert_allclose(found.proba, mean)
    assert_array_equal(found.y_pred, mean.argmax(axis=1))
    assert not np.array_equal(found.y_pred, first.y_pred)


def test_seeds_of_other_rows_are_not_averaged(named, make_predictions):
    with pytest.raises(ValueError, match="not aligned"):
        average_seeds([named["text"], make_predictions(system="text-seed-1")])


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("f1_micro", lambda y, p: np.mean(y == p)),
        ("uar", lambda y, p: recall_score(y, p, average="macro")),
    ],
)
def test_mean_deviation_and_interval_are_those_of_the_definition(
    named, repeated, metric, score
):
    scores = score_systems(named)
    mean = find_score(scores, "text", metric, kind="mean over seeds")
    spread = find_score(scores, "text", metric, kind="sd over seeds")

    def average(rows):
        return np.mean([score(t.labels[rows], t.y_pred[rows]) for t in repeated["text"]])

    each = [score(table.labels, table.y_pred) for table in repeated["text"]]
    value, n = average(slice(None)), len(SIZES)
    left_out = [average(name != SPEAKERS) for name in np.unique(SPEAKERS)]
    logits = np.log(left_out) - np.log1p(-np.array(left_out))
    effective = sum(SIZES) ** 2 / sum(size**2 for size in SIZES)
    t = stats.t.ppf(0.975, np.sqrt((n - 1) * (effective - 1)))
    half = t * np.sqrt((n - 1) / n * ((logits - logits.mean()) ** 2).sum())
    ends = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + np.array([-half, half]))))
    assert_allclose(mean.value, value)
    assert_allclose((mean.low, mean.high), ends)
    assert_allclose(spread.value, np.sqrt(((np.array(each) - value) ** 2).sum() / 2))
    assert (mean.n, spread.n, spread.low) == (3, 3, None)


def test_a_system_keeps_the_scores_of_its_first_seed(named):
    scores = score_systems(named)

    for name in ("text", "vote"):
        own = [s for s in scores if s.system == name and "over seeds" not in s.kind]
        assert own == score_predictions(named[name])
    assert {score.system for score in scores} == {"text", "audio", "vote"}
    assert not [s for s in scores if s.system == "vote" and "over seeds" in s.kind]


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("f1_micro", lambda y, p: np.mean(y == p)),
        ("f1_macro", macro_f1),
    ],
)
@pytest.mark.parametrize("other", ["audio", "vote"])
def test_p_is_the_share_of_swaps_of_people_under_all_seeds_together(
    named, repeated, metric, score, other
):
    labels, numbers = named["text"].labels, np.unique(SPEAKERS, return_inverse=True)[1]
    ours = [table.y_pred for table in repeated["text"]]
    theirs = [table.y_pred for table in repeated.get(other, [named[other]] * 3)]

    def difference(swapped):
        swap = np.array(swapped)[numbers]
        return np.mean(
            [
                score(labels, np.where(swap, b, a)) - score(labels, np.where(swap, a, b))
                for a, b in zip(ours, theirs, strict=True)
            ]
        )

    every = np.abs([difference(ways) for ways in product([False, True], repeat=len(SIZES))])
    (found,) = compare_systems([named["text"], named[other]], metric, repeated=repeated)

    assert_allclose(found.difference, difference([False] * len(SIZES)))
    assert found.p == np.mean(every >= every[0] - 1e-12)
    assert found.method.endswith("; mean over 3 seeds")
    left_out = [
        np.mean([score(labels[r], a[r]) for a in ours])
        - np.mean([score(labels[r], b[r]) for b in theirs])
        for r in (name != SPEAKERS for name in np.unique(SPEAKERS))
    ]
    spread = np.sqrt(6 / 7 * ((left_out - np.mean(left_out)) ** 2).sum())
    effective = sum(SIZES) ** 2 / sum(size**2 for size in SIZES)
    half = stats.t.ppf(0.975, np.sqrt(6 * (effective - 1))) * spread
    assert_allclose(found.high - found.difference, half)


def test_the_same_predictions_under_every_seed_are_one_seed(named):
    pair = [named["text"], named["audio"]]
    copies = {table.system: [table] * 3 for table in pair}

    (one,), (three,) = compare_systems(pair), compare_systems(pair, repeated=copies)

    for name in ("difference", "low", "high", "p", "p_adjusted", "p_nadeau_bengio"):
        assert_allclose(getattr(three, name), getattr(one, name))
    assert (one.method, three.method) == (one.method, one.method + "; mean over 3 seeds")


def test_pairs_without_a_repeated_system_are_as_they_are_without_seeds(named, repeated):
    chosen = [named[name] for name in ("text", "vote")]
    plain = [*chosen, replace(named["audio"], system="soft")]

    before = compare_systems(plain)[-1]
    after = compare_systems(plain, repeated=repeated)[-1]

    assert (after.p, after.method) == (before.p, before.method)
    assert_allclose(after.difference, before.difference)


def test_both_families_test_the_mean_and_neither_plans_the_ensemble(named, repeated):
    ensemble = average_seeds(repeated["text"])
    majority = replace(named["vote"], system="majority", y_pred=named["vote"].labels * 0)
    constant = no_information_predictions(majority)
    systems = [majority, constant, named["text"], named["vote"], ensemble]

    found = compare_families(systems, ["text"], repeated=repeated)

    value = np.mean([accuracy(table) for table in repeated["text"]])
    for family in ("confirmatory", "all pairs"):
        pairs = {frozenset((p.a, p.b)): p for p in found if p.family == family}
        pair = pairs[frozenset(("text", "no-information"))]
        assert_allclose(abs(pair.difference), abs(value - accuracy(constant)))
    planned = {name for p in found if p.family == "confirmatory" for name in (p.a, p.b)}
    assert planned == {"no-information", "text", "vote"}


def test_other_numbers_of_seeds_are_refused(named, repeated):
    fewer = repeated | {"audio": repeated["audio"][:2]}

    with pytest.raises(ValueError, match="'audio' has 2 seeds; expected 3"):
        compare_systems([named["text"], named["audio"]], repeated=fewer)


def test_seeds_of_other_rows_are_not_compared(named, make_predictions):
    other = {"text": [named["text"], make_predictions(system="text-seed-1")]}

    with pytest.raises(ValueError, match="not aligned"):
        compare_systems([named["text"], named["vote"]], repeated=other)
