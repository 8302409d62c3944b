"""Features of each speaker at mean 0 and deviation 1: what changes, and what must not."""

import numpy as np
import pytest

from toolkit.pooling import normalise_speakers, pool_manifest
from toolkit.pooling.table import standardise


@pytest.fixture(scope="module")
def table(manifest, tmp_path_factory):
    return pool_manifest(
        manifest, "visual", statistics="basic", cache=tmp_path_factory.mktemp("pooled")
    )


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
    alone = standardise(table.values[rows].astype(np.float64))

    assert alone.tobytes() == whole.values[rows].tobytes()


def test_it_is_taken_from_the_cache_for_the_same_speakers_only(manifest, table, tmp_path):
    one = normalise_speakers(table, manifest.speakers, cache=tmp_path)
    again = normalise_speakers(table, manifest.speakers, cache=tmp_path)
    other = normalise_speakers(table, manifest.speakers[::-1], cache=tmp_path)

    assert again.values.filename == one.values.filename
    assert other.values.tobytes() != one.values.tobytes()
    assert not list(tmp_path.glob(".*.draft"))


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
        standardise(values),
        np.array([[0, np.nan, -1], [0, np.nan, np.nan], [0, 0, 1]], dtype=np.float32),
        equal_nan=True,
    )


def test_one_speaker_an_utterance_is_needed(table, manifest, tmp_path):
    with pytest.raises(ValueError, match="149 speakers for 150 utterances"):
        normalise_speakers(table, manifest.speakers[1:], cache=tmp_path)
