from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from toolkit.fusion import late as stacking
from toolkit.fusion.inputs import StackedPredictions, inner_panel, one_blas_thread, split_groups
from toolkit.fusion.late import PENALTIES, fit_stackers, stack, stack_features
from toolkit.validation.ledger import LeakageError


@pytest.fixture(autouse=True)
def _calm():
    with one_blas_thread():  # threads that wait for each other make small fits slow
        yield


def panel_of(proba, present=None, shares=None):
    proba = np.array(proba, dtype=float)
    n_voters, n, n_classes = proba.shape
    return StackedPredictions(
        votes=proba.argmax(axis=2),
        proba=proba,
        present=np.ones((n_voters, n), dtype=bool) if present is None else np.array(present),
        shares=np.tile(np.full(n_classes, 1 / n_classes) if shares is None else shares, (n, 1)),
    )


def inner_panel_of(study, fold):
    ordered = sorted(study.voters, key=lambda voter: voter.system)
    shares = ordered[0].training_priors()[fold]
    return inner_panel([voter.inner[fold] for voter in ordered], shares)


def random_panel(labels, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(2, len(labels), n_classes)) + np.eye(n_classes)[labels]
    odds = np.exp(margins)
    return panel_of(odds / odds.sum(axis=2, keepdims=True))


def test_features_are_centred_log_probabilities_and_flags_of_absence():
    first, second = [[0.5, 0.25, 0.25]], [[1.0, 0.0, 0.0]]

    features = stack_features(panel_of([first, second]))

    twice, floor = np.log(2), np.log(1e-6)
    expected = [2 * twice / 3, -twice / 3, -twice / 3, -2 * floor / 3, floor / 3, floor / 3]
    assert_allclose(features, [[*expected, 0, 0]], atol=1e-12)


def test_an_absent_voter_says_the_training_shares_whatever_it_said():
    shares = np.array([0.2, 0.3, 0.5])
    panel = panel_of([[[1, 0, 0]], [[0, 1, 0]]], [[True], [False]], shares)

    features = stack_features(panel)[0]

    assert_allclose(features[3:6], np.log(shares) - np.log(shares).mean(), atol=1e-12)
    assert features[6:].tolist() == [0, 1]


def test_a_stacker_is_the_logistic_regression_of_its_features():
    labels = np.random.default_rng(1).integers(0, 3, 120)
    panel = random_panel(labels, 3)

    stackers = fit_stackers(panel, labels, PENALTIES)

    X = stack_features(panel)
    for C, stacker in zip(PENALTIES, stackers, strict=True):
        model = LogisticRegression(C=C, max_iter=10_000, tol=1e-8).fit(X, labels)
        assert_allclose(stacker(panel).proba, model.predict_proba(X), atol=2e-3)


