"""One fusion, learnt and applied in a fold of a study or from all rows."""

import json
from dataclasses import replace

import numpy as np
import pytest

from toolkit.fusion import LATE_METHODS, learned
from toolkit.fusion.inputs import InnerPredictions, NewPredictions, StackedPredictions
from toolkit.fusion.late import learn_rule
from toolkit.fusion.learned import LearnedFusion, _ClassOffsets, _pool_members
from toolkit.validation import Fold
from toolkit.validation.ledger import Ledger


def learn(study, fold, **options):
    """Learn from the training rows of one fold."""
    voters = {v.system: v.inner[fold] for v in [*study.voters, study.early]}
    given = {"methods": LATE_METHODS, "metric": "f1_micro"} | options
    return LearnedFusion.learn(
        voters, open_ledger=lambda name: study.ledgers(name)[fold], **given
    )


def new_rows(study, fold):
    """The test rows of the same fold."""
    applied = {}
    for voter in [*study.voters, study.early]:
        table = voter.predictions
        rows = table.folds == fold
        applied[voter.system] = NewPredictions(
            table.proba[rows], table.y_pred[rows], table.present[rows], voter.parts[fold]
        )
    return applied


@pytest.mark.parametrize("fold", [0, 3])
def test_new_rows_get_what_a_fold_of_the_study_gives_its_test_rows(study, fuse, fold):
    fused = fuse(study, early=study.early)

    applied = learn(study, fold).apply(new_rows(study, fold))

    tables = dict(fused.predictions) | dict(fused.offsets)
    assert set(applied) == set(tables) | {v.system for v in [*study.voters, study.early]}
    for system, table in tables.items():
        rows = table.folds == fold
        np.testing.assert_array_equal(applied[system].proba, table.proba[rows], system)
        np.testing.assert_array_equal(applied[system].y_pred, table.y_pred[rows], system)
        np.testing.assert_array_equal(applied[system].present, table.present[rows], system)


def test_the_priors_learnt_are_the_class_shares_of_the_training_rows(study):
    for fold in study.folds:
        counts = np.bincount(study.labels[fold.train], minlength=4)
        expected = (counts / counts.sum()).tolist()
        assert learn(study, fold.number, methods=()).priors.tolist() == expected


def test_some_offsets_are_kept_in_the_comparison_above(study):
    kept = [found.kept for found in learn(study, 0).offsets.values()]

    assert any(kept)
    assert not all(kept)


def test_plain_data_decide_the_same_to_the_last_bit(study):
    learnt = learn(study, 0)
    again = LearnedFusion.restore(json.loads(json.dumps(learnt.describe(), allow_nan=False)))

    before, after = (one.apply(new_rows(study, 0)) for one in (learnt, again))

    assert set(before) == set(after)
    for system, applied in before.items():
        np.testing.assert_array_equal(applied.proba, after[system].proba)
        np.testing.assert_array_equal(applied.y_pred, after[system].y_pred)


def test_the_pool_is_kept_by_the_names_of_its_members(study):
    plain = json.loads(json.dumps(learn(study, 0).describe(), sort_keys=True))

    members = ["audio (trees)", "early (linear)", "early (trees)", "text (trees)"]
    assert list(plain["log-pool"]) == [*members, "visual (trees)"]
    assert learn(study, 0, methods=("soft",)).describe()["log-pool"] is None
    assert LearnedFusion.restore(plain).members == learn(study, 0).members


def test_a_fusion_of_an_earlier_version_has_no_pool(study):
    plain = learn(study, 0, methods=("vote", "stacked")).describe()
    del plain["log-pool"]

    assert list(LearnedFusion.restore(plain).rules) == ["vote", "stacked"]


def test_offsets_of_the_pool_are_learnt_from_its_out_of_fold_probabilities(study):
    learnt = learn(study, 0)

    by_system = {v.system: v.inner[0] for v in [*study.voters, study.early]}
    members = list(_pool_members(by_system).values())
    _, proba = learn_rule(
        "log-pool",
        StackedPredictions.of(members, study.priors()[0]),
        members[0],
        lambda name: study.ledgers(name)[0],
    )
    inner = replace(study.early.inner[0], proba=proba, parts={})
    for end, metric in (("f1", "f1_micro"), ("uar", "uar")):
        expected = _ClassOffsets.learn(inner, metric, study.ledgers()[0])
        assert learnt.offsets[f"log-pool-offset-{end}"] == expected
    assert any(learnt.offsets["log-pool-offset-uar"].values)


def test_the_order_of_systems_changes_no_bit_of_the_pool(study):
    by_system = {v.system: v.inner[0] for v in [*study.voters, study.early]}
    weights = []
    for names in (sorted(by_system), sorted(by_system, reverse=True)):
        learnt = LearnedFusion.learn(
            {name: by_system[name] for name in names},
            methods=("log-pool",),
            metric="f1_micro",
            open_ledger=lambda name: study.ledgers(name)[0],
        )
        weights.append(learnt.describe()["log-pool"])

    assert list(weights[0].items()) == list(weights[1].items())


@pytest.mark.parametrize("system", ["early", "extra"])
def test_a_pool_of_other_members_than_learnt_is_refused(study, system):
    applied = new_rows(study, 0)
    applied[system] = replace(applied["early"], parts={})

    with pytest.raises(
        ValueError,
        match=r"learnt from audio \(trees\), early \(linear\), .*, and is given audio",
    ):
        learn(study, 0).apply(applied)


def test_the_pool_is_refused_without_early_fusion(study):
    applied = new_rows(study, 0)
    del applied["early"]

    with pytest.raises(ValueError, match="Predictions of early are missing"):
        learn(study, 0, methods=("log-pool",)).apply(applied)


