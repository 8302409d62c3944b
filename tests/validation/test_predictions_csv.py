from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from toolkit.validation.predictions import Predictions, format_predictions, parse_predictions

ARRAYS = ("utterances", "speakers", "folds", "present", "labels", "proba", "y_pred")
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
    for name in ARRAYS:
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
        "utterance,speaker,session,fold,present,label,predicted,p_anger,p_joy\n"
        "u0000,P00,S0,00,0,joy,joy,0.1,0.9\n"
        "u0001,P01,S0,07,1,anger,anger,0.3333333333333333,0.6666666666666666\n"
    )


def test_a_table_reads_back_equal_and_writes_the_same_bytes(make_predictions):
    decided = np.random.default_rng(5).integers(0, 3, 120)
    table = make_predictions(folds=np.arange(120), y_pred=decided)

    text = format_predictions(table)
    again = parse_predictions(text, table.system, "predictions/text.csv")

    assert_same(again, table)
    assert format_predictions(again) == text


def test_recordings_without_sessions_stay_without(make_predictions):
    table = make_predictions(sessions=None)

    again = parse_predictions(format_predictions(table), table.system, "text.csv")

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

    again = parse_predictions(format_predictions(table), table.system, "text.csv")

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

    assert_same(parse_predictions(format_predictions(table), "text", "text.csv"), table)


def test_line_ends_of_another_system_are_read(make_predictions):
    table = make_predictions()

    text = format_predictions(table).replace("\n", "\r\n")

    assert_same(parse_predictions(text, table.system, "text.csv"), table)


GOOD = """utterance,speaker,session,fold,present,label,predicted,p_no,p_yes
a,F01,S1,00,1,yes,yes,0.25,0.75
b,M01,S1,01,0,no,yes,0.5,0.5
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b,M01", "a,M01", "x.csv, row 3, column 'utterance': Utterance 'a' occurs twice"),
        ("b,M01", "A,M01", "x.csv, row 3, column 'utterance': Utterance 'A' comes after 'a'"),
        ("b,M01", "b,", "x.csv, row 3, column 'speaker': The speaker"),
        ("M01,S1", "M01,", "x.csv, row 3, column 'session': The session"),
        (",01,", ",1.0,", r"x.csv, row 3, column 'fold': Got '1.0'; expected the number"),
        (",01,", ",-1,", r"x.csv, row 3, column 'fold': Got '-1'"),
        (",01,", ",²,", r"x.csv, row 3, column 'fold': Got '²'"),
        (",01,", ",٣,", r"x.csv, row 3, column 'fold': Got '٣'"),
        ("01,0,no", "01,2,no", r"x.csv, row 3, column 'present': Got '2'; .*\['0', '1'\]"),
        ("0,no", "0,maybe", r"row 3, column 'label': Got 'maybe'; .*\['no', 'yes'\]"),
        ("no,yes,0.5", "no,maybe,0.5", "row 3, column 'predicted': Got 'maybe'"),
        ("0.5,0.5", "0.5,half", "row 3, column 'p_yes': Got 'half'; expected a probability"),
        ("0.5,0.5", "0.5,nan", "row 3, column 'p_yes': Utterance 'b' has probability nan"),
        ("0.5,0.5", "0.5,0.6", "row 3, column 'p_no': The probabilities .* sum to 1.1"),
        ("0.5,0.5", "0.5", "x.csv, row 3: 8 fields; expected 9"),
        ("0.5,0.5\n", "0.5,0.5,0\n", "x.csv, row 3: 10 fields; expected 9"),
        ("0.5,0.5\n", "0.5,0.5\n\n", "x.csv, row 4: 0 fields; expected 9"),
        ("0.5,0.5\n", "0.5,0.5", "x.csv: the last line has no end; .* cut short"),
        ("b,M01", '"b"x,M01', "x.csv, line 3: not a CSV table"),
        ("utterance,", "id,", r"x.csv, row 1: columns \['id', 'speaker'"),
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
    assert len(parse_predictions(GOOD, "text", "x.csv")) == 2

    with pytest.raises(ValueError, match=message):
        parse_predictions(GOOD.replace(old, new), "text", "x.csv")


def test_a_file_with_one_class_is_refused():
    text = (
        "utterance,speaker,session,fold,present,label,predicted,p_no\na,F01,,00,1,no,no,1.0\n"
    )

    with pytest.raises(ValueError, match=r"x.csv: Got classes \('no',\); expected two or more"):
        parse_predictions(text, "text", "x.csv")


def test_the_system_is_named_by_the_caller(make_predictions):
    table = replace(make_predictions(), system="early-text-audio")

    assert parse_predictions(format_predictions(table), "vote", "vote.csv").system == "vote"
