"""The ledger refuses held-out rows at once, and its verdict can be derived again."""

import numpy as np
import pytest

from toolkit.validation.folds import Fold
from toolkit.validation.ledger import LeakageError, Ledger, audit_entries

GROUPS = np.array(["a", "a", "b", "b", "c", "c"])
FOLD = Fold(1, np.array([0, 1, 2, 3]), np.array([4, 5]), ("c",))


def make_ledger():
    return Ledger("text", FOLD, np.array([f"u{i}" for i in range(6)]), GROUPS)


def test_what_was_recorded_passes_the_audit():
    ledger = make_ledger()
    ledger.record_split("inner 0", Fold(0, np.array([0, 1]), np.array([2, 3]), ("b",)))
    ledger.record("refit", "train", FOLD.train)

    assert audit_entries("text", FOLD, ledger.entries(), GROUPS) == []


@pytest.mark.parametrize("role", ["train", "bin edges", "resample parent", "early stop"])
def test_a_held_out_row_stops_the_run_and_is_named(role):
    ledger = make_ledger()

    with pytest.raises(LeakageError, match=f"'refit' of text/01 .* role '{role}': u4"):
        ledger.record("refit", role, np.array([0, 4]))


def test_a_row_of_a_held_out_person_is_refused_even_if_it_is_not_tested():
    untested = Fold(0, np.array([0, 1, 2, 3]), np.array([4]), ("c",))
    ledger = Ledger("text", untested, np.array([f"u{i}" for i in range(6)]), GROUPS)

    with pytest.raises(LeakageError, match="u5"):
        ledger.record("refit", "train", np.array([5]))


def test_a_tested_row_is_refused_even_if_its_person_is_not_named_as_held_out():
    unnamed = Fold(0, np.array([0, 1]), np.array([4]), ("nobody",))
    ledger = Ledger("text", unnamed, np.array([f"u{i}" for i in range(6)]), GROUPS)

    with pytest.raises(LeakageError, match="u4"):
        ledger.record("refit", "train", np.array([4]))
    mask = np.arange(6) == 4
    ledger._masks["refit", "train"] = mask
    ledger._counts["refit", "train"] = 1
    assert audit_entries("text", unnamed, ledger.entries(), GROUPS) == [
        "text/00: refit used 1 held-out utterances (train)."
    ]


def test_a_role_taken_twice_is_counted_twice_over_all_its_rows():
    ledger = make_ledger()
    ledger.record("refit", "train", np.array([0]))
    ledger.record("refit", "train", np.array([0, 3]))

    (entry,) = ledger.entries()

    assert (entry["times"], entry["n_rows"]) == (2, 2)


def test_an_inner_split_that_shares_a_person_is_refused():
    mixed = Fold(0, np.array([0, 2]), np.array([1, 3]), ("a", "b"))

    with pytest.raises(LeakageError, match="validation utterance"):
        make_ledger().record_split("inner 0", mixed)


@pytest.mark.parametrize("teaching", ["train", "screen", "resample parent"])
@pytest.mark.parametrize("judging", ["validate", "early stop"])
def test_nobody_may_judge_a_fit_that_learns_from_them(teaching, judging):
    # Rows 0 and 1 are the same person's.
    first, second = make_ledger(), make_ledger()
    first.record("inner 0", teaching, np.array([0, 2]))
    second.record("inner 0", judging, np.array([1]))

    with pytest.raises(LeakageError, match=f"training utterance.* role '{judging}': u1"):
        first.record("inner 0", judging, np.array([1]))
    with pytest.raises(LeakageError, match=f"validation utterance.* role '{teaching}': u0"):
        second.record("inner 0", teaching, np.array([0, 2]))
    first.record("inner 1", judging, np.array([1]))  # another fit's affair


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="Unknown role 'peek'"):
        make_ledger().record("refit", "peek", FOLD.train)


def tampered(rows, role="train"):
    mask = np.zeros(6, dtype=bool)
    mask[rows] = True
    ledger = make_ledger()
    ledger._masks["refit", role] = mask
    ledger._counts["refit", role] = 1
    return ledger


def test_the_audit_finds_a_held_out_row_in_the_files():
    entries = tampered([0, 5]).entries()

    (problem,) = audit_entries("text", FOLD, entries, GROUPS)

    assert problem == "text/01: refit used 1 held-out utterances (train)."


def test_the_audit_finds_a_row_of_a_held_out_person_that_is_not_tested():
    untested = Fold(1, np.array([0, 1, 2, 3]), np.array([4]), ("c",))

    assert audit_entries("text", untested, tampered([0, 5]).entries(), GROUPS) == [
        "text/01: refit used 1 held-out utterances (train)."
    ]


@pytest.mark.parametrize("teaching", ["train", "screen", "resample parent"])
@pytest.mark.parametrize("judging", ["validate", "early stop"])
def test_the_audit_finds_a_person_on_both_inner_sides(teaching, judging):
    ledger = tampered([0], teaching)
    ledger._masks["refit", judging] = np.arange(6) == 1
    ledger._counts["refit", judging] = 1

    assert audit_entries("text", FOLD, ledger.entries(), GROUPS) == [
        "text/01: refit trains and validates on a."
    ]


def test_a_unit_that_recorded_nothing_does_not_pass_the_audit():
    assert audit_entries("text", FOLD, [], GROUPS) == ["text/01: nothing was recorded."]


def test_the_audit_refuses_entries_over_other_rows():
    entries = tampered([0]).entries()

    problems = audit_entries("text", FOLD, entries, np.repeat(GROUPS, 4))

    assert "recorded over other rows" in problems[0]


#: Two people speak two contents each; the fold tests one on one content.
PAIRS = np.stack([["a", "a", "b", "b", "c", "c"], [f"content:{k}" for k in "xyxyxy"]], axis=1)
TESTED = Fold(0, np.array([1, 3]), np.array([4]), ("c", "content:x"))


@pytest.mark.parametrize("row", [0, 4, 5])
def test_a_row_of_held_out_content_or_group_is_refused_and_found(row):
    ledger = Ledger("text", TESTED, np.array([f"u{i}" for i in range(6)]), PAIRS)
    ledger.record("refit", "train", TESTED.train)

    with pytest.raises(LeakageError, match=rf"1 held out utterance\(s\) .*: u{row}"):
        ledger.record("refit", "train", np.array([row]))
    assert audit_entries("text", TESTED, ledger.entries(), PAIRS) == []
    ledger._masks["refit", "train"][row] = True
    assert audit_entries("text", TESTED, ledger.entries(), PAIRS) == [
        "text/00: refit used 1 held-out utterances (train)."
    ]


def test_an_inner_split_that_shares_content_is_refused_and_found():
    everything = Fold(-1, np.arange(6), np.empty(0, dtype=np.int64), ())
    ledger = Ledger("text", everything, np.array([f"u{i}" for i in range(6)]), PAIRS)
    ledger.record_split("inner 0", Fold(0, np.array([1]), np.array([2]), ("b", "content:x")))

    with pytest.raises(LeakageError, match=r"1 validation utterance\(s\) .*: u4"):
        ledger.record("inner 0", "train", np.array([1, 4]))
    ledger._masks["inner 0", "train"][4] = True
    assert audit_entries("text", everything, ledger.entries(), PAIRS) == [
        "text/final: inner 0 trains and validates on content:x."
    ]
