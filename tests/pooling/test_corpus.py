"""Pooling a corpus: every file is accounted for, and only whole, unchanged tables are kept."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.pooling import (
    FeatureTable,
    pool_frames,
    pool_manifest,
    pooler,
    register_statistic,
    unregister_statistic,
)
from toolkit.pooling import corpus as corpus_module
from toolkit.pooling.table import TableDraft

STATISTICS = ("mean", "p90", "slope")


POOL = """
import os, signal, sys
from pathlib import Path
from toolkit.data import read_manifest
from toolkit.pooling import pool_manifest
manifest = read_manifest(Path(sys.argv[1]) / "dataset.csv")
stop = int(sys.argv[3])
def follow(done, total):
    if done == stop:
        os.kill(os.getpid(), signal.SIGKILL)
table = pool_manifest(
    manifest, "audio", statistics=("mean", "p90", "slope"), cache=sys.argv[2], progress=follow
)
print(table.digest)
"""


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


def run(folder, cache, stop=-1):
    command = [sys.executable, "-c", POOL, str(folder), str(cache), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


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
    monkeypatch.setattr(pooler, "pool_frames", lambda *_: pytest.fail("pooled again"))

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
    assert FeatureTable.load(path.parent) is None

    again = pool(corpus, "audio", tmp_path)

    assert np.array_equal(again.values, whole)
    assert FeatureTable.load(path.parent) is not None


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


def close_over(value):
    return lambda frames: (frames, value)


def take_by_default(value):
    return lambda frames, weights=value: (frames, weights)


def take_by_keyword(value):
    return lambda frames, *, weights=value: (frames, weights)


def weigh(weights, frames):
    return frames @ weights


WEIGHTS = np.linspace(0, 1, 2_000)
#: Values of a statistic, each another than `WEIGHTS`.
OTHERS = {
    "number": lambda: np.where(np.arange(2_000) == 1_000, 7, WEIGHTS),
    "digit": lambda: np.where(np.arange(2_000) == 1_000, WEIGHTS + 1e-12, WEIGHTS),
    "shape": lambda: WEIGHTS.reshape(40, 50),
    "type": lambda: WEIGHTS.astype(np.float32),
    "order of bytes": lambda: WEIGHTS.astype(">f8"),
    "objects": lambda: WEIGHTS.astype(object),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "make",
    [
        close_over,
        take_by_default,
        take_by_keyword,
        lambda value: close_over((1, [value])),
        lambda value: close_over({"weights": value}),
        lambda value: close_over(SimpleNamespace(weights=value)),
        lambda value: take_by_default([value]),
        lambda value: partial(weigh, value),
    ],
)
def test_every_number_of_a_statistic_is_part_of_the_key(register, make, other):
    keys = []
    for value in (WEIGHTS, OTHERS[other](), OTHERS[other]()):
        register("own", make(value))
        keys.append(TableDraft.make_key("audio", ["own"]))

    assert keys[0] != keys[1] == keys[2]


def test_the_code_of_a_statistic_without_a_source_is_part_of_the_key(register):
    keys = set()
    for code in ("x.mean(0)", "x.max(0)", "x.max(1)", "x.max(0) + 1"):
        register("own", eval(f"lambda x: {code}"))
        keys.add(TableDraft.make_key("audio", ["own"]))

    assert len(keys) == 4


@pytest.fixture
def pooled(monkeypatch):
    """The sequences that are really pooled, by their first number."""
    seen = []
    pool_frames = pooler.pool_frames

    def follow(frames, statistics):
        seen.append(frames[0, 0])
        return pool_frames(frames, statistics)

    monkeypatch.setattr(pooler, "pool_frames", follow)
    return seen


def test_two_processes_do_not_harm_each_other(copy, tmp_path):
    processes = [run(copy, tmp_path / "cache") for _ in range(2)]
    digests = {process.communicate()[0] for process in processes}

    assert [process.returncode for process in processes] == [0, 0]
    assert digests == {f"{pool(copy, 'audio', tmp_path / 'cache').digest}\n"}


def test_only_a_changed_file_is_pooled_again(copy, tmp_path, pooled):
    before = pool(copy, "audio", tmp_path / "cache").values.copy()
    path = files(copy, "audio")[3]
    np.save(path, np.load(path) + 1)
    pooled.clear()

    after = pool(copy, "audio", tmp_path / "cache").values

    assert len(pooled) == 1
    assert (before != after).any(axis=1).sum() == 1


def test_only_an_added_file_is_pooled(copy, tmp_path, pooled):
    table = copy / "dataset.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    pool(copy, "audio", tmp_path / "cache")
    pooled.clear()

    table.write_text("".join(lines))
    after = pool(copy, "audio", tmp_path / "cache")

    assert len(pooled) == 1
    np.testing.assert_array_equal(after.values, pool(copy, "audio", tmp_path / "fresh").values)


def test_of_a_removed_file_nothing_is_pooled_again(copy, tmp_path, pooled):
    pool(copy, "audio", tmp_path / "cache")
    table = copy / "dataset.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    pooled.clear()

    assert len(pool(copy, "audio", tmp_path / "cache").values) == 149
    assert pooled == []


def test_settled_files_are_not_even_read_again(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "_SETTLED", -1)
    pool(copy, "audio", tmp_path / "cache")
    monkeypatch.setattr(corpus_module._Reader, "read", lambda *_: pytest.fail("read again"))

    pool(copy, "audio", tmp_path / "cache")


def test_a_file_that_had_just_changed_is_read_again(copy, tmp_path):
    first = pool(copy, "audio", tmp_path / "cache")
    path = files(copy, "audio")[0]
    frames, times = np.load(path), path.stat()
    frames[0] += 1
    np.save(path, frames)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert pool(copy, "audio", tmp_path / "cache").digest != first.digest


def test_threads_change_nothing(copy, tmp_path, monkeypatch):
    alone = pool(copy, "audio", tmp_path / "one")
    threads = set()
    pool_frames = pooler.pool_frames

    def follow(frames, statistics):
        threads.add(threading.current_thread())
        return pool_frames(frames, statistics)

    monkeypatch.setattr(pooler, "pool_frames", follow)
    monkeypatch.setattr(corpus_module, "_WORTH_A_THREAD", 1)
    together = pool(copy, "audio", tmp_path / "many", n_threads=4)

    np.testing.assert_array_equal(alone.values, together.values)
    assert alone.digest == together.digest
    assert alone.n_frames.tolist() == together.n_frames.tolist()
    assert threads
    assert threading.main_thread() not in threads


def test_small_files_are_left_to_one_thread(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(
        corpus_module.ThreadPoolExecutor, "map", lambda *_: pytest.fail("given to threads")
    )

    assert len(pool(copy, "audio", tmp_path / "cache", n_threads=4).values)


def test_nothing_but_tables_is_left_behind(copy, tmp_path):
    pool(copy, "audio", tmp_path / "cache")

    (table,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert {path.name for path in table.iterdir()} == {"values.npy", "rows.npz", "table.json"}


def test_a_repaired_file_takes_its_row(copy, tmp_path, pooled):
    path = files(copy, "audio")[7]
    content = path.read_bytes()
    path.write_bytes(b"")
    absent = pool(copy, "audio", tmp_path / "cache", missing="allow")
    assert absent.counts["files_unreadable"] == 1
    pooled.clear()

    path.write_bytes(content)
    table = pool(copy, "audio", tmp_path / "cache", missing="allow")

    assert table.present.all()
    assert len(pooled) == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_of_a_file_changes_its_row_in_nothing(copy, tmp_path, dtype, order):
    path = files(copy, "audio")[0]
    frames = np.rint(np.load(path) * 4)
    np.save(path, frames.astype("<f4"))
    expected = pool(copy, "audio", tmp_path / "cache").values.copy()

    np.save(path, np.asarray(frames.astype(dtype), order=order))

    np.testing.assert_allclose(
        pool(copy, "audio", tmp_path / "cache").values, expected, rtol=1e-6, atol=1e-6
    )


def test_an_unknown_modality_is_refused_with_those_there_are(manifest, tmp_path):
    with pytest.raises(ValueError, match="'smell'; expected one of visual, audio, text"):
        pool_manifest(manifest, "smell", cache=tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_pooling_leaves_nothing_half_made(copy, tmp_path):
    process = run(copy, tmp_path / "cache", stop=100)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("audio-*")) == []
    assert len(list((tmp_path / "cache").glob(".audio-*.tmp"))) == 1

    pool(copy, "text", tmp_path / "cache")
    assert list((tmp_path / "cache").glob(".*.tmp")) == []
    table = pool(copy, "audio", tmp_path / "cache")

    whole = pool(copy, "audio", tmp_path / "other")
    np.testing.assert_array_equal(table.values, whole.values)
    assert table.digest == whole.digest


def test_the_temporary_folder_of_a_live_process_is_left_alone(copy, tmp_path):
    def pool_another(done, _):
        if done == 100:
            pool(copy, "text", tmp_path)
            assert len(list(tmp_path.glob(".audio-*.tmp"))) == 1

    table = pool(copy, "audio", tmp_path, progress=pool_another)

    np.testing.assert_array_equal(table.values, pool(copy, "audio", tmp_path / "other").values)


@pytest.fixture
def full_disk(tmp_path):
    """A disk of four pages of memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_pooling_is_refused_rather_than_killed(copy, full_disk):
    command = [sys.executable, "-c", POOL, str(copy), str(full_disk), "-1"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)

    assert process.returncode == 1
    assert "No space left on device" in process.stderr
    assert {path.suffix for path in full_disk.iterdir()} == {".lock"}


