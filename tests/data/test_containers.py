"""Arrays in files of many: found by name, read safely, and refused in words."""

import os
import sys
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from pyarrow import parquet

from toolkit.data import ManifestError, SequenceError, read_header, read_manifest, read_sequence
from toolkit.data.containers import split_member
from toolkit.study.cli import main

RNG = np.random.default_rng(0)
ARRAYS = {
    "u1": RNG.normal(size=(5, 3)).astype(np.float32),
    "u2": RNG.normal(size=(2, 3)),
    "u3": np.arange(4),
}


def write_npz(path):
    np.savez(path, **ARRAYS)


def write_packed_npz(path):
    np.savez_compressed(path, **{k: np.asfortranarray(v) for k, v in ARRAYS.items()})


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def write_csd(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[f"COVAREP/data/{name}/features"] = array
            file[f"COVAREP/data/{name}/intervals"] = np.zeros((len(array), 2))
        file["COVAREP/metadata/contents"] = np.zeros(3)


def write_parquet(path, arrays=ARRAYS):
    values = [array.tolist() for name, array in arrays.items() if array.ndim == 2]
    names = [name for name, array in arrays.items() if array.ndim == 2]
    table = pa.table({"utterance": names, "frames": pa.array(values)})
    parquet.write_table(table, path, row_group_size=1)


WRITERS = {
    "features.npz": write_npz,
    "packed.npz": write_packed_npz,
    "features.h5": write_hdf5,
    "features.csd": write_csd,
    "features.parquet": write_parquet,
}


@pytest.fixture(params=list(WRITERS))
def container(request, tmp_path):
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


def test_an_array_is_found_by_its_name(container):
    for name in ("u2", "u1", "u2"):
        sequence = read_sequence(f"{container}#{name}")

        assert_array_equal(sequence, ARRAYS[name])
        assert read_header(f"{container}#{name}").shape == sequence.shape
    assert sequence.flags.c_contiguous
    assert sequence.flags.writeable


@pytest.mark.parametrize("name", ["features.npz", "features.h5", "features.csd"])
def test_an_array_without_a_time_axis_is_one_row(tmp_path, name):
    WRITERS[name](tmp_path / name)

    sequence = read_sequence(tmp_path / f"{name}#u3")

    assert sequence.dtype == np.float64
    assert_array_equal(sequence, ARRAYS["u3"])


def test_a_name_that_is_not_there_is_refused_with_the_nearest(container):
    with pytest.raises(SequenceError, match=r"holds no array 'u22'; did you mean 'u2'\?"):
        read_sequence(f"{container}#u22")


@pytest.mark.parametrize("ending", ["h5", "hdf5", "csd"])
def test_an_id_of_two_sequences_is_refused_and_their_paths_are_read(tmp_path, ending):
    path = tmp_path / f"two.{ending}"
    with h5py.File(path, "w") as file:
        file["COVAREP/data/u1/features"] = ARRAYS["u1"]
        file["OpenFace/data/u1/features"] = ARRAYS["u2"]
        file["OpenFace/data/u3/features"] = ARRAYS["u3"]

    both = (
        rf"COVAREP/data/u1 and OpenFace/data/u1; name one, as in two.{ending}#COVAREP/data/u1"
    )
    for read in (read_sequence, read_header):
        with pytest.raises(SequenceError, match=both):
            read(f"{path}#u1")
    assert_array_equal(read_sequence(f"{path}#COVAREP/data/u1"), ARRAYS["u1"])
    assert_array_equal(read_sequence(f"{path}#OpenFace/data/u1/features"), ARRAYS["u2"])
    assert_array_equal(read_sequence(f"{path}#u3"), ARRAYS["u3"])


def test_without_a_name_there_must_be_one_array(container):
    with pytest.raises(SequenceError, match=r"holds \d arrays .*name one of them"):
        read_sequence(container)


def test_the_only_array_needs_no_name(tmp_path):
    frames = ARRAYS["u1"]
    np.savez(tmp_path / "one.npz", frames)
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["deep/inside"] = frames
    one_row = {"u1": frames}
    write_parquet(tmp_path / "one.parquet", one_row)

    for name in ("one.npz", "one.h5", "one.parquet"):
        assert_array_equal(read_sequence(tmp_path / name), frames)


def test_a_parquet_file_without_ids_is_a_row_a_frame(tmp_path):
    path = tmp_path / "frames.parquet"
    parquet.write_table(pa.table({"x": pa.array(ARRAYS["u1"].tolist())}), path)

    assert_array_equal(read_sequence(path), ARRAYS["u1"])
    with pytest.raises(SequenceError, match="no column file_name_list or utterance or id"):
        read_sequence(f"{path}#u1")


def test_a_changed_file_is_read_anew(container):
    read_sequence(f"{container}#u1")
    before = container.stat()
    ARRAYS["u1"] += 1

    try:
        WRITERS[container.name](container)
        os.utime(container, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))

        assert_array_equal(read_sequence(f"{container}#u1"), ARRAYS["u1"])
    finally:
        ARRAYS["u1"] -= 1


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_file_is_named(container, damage):
    content = container.read_bytes()
    container.write_bytes({"empty": b"", "cut": content[:-300], "other": b"x" * 500}[damage])

    with pytest.raises(SequenceError, match=container.name):
        read_sequence(f"{container}#u1")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    for ending in ("npz", "h5", "parquet"):
        with pytest.raises(SequenceError, match="does not exist"):
            read_sequence(tmp_path / f"absent.{ending}#u1")


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), "has 3 axes"),
        (np.zeros((0, 2)), "has no frames"),
        (np.zeros((2, 2), complex), "complex"),
    ],
)
def test_arrays_that_are_no_sequence_are_refused(tmp_path, ending, array, message):
    path = tmp_path / f"one.{ending}"
    if ending == "npz":
        np.savez(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["x"] = array

    with pytest.raises(SequenceError, match=message):
        read_sequence(path)


def test_objects_in_an_archive_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "one.npz", np.array([{}], dtype=object))

    with pytest.raises(SequenceError, match="Python objects"):
        read_sequence(tmp_path / "one.npz")


