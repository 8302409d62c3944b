"""A table that other programs read says what it holds."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from pyarrow import parquet

from toolkit.pooling import pool_manifest, write_table


@pytest.fixture
def table(manifest, tmp_path):
    return pool_manifest(manifest, "visual", statistics="minimal", cache=tmp_path / "cache")


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

    with pytest.raises(ImportError, match=r"modality-toolkit\[formats\]"):
        write_table(table, manifest.utterances, tmp_path, form="parquet")


def test_there_is_one_utterance_a_row(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="149 utterances for a table of 150 rows"):
        write_table(table, manifest.utterances[1:], tmp_path)


def test_an_unknown_form_is_refused(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="'csv'; expected npy or parquet"):
        write_table(table, manifest.utterances, tmp_path, form="csv")
