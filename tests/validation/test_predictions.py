import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

ARRAYS = (
    "utterances",
    "speakers",
    "sessions",
    "folds",
    "present",
    "labels",
    "proba",
    "y_pred",
)


def with_row(array, row, value):
    changed = np.array(array)
    changed[row] = value
    return changed


def test_the_most_probable_class_is_decided_and_a_tie_goes_to_the_lowest(make_predictions):
    proba = np.array([[0.2, 0.5, 0.3], [0.2, 0.4, 0.4], [0.4, 0.2, 0.4]])

    table = make_predictions(n=3, proba=proba)

    assert table.y_pred.tolist() == [1, 1, 0]


def test_a_system_may_decide_against_its_probabilities(make_predictions):
    table = make_predictions(n=3, y_pred=np.array([2, 0, 1]))

    assert table.y_pred.tolist() == [2, 0, 1]
    assert replace(table, system="other").y_pred.tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_cannot_be_written_to(make_predictions, name):
    array = getattr(make_predictions(), name)

    with pytest.raises(ValueError, match="read-only"):
        array[0] = array[1]


def test_arrays_given_stay_the_callers_own(make_predictions):
    labels, proba = np.zeros(3, dtype=np.int64), np.full((3, 3), 1 / 3)

    table = make_predictions(n=3, labels=labels, proba=proba)
    labels[0], proba[0] = 2, 0

    assert table.labels.tolist() == [0, 0, 0]
    assert_array_equal(table.proba, 1 / 3)


def test_a_copy_from_another_process_is_equal_and_read_only(make_predictions):
    table = make_predictions()

    copy = pickle.loads(pickle.dumps(table))

    for name in ARRAYS:
        assert_array_equal(getattr(copy, name), getattr(table, name))
        assert not getattr(copy, name).flags.writeable
    assert (copy.system, copy.classes) == (table.system, table.classes)


def test_narrow_numbers_are_widened(make_predictions):
    table = make_predictions(
        n=2,
        labels=np.array([0, 2], dtype=np.int8),
        proba=np.array([[0.5, 0.25, 0.25]] * 2, dtype=np.float32),
    )

    assert (table.labels.dtype, table.proba.dtype) == (np.int64, np.float64)


