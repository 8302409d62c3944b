import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from toolkit.data import sequences
from toolkit.data.headers import SequenceError
from toolkit.data.sequences import read_header, read_sequence

FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def save(path, array, version=None):
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    return path


def write(path, header, numbers=b"", version=2):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header + numbers)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "Ses01F_impro01_F001.npy"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
@pytest.mark.parametrize("layout", ["<C", "<F", ">C", ">F"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("f2", np.float32),
        ("f4", np.float32),
        ("f8", np.float64),
        ("i1", np.float32),
        ("u1", np.float32),
        ("i2", np.float32),
        ("u2", np.float32),
        ("i4", np.float64),
        ("u4", np.float64),
        ("i8", np.float64),
        ("u8", np.float64),
    ],
)
def test_every_layout_of_the_same_numbers_reads_the_same(path, version, layout, code, expected):
    mark, order = layout
    numbers = np.arange(12).reshape(4, 3).astype(mark + code, order=order)
    save(path, numbers, version)

    sequence = read_sequence(path)

    assert sequence.dtype == np.dtype(expected)
    assert sequence.dtype.isnative
    assert sequence.flags.c_contiguous
    assert_array_equal(sequence, np.arange(12).reshape(4, 3))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8, np.float16])
def test_the_widest_values_of_small_types_are_exact(path, dtype):
    info = np.finfo(dtype) if dtype is np.float16 else np.iinfo(dtype)
    np.save(path, np.array([info.min, info.max], dtype=dtype))

    assert read_sequence(path).tolist() == [float(info.min), float(info.max)]


def test_integers_beyond_float32_keep_their_value(path):
    np.save(path, np.array([2**24 + 1], dtype=np.int32))

    assert read_sequence(path).tolist() == [2.0**24 + 1]


def test_values_that_are_not_finite_are_kept(path):
    np.save(path, np.array([[np.nan, np.inf], [-np.inf, 1]], dtype=np.float32))

    assert_array_equal(read_sequence(path), [[np.nan, np.inf], [-np.inf, 1]])


def test_a_fixed_size_feature_has_no_time_axis(path):
    np.save(path, np.arange(768, dtype=np.float32))

    assert read_header(path).shape == (768,)
    assert read_sequence(path).shape == (768,)


def test_one_row_is_a_sequence_of_one_frame(path):
    np.save(path, np.arange(3, dtype=np.float32)[None])

    header = read_header(path)

    assert (header.shape, header.n_dims) == ((1, 3), 3)


def test_the_header_says_where_and_how_the_numbers_lie(path):
    np.save(path, np.asfortranarray(FRAMES.astype(">f8")))

    header = read_header(path)

    assert header.shape == (4, 3)
    assert header.dtype == np.dtype(">f8")
    assert header.fortran_order
    assert header.offset + header.n_bytes == path.stat().st_size


def test_a_path_may_be_text(path):
    np.save(path, FRAMES)

    assert_array_equal(read_sequence(str(path)), FRAMES)


def test_a_header_of_another_writer_is_understood(path):
    header = b"{'shape': (4L, 3L), 'fortran_order': False, 'descr': '<f4'}" + b" " * 5000
    write(path, header, FRAMES.astype("<f4").tobytes())

    assert_array_equal(read_sequence(path), FRAMES)


REFUSED_ARRAYS = {
    "object": (np.array([{"a": 1}], dtype=object), "Python objects.*unpickling.*any code"),
    "unicode": (np.array(["anger"]), "type <U5 and holds text; save numbers"),
    "bytes": (np.array([b"anger"]), r"type \|S5 and holds text; save numbers"),
    "complex": (np.ones((4, 3), complex), "type <c16 and holds complex numbers"),
    "records": (np.zeros(4, dtype=[("pitch", "f4"), ("energy", "f4")]), "several fields"),
    "bool": (np.ones((4, 3), bool), "true/false values; if they are features"),
    "raw bytes": (np.zeros((4, 3), "V2"), "raw bytes .bfloat16"),
    "dates": (np.zeros(3, "M8[s]"), "holds dates"),
    "time spans": (np.zeros(3, "m8[ms]"), "holds time spans"),
    "no axis": (np.float32(1), r"a single number without an axis.*shape \(1,\)"),
    "batch axis": (np.ones((1, 4, 3)), r"3 axes, shape \(1, 4, 3\).*Save array\[0\]"),
    "many axes": (np.ones((4, 3, 2, 2)), r"4 axes.*Save array\.reshape"),
    "no frames": (np.ones((0, 3)), r"no frames, shape \(0, 3\).*Leave its cell"),
    "no dimensions": (np.ones((4, 0)), r"no dimensions, shape \(4, 0\).*a frame"),
    "nothing": (np.ones(0), r"no dimensions, shape \(0,\)"),
}


@pytest.mark.parametrize("name", REFUSED_ARRAYS)
@pytest.mark.parametrize("read", [read_header, read_sequence])
def test_an_array_that_is_no_sequence_is_refused_by_its_own_sentence(path, name, read):
    array, message = REFUSED_ARRAYS[name]
    np.save(path, array)

    with pytest.raises(SequenceError, match=f"{re.escape(str(path))}.*{message}"):
        read(path)


