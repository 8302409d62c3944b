"""Files are there whole or not at all; one run a folder."""

import hashlib
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest

from toolkit.files import (
    CHECKSUMS,
    FolderError,
    format_csv,
    format_json,
    hash_folder,
    lock_folder,
    open_archive,
    read_archive,
    read_checksums,
    read_json,
    write_archive,
    write_folder,
    write_text,
)

CONTENT = {"unit.json": b'{"fold": 1}\n', "test.npy": bytes(range(20))}


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


def write_content(folder, content=CONTENT):
    for name, each in content.items():
        (folder / name).write_bytes(each)


def test_an_archive_holds_the_files_uncompressed_with_their_checksums(tmp_path):
    path = tmp_path / "units" / "text" / "01.zip"
    write_archive(path, write_content)
    sums = {name: hashlib.sha256(each).hexdigest() for name, each in CONTENT.items()}

    assert read_archive(path) == CONTENT | {CHECKSUMS: format_json(sums).encode()}
    assert read_archive(path, "test.npy") == {"test.npy": CONTENT["test.npy"]}
    assert all(each in path.read_bytes() for each in CONTENT.values())
    with ZipFile(path) as archive:
        assert archive.testzip() is None
    assert [p.name for p in path.parent.iterdir()] == ["01.zip"]
    with pytest.raises(FolderError, match=r"01\.zip is damaged \(.*model\.txt"):
        read_archive(path, "model.txt")


def test_equal_files_are_equal_archives(tmp_path):
    def write_otherwise(folder):
        write_content(folder, dict(reversed(CONTENT.items())))
        for file in folder.iterdir():
            os.utime(file, (1e9, 1e9))
            file.chmod(0o600)

    write_archive(tmp_path / "a.zip", write_content)
    write_archive(tmp_path / "b.zip", write_otherwise)

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("step", ["os.fsync", "zipfile.ZipFile.writestr", "os.replace"])
def test_a_failed_archive_leaves_the_old_one_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "01.zip"
    write_archive(path, write_content)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_archive(path, lambda folder: write_content(folder, {"unit.json": b"new"}))

    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["01.zip"]


def test_an_archive_is_opened_as_the_folder_that_it_was_made_of(tmp_path):
    write_archive(tmp_path / "01.zip", write_content)
    write_folder(tmp_path / "01", write_content)

    with open_archive(tmp_path / "01.zip") as opened:
        assert hash_folder(opened) == hash_folder(tmp_path / "01")
        assert read_checksums(opened) == read_checksums(tmp_path / "01")
        assert read_json(opened / "unit.json") == {"fold": 1}


@pytest.mark.parametrize(
    "step", ["os.fsync", "pathlib.Path.rename", "pathlib.Path.write_bytes"]
)
def test_a_folder_whose_writing_fails_is_whole_or_absent(tmp_path, monkeypatch, step):
    folder = tmp_path / "text"
    write_folder(folder, write_content)
    before = hash_folder(folder)

    def fail(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        with pytest.raises(OSError, match="No space left"):
            write_folder(folder, lambda new: write_content(new, {"unit.json": b"new"}))

    # The old one goes just before the new one gets its name.
    assert folder.exists() == (step != "pathlib.Path.rename")
    if folder.exists():
        assert hash_folder(folder) == before == read_checksums(folder)
    write_folder(folder, write_content)
    assert hash_folder(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_a_folder_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch, synced):
    named, rename = [], Path.rename

    def note_name(path, target):
        parts = [path, *path.iterdir()]
        named.append((target.name, {part.stat().st_ino for part in parts} <= synced))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", note_name)
    write_folder(tmp_path / "text", write_content)

    assert named == [("text", True)]
    assert tmp_path.stat().st_ino in synced


def zip_named(*names, compression=0):
    def make(path):
        with ZipFile(path, "w", compression) as archive:
            for name in names:
                archive.writestr(ZipInfo(name), b"a" * 20, compression)

    return make


def change_entry(offset, form, *values):
    """Write numbers at a place of the last entry of the list at an archive's end."""

    def make(path):
        zip_named("a.txt", "b.txt")(path)
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, content.rindex(b"PK\x01\x02") + offset, *values)
        path.write_bytes(content)

    return make


