"""The fusions that learn: the weighted mean and the stacker."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from toolkit.fusion.inputs import StackedPredictions, one_blas_thread
from toolkit.fusion.late import (
    _PENALTIES,
    _fit_stackers,
    _fit_weights,
    _split_groups,
    _stack_features,
    learn_rule,
)
from toolkit.fusion.learned import _ClassOffsets
from toolkit.validation.ledger import LeakageError, Ledger, audit_entries


@pytest.fixture(autouse=True)
def _calm():
    with one_blas_thread():  # threads that wait for each other make small fits slow
        yield


def stacked_of(proba, present=None, priors=None):
    proba = np.array(proba, dtype=float)
    n_voters, n, n_classes = proba.shape
    return StackedPredictions(
        votes=proba.argmax(axis=2),
        proba=proba,
        present=np.ones((n_voters, n), dtype=bool) if present is None else np.array(present),
        priors=np.tile(np.full(n_classes, 1 / n_classes) if priors is None else priors, (n, 1)),
    )


def sorted_voters(study):
    return sorted(study.voters, key=lambda voter: voter.system)


def stacked_inner(study, fold, voters=None):
    ordered = sorted_voters(study) if voters is None else voters
    return StackedPredictions.of([voter.inner[fold] for voter in ordered], study.priors()[fold])


def learn(study, method, fold, voters=None, ledgers=None):
    """The rule of a fold, its out-of-fold probabilities, and the ledger's entries."""
    ledger = (study.ledgers() if ledgers is None else ledgers)[fold]
    inner = study.voters[0].inner[fold]
    stacked = stacked_inner(study, fold, voters)
    rule, proba = learn_rule(method, stacked, inner, lambda _: ledger)
    return rule, proba, {(e["fit"], e["role"]): e["n_rows"] for e in ledger.entries()}


def random_stacked(labels, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(2, len(labels), n_classes)) + np.eye(n_classes)[labels]
    odds = np.exp(margins)
    return stacked_of(odds / odds.sum(axis=2, keepdims=True))


def test_features_are_centred_log_probabilities_and_flags_of_absence():
    first, second = [[0.5, 0.25, 0.25]], [[1.0, 0.0, 0.0]]

    features = _stack_features(stacked_of([first, second]))

    twice, floor = np.log(2), np.log(1e-6)
    expected = [2 * twice / 3, -twice / 3, -twice / 3, -2 * floor / 3, floor / 3, floor / 3]
    assert_allclose(features, [[*expected, 0, 0]], atol=1e-12)


def test_an_absent_voter_says_the_training_priors_whatever_it_said():
    priors = np.array([0.2, 0.3, 0.5])
    stacked = stacked_of([[[1, 0, 0]], [[0, 1, 0]]], [[True], [False]], priors)

    features = _stack_features(stacked)[0]

    assert_allclose(features[3:6], np.log(priors) - np.log(priors).mean(), atol=1e-12)
    assert features[6:].tolist() == [0, 1]


def test_a_stacker_is_the_logistic_regression_of_its_features():
    labels = np.random.default_rng(1).integers(0, 3, 120)
    stacked = random_stacked(labels, 3)

    stackers = _fit_stackers(stacked, labels, _PENALTIES)

    X = _stack_features(stacked)
    for C, stacker in zip(_PENALTIES, stackers, strict=True):
        model = LogisticRegression(C=C, max_iter=10_000, tol=1e-10).fit(X, labels)
        assert_allclose(stacker(stacked).proba, model.predict_proba(X), atol=1e-6)


