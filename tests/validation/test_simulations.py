"""Do intervals and tests keep what they promise when the truth is known?

4,000 studies of ten speakers with 40 to 400 utterances each. A speaker's accuracy under a
system is .6 on average and varies by .35 on the logit scale, each system finding other
speakers easy. Each check has a control: the method that takes every utterance for a unit of
its own fails the same simulation badly.
"""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats
from scipy.special import expit, logit

from toolkit.validation.comparison import (
    _nadeau_bengio_p_value,
    max_t_p_values,
    permutation_p_value,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import _jackknife_half_width, pooled_and_left_out

pytestmark = pytest.mark.slow

MEAN_LOSS = METRICS["log_loss"].value

N_STUDIES, N_SPEAKERS, N_SYSTEMS = 4_000, 10, 8
SPREAD, ACCURACY = 0.35, 0.6
PATTERNS = swap_patterns(N_SPEAKERS)


def draw_tallies(seed, n_systems, gains=0.0):
    """Draw hits and rows, shape (n_studies, n_systems, n_speakers, 2)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(40, 401, (N_STUDIES, 1, N_SPEAKERS))
    shape = (N_STUDIES, n_systems, N_SPEAKERS)
    chances = expit(logit(ACCURACY) + gains + SPREAD * rng.standard_normal(shape))
    rows = np.broadcast_to(sizes, shape)
    return np.stack([rng.binomial(rows, chances), rows], axis=-1).astype(np.float64)


def true_accuracy():
    nodes, weights = hermegauss(60)
    return np.average(expit(logit(ACCURACY) + SPREAD * nodes), weights=weights)


@cache
def speaker_accuracies(better):
    """Accuracies, shape (n_studies, n_systems, n_speakers), the first system better or not."""
    gains = np.zeros((N_SYSTEMS, 1))
    gains[0] = better
    return MEAN_LOSS(draw_tallies(3, N_SYSTEMS, gains))


def adjusted_p_values(better):
    """Adjusted p of all pairs in every study, those with the first system first."""
    pairs = np.array(list(combinations(range(N_SYSTEMS), 2))).T
    accuracies = speaker_accuracies(better)
    differences = accuracies[:, pairs[0]] - accuracies[:, pairs[1]]
    return np.array([max_t_p_values(study.T, PATTERNS) for study in differences])


def test_the_jackknife_over_speakers_covers_the_truth():
    tallies = draw_tallies(0, 1)[:, 0]
    pooled, left_out = pooled_and_left_out(MEAN_LOSS, np.moveaxis(tallies, 1, 0))

    missed = np.abs(pooled - true_accuracy())
    covered = np.mean(missed <= _jackknife_half_width(left_out.T))
    n_rows = tallies[..., 1].sum(axis=1)
    naive = np.mean(missed <= 1.96 * np.sqrt(pooled * (1 - pooled) / n_rows))

    assert 0.92 <= covered <= 0.97, covered
    assert naive < 0.6, naive


def test_swapping_speakers_calls_equal_systems_different_in_one_of_twenty_studies():
    a, b = np.moveaxis(draw_tallies(1, 2), 1, 0)

    p = [permutation_p_value(MEAN_LOSS, *study, PATTERNS) for study in zip(a, b, strict=True)]
    rejected = np.mean(np.array(p) <= 0.05)
    difference = (a - b)[..., 0].sum(axis=1)
    variance = (a[..., 0] * (1 - MEAN_LOSS(a)) + b[..., 0] * (1 - MEAN_LOSS(b))).sum(axis=1)
    naive = np.mean(np.abs(difference) > 1.96 * np.sqrt(variance))

    assert 0.03 <= rejected <= 0.06, rejected
    assert naive > 0.2, naive


def test_max_t_finds_a_difference_among_eight_equal_systems_in_one_of_twenty_studies():
    wrong = np.mean(adjusted_p_values(better=0.0).min(axis=1) <= 0.05)

    assert wrong <= 0.06, wrong


def test_max_t_keeps_its_promise_where_one_system_is_better_and_mostly_finds_it():
    adjusted = adjusted_p_values(better=0.5)

    wrong = np.mean(adjusted[:, N_SYSTEMS - 1 :].min(axis=1) <= 0.05)
    found = np.mean(adjusted[:, : N_SYSTEMS - 1].min(axis=1) <= 0.05)

    assert wrong <= 0.06, wrong
    assert found > 0.5, found


def test_unadjusted_tests_would_find_differences_among_equal_systems():
    accuracies = speaker_accuracies(better=0.0)
    pairs = combinations(range(N_SYSTEMS), 2)

    p = [stats.ttest_rel(accuracies[:, i], accuracies[:, j], axis=1).pvalue for i, j in pairs]

    assert np.mean(np.min(p, axis=0) <= 0.05) > 0.3


def test_nadeau_and_bengio_are_conservative():
    a, b = np.moveaxis(MEAN_LOSS(draw_tallies(4, 2)), 1, 0)
    test_per_train = 1 / (N_SPEAKERS - 1)

    p = [_nadeau_bengio_p_value(study, test_per_train) for study in a - b]

    assert np.mean(np.array(p) <= 0.05) <= 0.06
