from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_info

from toolkit.fusion.inputs import (
    BasePredictions,
    InnerPredictions,
    make_base_predictions,
    most_probable,
    one_blas_thread,
    sort_base,
    split_groups,
    stack,
)

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


def test_voters_are_sorted_by_name(study):
    assert [voter.system for voter in sort_base(study.voters)] == ["audio", "text", "visual"]


@pytest.mark.parametrize("part", ["rows", "labels", "groups"])
def test_voters_with_other_inner_rows_are_refused(study, part):
    first, second, _ = study.voters
    inner = second.inner[4]
    values = getattr(inner, part).copy()
    values[-1] = {"rows": 10_000, "labels": 3 - inner.labels[-1], "groups": "?"}[part]
    other = replace(second, inner={**second.inner, 4: replace(inner, **{part: values})})

    with pytest.raises(ValueError, match=f"in fold 04 are not aligned: their {part} differ"):
        sort_base([first, other])


def test_voters_with_other_outer_rows_are_refused(study):
    first, second, _ = study.voters
    turned = replace(second.predictions, labels=3 - second.predictions.labels)

    with pytest.raises(ValueError, match="'text' and 'visual' are not aligned: their labels"):
        sort_base([first, replace(second, predictions=turned)])


def test_one_voter_is_no_fusion(study):
    with pytest.raises(ValueError, match=r"Got 1 voters \(visual\); expected two to 8"):
        sort_base(study.voters[:1])


def test_ten_voters_are_too_many(generate):
    with pytest.raises(ValueError, match="Got 10 voters"):
        sort_base(generate(n=30, n_speakers=3, n_voters=10).voters)


def test_two_voters_of_one_name_are_refused(study):
    with pytest.raises(ValueError, match=r"Several voters are called \['text'\]"):
        sort_base([study.voters[1], study.voters[0], study.voters[1]])


def make_units(voter, system="text"):
    return [
        SimpleNamespace(
            system=system,
            fold=fold,
            inner_rows=inner.rows,
            inner_proba=inner.proba,
            inner_present=inner.present,
            search=SimpleNamespace(score=voter.scores[fold]),
        )
        for fold, inner in voter.inner.items()
    ]


def test_a_voter_is_made_from_finished_units(study):
    voter = study.voters[1]

    made = make_base_predictions(
        voter.predictions, make_units(voter), labels=study.labels, groups=study.groups
    )

    assert dict(made.scores) == dict(voter.scores)
    for fold, inner in made.inner.items():
        for part in ("rows", "labels", "groups", "present"):
            assert getattr(inner, part).tolist() == getattr(voter.inner[fold], part).tolist()
        assert not inner.present.all()


def test_units_of_another_system_or_a_baseline_make_no_voter(study):
    voter = study.voters[1]
    stray, baseline = make_units(voter, "audio"), make_units(voter)
    baseline[2].search = None

    for units, name in ((stray, "audio/00"), (baseline, "text/02")):
        with pytest.raises(ValueError, match=f"{name} cannot stand behind the voter 'text'"):
            make_base_predictions(
                voter.predictions, units, labels=study.labels, groups=study.groups
            )


def test_the_most_probable_class_wins_whatever_its_share():
    proba = np.array([[0.2, 0.5, 0.3], [0.34, 0.33, 0.33]])

    assert most_probable(proba, np.array([[0.8, 0.1, 0.1]] * 2)).tolist() == [1, 0]


def test_equally_probable_classes_go_to_the_larger_prior():
    proba, priors = np.array([[0.4, 0.2, 0.4]]), np.array([[0.3, 0.3, 0.4]])

    assert most_probable(proba, priors).tolist() == [2]


def test_taking_rows_keeps_their_predictions(study):
    inners = [voter.inner[0] for voter in study.voters]

    subset = stack(inners, np.full(4, 0.25)).take(np.array([3, 7]))

    for index, inner in enumerate(inners):
        assert_array_equal(subset.proba[index], inner.proba[[3, 7]])
        assert_array_equal(subset.present[index], inner.present[[3, 7]])
        assert_array_equal(subset.votes[index], inner.proba[[3, 7]].argmax(axis=1))


def test_groups_are_never_split_and_every_row_is_predicted_once(study):
    inner = study.voters[0].inner[0]

    parts = split_groups(inner)

    assert len(parts) == 3
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(len(inner)))
    for train, test in parts:
        assert not set(inner.groups[train]) & set(inner.groups[test])
        assert len(train) + len(test) == len(inner)


def test_two_groups_make_two_parts(generate):
    inner = generate(n=30, n_speakers=3).voters[0].inner[0]

    assert len(split_groups(inner)) == 2


def test_matrix_products_keep_to_one_thread():
    with one_blas_thread():
        inside = [
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        ]

    assert set(inside) == {1}
