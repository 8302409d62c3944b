from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.fusion import BasePredictions, InnerPredictions, make_base_predictions
from toolkit.fusion.inputs import in_order

GOOD = {
    "rows": np.array([2, 5, 7]),
    "labels": np.array([0, 1, 1]),
    "groups": np.array(["a", "a", "b"]),
    "present": np.array([True, True, False]),
    "proba": np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]]),
}


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("rows", np.array([2, 2, 7]), "do not increase"),
        ("rows", np.array([-1, 2, 7]), "do not increase"),
        ("rows", np.array([2.0, 5.0, 7.0]), r"inner rows are float64 of shape \(3,\)"),
        ("rows", np.array([], dtype=int), r"expected integers of shape \(n >= 1,\)"),
        ("proba", np.ones((3, 1)), r"shape \(3, 1\); expected \(3, n_classes >= 2\)"),
        ("proba", np.full((2, 2), 0.5), r"shape \(2, 2\); expected \(3, n_classes >= 2\)"),
        ("proba", np.array([[0.5, 0.5], [0.2, 0.7], [1, 0]]), "manifest row 5 are"),
        ("proba", np.array([[0.5, 0.5], [np.nan, 1], [1, 0]]), "manifest row 5 are"),
        ("proba", np.array([[0.5, 0.5], [0.5, 0.5], [1.5, -0.5]]), "manifest row 7 are"),
        ("labels", np.array([0, 1, 2]), "row 7 has inner label 2; expected a position from 0"),
        ("labels", np.array([-1, 1, 1]), "row 2 has inner label -1"),
        ("labels", np.array([0.0, 1.0, 1.0]), "inner labels are float64"),
        ("groups", np.array([1, 1, 2]), "inner groups are int64 .* expected text"),
        ("present", np.array([1, 1, 0]), "inner present are int64 .* expected bool"),
        ("present", np.array([True]), r"expected bool of shape \(3,\)"),
    ],
)
def test_inner_predictions_that_do_not_fit_are_refused(part, values, message):
    with pytest.raises(ValueError, match=message):
        InnerPredictions(**GOOD | {part: values})


def test_inner_predictions_are_copied_and_read_only():
    proba = GOOD["proba"].copy()

    inner = InnerPredictions(**GOOD | {"proba": proba})
    proba[0, 0] = 9

    assert inner.proba[0, 0] == 0.5
    assert not any(getattr(inner, part).flags.writeable for part in GOOD)
    assert len(inner) == 3


def test_a_voter_holds_the_same_folds_throughout(study):
    voter = study.voters[0]
    without = {fold: inner for fold, inner in voter.inner.items() if fold != 2}

    with pytest.raises(ValueError, match=r"'visual' was tested in folds .* the same folds"):
        BasePredictions(voter.predictions, without, voter.scores)
    with pytest.raises(ValueError, match=r"inner scores of \[0\]"):
        BasePredictions(voter.predictions, voter.inner, {0: 0.5})


def test_a_voter_holds_the_same_classes_throughout(study):
    voter = study.voters[0]
    narrow = replace(
        voter.inner[3],
        labels=np.minimum(voter.inner[3].labels, 1),
        proba=np.full((len(voter.inner[3]), 2), 0.5),
    )

    with pytest.raises(ValueError, match="'visual' in fold 03 have 2 classes; expected 4"):
        BasePredictions(voter.predictions, {**voter.inner, 3: narrow})


def test_the_folds_of_a_voter_cannot_be_replaced(study):
    with pytest.raises(TypeError, match="does not support item assignment"):
        study.voters[0].inner[0] = None


def test_training_shares_are_those_of_the_inner_rows(study):
    shares = study.voters[0].training_priors()

    for fold in study.folds:
        counts = np.bincount(study.labels[fold.train], minlength=4)
        assert shares[fold.number].tolist() == (counts / counts.sum()).tolist()


def test_voters_are_sorted_by_name(study):
    assert [voter.system for voter in in_order(study.voters)] == ["audio", "text", "visual"]


@pytest.mark.parametrize("part", ["rows", "labels", "groups"])
def test_voters_with_other_inner_rows_are_refused(study, part):
    first, second, _ = study.voters
    inner = second.inner[4]
    values = getattr(inner, part).copy()
    values[-1] = {"rows": 10_000, "labels": 3 - inner.labels[-1], "groups": "?"}[part]
    other = replace(second, inner={**second.inner, 4: replace(inner, **{part: values})})

    with pytest.raises(ValueError, match=f"in fold 04 are not aligned: their {part} differ"):
        in_order([first, other])


def test_voters_with_other_outer_rows_are_refused(study):
    first, second, _ = study.voters
    turned = replace(second.predictions, labels=3 - second.predictions.labels)

    with pytest.raises(ValueError, match="'text' and 'visual' are not aligned: their labels"):
        in_order([first, replace(second, predictions=turned)])


def test_one_voter_is_no_fusion(study):
    with pytest.raises(ValueError, match=r"Got 1 voters \(visual\); expected two to 8"):
        in_order(study.voters[:1])


def test_ten_voters_are_too_many(generate):
    with pytest.raises(ValueError, match="Got 10 voters"):
        in_order(generate(n=30, n_speakers=3, n_voters=10).voters)


def test_two_voters_of_one_name_are_refused(study):
    with pytest.raises(ValueError, match=r"Several voters are called \['text'\]"):
        in_order([study.voters[1], study.voters[0], study.voters[1]])


def make_units(voter, system="text"):
    return [
        SimpleNamespace(
            system=system,
            fold=fold,
            inner_rows=inner.rows,
            inner_proba=inner.proba,
            search=SimpleNamespace(score=voter.scores[fold]),
        )
        for fold, inner in voter.inner.items()
    ]


def test_a_voter_is_made_from_finished_units(study):
    voter = study.voters[1]
    present = np.ones(len(study.labels), dtype=bool)
    present[7] = False

    made = make_base_predictions(
        voter.predictions,
        make_units(voter),
        labels=study.labels,
        groups=study.groups,
        present=present,
    )

    assert dict(made.scores) == dict(voter.scores)
    for fold, inner in made.inner.items():
        assert inner.rows.tolist() == voter.inner[fold].rows.tolist()
        assert inner.labels.tolist() == voter.inner[fold].labels.tolist()
        assert inner.groups.tolist() == voter.inner[fold].groups.tolist()
        assert inner.rows[~inner.present].tolist() == [7] * (7 in inner.rows)


def test_units_of_another_system_or_a_baseline_make_no_voter(study):
    voter, present = study.voters[1], np.ones(len(study.labels), dtype=bool)
    stray, baseline = make_units(voter, "audio"), make_units(voter)
    baseline[2].search = None

    for units, name in ((stray, "audio/00"), (baseline, "text/02")):
        with pytest.raises(ValueError, match=f"{name} cannot stand behind the voter 'text'"):
            make_base_predictions(
                voter.predictions,
                units,
                labels=study.labels,
                groups=study.groups,
                present=present,
            )
