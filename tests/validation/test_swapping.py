from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import f1_score

from toolkit.validation.comparison import (
    SwapPatterns,
    max_t_p_values,
    nadeau_bengio_p_value,
    permutation_p_value,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS, Rows, mean_loss

F1 = METRICS["f1_macro"]


def losses(*sums):
    return np.array([[value, 1.0] for value in sums])


def t_by_definition(differences):
    mean = abs(differences.mean())
    deviation = differences.std(ddof=1)
    if np.ptp(differences) == 0:
        return 0.0 if mean == 0 else np.inf
    return mean / (deviation / np.sqrt(len(differences)))


def max_t_by_definition(differences):
    n_units, n_pairs = differences.shape
    found = np.array([t_by_definition(column) for column in differences.T])
    order = np.argsort(-found)
    counts = np.zeros(n_pairs)
    for signs in product([1, -1], repeat=n_units):
        flipped = differences * np.array(signs)[:, None]
        statistics = np.array([t_by_definition(column) for column in flipped.T])
        for rank, pair in enumerate(order):
            counts[pair] += statistics[order[rank:]].max() >= found[pair] - 1e-9
    adjusted, least = np.empty(n_pairs), 0.0
    for pair in order:
        least = max(least, counts[pair] / 2**n_units)
        adjusted[pair] = least
    return adjusted


def test_every_swap_and_its_mirror_image_are_all_swaps():
    patterns = swap_patterns(5)

    both = np.concatenate([patterns.swapped, ~patterns.swapped])

    assert len(np.unique(both, axis=0)) == len(both) == patterns.n_patterns == 2**5
    assert patterns.exact
    assert patterns.smallest_p == 2 / 2**5


def test_up_to_sixteen_units_are_swapped_in_all_ways():
    assert (swap_patterns(16).exact, swap_patterns(16).n_patterns) == (True, 2**16)
    assert (swap_patterns(17).exact, swap_patterns(17).n_patterns) == (False, 100_000)


def test_sampled_swaps_are_fair_and_decided_by_the_seed():
    patterns = swap_patterns(20, seed=3)

    assert_allclose(patterns.swapped.mean(axis=0), 0.5, atol=0.01)
    assert_array_equal(swap_patterns(20, seed=3).swapped, patterns.swapped)
    assert (swap_patterns(20, seed=4).swapped != patterns.swapped).any()


def test_p_is_the_share_of_all_swaps_of_rows_that_differ_as_much():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 60), np.arange(60) % 6
    a = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 3, 60))
    b = np.where(rng.random(60) < 0.3, labels, rng.integers(0, 3, 60))
    proba = np.full((60, 3), 1 / 3)
    tallies = [F1.tally(Rows(labels, given, proba, groups, 6)) for given in (a, b)]

    def difference(swapped):
        swap = np.array(swapped)[groups]
        first, second = np.where(swap, b, a), np.where(swap, a, b)
        return abs(
            f1_score(labels, first, average="macro") - f1_score(labels, second, average="macro")
        )

    found = difference([False] * 6)
    every = [difference(swapped) for swapped in product([False, True], repeat=6)]
    expected = np.mean([value >= found - 1e-9 for value in every])

    assert 0.03 < expected < 0.9
    assert permutation_p_value(F1.value, *tallies, swap_patterns(6)) == expected


@pytest.mark.parametrize(
    "differences", [(-0.1, 0.6, -0.1, -0.2, 0.4, 0.3), (0.2, 0.3, 0.7, 0.4, 0.3, 0.2)]
)
def test_equal_statistics_count_whatever_their_last_bits(differences):
    exact = [Fraction(str(value)) for value in differences]
    every = [
        abs(sum(sign * value for sign, value in zip(signs, exact, strict=True)))
        for signs in product([1, -1], repeat=6)
    ]
    expected = sum(value >= every[0] for value in every) / 64
    patterns = swap_patterns(6)

    p = permutation_p_value(mean_loss, losses(*differences), losses(*[0.0] * 6), patterns)

    assert p == expected
    assert max_t_p_values(np.array(differences)[:, None], patterns) == expected


def test_speakers_without_a_difference_stay_in():
    a, b = losses(0.1, 0.2, 0.3, 0.0, 0.0), losses(0.0, 0.0, 0.0, 0.0, 0.0)

    # Only swapping none or all of the first three keeps the difference: 2 of 8.
    assert permutation_p_value(mean_loss, a, b, swap_patterns(5)) == 2 / 8


