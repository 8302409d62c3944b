"""Do intervals and tests keep what they promise when the truth is known?

Studies of ten speakers with 40 to 400 utterances each. A speaker's accuracy under a system is
.6 on average and varies by .35 on the logit scale, each system finding other speakers easy.
Some studies show a gross fault within seconds; 4,000 hold the limits of the method. Each check
has a control: a method that takes every utterance for a unit of its own, or the best of several
for the one in question, fails the same simulation badly. `studies/benchmarks/claims.py` has
other numbers of speakers, sizes and accuracies.
"""

import csv
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats
from scipy.special import expit, logit

from toolkit.validation.comparison import (
    Contrast,
    _nadeau_bengio_p_value,
    better_baseline,
    compare_systems,
    swap_p_values,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import _bounded_interval, pooled_and_left_out

MEAN_LOSS = METRICS["log_loss"].value  # of hits and rows: the accuracy

MANY, N_SPEAKERS, N_SYSTEMS = 2_000, 10, 8
SPREAD, ACCURACY = 0.35, 0.6
PATTERNS = swap_patterns(N_SPEAKERS)
PAIRS = list(combinations(range(N_SYSTEMS), 2))


def some_and_many(some):
    """Run with some studies among the fast tests, and with all of them among the slow ones."""
    numbers = [some, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.nightly])]
    return pytest.mark.parametrize("n_studies", numbers)


def slack(n_studies):
    """Allow three standard errors of a rate of 5 %, where only some studies are run."""
    return 3 * np.sqrt(0.05 * 0.95 / n_studies) if n_studies < MANY else 0


