"""Tables with a column per dimension: numbers as pandas reads them, and every fault named."""

import io
import re
import tracemalloc
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from toolkit.data import (
    ManifestError,
    SequenceError,
    headers,
    read_header,
    read_manifest,
    read_sequence,
    summarise_manifest,
)
from toolkit.data.dimension_names import _read_common, name_dimensions
from toolkit.data.feature_files import _write_choice

OPENSMILE = """name;frameTime;F0final_sma;pcm_loudness_sma
'u1';0.000000;1.250000e+02;0.5
'u1';0.010000;1.300000e+02;-0.25
'u1';0.020000;0.000000e+00;0.125
"""
OPENFACE = """frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r
1, 0, 0.000, 0.98, 1, 0.25, 1.5
2, 0, 0.033, 0.00, 0, 0.00, 0.0
3, 0, 0.067, 0.97, 1, -0.75, 2.5
"""
WORDS_OF_OPENFACE = ("face_id", "confidence", "success")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def frame():
    values = np.random.default_rng(0).normal(size=(6, 5))
    return pd.DataFrame(values, columns=["F0 mean", "F0 sd", "loudness, max", "a_b", "é"])


@pytest.fixture
def dataset(columns, write_table):
    del columns["voice"]
    return write_table(columns)


def read_all(dataset, table, **options):
    manifest = read_manifest(dataset, tables={"audio": table}, **options)
    return manifest, manifest.paths["audio"]


# -- one file per utterance


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("ending", [".csv", ".CSV", ".tsv"])
def test_frames_are_as_pandas_reads_them(tmp_path, frame, separator, index, ending):
    path = tmp_path / f"u1{ending}"
    frame.to_csv(path, sep=separator, index=index)

    assert read_header(path).shape == (6, 5)
    np.testing.assert_array_equal(read_sequence(path), frame.to_numpy())
    assert _read_common([path]) == tuple(frame.columns)


def test_names_and_times_of_opensmile_are_no_dimensions(tmp_path):
    path = write(tmp_path / "u1.csv", OPENSMILE)
    expected = pd.read_csv(path, sep=";").iloc[:, 2:]

    np.testing.assert_array_equal(read_sequence(path), expected.to_numpy())
    assert _read_common([path]) == tuple(expected.columns)


def test_frames_of_openface_without_a_face_are_missing(tmp_path):
    path = write(tmp_path / "u1.csv", OPENFACE)
    expected = pd.read_csv(path, skipinitialspace=True)
    expected = expected[["gaze_0_x", "AU01_r"]].where(expected["success"] == 1)

    found = read_sequence(path)
    np.testing.assert_array_equal(found, expected.to_numpy())
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    "kept",
    [some for n in range(4) for some in combinations(WORDS_OF_OPENFACE, n)],
    ids="+".join,
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_two_words_of_openface_are_no_dimensions_nor_is_success(tmp_path, kept, ending):
    table = pd.read_csv(io.StringIO(OPENFACE), skipinitialspace=True)
    table = table.drop(columns={*WORDS_OF_OPENFACE} - {*kept})
    path = tmp_path / f"u1.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    left_out = kept if len(kept) > 1 or "success" in kept else ()
    expected = table.drop(columns={"frame", "timestamp", *left_out})
    if "success" in kept:
        expected = expected.where(table["success"] == 1)

    np.testing.assert_array_equal(read_sequence(path), expected.to_numpy())
    assert _read_common([path]) == tuple(expected.columns)
    if "face_id" in left_out:
        table["face_id"] = [0, 1, 0]
        table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
        for chosen in (path, _write_choice(path, "AU01_r")):
            with pytest.raises(SequenceError, match=r"several faces \(face_id\)"):
                read_sequence(chosen)


@pytest.mark.parametrize("unit", ["s", "ms", "ns", "us", "\u00b5s", "sec", "msec", "seconds"])
@pytest.mark.parametrize("sign", ["({})", " ({})", " [{}]", "_{}"])
def test_a_time_may_name_its_unit(tmp_path, unit, sign):
    times = ["frameTime", "Time", "timestamp", "start", "End", "frame_index"]
    header = [name + sign.format(unit) for name in times]
    path = write(tmp_path / "u1.csv", f"{','.join(header)},F0\n1,1,1,1,1,1,7\n2,2,2,2,2,2,8\n")
    assert read_sequence(path).tolist() == [[7], [8]]

    path = write(tmp_path / "u2.csv", f"{header[1]},F0\n0.2,7\n0.1,8\n")
    with pytest.raises(SequenceError, match=r"time '0.1' does not come after '0.2'"):
        read_sequence(path)


