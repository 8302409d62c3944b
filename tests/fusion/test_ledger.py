from dataclasses import fields

import numpy as np
import pytest

from toolkit.fusion import FusionRecord, fusion_records

SPEAKERS = ["anna", "anna", "anna", "bo", "bo", "bo"]
LABELS = [0, 1, 1, 0, 0, 1]


def decides(say, system, classes, present=None):
    proba = np.full((6, 3), 0.2)
    proba[np.arange(6), classes] = 0.6
    return say(system, proba, labels=LABELS, present=present, speakers=SPEAKERS)


@pytest.fixture
def records(say):
    audio = decides(say, "audio", [0, 1, 0, 1, 0, 2], [True] * 5 + [False])
    text = decides(say, "text", [0, 0, 0, 0, 1, 1])
    visual = decides(say, "visual", [1, 2, 0, 0, 2, 1])
    best = decides(say, "best-single", [0, 0, 0, 0, 1, 1])
    vote = decides(say, "vote", [0, 1, 0, 0, 0, 1])
    soft = decides(say, "soft", [1, 1, 1, 1, 0, 1])
    return fusion_records([visual, text, audio], [vote, soft], best)


def find(records, quantity, system, reference=""):
    """Counts over all, a, b, c, anna and bo, and what they were counted among."""
    found = [
        record
        for record in records
        if (record.quantity, record.system, record.reference) == (quantity, system, reference)
    ]
    scopes = [(record.scope, record.group) for record in found]
    assert scopes == [
        ("all", ""),
        *(("class", name) for name in "abc"),
        *(("speaker", name) for name in ("anna", "bo")),
    ]
    return [record.value for record in found], [record.n for record in found]


ALL = [6, 3, 3, 0, 3, 3]


def test_fixed_and_broken_are_held_against_best_single(records):
    # best-single errs in rows 1, 2 and 4; vote mends 1 and 4, soft 1, 2 and 4 but spoils 0, 3.
    assert find(records, "fixed", "vote", "best-single") == ([2, 1, 1, 0, 1, 1], ALL)
    assert find(records, "broken", "vote", "best-single") == ([0] * 6, ALL)
    assert find(records, "fixed", "soft", "best-single") == ([3, 1, 2, 0, 2, 1], ALL)
    assert find(records, "broken", "soft", "best-single") == ([2, 2, 0, 0, 1, 1], ALL)


def test_the_oracle_is_right_where_any_modality_is(records):
    assert find(records, "right", "oracle") == ([5, 3, 2, 0, 2, 3], ALL)


def test_ties_are_where_no_class_has_most_votes(records):
    # Three ways in rows 1 and 4; in row 5 audio is absent and the other two agree.
    assert find(records, "ties", "vote") == ([2, 1, 1, 0, 1, 1], ALL)
    assert find(records, "ties_right", "vote") == ([2, 1, 1, 0, 1, 1], [2, 1, 1, 0, 1, 1])


def test_pairs_are_compared_where_both_are_present(records):
    both = [5, 3, 2, 0, 3, 2]
    assert find(records, "agreement", "audio", "text") == ([2, 1, 1, 0, 2, 0], both)
    assert find(records, "double_fault", "audio", "text") == ([1, 0, 1, 0, 1, 0], both)
    assert find(records, "agreement", "audio", "visual") == ([1, 0, 1, 0, 1, 0], both)
    assert find(records, "agreement", "text", "visual") == ([3, 1, 2, 0, 1, 2], ALL)
    assert find(records, "double_fault", "text", "visual") == ([3, 1, 2, 0, 2, 1], ALL)


def test_absent_modalities_are_counted(records):
    assert find(records, "absent", "audio") == ([1, 0, 1, 0, 0, 1], ALL)
    assert find(records, "absent", "text") == ([0] * 6, ALL)
    assert find(records, "absent", "vote") == ([0] * 6, ALL)


def test_nothing_is_counted_twice(records):
    keys = [(r.system, r.reference, r.scope, r.group, r.quantity) for r in records]

    assert len(set(keys)) == len(keys)


def test_without_a_vote_there_are_no_ties(say):
    tables = [decides(say, name, LABELS) for name in ("audio", "text", "best-single")]

    quantities = {record.quantity for record in fusion_records(tables[:2], [], tables[2])}

    assert quantities == {"absent", "right", "agreement", "double_fault"}


def test_the_columns_of_the_file_are_the_fields():
    names = [field.name for field in fields(FusionRecord)]

    assert names == ["system", "reference", "scope", "group", "quantity", "value", "n"]