UTTERANCES = np.array([f"u{row:04d}" for row in range(120)])
EVEN = np.full((120, 3), 1 / 3)
CODES = np.zeros(120, dtype=np.int64)
NAMES = np.full(120, "x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"system": ""}, "no system name"),
        ({"classes": ("a",)}, r"Got classes \('a',\); expected two or more different names"),
        ({"classes": ("a", "b", "a")}, "expected two or more different names"),
        ({"classes": "abc"}, "expected two or more different names"),
        ({"classes": ("a", "", "b")}, "expected names that are not empty"),
        ({"utterances": np.array([], dtype=str)}, r"shape \(0,\); expected \(n >= 1,\)"),
        ({"utterances": with_row(UTTERANCES, 5, "u0004")}, "Utterance 'u0004' occurs twice"),
        ({"utterances": UTTERANCES[::-1]}, "Utterance 'u0118' comes after 'u0119'"),
        ({"utterances": with_row(UTTERANCES, 0, "")}, r"The utterance of row 0 .* is empty"),
        ({"speakers": with_row(NAMES, 3, "")}, r"The speaker of row 3 .* is empty"),
        ({"speakers": NAMES[1:]}, r"speakers have shape \(119,\); expected \(120,\)"),
        ({"speakers": np.full(120, np.nan)}, "speakers are float64; expected text"),
        ({"speakers": np.array([None] * 120)}, "speakers are object; expected text"),
        ({"sessions": with_row(NAMES, 3, "")}, r"The session of row 3 .* is empty"),
        ({"folds": with_row(CODES, 2, -1)}, "'u0002' has fold -1; expected a number from 0"),
        ({"folds": CODES.astype(float)}, "fold codes are float64 .* expected integers"),
        ({"present": CODES}, r"`present` is int64 .* expected bool"),
        ({"present": CODES[1:] == 0}, r"`present` is bool of shape \(119,\)"),
        ({"labels": with_row(CODES, 2, 3)}, "'u0002' has label 3; expected .* from 0 to 2"),
        ({"labels": with_row(CODES, 2, -1)}, "'u0002' has label -1"),
        ({"labels": CODES[1:]}, r"label codes are int64 of shape \(119,\)"),
        ({"y_pred": with_row(CODES, 2, 3)}, "'u0002' has predicted 3"),
        ({"proba": EVEN[:, :2]}, r"probabilities have shape \(120, 2\); expected \(120, 3\)"),
        ({"proba": EVEN * 1.00001}, "probabilities of utterance 'u0000' sum to 1.00001"),
        ({"proba": with_row(EVEN, 4, [np.nan, 0.5, 0.5])}, "'u0004' has probability nan"),
        ({"proba": with_row(EVEN, 4, [0.5, np.inf, 0])}, "'u0004' has probability inf .*'joy'"),
        ({"proba": with_row(EVEN, 4, [-0.5, 1.0, 0.5])}, "'u0004' has probability -0.5"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(make_predictions, fields, message):
    with pytest.raises(ValueError, match=message):
        make_predictions(**fields)


def test_rounding_in_a_row_of_probabilities_is_allowed(make_predictions):
    table = make_predictions(proba=EVEN * (1 + 5e-7))

    assert_array_equal(table.proba, EVEN * (1 + 5e-7))


def test_systems_of_one_study_are_aligned_whatever_they_predict(make_predictions):
    first = make_predictions(1)
    second = make_predictions(2, present=np.ones(120, dtype=bool), y_pred=CODES)

    assert first.check_aligned(second) is None
    bare = replace(first, sessions=None)
    assert bare.check_aligned(replace(second, sessions=None)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"classes": ("anger", "neutral", "joy")},
            r"'system1' and 'other' .* classes are \['anger', 'joy', 'neutral'\] and \['ang",
        ),
        (
            {"utterances": with_row(UTTERANCES.astype("<U9"), 7, "u0006b")},
            r"1 of 120 utterances of 'system1' are missing .*'u0007'.*1 of 120 .*'u0006b'",
        ),
        ({"labels": np.zeros(120, dtype=int)}, r"their labels differ in \d+ of 120 rows"),
        ({"speakers": NAMES}, r"speakers differ in 120 .* 'u0000' \('P00' and 'x'\)"),
        ({"sessions": NAMES}, r"sessions differ in 120 of 120 rows"),
        ({"sessions": None}, "only 'system1' has sessions"),
        ({"folds": with_row(np.arange(120) % 6, 8, 5)}, r"folds differ in 1 .*\(2 and 5\)"),
    ],
)
def test_unaligned_systems_are_told_what_differs(make_predictions, fields, message):
    first, other = make_predictions(), make_predictions(**{"system": "other", **fields})

    with pytest.raises(ValueError, match=message):
        first.check_aligned(other)


def test_more_rows_are_not_aligned_with_fewer(make_predictions):
    with pytest.raises(ValueError, match="30 of 150 utterances of 'b' are missing"):
        make_predictions(system="a").check_aligned(make_predictions(n=150, system="b"))


def test_folds_are_named_so_that_text_order_is_number_order(make_predictions):
    few = make_predictions(n=3, folds=np.array([0, 9, 10]))
    many = make_predictions(n=3, folds=np.array([0, 99, 100]))

    assert few.fold_names().tolist() == ["00", "09", "10"]
    assert many.fold_names().tolist() == ["000", "099", "100"]


def test_groups_are_speakers_or_sessions(make_predictions):
    table = make_predictions()

    assert table.groups("speaker") is table.speakers
    assert table.groups("session") is table.sessions
    with pytest.raises(ValueError, match="'system1' have no sessions"):
        replace(table, sessions=None).groups("session")
    with pytest.raises(ValueError, match="Unknown unit 'dialogue'"):
        table.groups("dialogue")