def test_a_flipped_bit_in_an_archive_is_seen(tmp_path):
    path = tmp_path / "one.npz"
    np.savez(path, x=np.ones((50, 4)))
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)

    with pytest.raises(SequenceError, match="checksum"):
        read_sequence(path)


def test_what_expands_without_bounds_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.data.headers._MOST_EXPANDED", 1000)
    zeros = np.zeros((4000, 50), dtype=np.float32)
    np.savez_compressed(tmp_path / "zeros.npz", zeros)
    with h5py.File(tmp_path / "zeros.h5", "w") as file:
        file.create_dataset("zeros", data=zeros, compression="gzip")
    write_parquet(tmp_path / "zeros.parquet", {"u1": zeros})

    for ending in ("npz", "h5", "parquet"):
        with pytest.raises(SequenceError, match="would expand to"):
            read_sequence(tmp_path / f"zeros.{ending}")


def test_an_array_that_claims_less_than_its_entry_is_refused(tmp_path):
    path = tmp_path / "long.npz"
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes() + bytes(10_000_000))

    with pytest.raises(SequenceError, match="10,000,000 bytes after its array"):
        read_sequence(path)


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_not_followed(tmp_path, kind):
    write_hdf5(tmp_path / "secret.h5")
    links = {"external": h5py.ExternalLink("secret.h5", "/u1"), "soft": h5py.SoftLink("/u1")}
    with h5py.File(tmp_path / "open.h5", "w") as file:
        file["u2"] = ARRAYS["u2"]
        file["x"] = links[kind]

    with pytest.raises(SequenceError, match="is a link"):
        read_sequence(tmp_path / "open.h5#x")