def test_a_name_like_a_time_or_a_row_index_is_a_dimension(tmp_path):
    header = ["times", "time (a)", "rise time (s)", "F1 (ms)", "Time (s) mean", "s", "time.1"]
    header += ["level", "level_a", "sub level_0", "unnamed", "unnamed_0x"]
    path = write(tmp_path / "u1.csv", f"{','.join(header)}\n{','.join('1' * len(header))}\n")
    assert _read_common([path]) == tuple(header)


@pytest.mark.parametrize("given", [{}, {"voice": "names.txt"}])
def test_columns_in_another_order_are_refused(columns, write_table, frame, given):
    columns["voice"] = [f"u{i}.csv" for i in range(6)]
    path = write_table(columns)
    for i, name in enumerate(columns["voice"]):
        frame[frame.columns[:: 1 if i else -1]].to_csv(path.with_name(name), index=False)
    files = {name: write(path.with_name(file), "a\nb\nc\nd\ne") for name, file in given.items()}
    with pytest.raises(SequenceError, match=r"u1.csv names the dimensions differently from"):
        name_dimensions(read_manifest(path), {"voice": 5}, files)


def test_an_empty_cell_is_a_missing_value(tmp_path):
    path = write(tmp_path / "u1.csv", "f0,hnr\n1, \n,2.5\n")
    np.testing.assert_array_equal(read_sequence(path), [[1, np.nan], [np.nan, 2.5]])


def test_a_parquet_file_with_a_column_per_dimension_is_a_sequence(tmp_path, frame):
    path = tmp_path / "u1.parquet"
    frame.astype(np.float32).to_parquet(path)

    found = read_sequence(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, frame.to_numpy(np.float32))
    assert _read_common([path]) == tuple(frame.columns)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("f0,hnr\n", "no row below"),
        ("1.5,2\n3,4\n", "begins with numbers"),
        ("f0,f0\n1,2\n", "several columns 'f0'"),
        ("f0,\n1,2\n", "column 2 has no name"),
        ("name,frameTime\nu1,0\n", "no column of features"),
        ("f0,hnr\n1,2\n3\n", "line 3 has 1 cells and the header 2"),
        ("f0,hnr\n1,2\n3,4,5\n", "line 3 has 3 cells and the header 2"),
        ("f0,hnr\n1,2,3\n3,4,5\n", "line 2 has 3 cells and the header 2"),
        ("f0,hnr\n1,2\n3,n/a\n", "line 3, column 'hnr': 'n/a' is no number"),
        ("f0;hnr\n1;2\n3;4,5\n", "'4,5' is no number (with a decimal point, not a comma)"),
        ("f0;hnr\n1,5;2\n", "line 2, column 'f0': '1,5' is no number"),
        ("f0,hnr\n1_000,2\n", "line 2, column 'f0': '1_000' is no number"),
        ('f0,hnr\n1,"2\n', "unexpected end of data"),
        ("f0,text\n1,well\n", "column 'text': 'well' is no number"),
        ("time,f0\n0,1\n0,2\n", "line 3: time '0' does not come after '0'"),
        ("time,f0\n10,1\n9,2\n", "line 3: time '9' does not come after '10'"),
        ("name,f0\nu1,1\nu2,2\n", "has rows of 2 recordings"),
        (OPENFACE.replace("2, 0,", "2, 1,"), "several faces"),
        (OPENFACE.replace("0.00, 0,", "0.00, 0.5,"), "something else than 0 and 1"),
    ],
)
def test_a_fault_of_a_file_is_named(tmp_path, text, reason):
    path = write(tmp_path / "u1.csv", text)
    with pytest.raises(SequenceError) as caught:
        read_sequence(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_other_bytes_than_text_are_refused(tmp_path):
    (tmp_path / "u1.csv").write_bytes("f0,é\n1,2\n".encode("latin-1"))
    with pytest.raises(SequenceError, match="no text in UTF-8"):
        read_sequence(tmp_path / "u1.csv")


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "u1.csv", "f0\n1\n")
    assert read_sequence(path).tolist() == [[1]]
    write(path, "f0\n12\n")
    assert read_sequence(path).tolist() == [[12]]


