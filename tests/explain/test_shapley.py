"""Games over modalities against the definitions and hand algebra."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from toolkit.explain import Explainer, compute_modality_shapley, play_game
from toolkit.explain.shapley import (
    GameRecord,
    _interaction_index,
    _late_systems,
    _shapley_values,
    explain_modalities,
)
from toolkit.study.attribution import _add_seed_noise
from toolkit.systems import proper_subsets
from toolkit.validation import Predictions, score_predictions
from toolkit.validation.scores import find_score


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_values_equal_the_average_over_all_orders(n, by_hand):
    game = np.random.default_rng(n).normal(size=(2**n, 3))

    values = _shapley_values(game)

    assert_allclose(
        values, by_hand.shapley(lambda s: game[sum(1 << k for k in s)], n), atol=1e-12
    )
    assert_allclose(values.sum(axis=0), game[-1] - game[0], rtol=0, atol=1e-12)


def test_a_player_that_adds_nothing_has_nothing():
    game = np.array([0, 1, 2, 5, 0, 1, 2, 5])  # the third changes no set

    assert_allclose(_shapley_values(game)[2], 0, atol=1e-15)
    assert_allclose(_interaction_index(game)[2], 0, atol=1e-15)


def test_interactions_equal_the_definition():
    game = np.random.default_rng(0).normal(size=16)

    def worth(*who):
        return game[sum(1 << k for k in who)]

    expected = 0.0
    for size in range(3):
        for some in combinations((1, 3), size):
            weight = factorial(size) * factorial(2 - size) / factorial(3)
            gain = worth(0, 2, *some) - worth(0, *some) - worth(2, *some) + worth(*some)
            expected += weight * gain
    assert_allclose(_interaction_index(game)[0, 2], expected)
    assert_allclose(_interaction_index(game), _interaction_index(game).T)


def test_additive_worth_has_no_interaction_and_gives_each_its_own():
    own = np.array([0.1, -0.2, 0.4])
    game = [sum(own[k] for k in range(3) if s >> k & 1) for s in range(8)]

    assert_allclose(_shapley_values(game), own)
    assert_allclose(_interaction_index(game), 0, atol=1e-15)


def test_a_value_of_both_together_is_shared_and_one_of_either_is_redundant():
    assert _shapley_values([0, 0, 0, 1]).tolist() == [0.5, 0.5]
    assert _interaction_index([0, 0, 0, 1])[0, 1] == 1
    assert _interaction_index([0, 1, 1, 1])[0, 1] == -1


def make(system, proba, labels, speakers):
    n = len(labels)
    return Predictions(
        system=system,
        classes=("a", "b", "c"),
        utterances=np.array([f"u{row:03d}" for row in range(n)]),
        speakers=speakers,
        sessions=None,
        folds=np.unique(speakers, return_inverse=True)[1],
        present=np.ones(n, dtype=bool),
        labels=labels,
        proba=proba,
    )


@pytest.fixture
def singles():
    """Three modalities: two that tell something and one that is noise."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 180)
    speakers = np.repeat([f"P{k}" for k in range(6)], 30)

    def guess(skill):
        odds = np.exp(rng.normal(size=(180, 3)) + skill * np.eye(3)[labels])
        return odds / odds.sum(axis=1, keepdims=True)

    skills = {"text": 1.5, "audio": 0.8, "noise": 0.0}
    return [make(name, guess(skill), labels, speakers) for name, skill in skills.items()]


@pytest.fixture
def majority(singles):
    return make("majority", np.full((180, 3), 1 / 3), singles[0].labels, singles[0].speakers)


SHARES = {fold: np.full(3, 1 / 3) for fold in range(6)}


@pytest.mark.parametrize("rule", ["soft", "vote"])
@pytest.mark.parametrize("metric", ["f1_micro", "log_loss"])
def test_a_late_game_shares_out_the_gain_over_majority(singles, majority, rule, metric):
    systems = _late_systems(singles, majority, SHARES, rule=rule)
    names = [single.system for single in singles]

    records = play_game("late", names, systems, metric=metric)

    found = {(r.group, r.kind, r.players): r.value for r in records}
    everyone, nobody = (
        find_score(score_predictions(table), table.system, metric).value
        for table in (systems[frozenset(names)], majority)
    )
    total = sum(found["", "value", name] for name in names)
    assert_allclose(total, everyone - nobody, rtol=0, atol=1e-12)
    for name in ("a", "b", "c"):
        total = found[name, "worth", "text+audio+noise"] - found[name, "worth", ""]
        assert_allclose(sum(found[name, "value", m] for m in names), total, atol=1e-12)


