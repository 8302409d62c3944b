"""Names of dimensions: read from text, npz and HDF5, and refused with the file's name."""

import zipfile

import h5py
import numpy as np
import pytest

from toolkit.data import SequenceError, read_sequence
from toolkit.data.dimension_names import _check_names, _read_common, _read_text

NAMES = ("F0 mean", "loudness, \u0394", "=HNR")
FRAMES = np.arange(12, dtype=np.float32).reshape(4, 3)


def write_npz(path, names=NAMES, **arrays):
    np.savez(path, **(arrays or {"features": FRAMES}), names=np.array(names))
    return path


def write_h5(path, named):
    with h5py.File(path, "w") as file:
        for array, names in named.items():
            file[array] = FRAMES
            if names is not None:
                file[array].attrs["names"] = names
    return [path.with_name(f"{path.name}#{array}") for array in named]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_a_text_file_has_a_name_per_line(tmp_path, end, last):
    path = tmp_path / "names.txt"
    text = "\ufeff" + "\n".join([" F0 mean ", *NAMES[1:]]) + last
    path.write_text(text.replace("\n", end), encoding="utf-8", newline="")

    assert _read_text(path) == NAMES


def test_an_array_of_an_npz_file_names_the_dimensions_and_is_no_feature(tmp_path):
    path = write_npz(tmp_path / "u1.npz")

    assert _read_common([None, path]) == NAMES
    np.testing.assert_array_equal(read_sequence(path), FRAMES)
    both = write_npz(tmp_path / "all.npz", u1=FRAMES, u2=FRAMES)
    assert _read_common([f"{both}#u1", f"{both}#u2"]) == NAMES
    with pytest.raises(SequenceError, match="holds 3 arrays"):
        read_sequence(both)


@pytest.mark.parametrize("names", [list(NAMES), np.array([n.encode() for n in NAMES])])
def test_an_attribute_of_a_data_set_names_the_dimensions(tmp_path, names):
    paths = write_h5(tmp_path / "all.h5", {"u1": names, "u2": None})

    assert _read_common(paths) == NAMES


def test_files_without_names_have_none(tmp_path):
    np.save(tmp_path / "u1.npy", FRAMES)
    np.savez(tmp_path / "u2.npz", FRAMES)
    damaged, absent = tmp_path / "u3.npz", tmp_path / "u4.npz"
    damaged.write_bytes(b"PK")
    paths = [tmp_path / "u1.npy", tmp_path / "u2.npz", damaged, absent]
    paths += write_h5(tmp_path / "all.h5", {"u5": None})
    paths.append(tmp_path / "all.h5#u6")

    assert _read_common(paths) == ()


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (("F0 mean", "energy", "=HNR"), "dimension 1 is 'energy' and 'loudness"),
        (NAMES[:2], "2 names and 3"),
        ((*NAMES[1:], NAMES[0]), "dimension 0 is 'loudness"),
    ],
)
def test_files_whose_names_differ_are_refused(tmp_path, names, difference):
    first, other = write_npz(tmp_path / "a.npz"), write_npz(tmp_path / "b.npz", names)

    with pytest.raises(SequenceError) as refused:
        _read_common([first, other])

    assert str(refused.value).startswith(
        f"{other}#names names the dimensions differently from {first}#names: {difference}"
    )


def test_data_sets_of_one_file_whose_names_differ_are_refused(tmp_path):
    paths = write_h5(tmp_path / "all.h5", {"u1": list(NAMES), "u2": list(NAMES[::-1])})

    with pytest.raises(SequenceError, match=r"of .*#u2 names the dimensions differently"):
        _read_common(paths)


@pytest.mark.parametrize(
    "names",
    [np.array([1, 2, 3]), np.array([["a", "b"]]), np.array(["a", "b"], dtype=object)],
    ids=["numbers", "table", "objects"],
)
def test_an_array_that_is_no_list_of_texts_is_refused(tmp_path, names):
    np.savez(tmp_path / "a.npz", features=FRAMES, names=names)

    with pytest.raises(SequenceError, match=r"a\.npz#names"):
        _read_common([tmp_path / "a.npz"])


@pytest.mark.parametrize("claim", ["(3000000,)", "(99999999999,)"])
def test_names_that_claim_more_than_names_need_are_refused(tmp_path, claim):
    header = f"{{'descr': '<U9', 'fortran_order': False, 'shape': {claim}, }}".ljust(117)
    start = b"\x93NUMPY\x01\x00v\x00" + header.encode() + b"\n"
    size = 108_000_000 if claim == "(3000000,)" else 0
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names.npy", start + bytes(size))

    with pytest.raises(SequenceError, match=r"a.npz#names is (too large|no list of names)"):
        _read_common([tmp_path / "a.npz"])


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("a", "", "c"), "name 2 is empty"),
        (("a", "b", "a"), "names 1 and 3 are both 'a'"),
        (("a", "b"), "has 2 names and modality 'prosody' 3 dimensions"),
        (("a", "b", "c", "d"), "has 4 names and modality 'prosody' 3 dimensions"),
        (("a", "b\u202e", "c"), "cannot be printed"),
        (("a", "b" * 201, "c"), "longer than 200 characters"),
    ],
)
def test_names_that_are_not_one_different_text_per_dimension_are_refused(names, fault):
    with pytest.raises(SequenceError, match=r"names\.txt") as refused:
        _check_names(names, 3, modality="prosody", source="names.txt")

    assert fault in str(refused.value)
    _check_names(NAMES, 3, modality="prosody", source="names.txt")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["absent", "no text"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SequenceError, match=r"names.txt cannot be read: .* one name per line"):
        _read_text(path)