def draw_tallies(seed, n_studies, n_systems, gains=0.0):
    """Draw hits and rows, shape (n_studies, n_systems, n_speakers, 2)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(40, 401, (n_studies, 1, N_SPEAKERS))
    shape = (n_studies, n_systems, N_SPEAKERS)
    chances = expit(logit(ACCURACY) + gains + SPREAD * rng.standard_normal(shape))
    rows = np.broadcast_to(sizes, shape)
    return np.stack([rng.binomial(rows, chances), rows], axis=-1).astype(np.float64)


def true_accuracy():
    nodes, weights = hermegauss(60)
    return np.average(expit(logit(ACCURACY) + SPREAD * nodes), weights=weights)


def cover(tallies):
    """Give the share of intervals, a study each, that hold the true accuracy."""
    pooled, left_out = pooled_and_left_out(MEAN_LOSS, np.moveaxis(tallies, 1, 0))
    studies = zip(pooled, left_out.T, tallies[..., 1], strict=True)
    low, high = np.array([_bounded_interval(*study) for study in studies]).T
    return np.mean((low <= true_accuracy()) & (true_accuracy() <= high))


def adjusted_p_values(n_studies, better=0.0):
    """Adjusted p of all pairs in every study, those with the first system first."""
    gains = np.zeros((N_SYSTEMS, 1))
    gains[0] = better
    return np.array(
        [
            swap_p_values([Contrast(MEAN_LOSS, study[a], study[b]) for a, b in PAIRS], PATTERNS)
            for study in draw_tallies(3, n_studies, N_SYSTEMS, gains)
        ]
    )[:, 1]


@some_and_many(500)
def test_the_jackknife_over_speakers_covers_the_truth(n_studies):
    tallies = draw_tallies(0, n_studies, 1)[:, 0]
    pooled = MEAN_LOSS(tallies.sum(axis=1))
    n_rows = tallies[..., 1].sum(axis=1)
    missed = np.abs(pooled - true_accuracy())

    covered = cover(tallies)
    naive = np.mean(missed <= 1.96 * np.sqrt(pooled * (1 - pooled) / n_rows))

    assert 0.92 - slack(n_studies) <= covered <= 0.97 + slack(n_studies), covered
    assert naive < 0.6, naive


@some_and_many(500)
def test_a_system_fixed_beforehand_is_covered_and_the_best_of_nine_is_not(n_studies):
    tallies = draw_tallies(5, n_studies, 9)
    highest = MEAN_LOSS(tallies.sum(axis=2)).argmax(axis=1)

    fixed, selected = cover(tallies[:, 0]), cover(tallies[np.arange(n_studies), highest])

    assert 0.92 - slack(n_studies) <= fixed <= 0.97 + slack(n_studies), fixed
    assert selected < 0.9, selected


@some_and_many(500)
def test_swapping_speakers_calls_equal_systems_different_in_one_of_twenty_studies(n_studies):
    a, b = np.moveaxis(draw_tallies(1, n_studies, 2), 1, 0)
    contrasts = [Contrast(MEAN_LOSS, *study) for study in zip(a, b, strict=True)]

    p = [swap_p_values([each], PATTERNS)[0][0] for each in contrasts]
    rejected = np.mean(np.array(p) <= 0.05)
    difference = (a - b)[..., 0].sum(axis=1)
    variance = (a[..., 0] * (1 - MEAN_LOSS(a)) + b[..., 0] * (1 - MEAN_LOSS(b))).sum(axis=1)
    naive = np.mean(np.abs(difference) > 1.96 * np.sqrt(variance))

    assert 0.03 - slack(n_studies) <= rejected <= 0.06 + slack(n_studies), rejected
    assert naive > 0.2, naive


@some_and_many(100)
def test_max_t_finds_a_difference_among_equal_systems_in_one_of_twenty_studies(n_studies):
    wrong = np.mean(adjusted_p_values(n_studies).min(axis=1) <= 0.05)

    assert wrong <= 0.06 + slack(n_studies), wrong


@some_and_many(100)
def test_max_t_keeps_its_promise_where_one_system_is_better_and_mostly_finds_it(n_studies):
    adjusted = adjusted_p_values(n_studies, better=0.5)

    wrong = np.mean(adjusted[:, N_SYSTEMS - 1 :].min(axis=1) <= 0.05)
    found = np.mean(adjusted[:, : N_SYSTEMS - 1].min(axis=1) <= 0.05)

    assert wrong <= 0.06 + slack(n_studies), wrong
    assert found > 0.5, found


def draw_opposite(seed):
    """Draw two systems: the first better for one speaker with half of the rows, else worse."""
    rng = np.random.default_rng(seed)
    rows = np.array([900, *[100] * 9])
    effects = SPREAD * rng.standard_normal(N_SPEAKERS)
    gain = np.array([0.1, *[-0.1] * 9])
    chances = expit(logit(ACCURACY) + effects), expit(logit(ACCURACY) + effects) + gain
    return [np.stack([rng.binomial(rows, p), rows], axis=1).astype(float) for p in chances]


@some_and_many(500)
def test_equal_pooled_scores_of_unequal_speakers_show_no_difference(n_studies):
    contrasts = [Contrast(MEAN_LOSS, *draw_opposite(seed)) for seed in range(n_studies)]

    p = np.array([swap_p_values([each], PATTERNS)[1][0] for each in contrasts])
    by_speaker = [MEAN_LOSS(each.a) - MEAN_LOSS(each.b) for each in contrasts]
    naive = np.mean([stats.ttest_1samp(each, 0).pvalue <= 0.05 for each in by_speaker])

    assert np.mean(p <= 0.05) <= 0.06 + slack(n_studies)
    assert naive > 0.3, naive  # the mean over speakers is another quantity


def test_a_named_winner_has_the_higher_pooled_score(make_predictions):
    rng = np.random.default_rng(6)
    numbers = np.repeat(np.arange(12), [240] * 6 + [8] * 6)
    fields = {"n": len(numbers), "sessions": None, "folds": numbers}
    fields["speakers"] = np.array([f"P{k:02d}" for k in numbers])
    n_opposite = 0
    for _ in range(10):
        labels = rng.integers(0, 3, len(numbers))
        systems, right = [], {}
        for k in range(4):
            # What is better for speakers of many rows is worse for those of few.
            chances = np.where(numbers < 6, 0.4 + 0.1 * k, 0.9 - 0.15 * k)
            hits = rng.random(len(numbers)) < chances
            given = np.where(hits, labels, (labels + 1) % 3)
            systems.append(
                make_predictions(system=f"s{k}", labels=labels, y_pred=given, **fields)
            )
            right[f"s{k}"] = np.array(
                [hits.mean(), *(hits[numbers == n].mean() for n in range(12))]
            )
        for each in compare_systems(systems):
            pooled, *by_speaker = right[each.a] - right[each.b]
            assert each.p <= each.p_adjusted
            if each.shows_difference:
                assert np.sign(each.difference) == np.sign(pooled)
                n_opposite += np.sign(pooled) != np.sign(np.mean(by_speaker))

    assert n_opposite > 10  # winners whose mean over speakers is the lower one


@some_and_many(200)
def test_noise_beats_majority_but_not_the_better_baseline(make_predictions, n_studies):
    # A person has one of two labels, five each: without a person the other one leads.
    numbers = np.repeat(np.arange(N_SPEAKERS), 20)
    labels = numbers % 2
    fields = {"n": 200, "n_classes": 2, "labels": labels, "sessions": None, "folds": numbers}
    fields["speakers"] = np.array([f"P{k}" for k in numbers])
    majority = make_predictions(y_pred=1 - labels, system="majority", **fields)
    baseline = better_baseline({"majority": majority}, "f1_micro")
    rivals = [
        np.stack([np.bincount(numbers, table.y_pred == labels), np.bincount(numbers)], axis=1)
        for table in (majority, baseline)
    ]
    rng = np.random.default_rng(7)

    beaten = np.zeros(2)
    for _ in range(n_studies):
        guessed = rng.random(200) < rng.beta(2, 2, N_SPEAKERS)[numbers]
        hits = np.bincount(numbers, guessed == labels)
        noise = np.stack([hits, np.bincount(numbers)], axis=1)
        for place, rival in enumerate(rivals):
            contrast = Contrast(MEAN_LOSS, noise, rival.astype(float))
            p = swap_p_values([contrast], PATTERNS)[1][0]
            better = MEAN_LOSS(noise.sum(axis=0)) > MEAN_LOSS(rival.sum(axis=0))
            beaten[place] += p <= 0.05 and better
    over_majority, over_better = beaten / n_studies

    assert over_better <= 0.05, over_better
    assert over_majority > 0.5, over_majority


@pytest.mark.slow
@pytest.mark.nightly
def test_unadjusted_tests_would_find_differences_among_equal_systems():
    accuracies = MEAN_LOSS(draw_tallies(3, MANY, N_SYSTEMS))

    p = [stats.ttest_rel(accuracies[:, i], accuracies[:, j], axis=1).pvalue for i, j in PAIRS]

    assert np.mean(np.min(p, axis=0) <= 0.05) > 0.3


@pytest.mark.slow
@pytest.mark.nightly
def test_nadeau_and_bengio_are_conservative():
    a, b = np.moveaxis(MEAN_LOSS(draw_tallies(4, MANY, 2)), 1, 0)

    p = [_nadeau_bengio_p_value(study) for study in a - b]

    assert np.mean(np.array(p) <= 0.05) <= 0.06


SCRIPT = Path(__file__).parents[2] / "studies" / "benchmarks" / "claims.py"


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(not SCRIPT.exists(), reason="the studies are not here")
def test_the_benchmark_of_these_claims_runs(tmp_path):
    out = tmp_path / "claims.csv"

    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--repeats", "8", "--csv", str(out)],
        check=True,
        capture_output=True,
        text=True,
    )

    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    counts = Counter(row["table"] for row in rows)
    # 192 scenarios of five quantities
    assert counts == {
        "coverage": 960,
        "families": 50,
        "largest": 8,
        "winners": 4,
        "baselines": 72,
        "best": 12,
        "seeds": 4,
    }
    assert {row["opposite"] for row in rows if row["table"] == "winners"} == {"0"}
    assert (
        "| metric | speakers | scenarios | within .92-.97 | lowest | highest |" in done.stdout
    )