def test_noise_is_worth_nothing_and_the_better_modality_more(singles, majority):
    systems = _late_systems(singles, majority, SHARES)

    records = play_game("late", ["text", "audio", "noise"], systems)

    value = {r.players: r for r in records if (r.group, r.kind) == ("", "value")}
    assert value["text"].value > value["audio"].value > 0.05
    assert value["noise"].low <= 0 <= value["noise"].high or abs(value["noise"].value) < 0.02
    assert value["text"].low > 0
    assert {r.n_speakers for r in records} == {6}


def test_the_interval_is_the_jackknife_of_the_value_over_speakers(singles, majority):
    systems = _late_systems(singles, majority, SHARES)
    names = ["text", "audio", "noise"]
    record = next(
        r
        for r in play_game("late", names, systems)
        if (r.kind, r.players) == ("value", "audio")
    )

    without = []
    for speaker in np.unique(majority.speakers):
        rows = majority.speakers != speaker
        game = [
            (systems[frozenset(n for b, n in enumerate(names) if s >> b & 1)]) for s in range(8)
        ]
        right = [np.mean((t.y_pred == t.labels)[rows]) for t in game]
        without.append(_shapley_values(right)[1])
    half = 2.5705818 * np.sqrt(5 / 6 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert_allclose([record.low, record.high], [record.value - half, record.value + half])


def test_a_difference_is_the_value_of_the_first_less_that_of_the_second(singles, majority):
    # Speakers of very different size, so that the degrees of freedom are not S - 1.
    owners = np.repeat([f"P{k}" for k in range(6)], [80, 10, 20, 30, 15, 25])
    folds = np.unique(owners, return_inverse=True)[1]
    singles = [replace(one, speakers=owners, folds=folds) for one in singles[:2]]
    none = replace(majority, speakers=owners, folds=folds)
    systems = _late_systems(singles, none, SHARES)
    text, audio = (systems[frozenset([name])] for name in ("text", "audio"))

    # Of two players the values differ by v(text) - v(audio): the half of v(both) cancels.
    def difference(rows):
        return np.mean((text.y_pred == text.labels)[rows]) - np.mean(
            (audio.y_pred == audio.labels)[rows]
        )

    without = [difference(owners != f"P{k}") for k in range(6)]
    # 180^2 / 8,650 = 3.746; sqrt(5 x 2.746) = 3.705
    quantile = stats.t.ppf(0.975, np.sqrt(5 * (180**2 / 8650 - 1)))
    half = quantile * np.sqrt(5 / 6 * np.sum((np.array(without) - np.mean(without)) ** 2))

    records = play_game("late", ["text", "audio"], systems)

    found = [r for r in records if (r.kind, r.group) == ("difference", "")]
    assert [r.players for r in found] == ["text+audio"]
    value = difference(slice(None))
    assert_allclose(
        [found[0].value, found[0].low, found[0].high], [value, value - half, value + half]
    )


def test_gains_alone_and_added_last_have_the_interval_of_their_paired_difference(
    singles, majority
):
    systems = _late_systems(singles, majority, SHARES)
    names = [single.system for single in singles]
    owners = majority.speakers

    def gain(more, less, rows=slice(None)):
        right = [systems[frozenset(s)].y_pred == majority.labels for s in (more, less)]
        return right[0][rows].mean() - right[1][rows].mean()

    records = play_game("late", names, systems)

    found = {(r.kind, r.players): r for r in records if not r.group}
    for name in names:
        others = [other for other in names if other != name]
        for kind, sets in (("alone", ([name], [])), ("last", (names, others))):
            record = found[kind, name]
            without = [gain(*sets, owners != f"P{k}") for k in range(6)]
            quantile = stats.t.ppf(0.975, 5)
            half = quantile * np.sqrt(5 / 6 * np.sum((without - np.mean(without)) ** 2))
            assert_allclose(record.value, gain(*sets), atol=1e-12)
            assert_allclose(record.high - record.value, half)
            assert_allclose(record.value - record.low, half)


def test_every_pair_has_a_difference_in_the_order_of_the_players(singles, majority):
    systems = _late_systems(singles, majority, SHARES)

    records = play_game("late", ["text", "audio", "noise"], systems)

    for group in ("", "a", "b", "c"):
        value = {r.players: r.value for r in records if (r.group, r.kind) == (group, "value")}
        found = {
            r.players: r.value for r in records if (r.group, r.kind) == (group, "difference")
        }
        assert found == pytest.approx(
            {
                "text+audio": value["text"] - value["audio"],
                "text+noise": value["text"] - value["noise"],
                "audio+noise": value["audio"] - value["noise"],
            }
        )


def test_the_empty_set_is_worth_what_the_better_baseline_scores(singles, majority):
    labels = majority.labels
    shares = np.bincount(labels) / 180
    # Always wrong, as majority is where people have one label of two.
    wrong = replace(majority, y_pred=(labels + 1) % 3)

    records = compute_modality_shapley(singles, wrong)

    worth = {r.players: r.value for r in records if (r.group, r.kind) == ("", "worth")}
    values = [r.value for r in records if (r.group, r.kind) == ("", "value")]
    assert worth[""] == max(shares)
    assert sum(values) == pytest.approx(worth["text+audio+noise"] - max(shares), abs=1e-12)


def test_a_missing_set_is_named(singles, majority):
    systems = _late_systems(singles[:2], majority, SHARES)

    with pytest.raises(ValueError, match=r"lacks the system of \['noise'\]"):
        play_game("late", ["text", "audio", "noise"], systems)


def test_more_than_five_modalities_are_refused(majority):
    with pytest.raises(ValueError, match=r"two to 5 modalities, got 6"):
        play_game("late", list("abcdef"), {frozenset(): majority})


def test_an_unknown_rule_is_refused(singles, majority):
    with pytest.raises(ValueError, match=r"Unknown rule 'mean'; choose among soft, vote"):
        _late_systems(singles, majority, SHARES, rule="mean")


def test_subset_systems_are_those_between_singles_and_all():
    assert list(proper_subsets(["a", "b"])) == []
    assert len(list(proper_subsets("abcde"))) == 2**5 - 5 - 2


def test_the_deviation_over_seeds_is_of_the_same_number_under_every_seed():
    def make(value, players="text"):
        return GameRecord("refit", "f1_micro", "", "value", players, value, None, None, 4)

    records = [make(0.1), make(0.2, "audio")]
    again = [[make(0.1), make(0.5, "audio")], [make(0.3)], [make(0.8)]]

    text, audio = _add_seed_noise(records, again)

    mean = 1.2 / 3
    spread = ((0.1 - mean) ** 2 + (0.3 - mean) ** 2 + (0.8 - mean) ** 2) / 2
    assert_allclose(text.seed_sd, spread**0.5)
    assert (text.value, audio.seed_sd) == (0.1, None)
    assert _add_seed_noise(records, []) == records


OWNER = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2}  # text, audio (three features), visual