def test_rows_of_the_data_set_may_share_a_file(columns, write_table, frame):
    columns["voice"] = ["voice.csv"] * 6
    path = write_table(columns)
    frame.insert(0, "id", columns["utterance"][::-1])
    frame.to_csv(path.with_name("voice.csv"), index=False)

    paths = read_manifest(path).paths["voice"]
    found = np.array([read_sequence(path) for path in paths])
    np.testing.assert_array_equal(found, frame.iloc[::-1, 1:].to_numpy())


NUMBERS = [
    *(
        "0",
        "-0",
        "+1",
        "007",
        ".5",
        "5.",
        "-.25",
        "1e5",
        "1E-5",
        "1.250000e+02",
        "1e22",
        "1e23",
    ),
    *("9007199254740992", "9007199254740993", "9007199254740993e-1", "1e-22", "3e-23"),
    *("0.1", "0.30000000000000004", "2.2250738585072011e-308", "1.7976931348623157e308"),
    *("123456789012345678901234567890", f"0.{0:040}1", "0e999", "1e400", "-1e-400"),
    *("nan", "-inf", "Infinity", "\u00a01.5", "\u0664"),
]


def test_every_number_is_the_nearest_double(tmp_path):
    rng = np.random.default_rng(0)
    drawn = np.r_[rng.integers(0, 1 << 63, 300).view(np.float64), rng.normal(size=300)]
    cells = [*NUMBERS, *map(repr, drawn.tolist()), *(f"{x:.6g}" for x in drawn.tolist())]
    lines = [f" {cell}\t,{cell}\r\n" for cell in cells]
    (path := tmp_path / "u1.csv").write_bytes("".join(["a,b\n", *lines]).encode())

    expected = np.array([[float(cell)] * 2 for cell in cells])
    found = read_sequence(path)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_blanks_and_ends_of_lines_change_no_number(tmp_path, separator, end):
    rows = ["id,time,f0,hnr", "u1,0, 1.5 ,-2e-3", "", "u1,1,,4", "u1,2,0.1,7"]
    text = end.join(rows).replace(",", separator)
    quoted = text.replace("u1", '"u1"').replace("0.1", '"0.1"')
    for number, content in enumerate((text, quoted, text + end, "\ufeff" + text)):
        (tmp_path / f"{number}.csv").write_bytes(content.encode())
        found = read_sequence(tmp_path / f"{number}.csv#u1")
        np.testing.assert_array_equal(found, [[1.5, -2e-3], [np.nan, 4], [0.1, 7]])


@pytest.mark.parametrize(
    "bad", ["1 2", "1e", "1e+", "-", ".", "1_0", "0x1", "1.2.3", "1-2", "--1"]
)
def test_a_cell_that_is_nearly_a_number_is_refused(tmp_path, bad):
    path = write(tmp_path / "u1.csv", f"f0,hnr\n\n1,2\n3,{bad}\n")
    with pytest.raises(SequenceError, match=f"line 4, column 'hnr': '{re.escape(bad)}' is no"):
        read_sequence(path)


def test_a_file_of_line_ends_takes_little_memory(tmp_path):
    names = ",".join(f"f{k}" for k in range(1000))
    path = write(tmp_path / "u1.csv", names + 100_000 * "\n" + ",".join(["1"] * 1000))
    tracemalloc.start()
    assert read_sequence(path).shape == (1, 1000)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


