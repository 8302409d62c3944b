"""Pooling a corpus: every file accounted for, tables kept while nothing changed."""

import re
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.pooling import corpus as rows_module
from toolkit.pooling import (
    pool_frames,
    pool_manifest,
    register_statistic,
    unregister_statistic,
)
from toolkit.pooling.table import load_table

STATISTICS = ("mean", "p90", "slope")


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus that a test may spoil."""
    return shutil.copytree(corpus, tmp_path / "corpus")


def pool(folder, modality, cache, **options):
    manifest = read_manifest(folder / "dataset.csv")
    return pool_manifest(manifest, modality, statistics=STATISTICS, cache=cache, **options)


def files(folder, modality):
    names = {"visual": "visual", "audio": "acoustic", "text": "lexical"}
    return sorted((folder / "features" / f"{names[modality]}_features").rglob("*.npy"))


def test_rows_are_the_statistics_of_the_files_in_the_manifests_order(manifest, tmp_path):
    table = pool_manifest(manifest, "audio", statistics=STATISTICS, cache=tmp_path)

    for row, path in enumerate(manifest.paths["audio"]):
        frames = np.load(path)
        assert np.array_equal(table.values[row], pool_frames(frames, STATISTICS).reshape(-1))
        assert table.n_frames[row] == len(frames)
    assert table.names[0] == "audio__mean__0000"
    assert table.values.dtype == np.float32
    assert not table.values.flags.writeable


def test_a_fixed_size_modality_is_taken_as_it_is(manifest, tmp_path):
    table = pool_manifest(manifest, "text", statistics="full", cache=tmp_path)

    assert table.statistics == ("value",)
    assert np.array_equal(table.values[3], np.load(manifest.paths["text"][3]))
    assert table.names[1] == "text__value__0001"


def test_a_missing_modality_is_a_row_of_nan_and_counted(manifest, tmp_path):
    table = pool_manifest(manifest, "visual", statistics=STATISTICS, cache=tmp_path)

    absent = [path is None for path in manifest.paths["visual"]]
    assert table.present.tolist() == [not missing for missing in absent]
    assert np.isnan(table.values[~table.present]).all()
    assert table.counts["files_absent"] == sum(absent) > 0


def test_a_table_is_reused_while_nothing_changed(copy, tmp_path, monkeypatch):
    first = pool(copy, "audio", tmp_path / "cache")
    monkeypatch.setattr(rows_module, "pool_frames", lambda *_: pytest.fail("pooled again"))

    again = pool(copy, "audio", tmp_path / "cache")

    assert np.array_equal(first.values, again.values)
    assert first.digest == again.digest
    assert isinstance(again.values, np.memmap)  # one copy, however many workers


def test_a_changed_file_is_seen_whatever_its_date_and_size(copy, tmp_path):
    first = pool(copy, "audio", tmp_path / "cache")
    path = files(copy, "audio")[0]
    frames = np.load(path)
    np.save(path, frames + 1)

    second = pool(copy, "audio", tmp_path / "cache")

    assert first.digest != second.digest
    assert not np.array_equal(first.values, second.values)


def test_other_statistics_are_another_table_of_the_same_content(manifest, tmp_path):
    one = pool_manifest(manifest, "audio", statistics="minimal", cache=tmp_path)
    other = pool_manifest(manifest, "audio", statistics="basic", cache=tmp_path)

    assert one.digest == other.digest
    assert one.values.shape[1] * 7 == other.values.shape[1]


@pytest.mark.parametrize("name", ["values.npy", "rows.npz", "table.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "deleted"])
def test_a_damaged_table_is_made_again(corpus, tmp_path, name, damage):
    # A copy: the file that the table is mapped from is about to be cut.
    whole = pool(corpus, "audio", tmp_path).values.copy()
    (path,) = tmp_path.glob(f"audio-*/{name}")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"truncated": content[:-7], "emptied": b""}.get(damage, content))
    if damage == "deleted":
        path.unlink()
    assert load_table(path.parent) is None

    again = pool(corpus, "audio", tmp_path)

    assert np.array_equal(again.values, whole)
    assert load_table(path.parent) is not None


def test_every_file_that_cannot_be_pooled_is_named_at_once(copy, tmp_path):
    first, second = files(copy, "audio")[:2]
    first.write_bytes(b"")
    np.save(second, np.array([[np.nan] * 10]))

    with pytest.raises(ManifestError) as refusal:
        pool(copy, "audio", tmp_path)

    assert len(refusal.value.problems) == 2
    assert first.stem in str(refusal.value)
    assert second.stem in str(refusal.value)


def test_unreadable_files_may_be_declared_missing(copy, tmp_path):
    files(copy, "audio")[0].write_bytes(b"")

    table = pool(copy, "audio", tmp_path, missing="allow")

    assert table.counts["files_unreadable"] == 1
    assert table.present.sum() == len(table.present) - 1


def test_missing_values_of_a_fixed_size_feature_may_be_declared(copy, tmp_path):
    path = files(copy, "text")[0]
    values = np.load(path)
    values[2] = np.nan
    np.save(path, values)

    with pytest.raises(ManifestError, match="dimension 2 is nan"):
        pool(copy, "text", tmp_path)
    table = pool(copy, "text", tmp_path, missing="allow")

    assert np.isnan(table.values).sum() == table.counts["values_missing"] == 1


@pytest.mark.parametrize(("policy", "expected"), [("drop", 2.0), ("interpolate", 2.0)])
def test_frames_that_are_not_finite_follow_the_declared_policy(
    copy, tmp_path, policy, expected
):
    path = files(copy, "audio")[0]
    frames = np.full((3, 10), 2.0, dtype=np.float32)
    frames[1, 4] = np.inf
    np.save(path, frames)

    with pytest.raises(ManifestError, match="frame 1"):
        pool(copy, "audio", tmp_path)
    table = pool(copy, "audio", tmp_path, frames=policy)

    assert table.counts["frames_dropped" if policy == "drop" else "frames_interpolated"] == 1
    row = [p.stem for p in read_manifest(copy / "dataset.csv").paths["audio"]].index(path.stem)
    assert np.allclose(table.values[row, :20], expected)


@pytest.mark.parametrize("shape", [(4, 9), (10,)], ids=["width", "axes"])
def test_files_of_several_kinds_are_refused(copy, tmp_path, shape):
    np.save(files(copy, "audio")[5], np.zeros(shape))

    with pytest.raises(ManifestError, match="'audio' has files of several kinds"):
        pool(copy, "audio", tmp_path)


def test_progress_ends_before_the_number_of_files(manifest, tmp_path):
    seen = SimpleNamespace(calls=[])

    pool_manifest(
        manifest,
        "text",
        cache=tmp_path,
        progress=lambda done, total: seen.calls.append((done, total)),
    )

    assert seen.calls[0] == (0, 150)
    assert [done for done, _ in seen.calls] == sorted(done for done, _ in seen.calls)


def test_the_place_of_the_files_is_no_part_of_the_content(corpus, copy, tmp_path):
    here, there = (pool(folder, "audio", tmp_path) for folder in (corpus, copy))

    assert here.digest == there.digest


def test_a_column_can_be_selected_by_statistic(manifest, tmp_path):
    table = pool_manifest(manifest, "audio", statistics=STATISTICS, cache=tmp_path)

    assert table.select("slope").tolist() == list(range(20, 30))
    with pytest.raises(ValueError, match="does not hold std"):
        table.select("std")


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_arrays_in_one_file_are_pooled_like_files_of_their_own(copy, tmp_path, ending):
    expected = pool(copy, "audio", tmp_path / "cache")
    arrays = {path.stem: np.load(path) for path in files(copy, "audio")}
    if ending == "npz":
        np.savez(copy / "audio.npz", **arrays)
    else:
        with h5py.File(copy / "audio.h5", "w") as file:
            file.update(arrays)
    text = (copy / "dataset.csv").read_text(encoding="utf-8")
    text = re.sub(r"/features/acoustic_features/[^,\n]*", f"audio.{ending}", text)
    (copy / "dataset.csv").write_text(text, encoding="utf-8")

    table = pool(copy, "audio", tmp_path / "cache")

    assert np.array_equal(table.values, expected.values)
    assert table.n_frames.tolist() == expected.n_frames.tolist()
    arrays[min(arrays)] += 1
    if ending == "npz":
        np.savez(copy / "audio.npz", **arrays)
    else:
        with h5py.File(copy / "audio.h5", "w") as file:
            file.update(arrays)
    changed = pool(copy, "audio", tmp_path / "cache").values != expected.values
    assert changed.any(axis=1).sum() == 1


def power_mean(exponent):
    return lambda frames: (np.abs(frames) ** exponent).mean(axis=0)


@pytest.fixture
def register():
    """Register a statistic for one test, again and again."""
    names = []

    def register(name, function):
        if name in names:
            unregister_statistic(name)
        register_statistic(name, function)
        names.append(name)

    yield register
    for name in set(names):
        unregister_statistic(name)


def test_a_statistic_of_ones_own_has_a_column_a_dimension(manifest, tmp_path, register):
    register("energy", power_mean(2))

    table = pool_manifest(manifest, "audio", statistics=("max", "energy"), cache=tmp_path)

    frames = np.load(manifest.paths["audio"][4]).astype(np.float64)
    assert table.names[10] == "audio__energy__0000"
    assert np.allclose(table.values[4, 10:], (frames**2).mean(axis=0), rtol=1e-6)


def test_a_statistic_of_ones_own_is_pooled_again_once_it_changes(manifest, tmp_path, register):
    tables = []
    for function in (power_mean(2), power_mean(3), lambda x, k=1: x[0] * k, power_mean(2)):
        register("own", function)
        tables.append(pool_manifest(manifest, "audio", statistics="own", cache=tmp_path).values)

    assert not np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[1], tables[2])
    assert np.array_equal(tables[0], tables[3])
    assert len(list(tmp_path.glob("audio-*"))) == 3