def expected_margins(booster, X, by_hand):
    """v of every set of modalities, by the definition: (rows, classes, sets)."""
    trees = by_hand.read_trees(booster)
    n = len(booster.classes)
    v = np.zeros((len(X), n, 8))
    for s in range(8):
        known = {feature for feature, owner in OWNER.items() if s >> owner & 1}
        for row, x in enumerate(X):
            for c in range(n):
                v[row, c, s] = sum(by_hand.expect(t, x, known) for t in trees[c::n])
    return v


def test_values_and_interactions_are_those_of_the_game_over_modalities(booster, rows, by_hand):
    X = rows[0][:8]
    v = expected_margins(booster, X, by_hand)

    game = explain_modalities(Explainer.of(booster), X)

    assert game.modalities == ("text", "audio", "visual")
    expected = _shapley_values(v.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert_allclose(game.values[:, :3], expected, atol=1e-12)
    index = _interaction_index(v.transpose(2, 0, 1)).transpose(2, 3, 0, 1)
    assert_allclose(game.interactions[:, :3], index, atol=1e-12)
    assert not game.values[:, 3].any()


def test_values_of_modalities_add_up_to_the_margin(booster, rows):
    explainer = Explainer.of(booster)

    game = explain_modalities(explainer, rows[0])

    margins = explainer.explain(rows[0]).sum(axis=2)
    assert_allclose(game.values.sum(axis=2) + explainer.base, margins, atol=1e-12)


def test_one_feature_a_modality_gives_the_features_values(kind, train, rows):
    names = tuple(f"m{k}__value__0000" for k in range(5))
    explainer = Explainer.of(train(kind, names=names))

    game = explain_modalities(explainer, rows[0])

    assert_allclose(game.values, explainer.explain(rows[0])[:, :, :-1], atol=1e-12)


def test_a_feature_that_no_tree_uses_keeps_players_apart(train, rows):
    X = rows[0].copy()
    X[:, 1] = 0
    names = tuple(f"m{k}__value__0000" for k in range(5))
    explainer = Explainer.of(train("lightgbm", X=X, names=names))

    game = explain_modalities(explainer, X)

    assert 1 not in explainer.columns
    assert not game.values[:, :, 1].any()
    assert_allclose(game.values, explainer.explain(X)[:, :, :-1], atol=1e-12)
