import json
import time
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from toolkit.validation.comparison import (
    Comparison,
    compare_systems,
    max_t_p_values,
    swap_patterns,
)
from toolkit.validation.metrics import METRICS
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
    found = compare_systems(systems[:2], unit="session")[0]

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
