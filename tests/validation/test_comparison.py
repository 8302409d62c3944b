"""Comparisons of systems, and the permutation tests behind them."""

import json
import time
from dataclasses import asdict, fields, replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import f1_score

from toolkit.validation.comparison import (
    Comparison,
    _nadeau_bengio_p_value,
    _SwapPatterns,
    compare_systems,
    max_t_p_values,
    permutation_p_value,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS, GroupedRows
from toolkit.validation.scores import find_score, score_predictions


@pytest.fixture(scope="module")
def systems(make_predictions):
    plain = [make_predictions(seed, n=200, n_speakers=8) for seed in (1, 2)]
    right = np.where(np.arange(200) % 10 < 9, plain[0].labels, 0)
    return [*plain, replace(plain[0], system="good", y_pred=right)]


def accuracy(table, rows=slice(None)):
    return np.mean(table.labels[rows] == table.y_pred[rows])


def test_a_comparison_has_the_columns_of_the_contract():
    columns = (
        "a,b,metric,difference,low,high,p,p_adjusted,p_nadeau_bengio,smallest_p,method,"
        "n_speakers"
    )

    assert ",".join(field.name for field in fields(Comparison)) == columns


def test_all_pairs_are_compared_in_the_order_of_the_systems(systems):
    pairs = [(each.a, each.b) for each in compare_systems(systems)]

    assert pairs == [("system1", "system2"), ("system1", "good"), ("system2", "good")]


@pytest.mark.parametrize("metric", [name for name, m in METRICS.items() if m.local is not None])
def test_the_difference_is_that_of_the_scores_and_changes_sign_with_the_order(systems, metric):
    first, second = (score_predictions(table) for table in systems[:2])

    forth, back = (compare_systems(pair, metric)[0] for pair in (systems[:2], systems[1::-1]))

    assert (
        forth.difference
        == find_score(first, "system1", metric).value
        - find_score(second, "system2", metric).value
    )
    assert forth.metric == metric
    assert_allclose(
        [back.difference, back.low, back.high, back.p, back.p_adjusted, back.p_nadeau_bengio],
        [
            *(-forth.difference, -forth.high, -forth.low),
            *(forth.p, forth.p_adjusted, forth.p_nadeau_bengio),
        ],
        rtol=1e-9,
    )


def test_the_interval_leaves_out_each_speaker_of_both_systems(systems):
    a, b, _ = systems
    left_out = np.array(
        [
            accuracy(a, a.speakers != name) - accuracy(b, b.speakers != name)
            for name in np.unique(a.speakers)
        ]
    )
    half = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * np.sum((left_out - left_out.mean()) ** 2))
    difference = accuracy(a) - accuracy(b)

    found = compare_systems([a, b])[0]

    assert_allclose([found.low, found.high], [difference - half, difference + half])


def test_p_is_adjusted_for_all_pairs_by_the_differences_of_speakers(systems):
    speakers = np.unique(systems[0].speakers)
    each = np.array(
        [[accuracy(table, table.speakers == name) for table in systems] for name in speakers]
    )
    differences = each[:, [0, 0, 1]] - each[:, [1, 2, 2]]

    found = [comparison.p_adjusted for comparison in compare_systems(systems)]

    assert_allclose(found, max_t_p_values(differences, swap_patterns(8)))


def test_nadeau_and_bengio_take_folds(systems):
    a, b, _ = systems
    d = np.array([accuracy(a, a.folds == k) - accuracy(b, b.folds == k) for k in range(8)])
    t = d.mean() / np.sqrt((1 / 8 + 1 / 7) * d.var(ddof=1))

    found = compare_systems([a, b])[0]

    assert found.p_nadeau_bengio == pytest.approx(2 * stats.t.sf(abs(t), 7))


def test_a_single_fold_has_no_test_over_folds(make_predictions):
    one = np.zeros(120, dtype=int)

    found = compare_systems([make_predictions(seed, folds=one) for seed in (1, 2)])[0]

    assert found.p_nadeau_bengio is None


def test_a_better_system_is_found_and_equal_systems_show_nothing(systems):
    bad, good = systems[0], systems[2]
    twin = replace(bad, system="twin")

    better, same, worse = compare_systems([good, bad, twin])[:3]

    assert better.shows_difference
    assert better.p == better.smallest_p == 2 / 2**8
    assert (worse.difference, worse.p, worse.p_adjusted, worse.p_nadeau_bengio) == (0, 1, 1, 1)
    assert not worse.shows_difference
    assert same.difference == better.difference


def test_only_the_adjusted_p_names_a_winner(systems):
    found = compare_systems(systems)[0]

    assert replace(found, p=0.2, p_adjusted=0.05).shows_difference
    assert not replace(found, p=0.01, p_adjusted=0.06).shows_difference


def test_tests_and_units_are_named(systems):
    first, *_ = compare_systems(systems)
    pair = compare_systems(systems[:2])[0]

    assert first.method == "exact swap over 8 speakers (256 patterns); max-T over 3 pairs"
    assert pair.method == "exact swap over 8 speakers (256 patterns); max-T over 1 pair"
    assert first.n_speakers == 8


@pytest.mark.parametrize(("n_speakers", "decidable"), [(5, False), (6, True)])
def test_fewer_than_six_speakers_can_decide_nothing(make_predictions, n_speakers, decidable):
    a = make_predictions(1, n_speakers=n_speakers, y_pred=np.zeros(120, dtype=int))
    b = replace(a, system="perfect", y_pred=a.labels)

    found = compare_systems([a, b])[0]

    assert found.smallest_p == 2 / 2**n_speakers
    assert ("not decidable: p cannot fall below 0.0625" in found.method) != decidable
    assert found.shows_difference == decidable


