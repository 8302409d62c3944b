"""A table is written for other programs, and standardised within each speaker."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from pyarrow import parquet

from toolkit.pooling import pool_manifest, write_table
from toolkit.pooling.table import _standardise, normalise_speakers


@pytest.fixture(scope="module")
def table(manifest, tmp_path_factory):
    return pool_manifest(
        manifest, "visual", statistics="basic", cache=tmp_path_factory.mktemp("pooled")
    )


def test_the_schema_names_every_row_and_column(table, manifest, tmp_path):
    path = write_table(table, manifest.utterances, tmp_path)

    schema = json.loads((tmp_path / "visual.schema.json").read_text(encoding="utf-8"))
    np.testing.assert_array_equal(np.load(path), table.values)
    assert schema["values"] == path.name == "visual.npy"
    assert schema["columns"] == list(table.names)
    assert [row["utterance"] for row in schema["rows"]] == manifest.utterances.tolist()
    assert [row["present"] for row in schema["rows"]] == table.present.tolist()


@pytest.mark.parametrize(
    "part",
    [np.s_[:], np.s_[1:], np.s_[:-1], np.s_[:, 1:], np.s_[::-1], np.s_[1:2], np.s_[-1:]],
)
def test_any_part_of_a_table_is_written_as_it_is(table, manifest, tmp_path, part):
    values = table.values[part]
    n_rows = len(values)
    some = dataclasses.replace(
        table,
        values=values,
        present=table.present[:n_rows],
        n_frames=table.n_frames[:n_rows],
    )

    path = write_table(some, manifest.utterances[:n_rows], tmp_path)

    np.testing.assert_array_equal(np.load(path), values)


def test_parquet_has_a_column_a_feature(table, manifest, tmp_path):
    columns = parquet.read_table(
        write_table(table, manifest.utterances, tmp_path, form="parquet")
    )

    assert columns.column_names[:4] == ["utterance", "present", "n_frames", table.names[0]]
    values = columns.column(table.names[-1]).to_numpy()
    np.testing.assert_array_equal(values, table.values[:, -1])


def test_without_pyarrow_the_extra_is_named(table, manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ImportError, match="pip install pyarrow"):
        write_table(table, manifest.utterances, tmp_path, form="parquet")


def test_there_is_one_utterance_a_row(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="149 utterances for a table of 150 rows"):
        write_table(table, manifest.utterances[1:], tmp_path)


def test_an_unknown_form_is_refused(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="'csv'; expected npy or parquet"):
        write_table(table, manifest.utterances, tmp_path, form="csv")


def test_every_speaker_has_mean_0_and_deviation_1(manifest, table, tmp_path):
    own = normalise_speakers(table, manifest.speakers, cache=tmp_path)

    assert not own.present.all()
    assert own.values.shape == table.values.shape
    assert np.array_equal(np.isnan(own.values), np.isnan(table.values))
    for name in np.unique(manifest.speakers):
        rows = (manifest.speakers == name) & table.present
        assert np.allclose(own.values[rows].mean(axis=0), 0, atol=1e-6)
        assert np.allclose(own.values[rows].std(axis=0), 1, atol=1e-5)


def test_a_speaker_s_numbers_depend_on_no_other_speaker(manifest, table, tmp_path):
    whole = normalise_speakers(table, manifest.speakers, cache=tmp_path / "whole")
    rows = manifest.speakers == "F01"
    alone = _standardise(table.values[rows].astype(np.float64))

    assert alone.tobytes() == whole.values[rows].tobytes()


def test_it_is_taken_from_the_cache_for_the_same_speakers_only(manifest, table, tmp_path):
    one = normalise_speakers(table, manifest.speakers, cache=tmp_path)
    again = normalise_speakers(table, manifest.speakers, cache=tmp_path)
    other = normalise_speakers(table, manifest.speakers[::-1], cache=tmp_path)

    assert again.values.filename == one.values.filename
    assert other.values.tobytes() != one.values.tobytes()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_damaged_table_is_made_again(manifest, table, tmp_path):
    one = normalise_speakers(table, manifest.speakers, cache=tmp_path)
    before = one.values.tobytes()
    path = next(tmp_path.glob("visual-*/values.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")

    assert (
        normalise_speakers(table, manifest.speakers, cache=tmp_path).values.tobytes() == before
    )


def test_constant_and_missing_features_are_0_and_missing():
    values = np.array([[0.1, np.nan, 2.0], [0.1, np.nan, np.nan], [0.1, 7.0, 4.0]])

    assert np.array_equal(
        _standardise(values),
        np.array([[0, np.nan, -1], [0, np.nan, np.nan], [0, 0, 1]], dtype=np.float32),
        equal_nan=True,
    )


def test_one_speaker_an_utterance_is_needed(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="149 speakers for 150 utterances"):
        normalise_speakers(table, manifest.speakers[1:], cache=tmp_path)


def test_a_table_is_shown_in_one_line(table):
    assert repr(table) == (
        f"<FeatureTable of visual: 150 utterances x {len(table.names)} columns "
        f"({', '.join(table.statistics)} of 8 dimensions), {(~table.present).sum()} missing>"
    )