# -- one table for all utterances


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("header", ["utterance", "id", "file", "name", "File_Name", "clip_id"])
def test_rows_are_found_by_the_ids(dataset, columns, frame, header, ending):
    shuffled = [3, 5, 0, 1, 4, 2]
    ids = [columns["utterance"][i] for i in shuffled]
    frame.insert(2, header, pd.array(ids, "string[pyarrow]"))
    table = dataset.with_name(f"egemaps.{ending}")
    frame.to_csv(table, index=False) if ending == "csv" else frame.to_parquet(table)

    manifest, paths = read_all(dataset, table)
    expected = frame.set_index(header).loc[manifest.utterances].to_numpy()
    np.testing.assert_array_equal([read_sequence(path) for path in paths], expected)
    assert (manifest.modalities, manifest.available) == (("audio",), ("audio",))
    assert read_header(paths[0]).shape == (5,)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_index_of_audformat_is_one_of_files(dataset, columns, frame, ending):
    # As opensmile-python gives it: file, start and end as the index.
    files = [f"/data/wav/{name}.wav" for name in columns["utterance"]]
    spans = pd.to_timedelta([0] * 6), pd.to_timedelta([1.5] * 6, unit="s")
    frame.index = pd.MultiIndex.from_arrays([files, *spans], names=["file", "start", "end"])
    table = dataset.with_name(f"egemaps.{ending}")
    frame.to_csv(table) if ending == "csv" else frame.to_parquet(table)

    manifest, paths = read_all(dataset, table)
    np.testing.assert_array_equal([read_sequence(path) for path in paths], frame.to_numpy())
    assert _read_common(paths) == tuple(frame.columns)
    assert not any("no dimensions" in note for note in manifest.warnings)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_of_an_id_in_the_order_of_their_times_are_frames(dataset, columns, ending):
    n_frames = [3, 1, 2, 4, 1, 2]
    times = [0.01 * k for n in n_frames for k in range(n)]
    long = pd.DataFrame({"utterance": np.repeat(columns["utterance"], n_frames), "time": times})
    long["f0"], long["hnr"] = np.arange(13.0), -np.arange(13.0)
    table = dataset.with_name(f"long.{ending}")
    long.to_csv(table, index=False) if ending == "csv" else long.to_parquet(table)

    manifest, paths = read_all(dataset, table)
    assert f"13 rows of 6 ids in {table.name} are frames" in " ".join(manifest.warnings)
    for path, (_, rows) in zip(paths, long.groupby("utterance"), strict=True):
        np.testing.assert_array_equal(read_sequence(path), rows[["f0", "hnr"]].to_numpy())


def test_labels_and_speakers_are_no_dimensions(dataset, columns, frame):
    frame["id"] = columns["utterance"]
    frame["label"], frame["speaker"] = columns["label"], columns["speaker"]
    frame.to_csv(dataset.with_name("all.csv"), index=False)

    manifest, paths = read_all(dataset, dataset.with_name("all.csv"))
    assert read_header(paths[0]).shape == (5,)
    (note,) = manifest.warnings
    assert note.endswith("that are no dimensions: 'label', 'speaker'.")


