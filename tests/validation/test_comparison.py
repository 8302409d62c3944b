"""Comparisons of systems, and the permutation tests behind them."""

import json
import time
from dataclasses import asdict, fields, replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import f1_score

from toolkit.validation import comparison
from toolkit.validation.comparison import (
    Comparison,
    Contrast,
    _confirmatory_pairs,
    _nadeau_bengio_p_value,
    _SwapPatterns,
    better_baseline,
    compare_families,
    compare_systems,
    no_information_predictions,
    swap_p_values,
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
        "family,a,b,metric,difference,low,high,p,p_adjusted,p_nadeau_bengio,smallest_p,method,"
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


def test_the_interval_leaves_out_each_speaker_of_both_systems(make_predictions):
    sizes = np.array([4, 30, 9, 12, 25, 6, 34])
    owners = np.repeat([f"P{k}" for k in range(7)], sizes)
    a, b = (make_predictions(seed, speakers=owners, sessions=None) for seed in (1, 2))
    left_out = np.array(
        [
            accuracy(a, owners != name) - accuracy(b, owners != name)
            for name in np.unique(owners)
        ]
    )
    degrees = np.sqrt(6 * (120**2 / np.sum(sizes**2) - 1))
    spread = np.sum((left_out - left_out.mean()) ** 2)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(6 / 7 * spread)
    difference = accuracy(a) - accuracy(b)

    found = compare_systems([a, b])[0]

    assert degrees < 5
    assert_allclose([found.low, found.high], [difference - half, difference + half])


def recall_by_hand(labels, given):
    return np.mean([np.mean(given[labels == code] == code) for code in np.unique(labels)])


@pytest.mark.parametrize(
    ("metric", "score"), [("f1_micro", lambda y, z: np.mean(y == z)), ("uar", recall_by_hand)]
)
def test_both_p_are_those_of_swapping_the_rows_of_speakers(make_predictions, metric, score):
    owners = np.repeat([f"P{k}" for k in range(7)], [4, 30, 9, 12, 25, 6, 34])
    systems = [
        make_predictions(seed, n=120, speakers=owners, sessions=None) for seed in (1, 2, 3)
    ]
    systems[2] = replace(
        systems[2],
        y_pred=np.where(np.arange(120) % 5 < 3, systems[2].labels, systems[2].y_pred),
    )
    labels, pairs = systems[0].labels, [(0, 1), (0, 2), (1, 2)]
    numbers = np.unique(owners, return_inverse=True)[1]
    statistics = []
    for swapped in product([False, True], repeat=7):
        swap = np.array(swapped)[numbers]
        given = [(systems[a].y_pred, systems[b].y_pred) for a, b in pairs]
        statistics.append(
            [
                abs(score(labels, np.where(swap, b, a)) - score(labels, np.where(swap, a, b)))
                for a, b in given
            ]
        )
    alone, adjusted = p_by_definition(np.array(statistics))

    found = compare_systems(systems, metric)

    assert [each.p for each in found] == alone.tolist()
    assert [each.p_adjusted for each in found] == adjusted.tolist()
    assert 0 < alone.min() < 0.5


def test_a_family_of_pairs_is_adjusted_for_its_own_pairs_alone(systems):
    pairs = [("good", "system2"), ("system1", "system2")]
    every = {(each.a, each.b): each for each in compare_systems(systems, "uar")}

    family = compare_systems(systems, "uar", pairs=pairs)

    assert [(each.a, each.b) for each in family] == pairs
    assert {each.family for each in every.values()} == {"all pairs"}
    assert {each.family for each in family} == {"confirmatory"}
    assert family[0].difference == -every["system2", "good"].difference
    assert family[0].p == every["system2", "good"].p
    assert family[1].p_adjusted <= every["system1", "system2"].p_adjusted
    alone = compare_systems(systems, "uar", pairs=pairs[1:])[0]
    assert alone.p_adjusted == alone.p == family[1].p
    assert compare_systems(systems, pairs=[]) == []


def test_a_pair_of_an_unknown_system_is_refused(systems):
    with pytest.raises(ValueError, match=r"No system is named 'hybrid'; expected pairs of \["):
        compare_systems(systems, pairs=[("good", "hybrid")])


def test_nadeau_and_bengio_take_folds(systems):
    a, b, _ = systems
    d = np.array([accuracy(a, a.folds == k) - accuracy(b, b.folds == k) for k in range(8)])
    t = d.mean() / np.sqrt((1 / 8 + 1 / 7) * d.var(ddof=1))

    found = compare_systems([a, b])[0]

    assert found.p_nadeau_bengio == pytest.approx(2 * stats.t.sf(abs(t), 7))


def test_people_in_several_folds_have_no_test_over_folds(systems):
    # Folds of +content train on less than n - 1 parts of n.
    a, b = (
        replace(each, folds=2 * each.folds + (np.arange(len(each.folds)) < 40))
        for each in systems[:2]
    )

    assert compare_systems([a, b])[0].p_nadeau_bengio is None


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


def of_one_class_each(make_predictions, labels, shares=None, y_pred=None):
    """Make majority predictions of given labels, a person each."""
    n = len(labels)
    proba = np.tile([0.5, 0.3, 0.2] if shares is None else shares, (n, 1))
    fields = {"labels": np.array(labels), "proba": proba, "system": "majority"}
    if y_pred is not None:
        fields["y_pred"] = np.array(y_pred)
    return make_predictions(n=n, n_speakers=n, **fields)


def test_the_constant_is_the_largest_class_of_the_tested_rows(make_predictions):
    majority = of_one_class_each(make_predictions, [2, 2, 1, 0, 2, 1])

    found = no_information_predictions(majority)

    assert found.system == "no-information"
    assert found.y_pred.tolist() == [2] * 6
    assert_allclose(found.proba, np.tile([1 / 6, 2 / 6, 3 / 6], (6, 1)))
    majority.check_aligned(found)


def test_of_equal_classes_the_lowest_is_the_constant(make_predictions):
    found = no_information_predictions(of_one_class_each(make_predictions, [2, 1, 1, 2, 0]))

    assert found.y_pred.tolist() == [1] * 5


def test_no_constant_is_right_more_often_and_the_uar_of_any_is_one_per_class(make_predictions):
    labels = [0, 1, 1, 2, 2, 2, 0, 2, 1]
    found = no_information_predictions(of_one_class_each(make_predictions, labels))
    scores = score_predictions(found)
    shares = np.array([2, 3, 4]) / 9

    assert find_score(scores, "no-information", "f1_micro").value == max(shares)
    assert find_score(scores, "no-information", "uar").value == pytest.approx(1 / 3)
    # No other fixed probabilities have a lower log-loss: it is the entropy of the labels.
    entropy = stats.entropy(shares)
    assert find_score(scores, "no-information", "log_loss").value == pytest.approx(entropy)


def test_where_each_person_has_one_of_two_labels_majority_is_always_wrong(make_predictions):
    # Without a person the other label is the larger one.
    labels = [0, 1] * 4
    majority = of_one_class_each(
        make_predictions, labels, y_pred=[1 - label for label in labels]
    )

    found = better_baseline({"majority": majority}, "f1_micro")

    assert find_score(score_predictions(majority), "majority", "f1_micro").value == 0
    assert found.system == "no-information"
    assert accuracy(found) == 0.5


@pytest.mark.parametrize(
    ("metric", "y_pred", "shares", "expected"),
    [
        ("f1_micro", [0, 0, 1, 0, 0, 0], None, "majority"),  # 4 of 6 right; the constant 3
        ("f1_micro", [0, 0, 0, 0, 0, 0], None, "no-information"),  # as often: the constant
        ("f1_micro", [1, 0, 0, 0, 0, 0], None, "no-information"),
        ("uar", [0, 0, 1, 0, 0, 0], None, "majority"),
        ("log_loss", None, (0.4, 0.3, 0.3), "no-information"),  # the entropy is the least
        ("brier", None, (0.4, 0.3, 0.3), "no-information"),
    ],
)
def test_the_better_baseline_is_that_of_the_metric(
    make_predictions, metric, y_pred, shares, expected
):
    labels = [0, 0, 1, 0, 1, 2]
    majority = of_one_class_each(make_predictions, labels, shares, y_pred)

    assert better_baseline({"majority": majority}, metric).system == expected


def test_the_better_baseline_of_a_loss_is_the_lower_one(make_predictions):
    # Fold by fold the shares may be nearer the labels than those of all rows are.
    majority = of_one_class_each(make_predictions, [0, 0, 1, 1])
    sharp = replace(majority, proba=np.eye(3)[[0, 0, 1, 1]])

    assert better_baseline({"majority": sharp}, "log_loss").system == "majority"


def test_systems_from_outside_are_in_no_confirmatory_family(make_predictions):
    names = ("text", "early", "majority", "no-information", "outside+net", "vote+net")
    systems = [make_predictions(system=name) for name in names]

    found = compare_families(systems, ["text"], "f1_micro")

    brought = {"outside+net", "vote+net"}
    families = {each.family for each in found if {each.a, each.b} & brought}
    assert families == {"all pairs"}
    assert "confirmatory" in {each.family for each in found}


def test_the_confirmatory_family_is_members_against_what_they_must_beat(make_predictions):
    names = ["text", "audio", "early", "vote", "soft", "best-single", "text-logistic"]
    names += ["audio-logistic", "early-logistic", "majority", "no-information"]
    names += ["early-seed-2", "vote-offset-f1", "early-text-audio", "text-permuted"]
    systems = [make_predictions(seed, system=name) for seed, name in enumerate(names)]
    better = better_baseline({each.system: each for each in systems}, "uar").system

    found = _confirmatory_pairs(systems, ["text", "audio"], "uar")

    assert found == [
        *((name, better) for name in ("text", "audio", "early", "vote", "soft")),
        *((name, f"{name}-logistic") for name in ("text", "audio", "early")),
        *((name, "best-single") for name in ("early", "vote", "soft")),
    ]
    assert len(compare_systems(systems, "uar", pairs=found)) == 11


def test_one_modality_has_no_fusion_to_be_compared(make_predictions):
    names = ["text", "text-logistic", "majority", "no-information"]
    systems = [make_predictions(seed, system=name) for seed, name in enumerate(names)]

    found = _confirmatory_pairs(systems, ["text"], "f1_micro")

    assert [b for _, b in found][1:] == ["text-logistic"]
    assert found[0][1] in {"majority", "no-information"}


def test_both_families_have_the_same_p_and_their_own_adjusted_p(make_predictions):
    names = ["text", "audio", "early", "best-single", "text-logistic", "majority"]
    systems = [
        make_predictions(seed, n=240, n_speakers=8, system=name)
        for seed, name in enumerate([*names, "no-information"])
    ]
    pairs = _confirmatory_pairs(systems, ["text", "audio"], "uar")

    found = compare_families(systems, ["text", "audio"], "uar")

    families = [each.family for each in found]
    assert families == ["confirmatory"] * len(pairs) + ["all pairs"] * 21
    assert found[: len(pairs)] == compare_systems(systems, "uar", pairs=pairs)
    assert found[len(pairs) :] == compare_systems(systems, "uar")
    every = {frozenset((each.a, each.b)): each for each in found[len(pairs) :]}
    planned = [(each, every[frozenset((each.a, each.b))]) for each in found[: len(pairs)]]
    assert all(one.p == other.p for one, other in planned)
    assert any(one.p_adjusted < other.p_adjusted for one, other in planned)


def test_no_planned_comparison_leaves_all_pairs(make_predictions):
    systems = [
        make_predictions(k, system=name) for k, name in enumerate(["majority", "best-single"])
    ]

    assert [each.family for each in compare_families(systems, [])] == ["all pairs"]


F1 = METRICS["f1_macro"]
MEAN_LOSS = METRICS["log_loss"].value


def losses(*sums):
    return np.array([[value, 1.0] for value in sums])


def mean_contrasts(differences):
    """Contrasts of groups of one row each: their pooled differences are the columns' means."""
    none = losses(*[0.0] * len(differences))
    return [Contrast(MEAN_LOSS, losses(*column), none) for column in differences.T]


def subtract(contrast):
    """The pooled difference of a contrast."""
    return float(
        contrast.value(contrast.a.sum(axis=0)) - contrast.value(contrast.b.sum(axis=0))
    )


def p_by_definition(statistics):
    """Compute both p of |differences|, a row per pattern, the first row that of no swap."""
    found, tolerance = statistics[0], 1e-9
    scale = np.sqrt(np.mean(statistics**2, axis=0))
    alone = np.mean(statistics >= found - tolerance, axis=0)
    studentised = np.zeros_like(statistics)
    for column in np.flatnonzero(scale > tolerance):
        studentised[:, column] = statistics[:, column] / scale[column]
    order = np.argsort(-studentised[0])
    adjusted, least = np.empty(len(found)), 0.0
    for rank, column in enumerate(order):
        largest = [max(row[order[rank:]]) for row in studentised]
        share = np.mean(np.array(largest) >= studentised[0, column] - tolerance)
        adjusted[column] = least = max(least, share)
    return alone, adjusted


def swap_by_definition(contrasts, patterns):
    """List |pooled differences| after every pattern, by one loop in the other."""
    statistics = []
    for swapped in patterns:
        row = []
        for each in contrasts:
            a, b = [], []
            for group, (first, second) in enumerate(zip(each.a, each.b, strict=True)):
                a.append(second if swapped[group] else first)
                b.append(first if swapped[group] else second)
            row.append(abs(each.value(np.sum(a, axis=0)) - each.value(np.sum(b, axis=0))))
        statistics.append(row)
    return np.array(statistics)


def draw_contrasts(seed, metric, n_groups, n_systems=4):
    """Draw systems of very unequal groups, one better and one equal to another; all pairs."""
    rng, chosen = np.random.default_rng(seed), METRICS[metric]
    groups = np.repeat(np.arange(n_groups), rng.integers(2, 40, n_groups))
    labels = rng.integers(0, 3, len(groups))
    tallies = []
    for skill in [0.8, *[0.3] * (n_systems - 2)]:
        right = rng.random(len(groups)) < skill
        given = np.where(right, labels, rng.integers(0, 3, len(groups)))
        proba = rng.dirichlet(np.ones(3), len(groups)) / 2 + np.eye(3)[given] / 2
        tallies.append(chosen.tally(GroupedRows(labels, given, proba, groups, n_groups)))
    tallies.append(tallies[-1].copy())
    return [Contrast(chosen.value, a, b) for a, b in combinations(tallies, 2)]


def test_every_swap_and_its_mirror_image_are_all_swaps():
    patterns = swap_patterns(5)

    both = np.concatenate([patterns.swapped, ~patterns.swapped])

    assert len(np.unique(both, axis=0)) == len(both) == 2**5
    assert patterns.exact
    assert patterns.smallest_p == 2 / 2**5


def test_up_to_sixteen_units_are_swapped_in_all_ways():
    assert (swap_patterns(16).exact, len(swap_patterns(16).swapped)) == (True, 2**15)
    assert (swap_patterns(17).exact, len(swap_patterns(17).swapped)) == (False, 100_000)


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

    alone, adjusted = swap_p_values([Contrast(F1.value, *tallies)], swap_patterns(6))

    assert 0.03 < expected < 0.9
    # A single contrast has no others to be adjusted for.
    assert alone == adjusted == expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", ["f1_micro", "f1_macro", "uar", "mcc", "log_loss"])
def test_both_p_are_their_definition(metric, seed):
    contrasts = draw_contrasts(seed, metric, n_groups=7)
    statistics = swap_by_definition(contrasts, product([False, True], repeat=7))

    found = swap_p_values(contrasts, swap_patterns(7))

    assert_allclose(found, p_by_definition(statistics), rtol=1e-12)
    assert statistics[0, 0] == pytest.approx(abs(subtract(contrasts[0])))
    assert found[1][-1] == 1  # a system and its copy


def test_of_a_sample_both_p_are_their_definition_with_the_one_found_added(monkeypatch):
    contrasts = draw_contrasts(5, "uar", n_groups=9)
    swapped = np.random.default_rng(6).random((60, 9)) < 0.5
    statistics = swap_by_definition(contrasts, [np.zeros(9, dtype=bool), *swapped])
    monkeypatch.setattr(comparison, "_BLOCK", 100)  # some patterns at a time

    found = swap_p_values(contrasts, _SwapPatterns(swapped, exact=False))

    assert_allclose(found, p_by_definition(statistics), rtol=1e-12)


@pytest.mark.parametrize("metric", ["f1_micro", "f1_macro", "uar", "mcc", "brier"])
@pytest.mark.parametrize("n_groups", [5, 8, 12, 20])
def test_the_adjusted_p_is_never_below_the_other(metric, n_groups, monkeypatch):
    monkeypatch.setattr(comparison, "_N_SAMPLED", 500)
    patterns = swap_patterns(n_groups)
    for seed in range(6):
        contrasts = draw_contrasts(seed, metric, n_groups)
        same = contrasts[0].a
        contrasts.insert(seed % 3, Contrast(contrasts[0].value, same, same))

        alone, adjusted = swap_p_values(contrasts, patterns)

        assert (adjusted >= alone).all()
        assert (alone >= patterns.smallest_p).all()
        assert alone[seed % 3] == adjusted[seed % 3] == 1
        assert_array_equal(swap_p_values(contrasts[:1], patterns)[0], alone[:1])


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

    found = swap_p_values(mean_contrasts(np.array(differences)[:, None]), swap_patterns(6))

    assert found[0] == found[1] == expected


def test_a_difference_of_rounding_alone_is_none_and_leaves_the_others_alone():
    def make(hits):  # six groups of one kind
        return np.tile([hits, [22.0] * 5, [22.0] * 5], (6, 1, 1))

    # The same five recalls in another order: their means differ in the last bit.
    a, b = make([18, 11, 8, 6, 9]), make([9, 18, 8, 6, 11])
    better = a.copy()
    better[:, 0] += np.array([1, 2, 1, 3, 2, 1])[:, None]
    uar = METRICS["uar"].value
    contrasts = [Contrast(uar, a, b), Contrast(uar, better, b)]
    assert 0 < abs(subtract(contrasts[0])) < 1e-15

    alone, adjusted = swap_p_values(contrasts, swap_patterns(6))

    assert alone.tolist() == adjusted.tolist() == [1, 2 / 64]


def test_speakers_without_a_difference_stay_in():
    differences = np.array([0.1, 0.2, 0.3, 0.0, 0.0])[:, None]

    # Only swapping none or all of the first three keeps the difference: 2 of 8.
    assert swap_p_values(mean_contrasts(differences), swap_patterns(5))[0] == 2 / 8


def test_equal_systems_have_p_1():
    found = swap_p_values(mean_contrasts(np.zeros((4, 3))), swap_patterns(4))

    assert_array_equal(found, np.ones((2, 3)))


def test_of_sampled_swaps_the_one_found_is_one_more():
    none = _SwapPatterns(np.array([[False, True], [True, False], [False, True]]), exact=False)

    found = swap_p_values(mean_contrasts(np.array([[0.4], [0.3]])), none)

    assert found[0] == found[1] == (0 + 1) / (3 + 1) == none.smallest_p


def test_the_scale_of_sampled_swaps_holds_the_one_found_too():
    # Without it a contrast that no drawn swap leaves a difference in would have no scale.
    none = _SwapPatterns(np.array([[False, True], [True, False]]), exact=False)
    contrasts = mean_contrasts(np.array([[0.5, 0.4], [0.5, 0.3]]))

    alone, adjusted = swap_p_values(contrasts, none)

    # |difference|: first 1/2, 0, 0; second .35, .05, .05; scales sqrt(1/12), sqrt(.0425).
    assert alone.tolist() == adjusted.tolist() == [1 / 3, 1 / 3]


def test_a_sample_of_swaps_is_close_to_all_of_them():
    differences = np.random.default_rng(1).normal(0.3, 1, size=(10, 4))
    sample = _SwapPatterns(swap_patterns(17).swapped[:, :10], exact=False)
    contrasts = mean_contrasts(differences)

    found = swap_p_values(contrasts, sample)

    assert_allclose(found, swap_p_values(contrasts, swap_patterns(10)), atol=0.01)


def test_the_statistic_is_the_pooled_difference_not_the_mean_over_speakers():
    # The first system is better for one speaker of 900 rows, the second for seven of ten.
    sizes = np.array([900.0, *[10.0] * 7])
    a, b = sizes * [0.6, *[0.3] * 7], sizes * [0.5, *[0.7] * 7]
    contrast = Contrast(MEAN_LOSS, np.stack([a, sizes], axis=1), np.stack([b, sizes], axis=1))

    alone, adjusted = swap_p_values([contrast], swap_patterns(8))

    assert subtract(contrast) > 0
    # 62 / 970; a swap of the large one or of small ones alone only widens the difference.
    assert alone == adjusted == 1.0


def test_adjusted_p_grows_with_the_number_of_pairs_and_never_falls_down_the_steps():
    contrasts = mean_contrasts(np.random.default_rng(2).normal(0.5, 1, size=(8, 6)))

    alone, together = swap_p_values(contrasts, swap_patterns(8))

    assert (together >= alone).all()
    assert (np.diff(together[np.argsort(alone)]) >= 0).all()
    assert together.min() > alone.min()


def test_max_t_can_reject_among_28_pairs_where_holm_never_could():
    rng = np.random.default_rng(3)
    systems = rng.normal(0, 0.01, size=(10, 8))
    systems[:, 0] += 0.2
    pairs = list(combinations(range(8), 2))
    differences = np.stack([systems[:, i] - systems[:, j] for i, j in pairs], axis=1)
    patterns = swap_patterns(10)

    adjusted = swap_p_values(mean_contrasts(differences), patterns)[1]

    assert (adjusted[:7] <= 0.05).all()
    assert 28 * patterns.smallest_p > 0.05


def test_no_contrast_has_no_p():
    assert [p.tolist() for p in swap_p_values([], swap_patterns(6))] == [[], []]


def test_nadeau_and_bengio_widen_the_t_test_over_folds():
    differences = np.array([0.10, 0.02, 0.05, -0.03, 0.08])
    t = differences.mean() / np.sqrt((1 / 5 + 1 / 4) * differences.var(ddof=1))

    p = _nadeau_bengio_p_value(differences)

    assert p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert p == pytest.approx(_nadeau_bengio_p_value(-differences))
    assert p > stats.ttest_1samp(differences, 0).pvalue


def test_folds_that_all_differ_alike_leave_no_doubt_and_equal_folds_show_nothing():
    assert _nadeau_bengio_p_value(np.full(4, 0.25)) == 0
    assert _nadeau_bengio_p_value(np.zeros(4)) == 1