def test_frames_of_different_lengths_are_refused(tmp_path):
    path = tmp_path / "ragged.parquet"
    values = pa.array([[[1.0, 2.0], [3.0]], None])
    parquet.write_table(pa.table({"id": ["u1", "u2"], "x": values}), path)

    with pytest.raises(SequenceError, match="frames of different lengths"):
        read_sequence(f"{path}#u1")
    with pytest.raises(SequenceError, match="is null"):
        read_sequence(f"{path}#u2")


def test_one_list_column_and_one_row_an_id_are_expected(tmp_path):
    path = tmp_path / "two.parquet"
    lists = pa.array([[1.0], [2.0]])
    parquet.write_table(pa.table({"id": ["u1", "u1"], "x": lists}), path)
    with pytest.raises(SequenceError, match="several rows 'u1'"):
        read_sequence(f"{path}#u1")

    parquet.write_table(pa.table({"id": ["u1", "u2"], "x": lists, "y": lists}), path)
    with pytest.raises(SequenceError, match=r"2 columns of lists \(x, y\)"):
        read_sequence(f"{path}#u1")


@pytest.mark.parametrize(("ending", "library"), [("csd", "h5py"), ("parquet", "pyarrow")])
def test_without_the_library_the_extra_is_named(
    monkeypatch, columns, write_table, ending, library
):
    monkeypatch.setitem(sys.modules, library, None)
    columns["voice"] = [f"voice.{ending}"] * 6
    table = write_table(columns)
    (table.parent / f"voice.{ending}").touch()

    with pytest.raises(ManifestError, match=rf"needs? {library}.*pip install {library}"):
        read_manifest(table)
    with pytest.raises(ImportError, match="pip install"):
        read_sequence(table.parent / f"voice.{ending}")


def test_rows_that_share_a_file_take_the_array_of_their_id(columns, write_table):
    columns["voice"] = ["all.npz"] * 4 + ["all.npz#u2", "own.h5"]
    table = write_table(columns)
    np.savez(table.parent / "all.npz", **{f"u{k}": np.full((2, 2), k) for k in range(1, 5)})
    (table.parent / "own.h5").touch()

    paths = read_manifest(table).paths["voice"]

    assert [split_member(path).name for path in paths] == ["u1", "u2", "u3", "u4", "u2", None]
    assert [read_sequence(path)[0, 0] for path in paths[:5]] == [1, 2, 3, 4, 2]


def test_a_container_must_lie_below_the_table(columns, write_table):
    columns["voice"][0] = "../other.h5#u1"

    with pytest.raises(ManifestError, match="leads out of the folder"):
        read_manifest(write_table(columns))


@pytest.mark.parametrize("name", ["a.npy", "a.h5x", "npz"])
def test_an_ordinary_path_is_no_member(name):
    assert split_member(name) is None


def test_a_container_without_a_name_is_one_all_the_same():
    assert split_member("audio.npz").name is None