def test_a_table_too_large_for_the_disk_leaves_nothing(copy, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            pool(copy, "audio", tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_the_rows_of_a_damaged_table_are_not_taken(copy, tmp_path, pooled):
    whole = pool(copy, "audio", tmp_path / "cache").values.copy()
    (path,) = (tmp_path / "cache").glob("audio-*/values.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    pooled.clear()

    np.testing.assert_array_equal(pool(copy, "audio", tmp_path / "cache").values, whole)
    assert len(pooled) == 150


def test_a_damaged_index_is_made_again(copy, tmp_path, pooled):
    whole = pool(copy, "audio", tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(".audio-*.index.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"npy", b"npz", 1))
    pooled.clear()

    assert pool(copy, "audio", tmp_path / "cache").digest == whole.digest
    assert len(pooled) == 150
    assert path.read_bytes() == content


def test_the_times_of_a_file_that_had_just_changed_prove_nothing(copy, monkeypatch):
    path = files(copy, "audio")[0]
    record = corpus_module._Record(0, *corpus_module._stat_file(path))
    assert not corpus_module._is_unchanged(record, path)

    monkeypatch.setattr(corpus_module, "_SETTLED", -1)
    record = corpus_module._Record(0, *corpus_module._stat_file(path))
    assert corpus_module._is_unchanged(record, path)
    assert not corpus_module._is_unchanged(record._replace(changed=record.changed - 1), path)


@pytest.mark.parametrize("options", [{"frames": "interpolate"}, {"missing": "allow"}])
def test_a_dimension_without_a_finite_frame_is_missing_and_the_clip_stays(
    copy, tmp_path, options
):
    path = files(copy, "audio")[3]
    frames = np.load(path)
    frames[:, [2, 7]] = np.inf
    np.save(path, frames)

    table = pool(copy, "audio", tmp_path, **options)

    (row,) = np.flatnonzero(np.isnan(table.values).any(axis=1))
    assert table.present.all()
    assert table.counts == {"files_with_missing_dimensions": 1}
    pooled = table.values[row].reshape(len(STATISTICS), -1)
    alive = [dimension for dimension in range(10) if dimension not in {2, 7}]
    assert np.isnan(pooled[:, [2, 7]]).all()
    np.testing.assert_array_equal(pooled[:, alive], pool_frames(frames[:, alive], STATISTICS))


def test_an_interrupt_waits_for_no_further_file(manifest, tmp_path, monkeypatch):
    read, n_read = corpus_module._Reader.read, []

    def count(reader, path):
        n_read.append(path)
        time.sleep(0.01)  # the others would end before the interrupt
        return read(reader, path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module, "_WORTH_A_THREAD", 0)
    monkeypatch.setattr(corpus_module._Reader, "read", count)
    options = {"cache": tmp_path, "statistics": ("mean",), "n_threads": 2}
    with pytest.raises(KeyboardInterrupt):
        pool_manifest(manifest, "audio", progress=interrupt, **options)
    # Two of ten groups of 16 had begun, and one more may have.
    assert len(n_read) <= 5 * 16
