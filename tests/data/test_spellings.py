"""Names in several spellings: found as one, refused by default, joined only where asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data import ManifestError, read_manifest
from toolkit.data.labels import canonical_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("7", "007"),
        ("-0.50", "-0.5"),
        ("-0", "0"),
        ("Ann", "aNN"),
        ("Ann Lee", "Ann\u00a0\u2003Lee"),
        ("zo\u00eb", "zoe\u0308"),
        ("kim", "ki\u200bm"),
        ("kim", "\u2066kim\ufe0f"),
        ("\uff21\uff11", "a1"),
        ("Stra\u00dfe", "STRASSE"),
        ("Subj02", "subj2"),
        ("A\u00b4", "\u00c1"),
        ("123456789012345678901234567890", "0123456789012345678901234567890.0"),
    ],
)
def test_spellings_of_one_name_are_one(one, other):
    assert one != other
    assert canonical_name(one) == canonical_name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "10"),
        ("1", "-1"),
        ("0.5", "5"),
        ("a1b", "a1c"),
        ("a10", "a1"),
        ("123456789012345678901234567890", "123456789012345678901234567891"),
    ],
)
def test_different_names_stay_different(one, other):
    assert canonical_name(one) != canonical_name(other)


@given(st.text(min_size=1))
def test_the_form_of_a_form_is_itself_and_never_empty(name):
    form = canonical_name(name)

    assert form
    assert canonical_name(form) == form


@pytest.mark.parametrize(
    ("column", "spelling", "kind"),
    [
        ("speaker", "Bob", "Speakers"),
        ("label", "1.0", "Labels"),
        ("session", "S 1", "Sessions"),
    ],
)
def test_two_spellings_are_refused_with_their_rows_and_both_ways_on(
    columns, write_table, column, spelling, kind
):
    columns["session"] = ["s1", "s1", "s2", "s2", "s3", "s3"]
    was = columns[column][3] if column != "session" else "s1"
    columns[column][3] = spelling

    with pytest.raises(ManifestError) as caught:
        read_manifest(write_table(columns))

    (problem,) = caught.value.problems
    assert problem.startswith(f"{kind} ")
    assert f"{spelling!r} (row 5)" in problem
    assert f"{was!r} (row" in problem
    assert "--spellings join" in problem
    assert "--spellings keep" in problem


def test_joined_names_take_the_commonest_spelling_whatever_the_order(columns, write_table):
    columns["speaker"] = ["ann", "bob", "BOB ", "bob", "cat", "cat"]
    columns["label"] = ["0", "1", "0.0", "01", "0", "1"]

    manifest = read_manifest(write_table(columns), spellings="join")

    assert manifest.speakers.tolist() == ["ann", "bob", "bob", "bob", "cat", "cat"]
    assert manifest.classes == ("0", "1")
    assert manifest.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert any("'bob' (2 rows) are taken for one: 'bob'." in w for w in manifest.warnings)
    turned = {name: cells[::-1] for name, cells in columns.items()}
    again = read_manifest(write_table(turned, folder="turned"), spellings="join")
    assert again.digest() == manifest.digest()


def test_kept_names_stay_different_with_a_note(columns, write_table):
    columns["speaker"] = ["ann", "bob", "Bob", "bob", "cat", "cat"]

    manifest = read_manifest(write_table(columns), spellings="keep")

    assert manifest.speakers.tolist() == columns["speaker"]
    assert any("count as different" in warning for warning in manifest.warnings)


@pytest.mark.parametrize(("name", "alike"), [("zoe\u0308", True), ("ZO\u00cb", False)])
@pytest.mark.parametrize("spellings", ["refuse", "keep"])
def test_names_that_look_alike_are_explained(columns, write_table, name, alike, spellings):
    columns["speaker"] = ["ann", "ann", "zo\u00eb", name, "cat", "cat"]

    try:
        sentences = read_manifest(write_table(columns), spellings=spellings).warnings
    except ManifestError as error:
        sentences = error.problems

    (sentence,) = (text for text in sentences if "differ only in spelling" in text)
    assert ("Unicode composition" in sentence) == alike


def test_many_names_in_two_spellings_are_counted(columns, write_table):
    many = {name: cells * 4 for name, cells in columns.items()}
    many["utterance"] = [f"u{i}" for i in range(24)]
    many["speaker"] = [f"{'sS'[i % 2]}{i // 2}" for i in range(24)]

    with pytest.raises(ManifestError) as caught:
        read_manifest(write_table(many))

    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1] == "Speakers in several spellings: 7 more names."


def test_a_name_of_an_excluded_class_is_no_speaker(columns, write_table):
    columns["label"] = ["0", "1", "2", "1", "0", "1"]
    columns["speaker"][2] = "ANN"

    assert len(read_manifest(write_table(columns), classes=["0", "1"])) == 5
