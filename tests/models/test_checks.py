import numpy as np
import pytest

from toolkit.models.boosters import _check_names
from toolkit.models.checks import check_labels, check_matrix


def test_float32_rows_are_not_copied():
    X = np.ones((3, 2), dtype=np.float32)

    assert check_matrix(X) is X


@pytest.mark.parametrize(
    "X",
    [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6).reshape(2, 3)],
    ids=["fortran", "integer"],
)
def test_any_memory_order_and_number_type_becomes_float32_in_c_order(X):
    matrix = check_matrix(X)

    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert matrix.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_missing_values_are_let_through():
    assert np.isnan(check_matrix([[1.0, np.nan]])).tolist() == [[False, True]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39], ids=["inf", "-inf", "too large"])
def test_infinite_features_are_refused_with_their_place(value):
    X = np.zeros((300, 3))
    X[290, 2] = value

    with pytest.raises(ValueError, match=r"at row 290, column 2, which float32 takes as inf"):
        check_matrix(X)


@pytest.mark.parametrize(
    "X",
    [np.zeros(3), np.zeros((2, 2, 2)), np.array([["a"]]), np.array([[None]]), [[True]]],
    ids=["flat", "cube", "text", "object", "bool"],
)
def test_what_is_no_matrix_of_numbers_is_refused(X):
    with pytest.raises(ValueError, match=r"expected a matrix of numbers"):
        check_matrix(X)


def test_another_width_is_refused():
    with pytest.raises(ValueError, match=r"have 2 columns; expected the 3 of training"):
        check_matrix(np.zeros((1, 2)), n_features=3)


@pytest.mark.parametrize(
    "y",
    [[0.0, 1.0], [0, np.nan], ["0", "1"], [True, False], [[0], [1]]],
    ids=["float", "nan", "text", "bool", "column"],
)
def test_labels_that_are_no_whole_numbers_are_refused(y):
    with pytest.raises(ValueError, match=r"expected one whole number a row"):
        check_labels(y, 2, 4)


@pytest.mark.parametrize(("y", "value"), [([0, 4], 4), ([-1, 0], -1)])
def test_labels_outside_the_classes_are_refused(y, value):
    with pytest.raises(ValueError, match=rf"is {value}; expected 0 to 3"):
        check_labels(y, 2, 4)


def test_negative_labels_are_refused_without_a_number_of_classes_too():
    with pytest.raises(ValueError, match=r"row 1 is -1; expected 0 or more"):
        check_labels([0, -1], 2)


def test_a_label_too_many_is_refused():
    with pytest.raises(ValueError, match=r"There are 3 labels for 2 rows"):
        check_labels([0, 1, 1], 2, 4)


@pytest.mark.parametrize("name", ["a[0]", "a b", "a<b", "a:1", "", "é", "a\n"])
def test_names_that_a_booster_refuses_or_changes_are_refused(name):
    with pytest.raises(ValueError, match=r"refused or changed by a booster"):
        _check_names(["good", name], 2)


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match=r"'b' occurs twice"):
        _check_names(["a", "b", "b"], 3)


def test_a_missing_name_is_refused():
    with pytest.raises(ValueError, match=r"There are 1 names for 2 features"):
        _check_names(["a"], 2)