def test_equal_systems_have_p_1():
    a = losses(0.1, 0.2, 0.3, 0.4)

    assert permutation_p_value(mean_loss, a, a, swap_patterns(4)) == 1
    assert_array_equal(max_t_p_values(np.zeros((4, 3)), swap_patterns(4)), [1, 1, 1])


def test_of_sampled_swaps_the_one_found_is_one_more():
    none = SwapPatterns(np.array([[False, True], [True, False], [False, True]]), exact=False)

    p = permutation_p_value(mean_loss, losses(0.5, 0.4), losses(0.1, 0.1), none)

    assert p == (0 + 1) / (3 + 1) == none.smallest_p


def test_a_sample_of_swaps_is_close_to_all_of_them():
    differences = np.random.default_rng(1).normal(0.3, 1, size=(10, 4))
    every = swap_patterns(10)
    sample = SwapPatterns(swap_patterns(17).swapped[:, :10], exact=False)
    a, b = losses(*differences[:, 0]), losses(*np.zeros(10))

    assert permutation_p_value(mean_loss, a, b, sample) == pytest.approx(
        permutation_p_value(mean_loss, a, b, every), abs=0.01
    )
    assert_allclose(
        max_t_p_values(differences, sample), max_t_p_values(differences, every), atol=0.01
    )


@pytest.mark.parametrize("seed", range(5))
def test_max_t_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    means = np.array([0.0, 2.0, 1.0, 0.5, 0.0])
    differences = rng.normal(size=(7, 5)) + rng.normal(size=(7, 1)) + means
    differences[:, 4] = differences[:, 1] + 0.1 * rng.normal(size=7)

    assert_allclose(
        max_t_p_values(differences, swap_patterns(7)), max_t_by_definition(differences)
    )


def test_no_spread_is_infinitely_clear_and_no_difference_not_at_all():
    constant, none = np.full(6, 0.1), np.zeros(6)
    vague = np.array([0.1, -0.2, 0.3, 0.1, 0.0, 0.2])
    differences = np.stack([none, vague, constant], axis=1)

    adjusted = max_t_p_values(differences, swap_patterns(6))

    assert_allclose(adjusted, max_t_by_definition(differences))
    assert adjusted[0] == 1
    assert adjusted[2] == 2 / 64


def test_adjusted_p_grows_with_the_number_of_pairs_and_never_falls_down_the_steps():
    differences = np.random.default_rng(2).normal(0.5, 1, size=(8, 6))
    patterns = swap_patterns(8)

    alone = np.array([max_t_p_values(column[:, None], patterns)[0] for column in differences.T])
    together = max_t_p_values(differences, patterns)

    assert (together >= alone).all()
    assert (np.diff(together[np.argsort(alone)]) >= 0).all()
    assert together.min() > alone.min()


def test_max_t_can_reject_among_28_pairs_where_holm_never_could():
    rng = np.random.default_rng(3)
    systems = rng.normal(0, 0.01, size=(10, 8))
    systems[:, 0] += 0.2
    differences = np.stack(
        [systems[:, i] - systems[:, j] for i in range(8) for j in range(i + 1, 8)], axis=1
    )
    patterns = swap_patterns(10)

    adjusted = max_t_p_values(differences, patterns)

    assert (adjusted[:7] <= 0.05).all()
    assert 28 * patterns.smallest_p > 0.05


def test_nadeau_and_bengio_widen_the_t_test_over_folds():
    differences = np.array([0.10, 0.02, 0.05, -0.03, 0.08])
    t = differences.mean() / np.sqrt((1 / 5 + 1 / 4) * differences.var(ddof=1))

    p = nadeau_bengio_p_value(differences, test_per_train=1 / 4)

    assert p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert p == pytest.approx(nadeau_bengio_p_value(-differences, 1 / 4))
    assert p > stats.ttest_1samp(differences, 0).pvalue
    plain = nadeau_bengio_p_value(differences, 0.0)
    assert plain == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_folds_that_all_differ_alike_leave_no_doubt_and_equal_folds_show_nothing():
    assert nadeau_bengio_p_value(np.full(4, 0.25), 1 / 3) == 0
    assert nadeau_bengio_p_value(np.zeros(4), 1 / 3) == 1
