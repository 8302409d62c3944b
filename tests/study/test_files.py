"""Files are there whole or not at all; one run a folder."""

import os
import subprocess
import sys
import textwrap

import pytest

from toolkit.files import (
    FolderError,
    format_csv,
    format_json,
    lock_folder,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    write_text(path, "old")

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")

    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        happened.append(("on the disk", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def note_replace(*paths):
        happened.append("named")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "scores.csv", "four")

    assert happened == [("on the disk", 4), "named"]


def test_floats_are_written_so_that_they_read_back_equal():
    assert format_csv(["x"], [[0.1 + 0.2]]) == "x\n0.30000000000000004\n"
    assert (
        format_json({"b": 0.1 + 0.2, "a": 1}) == '{\n "a": 1,\n "b": 0.30000000000000004\n}\n'
    )


def test_cells_are_quoted_where_needed_and_none_is_empty():
    text = format_csv(["system", "value"], [["text", 0.1], ["a,b", None]])

    assert text == 'system,value\ntext,0.1\n"a,b",\n'


def test_a_second_run_is_refused_with_the_owners_process_id(tmp_path):
    code = textwrap.dedent(
        """
        import sys, pathlib
        from toolkit.files import lock_folder
        with lock_folder(pathlib.Path(sys.argv[1])):
            print("locked", flush=True)
            sys.stdin.read()
        """
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout.readline() == "locked\n"

        with (
            pytest.raises(FolderError, match=rf"\(process {owner.pid}\)"),
            lock_folder(tmp_path),
        ):
            pass

        owner.kill()
        owner.wait()
        with lock_folder(tmp_path):  # a dead owner holds nothing
            pass
