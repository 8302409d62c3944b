"""What was pooled is kept: through kills, changes, damage and company."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.pooling import corpus as corpus_module
from toolkit.pooling import corpus as drafts
from toolkit.pooling import corpus as rows_module
from toolkit.pooling import pool_manifest

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


@pytest.fixture
def pooled(monkeypatch):
    """The sequences that are really pooled, by their first number."""
    seen = []
    pool_frames = rows_module.pool_frames

    def follow(frames, statistics):
        seen.append(frames[0, 0])
        return pool_frames(frames, statistics)

    monkeypatch.setattr(rows_module, "pool_frames", follow)
    return seen


def pool(folder, cache, **options):
    manifest = read_manifest(folder / "dataset.csv")
    return pool_manifest(manifest, "audio", statistics=STATISTICS, cache=cache, **options)


def files(folder):
    return sorted((folder / "features" / "acoustic_features").rglob("*.npy"))


def run(folder, cache, stop=-1):
    command = [sys.executable, "-c", POOL, str(folder), str(cache), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_pooling_goes_on_where_it_was(copy, tmp_path, pooled):
    process = run(copy, tmp_path / "cache", stop=100)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    table = pool(copy, tmp_path / "cache")

    assert len(pooled) == 150 - 101
    whole = pool(copy, tmp_path / "other")
    np.testing.assert_array_equal(table.values, whole.values)
    assert table.digest == whole.digest


def test_two_processes_do_not_harm_each_other(copy, tmp_path):
    processes = [run(copy, tmp_path / "cache") for _ in range(2)]
    digests = {process.communicate()[0] for process in processes}

    assert [process.returncode for process in processes] == [0, 0]
    assert digests == {f"{pool(copy, tmp_path / 'cache').digest}\n"}


def test_only_a_changed_file_is_pooled_again(copy, tmp_path, pooled):
    before = pool(copy, tmp_path / "cache").values.copy()
    path = files(copy)[3]
    np.save(path, np.load(path) + 1)
    pooled.clear()

    after = pool(copy, tmp_path / "cache").values

    assert len(pooled) == 1
    assert (before != after).any(axis=1).sum() == 1


def test_only_an_added_file_is_pooled(copy, tmp_path, pooled):
    table = copy / "dataset.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    pool(copy, tmp_path / "cache")
    pooled.clear()

    table.write_text("".join(lines))
    after = pool(copy, tmp_path / "cache")

    assert len(pooled) == 1
    np.testing.assert_array_equal(after.values, pool(copy, tmp_path / "fresh").values)


def test_of_a_removed_file_nothing_is_pooled_again(copy, tmp_path, pooled):
    pool(copy, tmp_path / "cache")
    table = copy / "dataset.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    pooled.clear()

    assert len(pool(copy, tmp_path / "cache").values) == 149
    assert pooled == []


def test_of_a_flipped_bit_only_its_row_is_pooled_again(copy, tmp_path, pooled):
    whole = pool(copy, tmp_path / "cache").values.copy()
    (path,) = (tmp_path / "cache").glob("audio-*/values.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    pooled.clear()

    np.testing.assert_array_equal(pool(copy, tmp_path / "cache").values, whole)
    assert len(pooled) == 1


def test_settled_files_are_not_even_read_again(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "_SETTLED", -1)
    pool(copy, tmp_path / "cache")
    monkeypatch.setattr(corpus_module.Reader, "read", lambda *_: pytest.fail("read again"))

    pool(copy, tmp_path / "cache")


def test_a_file_that_had_just_changed_is_read_again(copy, tmp_path):
    first = pool(copy, tmp_path / "cache")
    path = files(copy)[0]
    frames, times = np.load(path), path.stat()
    frames[0] += 1
    np.save(path, frames)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert pool(copy, tmp_path / "cache").digest != first.digest


def test_the_times_of_a_file_that_had_just_changed_prove_nothing(copy):
    path = files(copy)[0]
    note = rows_module.note_file(0, path)
    note["seen"] = note["changed"] + 1_000_000

    assert not rows_module.is_unchanged(note, path)
    note["seen"] += 10_000_000_000
    assert rows_module.is_unchanged(note, path)
    note["changed"] -= 1
    assert not rows_module.is_unchanged(note, path)


@pytest.fixture
def begun(copy, tmp_path, monkeypatch):
    """The draft of a pooling that a broken last file stopped; times of files are trusted."""
    monkeypatch.setattr(drafts, "_SETTLED", -1)
    files(copy)[-1].write_bytes(b"")
    with pytest.raises(ManifestError):
        pool(copy, tmp_path / "cache")
    (draft,) = (tmp_path / "cache").glob(".audio-*.draft")
    return draft


def test_notes_that_are_torn_or_spoilt_are_left_out(begun, copy, tmp_path, pooled):
    journal = begun / "journal"
    content = bytearray(journal.read_bytes())
    assert len(content) == 149 * drafts.NOTE.itemsize
    content[drafts.NOTE.fields["n_frames"][1]] ^= 1
    journal.write_bytes(content[:-3])

    for expected in (2, 0):
        pooled.clear()
        with pytest.raises(ManifestError):
            pool(copy, tmp_path / "cache")
        assert len(pooled) == expected


def test_a_row_that_never_reached_the_disk_is_pooled_again(begun, copy, tmp_path, pooled):
    values = begun / "values.npy"
    content = bytearray(values.read_bytes())
    content[-4 * 30 * 150 : -4 * 30 * 149] = bytes(4 * 30)
    values.write_bytes(content)
    pooled.clear()

    with pytest.raises(ManifestError):
        pool(copy, tmp_path / "cache")

    assert len(pooled) == 1


@pytest.mark.usefixtures("begun")
def test_a_draft_of_other_utterances_is_not_gone_on_with(copy, tmp_path):
    table = copy / "dataset.csv"
    lines = table.read_text().splitlines(keepends=True)
    last = files(copy)[-1].name.removesuffix(".npy")
    table.write_text("".join([lines[0], *(line for line in lines[2:] if last not in line)]))

    values = pool(copy, tmp_path / "cache").values

    np.testing.assert_array_equal(values, pool(copy, tmp_path / "fresh").values)


def test_threads_change_nothing(copy, tmp_path, monkeypatch):
    alone = pool(copy, tmp_path / "one")
    threads = set()
    pool_frames = rows_module.pool_frames

    def follow(frames, statistics):
        threads.add(threading.current_thread())
        return pool_frames(frames, statistics)

    monkeypatch.setattr(rows_module, "pool_frames", follow)
    monkeypatch.setattr(corpus_module, "_WORTH_A_THREAD", 1)
    together = pool(copy, tmp_path / "many", n_threads=4)

    np.testing.assert_array_equal(alone.values, together.values)
    assert alone.digest == together.digest
    assert alone.n_frames.tolist() == together.n_frames.tolist()
    assert threads
    assert threading.main_thread() not in threads


def test_small_files_are_left_to_one_thread(copy, tmp_path, monkeypatch):
    monkeypatch.delattr(corpus_module, "ThreadPoolExecutor")

    assert len(pool(copy, tmp_path / "cache", n_threads=4).values)


def test_nothing_but_tables_is_left_behind(copy, tmp_path):
    pool(copy, tmp_path / "cache")

    (table,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert {path.name for path in table.iterdir()} == {"values.npy", "rows.npz", "table.json"}


def test_a_mended_file_takes_its_place(copy, tmp_path, pooled):
    path = files(copy)[7]
    content = path.read_bytes()
    path.write_bytes(b"")
    absent = pool(copy, tmp_path / "cache", missing="allow")
    assert absent.counts["files_unreadable"] == 1
    pooled.clear()

    path.write_bytes(content)
    table = pool(copy, tmp_path / "cache", missing="allow")

    assert table.present.all()
    assert len(pooled) == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_of_a_file_changes_its_row_in_nothing(copy, tmp_path, dtype, order):
    path = files(copy)[0]
    frames = np.rint(np.load(path) * 4)
    np.save(path, frames.astype("<f4"))
    expected = pool(copy, tmp_path / "cache").values.copy()

    np.save(path, np.asarray(frames.astype(dtype), order=order))

    np.testing.assert_allclose(
        pool(copy, tmp_path / "cache").values, expected, rtol=1e-6, atol=1e-6
    )


def test_an_unknown_modality_is_refused_with_those_there_are(manifest, tmp_path):
    with pytest.raises(ValueError, match="'smell'; expected one of visual, audio, text"):
        pool_manifest(manifest, "smell", cache=tmp_path)


def test_a_row_begun_for_another_file_is_not_taken(copy, tmp_path, monkeypatch):
    last = files(copy)[-1]
    content = last.read_bytes()
    last.write_bytes(b"")
    with pytest.raises(ManifestError):
        pool(copy, tmp_path / "cache")
    last.write_bytes(content)
    table = copy / "dataset.csv"
    one, other = (str(path.relative_to(copy)) for path in files(copy)[:2])
    table.write_text(
        table.read_text().replace(one, "?").replace(other, one).replace("?", other)
    )
    # Files written within one tick of the clock, and of one size, look alike.
    monkeypatch.setattr(corpus_module, "is_unchanged", lambda *_: True)

    swapped = pool(copy, tmp_path / "cache").values

    np.testing.assert_array_equal(swapped, pool(copy, tmp_path / "fresh").values)