def test_two_classes_are_fused_like_more():
    labels = np.random.default_rng(1).integers(0, 2, 80)
    stacked = random_stacked(labels, 2)

    (stacker,) = _fit_stackers(stacked, labels, [0.1])

    X = _stack_features(stacked)
    model = LogisticRegression(C=0.1, max_iter=10_000, tol=1e-10).fit(X, labels)
    assert_allclose(stacker(stacked).proba, model.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("found", [[0, 2, 3], [1, 3], [2]])
def test_classes_that_no_row_has_keep_their_column_at_zero(found):
    labels = np.random.default_rng(1).choice(found, 60)
    stacked = random_stacked(labels, 4)

    (stacker,) = _fit_stackers(stacked, labels, [1.0])

    proba = stacker(stacked).proba
    assert np.flatnonzero(proba.any(axis=0)).tolist() == found
    assert_allclose(proba.sum(axis=1), 1)


def test_absent_rows_teach_nothing_and_get_the_training_priors():
    labels = np.random.default_rng(1).integers(0, 3, 60)
    stacked = random_stacked(labels, 3)
    present = stacked.present.copy()
    present[:, :10] = False
    priors = np.tile([0.2, 0.2, 0.6], (60, 1))
    holed = StackedPredictions(stacked.votes, stacked.proba, present, priors)

    (fitted,) = _fit_stackers(holed, labels, [1.0])
    (expected,) = _fit_stackers(holed.take(np.arange(10, 60)), labels[10:], [1.0])

    assert_allclose(fitted.coefficients, expected.coefficients, atol=1e-12)
    fused = fitted(holed)
    assert fused.proba[:10].tolist() == [[0.2, 0.2, 0.6]] * 10
    assert fused.y_pred[:10].tolist() == [2] * 10


def test_without_rows_nothing_is_known():
    stacked = random_stacked(np.zeros(4, dtype=int), 3)
    nobody = StackedPredictions(
        stacked.votes, stacked.proba, np.zeros_like(stacked.present), stacked.priors
    )

    (stacker,) = _fit_stackers(nobody, np.zeros(4, dtype=int), [1.0])

    assert_allclose(stacker(stacked).proba, 1 / 3)


def test_a_voter_whom_no_training_row_lacks_leaves_its_flag_without_weight():
    labels = np.random.default_rng(1).integers(0, 3, 60)
    stacked = random_stacked(labels, 3)

    (stacker,) = _fit_stackers(stacked, labels, [10.0])

    assert not stacker.coefficients[-2:].any()


def two_classes(true, present=None):
    """Two classes, every label the first; rows of `true` are voters."""
    true = np.array(true, dtype=float)
    return StackedPredictions(
        votes=(true < 0.5).astype(int),
        proba=np.stack([true, 1 - true], axis=2),
        present=np.ones(true.shape, dtype=bool) if present is None else np.array(present),
        priors=np.full((true.shape[1], 2), 0.5),
    )


def loss_of(weights, stacked):
    held = stacked.present * weights[:, None]
    mixture = (held * stacked.proba[:, :, 0]).sum(axis=0) / held.sum(axis=0)
    return -np.log(mixture).mean()


def test_the_weights_are_those_of_least_log_loss():
    # 2 log(.4 + .4 w) + log(.7 - .6 w) is largest where .8 (.7 - .6 w) = .6 (.4 + .4 w).
    weights = _fit_weights(
        two_classes([[0.8, 0.8, 0.1], [0.4, 0.4, 0.7]]), np.zeros(3, dtype=int)
    )

    assert_allclose(weights, [4 / 9, 5 / 9], atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_weights_agree_with_a_general_optimiser(missing):
    rng = np.random.default_rng(3)
    true = rng.choice([0.05, 0.3, 0.9], size=(3, 200), p=[0.3, 0.3, 0.4])
    present = rng.random((3, 200)) >= missing
    present[0] |= ~present.any(axis=0)
    stacked = two_classes(true, present)

    weights = _fit_weights(stacked, np.zeros(200, dtype=int))

    def free_loss(logits):
        weights = np.exp([0, *logits])
        return loss_of(weights / weights.sum(), stacked)

    found = minimize(free_loss, np.zeros(2))
    best = np.exp([0, *found.x]) / np.exp([0, *found.x]).sum()
    assert best.min() > 0.1
    assert_allclose(weights, best, atol=1e-4)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_absence_costs_a_voter_no_weight():
    # Where both are there the rows are those of the closed form; the rest say nothing.
    true = [[0.8, 0.8, 0.1] + [0.9] * 5, [0.4, 0.4, 0.7] + [0.5] * 5]
    present = [[True] * 3 + [False] * 5, [True] * 8]

    weights = _fit_weights(two_classes(true, present), np.zeros(8, dtype=int))

    assert_allclose(weights, [4 / 9, 5 / 9], atol=1e-6)


def test_equal_voters_weigh_the_same():
    weights = _fit_weights(two_classes([[0.8, 0.3]] * 4), np.zeros(2, dtype=int))

    assert weights.tolist() == [0.25] * 4


def test_a_certain_mistake_costs_no_more_than_the_log_loss_says():
    # Without the floor of 1e-6 the first row would be impossible for both.
    weights = _fit_weights(two_classes([[0.0, 0.9], [0.0, 0.2]]), np.zeros(2, dtype=int))

    assert_allclose(weights, [1, 0], atol=1e-6)


@pytest.mark.parametrize("n", [0, 4])
def test_rows_that_nobody_sees_teach_nothing(n):
    true, present = np.full((2, n), 0.9), np.zeros((2, n), dtype=bool)

    assert _fit_weights(two_classes(true, present), np.zeros(n, dtype=int)).tolist() == [
        0.5,
        0.5,
    ]


def test_a_voter_that_is_never_there_weighs_nothing():
    stacked = two_classes([[0.9, 0.2], [0.5, 0.5]], [[False, False], [True, True]])

    assert _fit_weights(stacked, np.zeros(2, dtype=int)).tolist() == [0, 1]


def test_each_fold_is_fused_with_the_weights_of_its_training_speakers(study, fuse):
    result = fuse(study, methods=("weighted",))

    ordered, fused = sorted_voters(study), result.predictions["weighted"]
    for fold in study.folds:
        labels = ordered[0].inner[fold.number].labels
        expected = _fit_weights(stacked_inner(study, fold.number), labels)
        learnt = result.learnt[fold.number]
        assert learnt.modalities == ("audio", "text", "visual")
        assert_allclose(learnt.rules["weighted"].keywords["weights"], expected, rtol=1e-12)
        proba = np.stack([voter.predictions.proba[fold.test] for voter in ordered])
        present = np.stack([voter.predictions.present[fold.test] for voter in ordered])
        held = expected[:, None] * present
        seen = present.any(axis=0)
        mixed = np.einsum("vn,vnc->nc", held, proba)[seen] / held.sum(axis=0)[seen, None]
        assert_allclose(fused.proba[fold.test][seen], mixed, rtol=1e-12)
    assert fused.system == "weighted"


def test_a_weightless_voter_speaks_where_it_is_alone(study, fuse):
    # In training the good voter is never absent; of the bad one nothing is left.
    first, second, _ = study.voters
    inner = {
        fold: replace(one, present=np.ones(len(one), dtype=bool), proba=np.eye(4)[one.labels])
        for fold, one in first.inner.items()
    }
    bad = {
        fold: replace(
            one,
            present=np.ones(len(one), dtype=bool),
            proba=np.eye(4)[(one.labels + 1) % 4],
        )
        for fold, one in inner.items()
    }
    absent = np.zeros(len(study.labels), dtype=bool)
    good = replace(first, predictions=replace(first.predictions, present=absent), inner=inner)

    result = fuse(study, [good, replace(second, inner=bad)], methods=("weighted",))

    seen = second.predictions.present
    assert all(
        one.rules["weighted"].keywords["weights"][0] < 1e-9 for one in result.learnt.values()
    )
    fused = result.predictions["weighted"].proba
    assert_allclose(fused[seen], second.predictions.proba[seen], atol=1e-12)


def test_inner_predictions_come_from_weights_of_other_groups(study):
    _, proba, _ = learn(study, "weighted", 0)

    inner, stacked = study.voters[0].inner[0], stacked_inner(study, 0)
    for train, test in _split_groups(inner):
        weights = _fit_weights(stacked.take(train), inner.labels[train])
        held = weights[:, None] * stacked.present[:, test]
        mixed = np.einsum("vn,vnc->nc", held, stacked.proba[:, test])
        seen = held.any(axis=0)
        expected = mixed[seen] / held.sum(axis=0)[seen, None]
        assert_allclose(proba[test][seen], expected, rtol=1e-12)


def test_the_penalty_is_the_best_for_groups_left_out(study):
    for fold in (0, 1):
        stacker, found, _ = learn(study, "stacked", fold)

        stacked, first = stacked_inner(study, fold), study.voters[0].inner[fold]
        losses, kept = [], []
        for C in _PENALTIES:
            proba = np.empty_like(first.proba)
            for train, test in _split_groups(first):
                (fitted,) = _fit_stackers(stacked.take(train), first.labels[train], [C])
                proba[test] = fitted(stacked.take(test)).proba
            losses.append(-np.log(proba[np.arange(len(first)), first.labels]).mean())
            kept.append(proba)
        best = int(np.argmin(losses))
        assert stacker.penalty == _PENALTIES[best]
        assert_allclose(found, kept[best], atol=5e-3)


def test_different_folds_choose_different_penalties(generate):
    big = generate(n=90, seed=3)

    penalties = {learn(big, "stacked", fold.number)[0].penalty for fold in big.folds}

    assert len(penalties) > 1


def test_held_out_rows_are_fused_by_the_stacker_of_their_fold(study, fuse):
    result = fuse(study, methods=("stacked",))

    ordered, fused = sorted_voters(study), result.predictions["stacked"]
    for fold in study.folds:
        stacked, labels = (
            stacked_inner(study, fold.number),
            ordered[0].inner[fold.number].labels,
        )
        penalty = result.learnt[fold.number].rules["stacked"].penalty
        (stacker,) = _fit_stackers(stacked, labels, [penalty])
        tested = stacked_of(
            [voter.predictions.proba[fold.test] for voter in ordered],
            [voter.predictions.present[fold.test] for voter in ordered],
            stacked.priors[0],
        )
        assert_allclose(fused.proba[fold.test], stacker(tested).proba, atol=1e-12)
    assert fused.system == "stacked"


def test_the_smallest_of_equally_good_penalties_is_chosen(study):
    # No row is present, so every penalty gives the same.
    blind = [
        replace(
            voter,
            inner={
                fold: replace(inner, present=np.zeros(len(inner), dtype=bool))
                for fold, inner in voter.inner.items()
            },
        )
        for voter in study.voters
    ]

    assert {learn(study, "stacked", fold, blind)[0].penalty for fold in range(6)} == {0.01}


def test_no_held_out_label_touches_a_learnt_rule(study, fuse):
    turned = [
        replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))
        for voter in study.voters
    ]

    ours, theirs = (
        fuse(study, voters, methods=("weighted", "stacked"))
        for voters in (study.voters, turned)
    )

    for method in ("weighted", "stacked"):
        first, second = (one.predictions[method].proba for one in (ours, theirs))
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    ("method", "name"),
    [("weighted", "weights"), ("stacked", "stacker"), ("log-pool", "pool")],
)
def test_the_ledger_holds_splits_and_the_rows_that_were_fused(study, method, name):
    for fold in study.folds:
        _, _, entries = learn(study, method, fold.number)

        seen = np.any([voter.inner[fold.number].present for voter in study.voters], axis=0)
        assert entries[name, "fuse"] == seen.sum() < len(fold.train)
        parts = [entries[f"{name} {part}", "validate"] for part in range(3)]
        assert sum(parts) == len(fold.train)