def test_two_classes_are_fused_like_more():
    labels = np.random.default_rng(1).integers(0, 2, 80)
    panel = random_panel(labels, 2)

    (stacker,) = fit_stackers(panel, labels, [0.1])

    X = stack_features(panel)
    model = LogisticRegression(C=0.1, max_iter=10_000).fit(X, labels)
    assert_allclose(stacker(panel).proba, model.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("found", [[0, 2, 3], [1, 3], [2]])
def test_classes_that_no_row_has_keep_their_column_at_zero(found):
    labels = np.random.default_rng(1).choice(found, 60)
    panel = random_panel(labels, 4)

    (stacker,) = fit_stackers(panel, labels, [1.0])

    proba = stacker(panel).proba
    assert np.flatnonzero(proba.any(axis=0)).tolist() == found
    assert_allclose(proba.sum(axis=1), 1)


def test_rows_that_nobody_sees_teach_nothing_and_get_the_training_shares():
    labels = np.random.default_rng(1).integers(0, 3, 60)
    panel = random_panel(labels, 3)
    present = panel.present.copy()
    present[:, :10] = False
    shares = np.tile([0.2, 0.2, 0.6], (60, 1))
    holed = StackedPredictions(panel.votes, panel.proba, present, shares)

    (fitted,) = fit_stackers(holed, labels, [1.0])
    (expected,) = fit_stackers(holed.take(np.arange(10, 60)), labels[10:], [1.0])

    assert_allclose(fitted.coefficients, expected.coefficients, atol=1e-12)
    fused = fitted(holed)
    assert fused.proba[:10].tolist() == [[0.2, 0.2, 0.6]] * 10
    assert fused.y_pred[:10].tolist() == [2] * 10


def test_without_rows_nothing_is_known():
    panel = random_panel(np.zeros(4, dtype=int), 3)
    nobody = StackedPredictions(
        panel.votes, panel.proba, np.zeros_like(panel.present), panel.shares
    )

    (stacker,) = fit_stackers(nobody, np.zeros(4, dtype=int), [1.0])

    assert_allclose(stacker(panel).proba, 1 / 3)


def test_a_voter_whom_no_training_row_lacks_leaves_its_flag_without_weight():
    labels = np.random.default_rng(1).integers(0, 3, 60)
    panel = random_panel(labels, 3)

    (stacker,) = fit_stackers(panel, labels, [10.0])

    assert not stacker.coefficients[-2:].any()


def test_the_penalty_is_the_best_for_groups_left_out(study):
    system, penalties = stack(study.voters, study.ledgers())

    for fold in study.folds[:2]:
        panel, first = inner_panel_of(study, fold.number), study.voters[0].inner[fold.number]
        losses, kept = [], []
        for C in PENALTIES:
            proba = np.empty_like(first.proba)
            for train, test in split_groups(first):
                (stacker,) = fit_stackers(panel.take(train), first.labels[train], [C])
                proba[test] = stacker(panel.take(test)).proba
            losses.append(-np.log(proba[np.arange(len(first)), first.labels]).mean())
            kept.append(proba)
        best = int(np.argmin(losses))
        assert penalties[fold.number] == PENALTIES[best]
        inner = system.inner[fold.number]
        assert_allclose(inner.proba, kept[best], atol=5e-3)
        assert inner.present.tolist() == panel.seen.tolist()


def test_different_folds_choose_different_penalties(generate):
    _, penalties = stack((big := generate(n=90, seed=3)).voters, big.ledgers())

    assert len(set(penalties.values())) > 1


def test_held_out_rows_are_fused_by_the_stacker_of_their_fold(study):
    system, penalties = stack(study.voters, study.ledgers())

    ordered = sorted(study.voters, key=lambda voter: voter.system)
    for fold in study.folds:
        panel, labels = inner_panel_of(study, fold.number), ordered[0].inner[fold.number].labels
        (stacker,) = fit_stackers(panel, labels, [penalties[fold.number]])
        tested = panel_of(
            [voter.predictions.proba[fold.test] for voter in ordered],
            [voter.predictions.present[fold.test] for voter in ordered],
            panel.shares[0],
        )
        assert_allclose(system.predictions.proba[fold.test], stacker(tested).proba, atol=1e-12)
    assert system.system == "stacked"


def test_the_smallest_of_equally_good_penalties_is_chosen(study):
    # Nobody sees anything, so every penalty says the same.
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

    _, penalties = stack(blind, study.ledgers())

    assert set(penalties.values()) == {0.01}


def test_no_held_out_label_touches_the_stacker(study):
    turned = [
        replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))
        for voter in study.voters
    ]

    ours, theirs = (stack(v, study.ledgers())[0].predictions for v in (study.voters, turned))

    assert ours.proba.tobytes() == theirs.proba.tobytes()


def test_the_ledger_holds_splits_and_the_rows_that_were_fused(study):
    ledgers = study.ledgers()

    stack(study.voters, ledgers)

    for fold in study.folds:
        seen = np.any([voter.inner[fold.number].present for voter in study.voters], axis=0)
        entries = {(e["fit"], e["role"]): e["n_rows"] for e in ledgers[fold.number].entries()}
        assert entries["stacker", "fuse"] == seen.sum() < len(fold.train)
        parts = [entries[f"stacker {part}", "validate"] for part in range(3)]
        assert sum(parts) == len(fold.train)


def test_a_held_out_speaker_stops_the_fit(study):
    ledgers = study.ledgers()
    ledgers[0], ledgers[1] = ledgers[1], ledgers[0]

    with pytest.raises(LeakageError, match="held out utterance"):
        stack(study.voters, ledgers)


def test_the_number_of_blas_threads_is_held_at_one_during_fits(study, monkeypatch):
    opened = []
    original = stacking.one_blas_thread

    def watched():
        opened.append(True)
        return original()

    monkeypatch.setattr(stacking, "one_blas_thread", watched)

    stack(study.voters, study.ledgers())

    assert opened == [True]
