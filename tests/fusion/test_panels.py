import numpy as np
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_info

from toolkit.fusion.inputs import inner_panel, most_probable, one_blas_thread, split_groups


def test_the_most_probable_class_wins_whatever_its_share():
    proba = np.array([[0.2, 0.5, 0.3], [0.34, 0.33, 0.33]])

    assert most_probable(proba, np.array([[0.8, 0.1, 0.1]] * 2)).tolist() == [1, 0]


def test_taking_rows_keeps_what_was_said_of_them(study):
    inners = [voter.inner[0] for voter in study.voters]
    panel = inner_panel(inners, np.full(4, 0.25))

    some = panel.take(np.array([3, 7]))

    for place, inner in enumerate(inners):
        assert_array_equal(some.proba[place], inner.proba[[3, 7]])
        assert_array_equal(some.present[place], inner.present[[3, 7]])
        assert_array_equal(some.votes[place], inner.proba[[3, 7]].argmax(axis=1))


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