def name_twice(path):
    zip_named("a.txt", "b.txt")(path)
    path.write_bytes(path.read_bytes().replace(b"b.txt", b"a.txt"))


def add_far_place(path):
    """Say in the form for large archives that a member begins 2**64 - 1 bytes into the file."""
    entry = ZipInfo("a.txt")
    entry.extra = struct.pack("<HHQ", 1, 8, 0xFFFFFFFFFFFFFFFF)
    with ZipFile(path, "w") as archive:
        archive.writestr(entry, b"a" * 20)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 42, 0xFFFFFFFF)
    path.write_bytes(content)


FOREIGN, DAMAGED = r"a\.zip is no archive of finished work\.", r"a\.zip is damaged \("
CRAFTED = {
    "compressed": (zip_named("a.txt", compression=ZIP_DEFLATED), FOREIGN),
    "one name twice": (name_twice, FOREIGN),
    "nested": (zip_named("sub/a.txt"), FOREIGN),
    "a folder": (zip_named("sub/"), FOREIGN),
    "absolute": (zip_named("/etc/passwd"), FOREIGN),
    "a parent": (zip_named(".."), FOREIGN),
    "beside": (zip_named("../a.txt"), FOREIGN),
    "of Windows": (zip_named("..\\a.txt"), FOREIGN),
    "a drive": (zip_named("C:a.txt"), FOREIGN),
    "hidden": (zip_named(".bashrc"), FOREIGN),
    "two gigabytes": (change_entry(20, "<II", 2**31, 2**31), FOREIGN),
    "a little more than the file": (change_entry(20, "<II", 300, 300), FOREIGN),
    "another size": (change_entry(20, "<II", 21, 21), DAMAGED),
    "another checksum": (change_entry(16, "<I", 7), DAMAGED),
    "encrypted": (change_entry(8, "<H", 1), DAMAGED),
    "a name of no encoding": (change_entry(46, "5s", b"\xff.txt"), FOREIGN),
    "a name not in UTF-8": (
        lambda path: (
            change_entry(46, "5s", b"\xff.txt")(path)
            or path.write_bytes(flag_utf8(path.read_bytes()))
        ),
        DAMAGED,
    ),
    "a place beyond the file": (change_entry(42, "<I", 2**31 - 1), DAMAGED),
    "a place beyond all files": (add_far_place, DAMAGED),
    "no bytes": (lambda path: path.write_bytes(b""), DAMAGED),
    "text": (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), DAMAGED),
}


def flag_utf8(content):
    at = content.rindex(b"PK\x01\x02") + 8
    return content[:at] + struct.pack("<H", 0x800) + content[at + 2 :]


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_archive_is_refused(tmp_path, name):
    make, message = CRAFTED[name]
    make(tmp_path / "a.zip")

    with pytest.raises(FolderError, match=message):
        read_archive(tmp_path / "a.zip")
    with pytest.raises(FolderError, match=message), open_archive(tmp_path / "a.zip"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_bit_that_flips_anywhere_never_changes_a_file(tmp_path):
    path = tmp_path / "a.zip"
    write_archive(path, write_content)
    sound, files = path.read_bytes(), read_archive(path)
    n_refused = 0
    for place in range(0, 8 * len(sound), 3):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = read_archive(path)
        except FolderError:
            n_refused += 1
        else:  # a date, or a member that is left out: a reader compares the checksums
            assert found.items() <= files.items(), place

    assert n_refused > len(sound)


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    write_archive(path, write_content)
    sound = path.read_bytes()
    for n in range(len(sound)):
        path.write_bytes(sound[:n])
        with pytest.raises(FolderError, match=r"a\.zip is damaged"):
            read_archive(path)
