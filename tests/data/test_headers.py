import numpy as np
import pytest

from toolkit.data.headers import SequenceError, SequenceHeader, _describe_other, _parse_header


def header(**fields):
    return repr({"descr": "<f4", "fortran_order": False, "shape": (4, 3)} | fields).encode()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }   \n",
        b"{'shape': (4, 3), 'fortran_order': False, 'descr': '<f4'}",
        b"{'shape': (4L, 3L), 'fortran_order': False, 'descr': '<f4'}",
        b"\n{'descr':'<f4','fortran_order':False,'shape':(4,3),}  \n",
        b"{'descr': '=f4', 'fortran_order': False, 'shape': (4, 3), }",
        b"{'descr': 'f4', 'fortran_order': False, 'shape': (4, 3), }",
    ],
    ids=["numpy", "other order", "python 2", "other spacing", "native", "no byte order"],
)
def test_every_spelling_of_a_header_says_the_same(text, version):
    assert _parse_header(text, "a.npy", version=version) == ((4, 3), np.dtype("<f4"), False)


@pytest.mark.parametrize("shape", [(), (0,), (768,), (4, 3), (0, 3), (2, 3, 4)], ids=str)
def test_any_shape_is_read(shape):
    assert _parse_header(header(shape=shape), "a.npy")[0] == shape


@pytest.mark.parametrize("fortran_order", [True, False])
@pytest.mark.parametrize("descr", ["<f8", ">f8", "|u1", "|i1", "<u2", ">i8", "<f2"])
def test_byte_order_and_memory_order_are_read(descr, fortran_order):
    text = header(descr=descr, fortran_order=fortran_order)

    assert _parse_header(text, "a.npy") == ((4, 3), np.dtype(descr), fortran_order)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"__import__('os').getpid()", "unreadable header"),
        (b"(" * 9000, "unreadable header"),
        (b"\xff{'descr'", "unreadable header"),
        (b"{[]: 1}", "unreadable header"),
        (b"\x00", "unreadable header"),
        (b"[1, 2]", "describes no array"),
        (b"{'descr': '<f4', 'fortran_order': False}", "describes no array"),
        (header(more=1), "describes no array"),
        (header(fortran_order=1), "describes no array"),
        (header(shape=[4, 3]), "describes no array"),
        (header(shape=43), "describes no array"),
        (header(shape=(4, "3")), "describes no array"),
        (header(shape=(-1, 3)), "a shape of numbers from 0"),
        (header(shape=(True, 3)), "describes no array"),
        (header(shape=(10**4000, 3)), "describes no array"),
    ],
    ids=[
        *["code", "deep", "no text", "unhashable", "null", "list", "no shape", "more"],
        *["order", "list shape", "number", "text size", "below zero", "true", "astronomical"],
    ],
)
def test_what_describes_no_array_is_refused(text, message):
    with pytest.raises(SequenceError, match=message):
        _parse_header(text, "a.npy", version=(3, 0))


@pytest.mark.parametrize(
    ("descr", "message"),
    [
        ("|O", "Python objects"),
        ("<U5", "holds text"),
        ("|S5", "holds text"),
        ("|a5", "holds text"),
        ("<c16", "complex numbers"),
        ("|b1", "true/false"),
        ("?", "true/false"),
        ("|V2", "raw bytes"),
        ("<M8[s]", "dates"),
        ("<m8[ms]", "time spans"),
        ("<f16", "expected integers or floats of at most 64 bits"),
        ("<x9", "expected integers or floats of at most 64 bits"),
        ("f4,f4", "unknown type"),
        ("", "unknown type"),
        ([("pitch", "<f4")], "several fields"),
        (("<f4", (2,)), "several fields"),
    ],
    ids=str,
)
def test_what_is_no_plain_number_is_refused(descr, message):
    with pytest.raises(SequenceError, match=message):
        _parse_header(header(descr=descr), "a.npy")


def test_a_file_that_begins_otherwise_is_recognised_by_its_beginning():
    assert "an .npz archive" in _describe_other(b"PK\x03\x04\x14")
    assert "a Python pickle" in _describe_other(b"\x80\x05")
    assert _describe_other(b"\x89HDF\r\n") == (
        "is no .npy file but an HDF5 file; save the array with np.save"
    )
    assert "it begins with b'0.1,0.', expected" in _describe_other(b"0.1,0.2\n")


def test_numbers_beyond_the_memory_are_refused_by_size_and_while_they_are_read():
    header = SequenceHeader((1 << 50, 8), np.dtype("<f4"), fortran_order=False, offset=128)
    too_much = pytest.raises(SequenceError, match=r"a\.npy holds .* more than the memory takes")
    with too_much, header.within_memory("a.npy"):
        pytest.fail("read")

    small = SequenceHeader((1, 8), np.dtype("<f4"), fortran_order=False, offset=128)
    with pytest.raises(SequenceError, match=r"b\.npy holds 32"), small.within_memory("b.npy"):
        raise MemoryError
