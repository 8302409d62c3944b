import numpy as np
import pytest
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_info

from toolkit.fusion.inputs import InnerPredictions, StackedPredictions, one_blas_thread

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


def test_taking_rows_keeps_their_predictions(study):
    inners = [voter.inner[0] for voter in study.voters]

    subset = StackedPredictions.of(inners, np.full(4, 0.25)).take(np.array([3, 7]))

    for index, inner in enumerate(inners):
        assert_array_equal(subset.proba[index], inner.proba[[3, 7]])
        assert_array_equal(subset.present[index], inner.present[[3, 7]])
        assert_array_equal(subset.votes[index], inner.proba[[3, 7]].argmax(axis=1))


def test_matrix_products_keep_to_one_thread():
    with one_blas_thread():
        inside = [
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        ]

    assert set(inside) == {1}