def test_sessions_may_be_swapped_as_a_whole(systems):
    found = compare_systems(systems[:2], grouping="session")[0]

    assert found.method == (
        "exact swap over 4 sessions (16 patterns); max-T over 1 pair; "
        "not decidable: p cannot fall below 0.125"
    )
    assert (found.low, found.high, found.n_speakers) == (None, None, 8)


def test_many_speakers_are_swapped_in_seeded_ways(make_predictions):
    pair = [make_predictions(seed, n=400, n_speakers=20) for seed in (1, 2)]

    found = compare_systems(pair)[0]

    assert found == compare_systems(pair)[0]
    assert found != compare_systems(pair, seed=1)[0]
    assert found.method.startswith("swap over 20 speakers (100000 seeded patterns)")
    assert found.smallest_p == 1 / 100_001


def test_losses_are_compared_too(systems):
    sharp = replace(systems[0], system="sharp", proba=np.eye(3)[systems[0].labels])

    found = compare_systems([sharp, systems[1]], "log_loss")[0]

    assert found.difference < 0
    assert found.high < 0
    assert found.shows_difference


def test_comparisons_are_plain_numbers_that_survive_json(systems):
    records = [asdict(found) for found in compare_systems(systems)]

    assert json.loads(json.dumps(records, allow_nan=False)) == records


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("ece", r"cannot be compared by 'ece'; choose among \['f1_micro'"),
        ("auc", "cannot be compared by 'auc'"),
    ],
)
def test_a_metric_that_speakers_do_not_have_is_refused(systems, metric, message):
    with pytest.raises(ValueError, match=message):
        compare_systems(systems, metric)


def test_systems_that_cannot_be_told_apart_or_do_not_match_are_refused(
    systems, make_predictions
):
    with pytest.raises(ValueError, match=r"Got systems \['system1'\]; expected two or more"):
        compare_systems(systems[:1])
    with pytest.raises(ValueError, match="of different names"):
        compare_systems([systems[0], systems[0]])
    with pytest.raises(ValueError, match="'system1' and 'system2' are not aligned"):
        compare_systems([systems[0], make_predictions(2, n=199, n_speakers=8)])


def test_eight_systems_of_ten_speakers_are_compared_at_once(make_predictions):
    eight = [make_predictions(seed, n=1336, n_speakers=10, n_classes=4) for seed in range(8)]

    started = time.perf_counter()
    found = compare_systems(eight, "f1_macro")

    assert len(found) == 28
    assert time.perf_counter() - started < 2


F1 = METRICS["f1_macro"]
MEAN_LOSS = METRICS["log_loss"].value


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
    tallies = [F1.tally(GroupedRows(labels, given, proba, groups, 6)) for given in (a, b)]

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

    p = permutation_p_value(MEAN_LOSS, losses(*differences), losses(*[0.0] * 6), patterns)

    assert p == expected
    assert max_t_p_values(np.array(differences)[:, None], patterns) == expected


def test_speakers_without_a_difference_stay_in():
    a, b = losses(0.1, 0.2, 0.3, 0.0, 0.0), losses(0.0, 0.0, 0.0, 0.0, 0.0)

    # Only swapping none or all of the first three keeps the difference: 2 of 8.
    assert permutation_p_value(MEAN_LOSS, a, b, swap_patterns(5)) == 2 / 8


def test_equal_systems_have_p_1():
    a = losses(0.1, 0.2, 0.3, 0.4)

    assert permutation_p_value(MEAN_LOSS, a, a, swap_patterns(4)) == 1
    assert_array_equal(max_t_p_values(np.zeros((4, 3)), swap_patterns(4)), [1, 1, 1])


def test_of_sampled_swaps_the_one_found_is_one_more():
    none = _SwapPatterns(np.array([[False, True], [True, False], [False, True]]), exact=False)

    p = permutation_p_value(MEAN_LOSS, losses(0.5, 0.4), losses(0.1, 0.1), none)

    assert p == (0 + 1) / (3 + 1) == none.smallest_p


def test_a_sample_of_swaps_is_close_to_all_of_them():
    differences = np.random.default_rng(1).normal(0.3, 1, size=(10, 4))
    every = swap_patterns(10)
    sample = _SwapPatterns(swap_patterns(17).swapped[:, :10], exact=False)
    a, b = losses(*differences[:, 0]), losses(*np.zeros(10))

    assert permutation_p_value(MEAN_LOSS, a, b, sample) == pytest.approx(
        permutation_p_value(MEAN_LOSS, a, b, every), abs=0.01
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

    p = _nadeau_bengio_p_value(differences, test_per_train=1 / 4)

    assert p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert p == pytest.approx(_nadeau_bengio_p_value(-differences, 1 / 4))
    assert p > stats.ttest_1samp(differences, 0).pvalue
    plain = _nadeau_bengio_p_value(differences, 0.0)
    assert plain == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_folds_that_all_differ_alike_leave_no_doubt_and_equal_folds_show_nothing():
    assert _nadeau_bengio_p_value(np.full(4, 0.25), 1 / 3) == 0
    assert _nadeau_bengio_p_value(np.zeros(4), 1 / 3) == 1
