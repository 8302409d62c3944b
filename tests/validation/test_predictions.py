"""Predictions are checked, and their files read back equal."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from toolkit.validation.predictions import Predictions, format_predictions, parse_predictions

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
    with pytest.raises(ValueError, match="Unknown group 'dialogue'"):
        table.groups("dialogue")


SAVED = ("utterances", "speakers", "folds", "present", "labels", "proba", "y_pred")
HOSTILE = (
    'a,b"c',
    "line\nend",
    "return\rend",
    "<script>",
    "=1+1",
    "סדר",
    " x ",
    "p_",
    "🙂" * 99,
    '"q"',
)


def assert_same(first, second):
    for name in SAVED:
        ours, theirs = getattr(first, name), getattr(second, name)
        assert ours.dtype == theirs.dtype
        assert_array_equal(ours, theirs)
    assert (first.sessions is None) == (second.sessions is None)
    if first.sessions is not None:
        assert_array_equal(first.sessions, second.sessions)
    assert (first.system, first.classes) == (second.system, second.classes)


def test_the_file_has_the_columns_of_the_contract(make_predictions):
    table = make_predictions(
        n=2,
        classes=("anger", "joy"),
        folds=np.array([0, 7]),
        labels=np.array([1, 0]),
        proba=np.array([[0.1, 0.9], [1 / 3, 2 / 3]]),
        y_pred=np.array([1, 0]),
    )

    assert format_predictions(table) == (
        "system,utterance,speaker,session,fold,present,label,predicted,p_anger,p_joy\n"
        "system1,u0000,P00,S0,00,0,joy,joy,0.1,0.9\n"
        "system1,u0001,P01,S0,07,1,anger,anger,0.3333333333333333,0.6666666666666666\n"
    )


def test_a_table_reads_back_equal_and_writes_the_same_bytes(make_predictions):
    decided = np.random.default_rng(5).integers(0, 3, 120)
    table = make_predictions(folds=np.arange(120), y_pred=decided)

    text = format_predictions(table)
    again = parse_predictions(text, "text.csv")[table.system]

    assert_same(again, table)
    assert format_predictions(again) == text


def test_recordings_without_sessions_stay_without(make_predictions):
    table = make_predictions(sessions=None)

    again = parse_predictions(format_predictions(table), "text.csv")[table.system]

    assert_same(again, table)


def test_hostile_names_survive(make_predictions):
    n = len(HOSTILE)
    table = make_predictions(
        n=n,
        n_classes=2,
        classes=HOSTILE[:2],
        utterances=np.array(sorted(HOSTILE)),
        speakers=np.array(HOSTILE),
        sessions=np.array(HOSTILE[::-1]),
    )

    again = parse_predictions(format_predictions(table), "text.csv")[table.system]

    assert_same(again, table)


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    utterances=st.sets(names, min_size=2, max_size=2),
    classes=st.lists(names, min_size=2, max_size=2, unique=True),
    p=st.floats(0, 1),
)
def test_any_name_and_any_probability_read_back_equal(utterances, classes, p):
    table = Predictions(
        "text",
        tuple(classes),
        np.array(sorted(utterances)),
        np.array(sorted(utterances)),
        None,
        np.array([0, 1]),
        np.array([True, False]),
        np.array([0, 1]),
        np.array([[p, 1 - p], [1 - p, p]]),
    )

    assert_same(parse_predictions(format_predictions(table), "text.csv")[table.system], table)


def test_line_ends_of_another_system_are_read(make_predictions):
    table = make_predictions()

    text = format_predictions(table).replace("\n", "\r\n")

    assert_same(parse_predictions(text, "text.csv")[table.system], table)


GOOD = """system,utterance,speaker,session,fold,present,label,predicted,p_no,p_yes
audio,k,F07,S7,11,1,yes,yes,1.0,0.0
audio,m,F08,S7,12,1,yes,yes,0.125,0.875
text,a,F01,S1,00,1,yes,yes,0.25,0.75
text,b,M01,S1,01,0,no,yes,0.5,0.5
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b,M01", "a,M01", "x.csv, row 5, column 'utterance': Utterance 'a' occurs twice"),
        ("b,M01", "A,M01", "x.csv, row 5, column 'utterance': Utterance 'A' comes after 'a'"),
        ("b,M01", "b,", "x.csv, row 5, column 'speaker': The speaker"),
        ("M01,S1", "M01,", "x.csv, row 5, column 'session': The session"),
        (",01,", ",1.0,", r"x.csv, row 5, column 'fold': Got '1.0'; expected the number"),
        (",01,", ",-1,", r"x.csv, row 5, column 'fold': Got '-1'"),
        (",01,", ",²,", r"x.csv, row 5, column 'fold': Got '²'"),
        (",01,", ",٣,", r"x.csv, row 5, column 'fold': Got '٣'"),
        ("01,0,no", "01,2,no", r"x.csv, row 5, column 'present': Got '2'; .*\['0', '1'\]"),
        ("0,no", "0,maybe", r"row 5, column 'label': Got 'maybe'; .*\['no', 'yes'\]"),
        ("no,yes,0.5", "no,maybe,0.5", "row 5, column 'predicted': Got 'maybe'"),
        ("0.5,0.5", "0.5,half", "row 5, column 'p_yes': Got 'half'; expected a probability"),
        ("0.5,0.5", "0.5,nan", "row 5, column 'p_yes': Utterance 'b' has probability nan"),
        ("0.5,0.5", "0.5,0.6", "row 5, column 'p_no': The probabilities .* sum to 1.1"),
        ("0.5,0.5", "0.5", "x.csv, row 5: 9 fields; expected 10"),
        ("0.5,0.5\n", "0.5,0.5,0\n", "x.csv, row 5: 11 fields; expected 10"),
        ("0.5,0.5\n", "0.5,0.5\n\n", "x.csv, row 6: 0 fields; expected 10"),
        ("0.5,0.5\n", "0.5,0.5", "x.csv: the last line has no end; .* cut short"),
        ("b,M01", '"b"x,M01', "x.csv, line 5: not a CSV table"),
        ("utterance,", "id,", r"x.csv, row 1: columns \['system', 'id', 'speaker'"),
        ("utterance,", "\ufeffutterance,", r"x.csv, row 1: columns"),
        ("p_yes", "yes", "x.csv, row 1, column 'yes': expected one column p_<class> a class"),
        ("p_yes", "p_no", "x.csv, row 1, column 'p_no': expected one column"),
        (GOOD.partition("\n")[2], "", "x.csv: no rows after the header"),
        (GOOD, "", "x.csv: the last line has no end"),
        (GOOD, "\n", r"x.csv, row 1: columns \[\]"),
    ],
)
def test_a_damaged_file_is_refused_saying_where(old, new, message):
    assert GOOD.count(old) == 1
    assert [len(table) for table in parse_predictions(GOOD, "x.csv").values()] == [2, 2]

    with pytest.raises(ValueError, match=message):
        parse_predictions(GOOD.replace(old, new), "x.csv")


def test_a_file_with_one_class_is_refused():
    text = (
        "system,utterance,speaker,session,fold,present,label,predicted,p_no\n"
        "text,a,F01,,00,1,no,no,1.0\n"
    )

    with pytest.raises(ValueError, match=r"x.csv: Got classes \('no',\); expected two or more"):
        parse_predictions(text, "x.csv")


def test_every_system_of_a_file_is_read(make_predictions):
    tables = [replace(make_predictions(), system=name) for name in ("vote", "early-text-audio")]

    again = parse_predictions(format_predictions(*tables), "predictions.csv")

    assert list(again) == ["vote", "early-text-audio"]
    for table in tables:
        assert_same(again[table.system], table)