@pytest.mark.parametrize("again", ["saved", "reset"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_row_indexes_of_pandas_are_no_dimensions(dataset, columns, frame, ending, again):
    features = tuple(frame.columns)
    frame["id"] = columns["utterance"]
    for _ in range(3 if again == "saved" else 2):
        buffer = io.StringIO()
        frame.to_csv(buffer)
        buffer.seek(0)
        frame = pd.read_csv(buffer) if again == "saved" else frame.reset_index()
    table = dataset.with_name(f"all.{ending}")
    if ending == "csv":
        frame.to_csv(table)
    else:  # with two unnamed levels, which Parquet numbers
        frame.set_index([frame.index, pd.Index([*"abcdef"])]).to_parquet(table)

    manifest, paths = read_all(dataset, table)
    assert _read_common(paths) == features
    np.testing.assert_array_equal(read_sequence(paths[0]), frame.loc[0, list(features)])
    noted = " ".join(manifest.warnings)
    for name in {*frame.columns} - {*features, "id", "index", "Unnamed: 0"}:
        assert repr(name) in noted


@pytest.mark.parametrize("header", ["time", "Time (s)", "frameTime", "frame", "start", "end"])
def test_a_time_among_rows_of_one_per_id_is_noted(dataset, columns, frame, header):
    frame.insert(0, "id", columns["utterance"])
    frame[header] = np.arange(6.0)[::-1]
    table = dataset.with_name("all.csv")
    frame.to_csv(table, index=False)

    manifest, paths = read_all(dataset, table)
    assert read_header(paths[0]).shape == (5,)
    (note,) = manifest.warnings
    assert note.endswith(f"columns of all.csv that are no dimensions: {header!r}.")
    manifest, paths = read_all(dataset, table, frames_columns={"audio": "2-"})
    assert _read_common(paths)[-1] == header
    assert manifest.warnings == ()


@pytest.mark.parametrize("header", ["time", "Time (s)", "frame", "start"])
def test_times_of_frames_need_no_note(dataset, columns, header):
    long = pd.DataFrame({"id": np.repeat(columns["utterance"], 2), header: [0, 1] * 6})
    long["f0"] = np.arange(12.0)
    long.to_csv(dataset.with_name("long.csv"), index=False)

    manifest, paths = read_all(dataset, dataset.with_name("long.csv"))
    assert read_header(paths[0]).shape == (2, 1)
    assert not any("no dimensions" in note for note in manifest.warnings)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_unknown_header_of_ids_is_named_with_the_known_ones(dataset, columns, frame, ending):
    frame["clip"] = columns["utterance"]
    table = dataset.with_name(f"all.{ending}")
    frame.to_csv(table, index=False) if ending == "csv" else frame.to_parquet(table)

    with pytest.raises(ManifestError, match=r"'clip' holds utterance ids, call it.*'id', "):
        read_all(dataset, table)


@pytest.mark.parametrize(("header", "row"), [("utterance", 0), ("clip", 3)])
def test_a_word_among_numbers_is_no_id(dataset, columns, frame, header, row):
    frame = frame.astype(object)
    frame.loc[row, "F0 sd"] = "n/a"
    frame[header] = columns["utterance"] if header == "utterance" else 1.0
    frame.to_csv(dataset.with_name("all.csv"), index=False)

    with pytest.raises(ManifestError, match=rf"line {row + 2}, column 'F0 sd'") as caught:
        read_all(dataset, dataset.with_name("all.csv"))
    assert "holds utterance ids" not in str(caught.value)


@pytest.mark.parametrize("chosen", ["", "2-"])
def test_a_gap_in_a_table_is_named_by_line_and_header(dataset, columns, frame, chosen):
    frame.loc[3, ["F0 sd", "a_b"]] = np.nan
    frame.insert(0, "id", columns["utterance"])
    text = frame.to_csv(index=False).replace("\nu4", "\n\nu4")  # a blank line is no row
    write(dataset.with_name("all.csv"), text)
    options = {"frames_columns": {"audio": chosen}} if chosen else {}
    manifest, _ = read_all(dataset, dataset.with_name("all.csv"), **options)

    (problem,) = summarise_manifest(manifest).problems
    assert "#u4: line 6, column 'F0 sd' is not a finite number (such values: 2 of " in problem


def test_a_gap_in_frames_is_named_by_line_and_header(columns, write_table, frame):
    columns["voice"] = [f"u{i}.csv" for i in range(6)]
    path = write_table(columns)
    for number, name in enumerate(columns["voice"]):
        if number == 2:
            frame.loc[4, "a_b"] = np.nan
        frame.to_csv(path.with_name(name), index=False)
        frame = frame + 1

    (problem,) = (p for p in summarise_manifest(read_manifest(path)).problems if "u2.csv" in p)
    assert "not finite: 1 of 6; the first is frame 4 (line 6, column 'a_b')." in problem


def test_rows_and_utterances_without_each_other_are_counted_and_named(dataset, frame):
    frame.insert(0, "id", ["u1", "u2", "u3", "u4", "x8", "x9"])
    table = dataset.with_name("all.csv")
    frame.to_csv(table, index=False)

    with pytest.raises(ManifestError, match=r"2 utterances have no row in all.csv \('u5', 'u6"):
        read_all(dataset, table)
    manifest, paths = read_all(dataset, table, missing="allow")
    assert [path is None for path in paths] == [False] * 4 + [True] * 2
    text = " ".join(manifest.warnings)
    assert "2 of 6 ids in all.csv are those of no utterance ('x8', 'x9')" in text
    assert "2 utterances have no row in all.csv ('u5', 'u6'); it is missing there" in text


def test_rows_of_left_out_classes_have_an_utterance(tmp_path, columns, write_table, frame):
    del columns["voice"]
    columns["label"] = ["0", "1", "0", "1", "0", "2"]
    frame.insert(0, "id", columns["utterance"])
    frame.to_csv(tmp_path / "all.csv", index=False)

    path = write_table(columns)
    manifest, paths = read_all(path, tmp_path / "all.csv", classes=["0", "1"])
    assert len(paths) == 5
    assert not any("no utterance" in note for note in manifest.warnings)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ("u1 u2 u3 u4 u5 u5", "line 6 and line 7 are both of 'u5'. Keep one row"),
        ("a b c d e f", "no row has the id of an utterance; its ids are 'a', 'b'"),
        ("x/u1.wav y/u1.wav u2.wav u3.wav u4.wav u5.wav", "have one file name"),
        (["u1", "u2", "", "u4", "u5", "u6"], "line 4: the id in column 'id' is empty"),
    ],
)
def test_ids_that_do_not_join_are_refused(dataset, frame, ids, reason):
    frame.insert(0, "id", ids.split() if isinstance(ids, str) else ids)
    frame.to_csv(dataset.with_name("all.csv"), index=False)

    with pytest.raises(ManifestError) as caught:
        read_all(dataset, dataset.with_name("all.csv"))
    assert reason in str(caught.value)


