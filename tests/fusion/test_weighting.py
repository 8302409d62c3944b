from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from toolkit.fusion import late as weighting
from toolkit.fusion.inputs import StackedPredictions, inner_panel, split_groups
from toolkit.fusion.late import fit_weights, weighted_vote
from toolkit.validation.ledger import LeakageError


def panel_of(true, present=None):
    """Two classes, every label the first; rows of `true` are voters."""
    true = np.array(true, dtype=float)
    return StackedPredictions(
        votes=(true < 0.5).astype(int),
        proba=np.stack([true, 1 - true], axis=2),
        present=np.ones(true.shape, dtype=bool) if present is None else np.array(present),
        shares=np.full((true.shape[1], 2), 0.5),
    )


def loss_of(weights, panel):
    held = panel.present * weights[:, None]
    mixture = (held * panel.proba[:, :, 0]).sum(axis=0) / held.sum(axis=0)
    return -np.log(mixture).mean()


def test_the_weights_are_those_of_least_log_loss():
    # 2 log(.4 + .4 w) + log(.7 - .6 w) is largest where .8 (.7 - .6 w) = .6 (.4 + .4 w).
    weights = fit_weights(panel_of([[0.8, 0.8, 0.1], [0.4, 0.4, 0.7]]), np.zeros(3, dtype=int))

    assert_allclose(weights, [4 / 9, 5 / 9], atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_weights_agree_with_a_general_optimiser(missing):
    rng = np.random.default_rng(3)
    true = rng.choice([0.05, 0.3, 0.9], size=(3, 200), p=[0.3, 0.3, 0.4])
    present = rng.random((3, 200)) >= missing
    present[0] |= ~present.any(axis=0)
    panel = panel_of(true, present)

    weights = fit_weights(panel, np.zeros(200, dtype=int))

    def free_loss(logits):
        weights = np.exp([0, *logits])
        return loss_of(weights / weights.sum(), panel)

    found = minimize(free_loss, np.zeros(2))
    best = np.exp([0, *found.x]) / np.exp([0, *found.x]).sum()
    assert best.min() > 0.1
    assert_allclose(weights, best, atol=1e-4)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_absence_costs_a_voter_no_weight():
    # Where both are there the rows are those of the closed form; the rest say nothing.
    true = [[0.8, 0.8, 0.1] + [0.9] * 5, [0.4, 0.4, 0.7] + [0.5] * 5]
    present = [[True] * 3 + [False] * 5, [True] * 8]

    weights = fit_weights(panel_of(true, present), np.zeros(8, dtype=int))

    assert_allclose(weights, [4 / 9, 5 / 9], atol=1e-6)


def test_equal_voters_weigh_the_same():
    weights = fit_weights(panel_of([[0.8, 0.3]] * 4), np.zeros(2, dtype=int))

    assert weights.tolist() == [0.25] * 4


def test_a_certain_mistake_costs_no_more_than_the_log_loss_says():
    # Without the floor of 1e-6 the first row would be impossible for both.
    weights = fit_weights(panel_of([[0.0, 0.9], [0.0, 0.2]]), np.zeros(2, dtype=int))

    assert_allclose(weights, [1, 0], atol=1e-6)


@pytest.mark.parametrize("n", [0, 4])
def test_rows_that_nobody_sees_teach_nothing(n):
    true, present = np.full((2, n), 0.9), np.zeros((2, n), dtype=bool)

    assert fit_weights(panel_of(true, present), np.zeros(n, dtype=int)).tolist() == [0.5, 0.5]


def test_a_voter_that_is_never_there_weighs_nothing():
    panel = panel_of([[0.9, 0.2], [0.5, 0.5]], [[False, False], [True, True]])

    assert fit_weights(panel, np.zeros(2, dtype=int)).tolist() == [0, 1]


def test_each_fold_is_fused_with_the_weights_of_its_training_speakers(study):
    system, weights = weighted_vote(study.voters, study.ledgers())

    ordered = sorted(study.voters, key=lambda voter: voter.system)
    shares = study.voters[0].training_priors()
    for fold in study.folds:
        inners = [voter.inner[fold.number] for voter in ordered]
        expected = fit_weights(inner_panel(inners, shares[fold.number]), inners[0].labels)
        fitted = weights[fold.number]
        assert list(fitted) == ["audio", "text", "visual"]
        assert_allclose(list(fitted.values()), expected, rtol=1e-12)
        proba = np.stack([voter.predictions.proba[fold.test] for voter in ordered])
        present = np.stack([voter.predictions.present[fold.test] for voter in ordered])
        held = expected[:, None] * present
        seen = present.any(axis=0)
        mixed = np.einsum("vn,vnc->nc", held, proba)[seen] / held.sum(axis=0)[seen, None]
        assert_allclose(system.predictions.proba[fold.test][seen], mixed, rtol=1e-12)
    assert system.system == "weighted"


def test_a_weightless_voter_speaks_where_it_is_alone(study):
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

    system, weights = weighted_vote([good, replace(second, inner=bad)], study.ledgers())

    seen = second.predictions.present
    assert all(one["text"] < 1e-9 for one in weights.values())
    assert_allclose(system.predictions.proba[seen], second.predictions.proba[seen], atol=1e-12)


def test_inner_predictions_come_from_weights_of_other_groups(study):
    system, _ = weighted_vote(study.voters, study.ledgers())

    ordered = sorted(study.voters, key=lambda voter: voter.system)
    inners = [voter.inner[0] for voter in ordered]
    panel = inner_panel(inners, study.voters[0].training_priors()[0])
    for train, test in split_groups(inners[0]):
        weights = fit_weights(panel.take(train), inners[0].labels[train])
        held = weights[:, None] * panel.present[:, test]
        mixed = np.einsum("vn,vnc->nc", held, panel.proba[:, test])
        seen = held.any(axis=0)
        expected = mixed[seen] / held.sum(axis=0)[seen, None]
        assert_allclose(system.inner[0].proba[test][seen], expected, rtol=1e-12)
    assert system.inner[0].present.tolist() == panel.seen.tolist()


def test_no_held_out_label_touches_the_weights(study):
    turned = [
        replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))
        for voter in study.voters
    ]

    assert (
        weighted_vote(turned, study.ledgers())[1]
        == weighted_vote(study.voters, study.ledgers())[1]
    )


def test_the_ledger_holds_the_rows_that_were_fused(study):
    ledgers = study.ledgers()

    weighted_vote(study.voters, ledgers)

    for fold in study.folds:
        seen = np.any([voter.inner[fold.number].present for voter in study.voters], axis=0)
        entries = {(e["fit"], e["role"]): e["n_rows"] for e in ledgers[fold.number].entries()}
        assert entries["weights", "fuse"] == seen.sum() < len(fold.train)
        parts = [entries[f"weights {part}", "validate"] for part in range(3)]
        assert sum(parts) == len(fold.train)


def test_a_held_out_speaker_stops_the_fit(study):
    ledgers = study.ledgers()
    ledgers[0], ledgers[1] = ledgers[1], ledgers[0]

    with pytest.raises(LeakageError, match="held out utterance"):
        weighted_vote(study.voters, ledgers)


def test_the_number_of_blas_threads_is_held_at_one_during_fits(study, monkeypatch):
    opened = []
    original = weighting.one_blas_thread

    def watched():
        opened.append(True)
        return original()

    monkeypatch.setattr(weighting, "one_blas_thread", watched)

    weighted_vote(study.voters, study.ledgers())

    assert opened == [True]