@pytest.mark.parametrize("method", ["weighted", "stacked", "log-pool"])
def test_a_held_out_speaker_stops_the_fit(study, method):
    ledgers = study.ledgers()
    ledgers[0], ledgers[1] = ledgers[1], ledgers[0]

    with pytest.raises(LeakageError, match="held out utterance"):
        learn(study, method, 0, ledgers=ledgers)


@pytest.mark.parametrize("method", ["vote", "soft"])
def test_rules_that_learn_nothing_open_no_ledger(study, method):
    stacked, inner = stacked_inner(study, 0), study.voters[0].inner[0]

    rule, proba = learn_rule(method, stacked, inner, lambda _: pytest.fail("opened"))

    assert proba.tobytes() == rule(stacked).proba.tobytes()


def test_groups_are_never_split_and_every_row_is_predicted_once(study):
    inner = study.voters[0].inner[0]

    parts = _split_groups(inner)

    assert len(parts) == 3
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(len(inner)))
    for train, test in parts:
        assert not set(inner.groups[train]) & set(inner.groups[test])
        assert len(train) + len(test) == len(inner)


def test_two_groups_make_two_parts(generate):
    inner = generate(n=30, n_speakers=3).voters[0].inner[0]

    assert len(_split_groups(inner)) == 2


@pytest.mark.parametrize("method", ["weighted", "stacked"])
def test_held_out_content_is_in_no_split_of_a_learnt_rule(study, method):
    contents = np.array([f"content:{row % 5}" for row in range(len(study.labels))])
    groups = np.stack([study.groups, contents], axis=1)
    inner = study.voters[0].inner[0]
    inner = replace(inner, groups=groups[inner.rows])
    ledger = Ledger(method, study.folds[0], study.utterances, groups)

    # The ledger refuses a split whose sides share a group or a content.
    _, proba = learn_rule(method, stacked_inner(study, 0), inner, lambda _: ledger)

    splits = _split_groups(inner)
    assert len(splits) == 9
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(len(inner)))
    assert np.allclose(proba.sum(axis=1), 1)
    assert audit_entries(method, study.folds[0], ledger.entries(), groups) == []


def test_offsets_are_judged_over_groups_where_content_is_held_out(study):
    inner = study.voters[0].inner[0]
    contents = np.array([f"content:{row % 5}" for row in inner.rows])
    both = replace(inner, groups=np.stack([inner.groups, contents], axis=1))

    alone, beside = (
        _ClassOffsets.learn(one, "uar", study.ledgers()[0]) for one in (inner, both)
    )

    assert alone == beside