REFUSED_BYTES = {
    "empty": (b"", r"is empty \(0 bytes\).*leave its cell"),
    "first bytes": (b"\x93NUM", "cut short inside its first bytes"),
    "no version": (b"\x93NUMPY", "cut short inside its header"),
    "no header": (b"\x93NUMPY\x01\x00\x76\x00", "cut short inside its header"),
    "zip": (b"PK\x03\x04" + bytes(60), "no .npy file but an .npz archive"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "an .npz archive without any array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "no .npy file but an HDF5 file"),
    "pickle": (b"\x80\x05\x95", "a Python pickle, which can run any code"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html>", "a web page"),
    "text": (b"0.1,0.2\n", r"no .npy file: it begins with b'0\.1,0\.', expected"),
    "version": (b"\x93NUMPY\x09\x00\x02\x00{}", r"version 9\.0 of the \.npy format"),
    "long header": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        "announces a header of 4,294,967,295 bytes",
    ),
}


@pytest.mark.parametrize("name", REFUSED_BYTES)
def test_a_file_that_is_something_else_is_refused_by_its_own_sentence(path, name):
    content, message = REFUSED_BYTES[name]
    path.write_bytes(content)

    with pytest.raises(SequenceError, match=f"{re.escape(str(path))}.*{message}"):
        read_sequence(path)


def test_a_header_that_describes_no_array_is_refused_with_the_name_of_the_file(path):
    write(path, b"__import__('os').getpid()", version=3)

    with pytest.raises(SequenceError, match=f"{re.escape(str(path))} has an unreadable header"):
        read_header(path)


def test_a_small_file_that_claims_a_huge_array_is_refused_before_memory_is_taken(
    path, monkeypatch
):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 1000), }"
    write(path, header, bytes(64))
    monkeypatch.setattr(
        sequences.np, "empty", lambda *_args, **_named: pytest.fail("allocated")
    )

    with pytest.raises(SequenceError, match=r"cut short: shape .* needs 40,000,000,\d+ bytes"):
        read_sequence(path)


@pytest.mark.parametrize("n_cut", [1, 4, 47])
def test_a_file_cut_short_is_refused(path, n_cut):
    np.save(path, FRAMES)
    path.write_bytes(path.read_bytes()[:-n_cut])

    with pytest.raises(SequenceError, match=r"cut short: shape \(4, 3\) of float32 needs"):
        read_sequence(path)


def test_a_second_array_in_the_file_is_refused(path):
    with path.open("wb") as file:
        np.save(file, FRAMES)
        np.save(file, FRAMES)

    with pytest.raises(
        SequenceError, match=r"176 bytes after its array.*two arrays were saved"
    ):
        read_sequence(path)


def test_a_missing_file_is_refused(path):
    with pytest.raises(SequenceError, match=r"does not exist\. Leave its cell"):
        read_sequence(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(SequenceError, match="is a folder"):
        read_sequence(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")
def test_a_pipe_is_refused_without_waiting_for_a_writer(path):
    os.mkfifo(path)

    with pytest.raises(SequenceError, match="is a device or a pipe"):
        read_sequence(path)


def test_a_name_that_no_system_accepts_is_refused():
    with pytest.raises(SequenceError, match=r"cannot be opened: .*embedded null"):
        read_sequence(Path("a\0b.npy"))


def test_a_file_that_may_not_be_read_is_refused(path, monkeypatch):
    # The user that runs the tests may be allowed everything, so the answer is acted.
    np.save(path, FRAMES)

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sequences.os, "open", refuse)
    with pytest.raises(SequenceError, match="may not be read by this user"):
        read_sequence(path)


def test_a_disk_that_fails_while_reading_is_named(path, monkeypatch):
    np.save(path, FRAMES)

    class Failing(sequences.FileIO):
        def read(self, *_args):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sequences, "FileIO", Failing)
    with pytest.raises(SequenceError, match=r"cannot be read: .*Input/output error"):
        read_header(path)


def test_a_file_that_shrinks_while_it_is_read_is_named(path, monkeypatch):
    np.save(path, FRAMES)
    parse = sequences._parse

    def parse_and_cut(*args):
        header = parse(*args)
        os.truncate(path, header.offset + 8)
        return header

    monkeypatch.setattr(sequences, "_parse", parse_and_cut)
    with pytest.raises(SequenceError, match="became shorter while it was read"):
        read_sequence(path)


def test_no_descriptor_is_left_open(path):
    np.save(path, np.array(["anger"]))
    before = os.dup(0)
    os.close(before)

    for read in (read_header, read_sequence):
        with pytest.raises(SequenceError, match="holds text"):
            read(path)
        with pytest.raises(SequenceError, match="is a folder"):
            read(path.parent)

    after = os.dup(0)
    os.close(after)
    assert after == before


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_damaged_file_is_read_as_numpy_reads_it_or_refused(path, data):
    np.save(path, FRAMES)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        byte = data.draw(st.sampled_from(b"{}(),'0123456789<>|fui \x00\xff"))
        content[data.draw(st.integers(0, 75))] = byte
    path.write_bytes(content)

    try:
        sequence = read_sequence(path)
    except SequenceError:
        return

    assert_array_equal(sequence, np.load(path, allow_pickle=False))
