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
        ("proba", np.array([[0.5, 0.5], [0.2, 0.7], [1, 0]]), "manifest row 5 are"),
        ("proba", np.array([[0.5, 0.5], [np.nan, 1], [1, 0]]), "manifest row 5 are"),
        ("proba", np.array([[0.5, 0.5], [0.5, 0.5], [1.5, -0.5]]), "manifest row 7 are"),
    ],
)
def test_inner_predictions_that_do_not_fit_are_refused(part, values, message):
    with pytest.raises(ValueError, match=message):
        InnerPredictions(**GOOD | {part: values})


def test_inner_probabilities_are_copied():
    proba = GOOD["proba"].copy()

    inner = InnerPredictions(**GOOD | {"proba": proba})
    proba[0, 0] = 9

    assert inner.proba[0, 0] == 0.5
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