def test_two_utterances_never_share_a_row(columns, write_table, frame):
    del columns["voice"]
    columns["utterance"] = ["x/u1", "y/u1", "u2", "u3", "u4", "u5"]
    path = write_table(columns)
    frame.insert(0, "file", [f"u{i}.wav" for i in range(1, 7)])
    frame.to_csv(path.with_name("all.csv"), index=False)

    with pytest.raises(ManifestError, match=r"row 'u1.wav' of all.csv fits 2 utterances"):
        read_all(path, path.with_name("all.csv"))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("all.csv", "f0,hnr\n1,2\n", "no column of utterance ids; expected one called"),
        ("all.csv", "file,name,f0\na,b,2\n", "'file' and 'name' could each hold the ids"),
        ("none.csv", None, "does not exist"),
        ("all.txt", "id,f0\nu1,2\n", "is no table"),
        ("all.parquet", "PAR1", "is no table"),
    ],
)
def test_a_fault_of_a_table_is_named(dataset, name, text, reason):
    table = dataset.with_name(name)
    if text is not None:
        write(table, text)
    with pytest.raises(ManifestError) as caught:
        read_all(dataset, table)
    assert f"--table audio={table}" in str(caught.value)
    assert reason in str(caught.value)
    assert "Leave its cell" not in str(caught.value)  # a table has none


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("all.pkl", b"\x80\x04K\x01.", "It begins as a pickle. A pickle can run any code."),
        ("all.mat", b"MATLAB 5.0 MAT-file, x", "'MATLAB 5.0 MAT-file, x'. Save the numbers"),
        ("all.pt", b"PK\x03\x04", "It begins as a ZIP archive. Save the numbers"),
        ("all.json", b'{"u1": [1, 2]}\n', '{"u1": [1, 2]}'),
        ("all.safetensors", b"\x30" + 7 * b"\0" + b'{"emb":{"dtype":"F32"', '{"emb":{"dtype":'),
        ("all.feather", b"", "a column per feature."),
    ],
)
def test_files_that_are_no_tables_are_described(dataset, name, content, seen):
    dataset.with_name(name).write_bytes(content)
    with pytest.raises(ManifestError, match=f"{name} is no table") as caught:
        read_all(dataset, dataset.with_name(name))
    assert seen in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("frame,timestamp,confidence,x", "OpenFace (frame, face_id, timestamp, confidence"),
        ("frameTime;F0", "openSMILE (name;frameTime;...), which also has 'name'"),
        ("file,end,f0", "opensmile-python (file,start,end,...), which also has 'start'"),
        ("time,F0", "frames with times (time,...), whose columns it has"),
        ("word,f0", "2 columns are 'word', 'f0'; no known layout is near"),
    ],
)
def test_the_nearest_layout_of_an_unknown_table_is_named(tmp_path, header, expected):
    cells = re.sub(r"[^,;]+", "x", header)
    with pytest.raises(SequenceError) as caught:
        read_sequence(write(tmp_path / "u1.csv", f"{header}\n{cells}\n"))
    assert expected in str(caught.value)


def test_a_table_cannot_take_the_place_of_a_column(columns, write_table, frame):
    path = write_table(columns)
    frame.insert(0, "id", columns["utterance"])
    frame.to_csv(path.with_name("all.csv"), index=False)
    for name, reason in (("voice", "both a column of files"), ("Early!", "cannot name")):
        with pytest.raises(ManifestError, match=reason):
            read_manifest(path, tables={name: path.with_name("all.csv")})