def test_a_class_that_nobody_in_training_has_stays_impossible(study):
    lacking = {
        v.system: replace(
            v.inner[0], labels=np.where(v.inner[0].labels == 3, 0, v.inner[0].labels)
        )
        for v in study.voters
    }
    learnt = LearnedFusion.learn(
        lacking,
        methods=["stacked"],
        metric="f1_micro",
        open_ledger=lambda name: study.ledgers(name)[0],
    )
    again = LearnedFusion.restore(json.loads(json.dumps(learnt.describe(), allow_nan=False)))

    assert again.apply(new_rows(study, 0))["stacked"].proba[:, 3].max() == 0


def test_a_single_modality_has_offsets_and_nothing_else(study):
    voter = study.voters[0]
    learnt = LearnedFusion.learn(
        {voter.system: voter.inner[0]},
        methods=(),
        metric="f1_micro",
        open_ledger=lambda name: study.ledgers(name)[0],
    )

    assert learnt.best is None
    assert list(learnt.offsets) == [f"{voter.system}-offset-{end}" for end in ("f1", "uar")]


def choose(probas, labels, metric, **present):
    """Choose ``best-single``; a modality has all rows but those that ``present`` lacks."""
    n = len(labels)
    base = {
        name: InnerPredictions(
            np.arange(n),
            np.array(labels),
            np.array([f"p{k}" for k in range(n)]),
            present.get(name, np.ones(n, dtype=bool)),
            np.array(proba),
        )
        for name, proba in probas.items()
    }
    fold = Fold(0, np.arange(n), np.array([n]), ("x",))
    ids = np.array([f"p{k}" for k in range(n + 1)])
    open_ledger = lambda name: Ledger(name, fold, ids, ids)  # noqa: E731
    return LearnedFusion.learn(base, methods=(), metric=metric, open_ledger=open_ledger).best


def test_best_single_is_chosen_by_the_metric_of_the_study():
    # Two rows of three are right and almost sure; all are right and unsure: 1/3 of F1 and more
    # log-loss against none and less.
    sure = [[0.98, 0.02], [0.02, 0.98], [0.55, 0.45]]
    unsure = [[0.51, 0.49], [0.49, 0.51], [0.49, 0.51]]

    assert choose({"sure": sure, "unsure": unsure}, [0, 1, 1], "f1_micro") == "unsure"
    assert choose({"sure": sure, "unsure": unsure}, [0, 1, 1], "log_loss") == "sure"


def test_best_single_counts_the_rows_that_lack_a_modality():
    # Priors predict the label 0, so "rare" has 5 of 7 right, and 2 of 2 that have it. Its sure
    # probabilities of the other rows are never read. "common" has 6 of 7.
    labels = [0, 0, 0, 0, 1, 1, 1]
    rare = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    common = rare.copy()
    common[0] = 0.1, 0.9
    present = np.isin(np.arange(7), [0, 4])

    assert (
        choose({"common": common, "rare": rare}, labels, "f1_micro", rare=present) == "common"
    )


def test_voters_over_other_rows_are_refused(study):
    first, second = study.voters[:2]
    with pytest.raises(ValueError, match="are not aligned: their rows differ"):
        LearnedFusion.learn(
            {first.system: first.inner[0], second.system: second.inner[1]},
            methods=(),
            metric="f1_micro",
            open_ledger=lambda name: study.ledgers(name)[0],
        )


def test_a_lacking_voter_is_named(study):
    applied = new_rows(study, 0)
    del applied["early"]
    with pytest.raises(ValueError, match="Predictions of early are missing"):
        learn(study, 0).apply(applied)


def with_right(voter, shares):
    """Predict that share of each fold's training rows right, and the others wrong."""
    inner = {}
    for number, one in voter.inner.items():
        is_right = np.arange(len(one)) < shares[number] * len(one)
        y_pred = np.where(is_right, one.labels, (one.labels + 1) % 4)
        proba = np.where(np.eye(4)[y_pred] == 1, 0.7, 0.1)
        inner[number] = replace(one, proba=proba, present=np.ones(len(one), dtype=bool))
    return replace(voter, inner=inner)


def test_best_single_follows_the_out_of_fold_scores_fold_by_fold(study, fuse):
    shares = {
        "visual": [0.9, 0.1, 0.1, 0.1, 0.9, 0.1],
        "text": [0.1, 0.9, 0.1, 0.5, 0.1, 0.1],
        "audio": [0.1, 0.1, 0.9, 0.5, 0.1, 0.9],
    }

    voters = [with_right(voter, shares[voter.system]) for voter in study.voters]
    result = fuse(study, voters, methods=())

    chosen = [result.learnt[fold.number].best for fold in study.folds]
    # Equal scores: the first by name.
    assert chosen == ["visual", "text", "audio", "audio", "visual", "audio"]
    by_name = {voter.system: voter for voter in study.voters}
    best = result.predictions["best-single"]
    for fold, name in zip(study.folds, chosen, strict=True):
        for part in ("proba", "y_pred", "present"):
            ours, theirs = getattr(best, part), getattr(by_name[name].predictions, part)
            assert ours[fold.test].tolist() == theirs[fold.test].tolist()
        (entry,) = result.ledgers["best-single"][fold.number]
        assert (entry["role"], entry["n_rows"]) == ("choose", len(fold.train))
    assert best.system == "best-single"


def test_the_number_of_blas_threads_is_held_at_one_during_fits(study, monkeypatch):
    opened = []
    original = learned.one_blas_thread

    def watched():
        opened.append(True)
        return original()

    monkeypatch.setattr(learned, "one_blas_thread", watched)

    learnt = learn(study, 0, methods=("weighted", "stacked"))
    assert opened == [True]

    learnt.apply(new_rows(study, 0))
    assert opened == [True, True]
