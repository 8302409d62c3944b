"""Columns that group people: found, read once per person, and refused where they do not fit."""

import pytest

from toolkit.data.csv_table import ManifestError
from toolkit.data.manifest import read_manifest


def read(write_table, columns, **options):
    return read_manifest(write_table(columns), **options)


def test_a_column_gives_a_value_of_each_speaker(columns, write_table):
    columns |= {"Sex": ["f", "f", "m", "m", "f", "f"], "age": ["20", "20", "", "", "9", "9"]}
    manifest = read(write_table, columns, by=("sex", "age"))

    assert list(manifest.traits) == ["Sex", "age"]
    assert manifest.traits["Sex"] == {"ann": "f", "bob": "m", "cat": "f"}
    assert manifest.traits["age"] == {"ann": "20", "bob": "", "cat": "9"}
    assert "Sex" not in manifest.ignored
    plain = read(write_table, columns)
    assert "Sex" in plain.ignored
    assert not plain.traits
    assert plain.digest() == manifest.digest()


def test_an_unknown_column_is_named_with_the_nearest(columns, write_table):
    columns["gender"] = ["f"] * 6
    with pytest.raises(ManifestError, match=r"--by gendre: .*did you mean 'gender'\?") as error:
        read(write_table, columns, by=("gendre",))
    assert "'utterance', 'label', 'speaker', 'voice', 'gender'" in str(error.value)


def test_an_empty_column_is_refused(columns, write_table):
    columns["age"] = [""] * 6
    with pytest.raises(ManifestError, match="--by age: the column is empty"):
        read(write_table, columns, by=("age",))


def test_a_person_of_two_values_is_refused(columns, write_table):
    columns["language"] = ["de", "en", "de", "de", "en", "en"]
    with pytest.raises(ManifestError) as error:
        read(write_table, columns, by=("language",))
    assert "row 3, column 'language': 'ann' has 'en' here and 'de' in row 2" in str(error.value)


def test_values_in_two_spellings_are_no_two_groups(columns, write_table):
    columns["sex"] = ["f", "f", "F", "F", "m", "m"]
    with pytest.raises(ManifestError, match="differ only in spelling"):
        read(write_table, columns, by=("sex",))
    joined = read(write_table, columns, by=("sex",), spellings="join")
    assert sorted(set(joined.traits["sex"].values())) == ["F", "m"]