@pytest.mark.parametrize("column", [pd.Series(["a"] * 6), pd.Series([True] * 6)])
def test_columns_of_parquet_that_are_no_numbers_are_refused(tmp_path, frame, column):
    frame["other"] = column
    frame.to_parquet(tmp_path / "u1.parquet")
    with pytest.raises(SequenceError, match="column 'other' is of type"):
        read_sequence(tmp_path / "u1.parquet")


def test_a_parquet_file_that_would_expand_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "_MOST_EXPANDED", 1 << 20)
    zeros = np.zeros(400_000, np.int8)
    pd.DataFrame({"a": zeros, "b": zeros}).to_parquet(tmp_path / "u1.parquet")
    with pytest.raises(SequenceError, match="would expand to 6,400,000"):
        read_sequence(tmp_path / "u1.parquet")


def test_null_is_a_missing_value(tmp_path):
    table = pd.DataFrame({"a": [1, None], "b": pd.array([None, 2], "Int32")})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    (tmp_path / "u1.parquet").write_bytes(buffer.getvalue())
    found = read_sequence(tmp_path / "u1.parquet")
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, 2]])


# -- a choice of columns


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("3-4", [2, 3]),
        ("3", [2]),
        ("4-", [3, 4, 5]),
        ("5, 2-3", [1, 2, 4]),
        ("loudness, hnr/sma", None),
        ("f0,6", [2, 5]),
        ("a/b[1],hnr#2,é", [1, 3, 5]),
    ],
)
def test_chosen_columns_are_as_pandas_takes_them(tmp_path, chosen, expected):
    header = ["note", "a/b[1]", "f0", "hnr#2", "time", "é"]
    frame = pd.DataFrame(np.arange(18.0).reshape(3, 6) / 7, columns=header)
    frame["note"] = "text"
    for path in (tmp_path / "u1.csv", tmp_path / "u1.parquet"):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        chosen_path = _write_choice(path, chosen)
        if expected is None:
            with pytest.raises(SequenceError, match=r"'loudness' is no column; it has 'note'"):
                read_sequence(chosen_path)
            continue
        found = read_sequence(chosen_path)
        np.testing.assert_array_equal(found, frame.iloc[:, expected].to_numpy())
        assert _read_common([chosen_path]) == tuple(header[i] for i in expected)


