"""What is learnt from everybody is learnt and applied as in a fold of the study."""

import json
from dataclasses import replace

import numpy as np
import pytest

from toolkit.fusion import (
    LATE_METHODS,
    NewPredictions,
    apply_final,
    describe_final,
    fuse_all,
    learn_final,
    restore_final,
)


def learn(study, fold, **options):
    """Take one fold's training speakers for everybody."""
    voters = {v.system: v.inner[fold] for v in [*study.voters, study.early]}
    scores = {v.system: v.scores[fold] for v in [*study.voters, study.early]}
    given = {"scores": scores, "methods": LATE_METHODS, "metric": "f1_micro"} | options
    return learn_final(voters, open_ledger=lambda name: study.ledgers(name)[fold], **given)


def new_rows(study, fold):
    """And its test speakers for new recordings."""
    said = {}
    for voter in [*study.voters, study.early]:
        table = voter.predictions
        rows = table.folds == fold
        said[voter.system] = NewPredictions(
            table.proba[rows], table.y_pred[rows], table.present[rows]
        )
    return said


@pytest.mark.parametrize("fold", [0, 3])
def test_new_rows_get_what_a_fold_of_the_study_gives_its_test_rows(study, fold):
    fused = fuse_all(
        study.voters,
        study.early,
        folds=study.folds,
        utterances=study.utterances,
        groups=study.groups,
    )

    said = apply_final(learn(study, fold), new_rows(study, fold))

    tables = dict(fused.predictions) | dict(fused.offsets)
    assert set(said) == set(tables) | {v.system for v in [*study.voters, study.early]}
    for system, table in tables.items():
        rows = table.folds == fold
        np.testing.assert_array_equal(said[system].proba, table.proba[rows], system)
        np.testing.assert_array_equal(said[system].y_pred, table.y_pred[rows], system)
        np.testing.assert_array_equal(said[system].present, table.present[rows], system)


def test_some_offsets_are_kept_in_the_comparison_above(study):
    kept = [found.kept for found in learn(study, 0).offsets.values()]

    assert any(kept)
    assert not all(kept)


def test_plain_data_decide_the_same_to_the_last_bit(study):
    learnt = learn(study, 0)
    again = restore_final(json.loads(json.dumps(describe_final(learnt), allow_nan=False)))

    before, after = (apply_final(one, new_rows(study, 0)) for one in (learnt, again))

    assert set(before) == set(after)
    for system, said in before.items():
        np.testing.assert_array_equal(said.proba, after[system].proba)
        np.testing.assert_array_equal(said.y_pred, after[system].y_pred)


def test_a_class_that_nobody_in_training_has_stays_impossible(study):
    lacking = {
        v.system: replace(
            v.inner[0], labels=np.where(v.inner[0].labels == 3, 0, v.inner[0].labels)
        )
        for v in study.voters
    }
    learnt = learn_final(
        lacking,
        scores={v.system: v.scores[0] for v in study.voters},
        methods=["stacked"],
        metric="f1_micro",
        open_ledger=lambda name: study.ledgers(name)[0],
    )
    again = restore_final(json.loads(json.dumps(describe_final(learnt), allow_nan=False)))

    assert apply_final(again, new_rows(study, 0))["stacked"].proba[:, 3].max() == 0


def test_a_single_modality_has_offsets_and_nothing_else(study):
    voter = study.voters[0]
    learnt = learn_final(
        {voter.system: voter.inner[0]},
        scores={voter.system: 0.5},
        methods=(),
        metric="f1_micro",
        open_ledger=lambda name: study.ledgers(name)[0],
    )

    assert learnt.best is None
    assert list(learnt.offsets) == [f"{voter.system}-offset-{end}" for end in ("f1", "uar")]


def test_the_best_modality_of_a_loss_is_the_one_with_the_least(study):
    names = sorted(v.system for v in study.voters)
    scores = dict(zip(names, (0.2, 0.9, 0.5), strict=True)) | {"early": 0.1}

    assert learn(study, 0, scores=scores).best == names[1]
    assert learn(study, 0, scores=scores, metric="log_loss").best == names[0]


def test_voters_over_other_rows_are_refused(study):
    first, second = study.voters[:2]
    with pytest.raises(ValueError, match="are not aligned: their rows differ"):
        learn_final(
            {first.system: first.inner[0], second.system: second.inner[1]},
            scores={first.system: 0.5, second.system: 0.5},
            methods=(),
            metric="f1_micro",
            open_ledger=lambda name: study.ledgers(name)[0],
        )


def test_a_lacking_voter_is_named(study):
    said = new_rows(study, 0)
    del said["early"]
    with pytest.raises(ValueError, match="Nothing is said by early"):
        apply_final(learn(study, 0), said)