def test_numbers_that_lie_in_another_file_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    with h5py.File(tmp_path / "one.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 48)]
        file.create_dataset("x", (2, 3), np.float64, external=outside)

    with pytest.raises(SequenceError, match="keeps its numbers in other files"):
        read_sequence(tmp_path / "one.h5")


def test_an_unusual_packing_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with zipfile.ZipFile(tmp_path / "one.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(tmp_path / "x.npy", "x.npy")

    with pytest.raises(SequenceError, match="packed in an unusual way"):
        read_sequence(tmp_path / "one.npz")


def test_groups_that_hold_one_another_are_listed_once(tmp_path):
    path = tmp_path / "loop.h5"
    with h5py.File(path, "w") as root:
        groups = [root.create_group(f"g{k}") for k in range(30)]
        for one in groups:
            for k, other in enumerate(groups):
                one[f"to{k}"] = other
        root["other"] = np.ones((2, 2))

    with pytest.raises(SequenceError, match=r"loop\.h5"):
        read_sequence(f"{path}#absent")


def test_a_chunk_far_larger_than_its_array_is_refused_and_others_are_read(tmp_path):
    path = tmp_path / "chunk.h5"
    with h5py.File(path, "w") as root:
        for name, rows in (("huge", 3 << 20), ("fair", 64)):
            root.create_dataset(
                name, data=np.ones((4, 2)), maxshape=(None, 2), chunks=(rows, 2)
            )

    with pytest.raises(SequenceError, match=r"huge keeps 64 bytes in chunks of 50,331,648"):
        read_header(f"{path}#huge")
    assert read_sequence(f"{path}#fair").shape == (4, 2)


def make_bfloat16():
    """The type that HDF5 files of PyTorch's bfloat16 have: the upper half of a float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def make_int24():
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(24)
    kind.set_size(3)
    return kind


def write_array(path, values):
    with h5py.File(path, "w") as root:
        root["u1"] = values


def write_raw(path, kind, values):
    """Write an array of a type that NumPy need not have; HDF5 converts the values."""
    with h5py.File(path, "w") as root:
        space = h5py.h5s.create_simple(np.shape(values))
        made = h5py.h5d.create(root.id, b"u1", kind, space)
        if values.any():
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


POWERS = np.array([[0.5, -2.0], [4.0, 96.0]])
READ_TYPES = {
    "half": lambda path: write_array(path, POWERS.astype("<f2")),
    "big half": lambda path: write_array(path, POWERS.astype(">f2")),
    "big float": lambda path: write_array(path, POWERS.astype(">f4")),
    "big double": lambda path: write_array(path, POWERS.astype(">f8")),
    "bfloat16": lambda path: write_raw(path, make_bfloat16(), POWERS),
}


@pytest.mark.parametrize("name", READ_TYPES)
def test_every_type_of_numbers_in_hdf5_keeps_them(tmp_path, name):
    path = tmp_path / "one.h5"
    READ_TYPES[name](path)

    assert_array_equal(read_sequence(f"{path}#u1"), POWERS)


#: Types of HDF5 that are no numbers, and what the refusal says of them.
OTHER_TYPES = {
    "complex": (np.ones((2, 2), "c8"), "of type complex64"),
    "bool": (np.ones((2, 2), bool), "of type bool"),
    "extended": (np.ones((2, 2), "g"), r"of type (float128|float96)"),
    "text": (np.array([b"happy"]), r"of type \|S5"),
    "records": (np.zeros(3, [("pitch", "f4"), ("energy", "f4")]), r"of type \[\('pitch'"),
    "many records": (np.zeros(3, [(f"f{k}", "f4") for k in range(500)]), r"'f5\.{3}; expected"),
    "raw": (np.zeros(3, "V8"), r"of type \|V8"),
    "dates": (np.zeros(3, "M8[s]").astype(h5py.opaque_dtype("M8[s]")), "of type datetime64"),
    "enumeration": (np.zeros(3, h5py.enum_dtype({"sad": 0, "glad": 1})), "names .an HDF5 enum"),
    "texts": (np.array(["happy", "sad"], h5py.string_dtype()), "of type object"),
    "lists": (np.zeros(3, h5py.vlen_dtype(np.int32)), "of type object"),
    "references": (np.zeros(3, h5py.ref_dtype), "of type object"),
    "regions": (np.zeros(3, h5py.regionref_dtype), "of type object"),
    "nothing": (h5py.Empty("f4"), "is empty"),
    "a type": (np.dtype("f4"), "holds no array"),
    "24 bits": (make_int24, "a type that NumPy lacks"),
    "time": (h5py.h5t.UNIX_D32LE.copy, "a type that NumPy lacks"),
    "arrays": (lambda: h5py.h5t.array_create(h5py.h5t.NATIVE_FLOAT, (4,)), "of type"),
}


@pytest.mark.parametrize("name", OTHER_TYPES)
@pytest.mark.parametrize("read", [read_header, read_sequence])
def test_a_type_of_hdf5_that_is_no_number_is_refused_by_name(tmp_path, name, read):
    path = tmp_path / "one.h5"
    values, message = OTHER_TYPES[name]
    if callable(values):
        write_raw(path, values(), np.zeros((2, 2)))
    else:
        with h5py.File(path, "w") as root:
            if isinstance(values, np.ndarray):
                root.create_dataset("u1", values.shape, values.dtype)
            else:
                root["u1"] = values

    with pytest.raises(SequenceError, match=rf"one\.h5#u1 .*{message}") as refused:
        read(f"{path}#u1")
    assert len(str(refused.value)) < len(str(path)) + 300


def test_a_study_names_file_and_utterance_of_such_a_type(tmp_path, capsys):
    write_raw(tmp_path / "one.h5", make_int24(), np.zeros((2, 2)))
    with h5py.File(tmp_path / "one.h5", "a") as root:
        for k in range(2, 9):
            root[f"u{k}"] = np.full((2, 2), float(k))
    rows = [f"u{k},{'ab'[k % 2]},s{k % 4},one.h5#u{k}\n" for k in range(1, 9)]
    table = tmp_path / "dataset.csv"
    table.write_text("utterance,label,speaker,audio\n" + "".join(rows))

    code = main(["study", "--data", str(table), "--out", str(tmp_path / "out"), "--quick"])

    assert code == 2
    error = capsys.readouterr().err
    assert "one.h5#u1 is of a type that NumPy lacks" in error
    assert "u1" in error.replace("one.h5#u1", "")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float16(), [0.5, 2.0]),
        (pa.uint64(), [1, 2**53]),
        (pa.float32(), [0.5, None]),
        (pa.int8(), [1, None]),
    ],
)
def test_every_type_of_numbers_in_parquet_keeps_them(tmp_path, kind, values):
    path = tmp_path / "one.parquet"
    given = [np.float16(value) for value in values] if kind == pa.float16() else values
    column = pa.array([given], pa.list_(kind))
    parquet.write_table(pa.table({"utterance": ["u1"], "frames": column}), path)

    expected = [np.nan if value is None else value for value in values]
    assert_array_equal(read_sequence(f"{path}#u1"), np.array(expected, np.float64))


@pytest.mark.parametrize(
    "kind",
    [
        pa.bool_(),
        pa.decimal128(5, 2),
        pa.timestamp("s"),
        pa.duration("s"),
        pa.date32(),
        pa.null(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.struct([(f"f{k}", pa.int8()) for k in range(500)]),
    ],
    ids=lambda kind: str(kind)[:12],
)
def test_a_type_of_parquet_that_is_no_number_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "one.parquet"
    column = pa.array([[None]], pa.list_(kind))
    parquet.write_table(pa.table({"utterance": ["u1"], "frames": column}), path)

    with pytest.raises(SequenceError, match=r"one\.parquet.* of type .*expected") as refused:
        read_sequence(f"{path}#u1")
    assert len(str(refused.value)) < len(str(path)) + 300


@pytest.mark.parametrize("dictionary", [True, False])
def test_ids_of_a_parquet_file_that_expand_are_refused_in_a_short_message(tmp_path, dictionary):
    path = tmp_path / "ids.parquet"
    table = pa.table({"id": ["y" * 50_000] * 30, "emb": [[1.0]] * 30})
    parquet.write_table(table, path, compression="zstd", use_dictionary=dictionary)

    with pytest.raises(SequenceError, match="expected at most") as caught:
        read_sequence(f"{path}#u1")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}])
def test_lists_of_anything_but_numbers_are_refused_before_they_are_read(
    tmp_path, value, monkeypatch
):
    path = tmp_path / "lists.parquet"
    parquet.write_table(pa.table({"id": ["u1"], "emb": [[value]]}), path)
    monkeypatch.setattr(
        parquet.ParquetFile, "read_row_group", lambda *_, **__: pytest.fail("read")
    )

    with pytest.raises(SequenceError, match="lists of column 'emb' are of type"):
        read_sequence(f"{path}#u1")