@pytest.mark.parametrize(
    ("text", "chosen", "reason"),
    [
        ("a,b\n1,2\n", "3", "'3' is no range of its 2 columns"),
        ("a,b\n1,2\n", "2-1", "'2-1' is no range"),
        ("a,b\n1,2\n", "0", "'0' is no range"),
        ("loudness,f0\n1,2\n", "loudnes", "did you mean 'loudness'"),
        ("x,1\n1,2\n", "1", "'1' is a number and a header; write 1-1"),
        ("a,b\n1,x\n", "a,b", "line 2, column 'b': 'x' is no number"),
        ("0,1,2\n4,5,6\n", "1-", "begins with numbers"),
        ("0.5,1\n4,5\n", "a", "begins with numbers"),
        (OPENFACE, "5-", "'success' is no dimension"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(tmp_path, text, chosen, reason):
    path = write(tmp_path / "u1.csv", text)
    with pytest.raises(SequenceError, match=re.escape(reason) if reason[0] == "'" else reason):
        read_sequence(_write_choice(path, chosen))


@pytest.mark.parametrize("mark", ["", "\ufeff", '"'])
def test_numbers_without_a_header_are_frames_where_columns_are_chosen(tmp_path, mark):
    path = tmp_path / "u1.csv"
    values = np.random.default_rng(0).normal(size=(4, 3)).round(3)
    pd.DataFrame(values).to_csv(path, index=False, header=False, sep=";")
    text = path.read_text(encoding="utf-8")
    write(path, f'"{text.replace(";", chr(34) + ";", 1)}' if mark == '"' else mark + text)

    path = _write_choice(path, "2-")
    np.testing.assert_array_equal(read_sequence(path), values[:, 1:])
    assert _read_common([path]) == ("column 2", "column 3")


def test_faces_are_missing_in_chosen_columns_too(tmp_path):
    path = _write_choice(write(tmp_path / "u1.csv", OPENFACE), "AU01_r,confidence")
    np.testing.assert_array_equal(
        read_sequence(path), [[0.98, 1.5], [np.nan, np.nan], [0.97, 2.5]]
    )


def test_columns_are_chosen_for_files_and_tables_of_a_modality(columns, write_table, frame):
    columns["voice"] = [f"u{i}.csv" for i in range(6)]
    path = write_table(columns)
    frame["note"] = "text"
    for name in columns["voice"]:
        frame.to_csv(path.with_name(name), index=False)
    frame.insert(0, "id", columns["utterance"])
    frame.to_csv(path.with_name("all.csv"), index=False)
    options = {"tables": {"audio": path.with_name("all.csv")}}

    chosen = {"voice": "a_b,F0 sd", "audio": "2-3"}
    manifest = read_manifest(path, frames_columns=chosen, **options)
    assert read_header(manifest.paths["voice"][0]).shape == (6, 2)
    found = [read_sequence(path) for path in manifest.paths["audio"]]
    np.testing.assert_array_equal(found, frame[["F0 mean", "F0 sd"]].to_numpy())
    assert any("no dimensions: 'F0 mean', 'loudness, max'" in n for n in manifest.warnings)
    with pytest.raises(ManifestError, match=r"voic: there is no such modality; did you mean"):
        read_manifest(path, frames_columns={"voic": "1"}, **options)


def test_columns_of_arrays_cannot_be_chosen(columns, write_table):
    path = write_table(columns)
    with pytest.raises(ManifestError, match=r"--frames-columns voice=1: .*npy is no table"):
        read_manifest(path, frames_columns={"voice": "1"})


# -- ARFF


ARFF = """@relation openSMILE_features

% a comment
@attribute name string
@attribute frameTime numeric
@ATTRIBUTE F0final_sma[0] numeric
@attribute 'loudness, max' REAL
@attribute mood {happy,'very sad'}
@attribute class numeric

@data

'u1',0.0,1.250000e+02,?,happy,?
'u1',0.01,-0.25,3e-2,'very sad',?
"""


@pytest.mark.parametrize(
    "change", [("", ""), ("\n'u1',0.01", "\n% a, b\n'u1',0.01"), ("\n", "\r\n")]
)
def test_arff_is_as_pandas_reads_it(tmp_path, change):
    path = tmp_path / "u1.arff"
    path.write_bytes(ARFF.replace(*change).encode())
    body = io.StringIO(ARFF.partition("@data\n")[2])
    expected = pd.read_csv(body, header=None, na_values="?", quotechar="'")[[2, 3]]

    np.testing.assert_array_equal(read_sequence(path), expected.to_numpy())
    assert _read_common([path]) == ("F0final_sma[0]", "loudness, max")
    with pytest.raises(SequenceError, match="has no row 'u2'"):
        read_sequence(tmp_path / "u1.arff#u2")


def test_rows_of_an_arff_table_are_found_by_name(dataset, columns, frame):
    lines = [*(f"@attribute '{name}' numeric" for name in frame), "@attribute class {a,b}"]
    rows = [
        f"'{name}.wav',{','.join(map(repr, values))},a"
        for name, values in zip(columns["utterance"], frame.to_numpy().tolist(), strict=True)
    ]
    text = "\n".join(["@relation x", "@attribute name string", *lines, "@data", *rows])
    manifest, paths = read_all(dataset, write(dataset.with_name("all.arff"), text))
    np.testing.assert_array_equal([read_sequence(path) for path in paths], frame.to_numpy())
    assert any(note.endswith("no dimensions: 'class'.") for note in manifest.warnings)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (ARFF[ARFF.index("@data") :], "", "no line @data"),
        ("numeric", "relational", "line 5: '@attribute frameTime relational' is no attribute"),
        ("@relation", "relation", "line 1: 'relation openSMILE_features' is no attribute"),
        ("'loudness, max'", "F0final_sma[0]", "several columns 'F0final_sma[0]'"),
        ("3e-2", "high", "line 14, column 'loudness, max': 'high' is no number"),
        (",?\n'u1'", "\n'u1'", "line 13 has 5 cells and the header 6"),
        ("'u1',0.0,", "{0 'u1',", "line 13 has 5 cells"),
        ("'u1',0.01", "'u1',0.0", "line 14: time '0.0' does not come after"),
    ],
)
def test_a_fault_of_arff_is_named_with_its_line(tmp_path, before, after, reason):
    path = write(tmp_path / "u1.arff", ARFF.replace(before, after, 1))
    with pytest.raises(SequenceError) as caught:
        read_sequence(path)
    assert reason in str(caught.value)
