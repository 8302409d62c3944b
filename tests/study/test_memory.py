"""A study of arrays in memory is the study of the same arrays in files."""

import csv
import inspect
import subprocess
import sys
from array import array
from collections import deque

import numpy as np
import pandas as pd
import pytest

import toolkit
from toolkit.data import (
    ManifestError,
    make_corpus,
    read_manifest,
    read_sequence,
    summarise_manifest,
)
from toolkit.pooling import pool_frames
from toolkit.study.config import ConfigError
from toolkit.study.datasets import write_data
from toolkit.study.predict import predict_new

SMALL = {
    "quick": True,
    "trials": 1,
    "outer": 3,
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "fusion": "early",
    "shapley": "none",
    "contributions": "none",
    "linear": "none",
    "workers": 1,
}

pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "corpus"
    return make_corpus(folder, n_utterances=80, dims={"visual": 8, "audio": 8, "text": 8})


@pytest.fixture(scope="module")
def manifest(source):
    return read_manifest(source)


@pytest.fixture(scope="module")
def given(manifest):
    """The corpus as a user has it: a shuffled table, a list of arrays, and a matrix."""
    order = np.random.default_rng(0).permutation(len(manifest))
    frame = pd.DataFrame(
        {
            "clip": manifest.utterances[order],
            "who": manifest.speakers[order],
            "feeling": [int(manifest.codes[k]) for k in manifest.labels[order]],
            "label_name": [manifest.classes[k] for k in manifest.labels[order]],
            "text": "a transcript, with a comma",
        },
        index=order,
    )
    visual, text = (
        [None if (p := manifest.paths[m][i]) is None else read_sequence(p) for i in order]
        for m in ("visual", "text")
    )
    assert any(row is None for row in visual)
    matrix = np.stack([np.full(8, np.nan) if row is None else row for row in text])
    return frame, {"visual": visual, "text": matrix.astype(np.float32)}


def read(folder, name):
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_gives_the_numbers_of_the_command(source, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame, features = given
    from_files = toolkit.study(
        str(source), out=str(tmp_path / "files"), modality="visual,text", **SMALL
    )

    from_memory = toolkit.study(
        frame,
        label="feeling",
        speaker="who",
        column={"utterance": "clip"},
        features=features,
        **SMALL,
    )

    assert from_memory.folder.as_posix() == "outputs/dataframe-quick"
    assert {"visual", "text", "early"} <= set(from_files.systems) == set(from_memory.systems)
    pd.testing.assert_frame_equal(from_memory.scores, from_files.scores)
    for name, found in from_files.systems.items():
        np.testing.assert_array_equal(from_memory.systems[name].proba, found.proba)
    # The study can be used like any other: its data are where it says.
    new = predict_new("outputs/dataframe-quick", str(source))
    assert new.known.all()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "memory"


def test_the_same_data_are_written_once_and_others_apart(given, cache):
    frame, features = given
    columns = {"utterance": "clip"}

    first, _ = write_data(frame, columns, features)
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    damaged = next(iter(cache.rglob("*.npy")))
    damaged.write_bytes(b"x")
    again, _ = write_data(frame, columns, features)
    other, _ = write_data(frame, columns, features | {"text": features["text"] + 1})

    assert again == first != other
    changed = [p for p, age in written.items() if p.stat().st_mtime_ns != age]
    assert changed == [damaged]
    assert damaged.stat().st_size > 1


@pytest.mark.usefixtures("cache")
def test_rows_without_ids_are_called_by_the_index_of_the_table(given):
    frame, features = given
    plain = frame.drop(columns="clip").reset_index(drop=True)

    names = [
        read_manifest(
            write_data(table, {}, features)[0], label="feeling", columns={"speaker": "who"}
        ).utterances.tolist()
        for table in (plain, plain.set_index(frame["clip"]))
    ]

    assert names == [[f"{row:02d}" for row in range(80)], sorted(frame["clip"])]


@pytest.mark.usefixtures("cache")
def test_a_table_may_list_files_beside_features_in_memory(source, monkeypatch):
    monkeypatch.chdir(source.parent)
    with source.open(newline="") as file:
        frame = pd.DataFrame(csv.DictReader(file, skipinitialspace=True))
    matrix = np.arange(80.0)[:, None]

    table, base = write_data(frame, {}, {"age": matrix})
    written = read_manifest(table, roots=[base])

    assert written.modalities == ("visual", "audio", "text", "age")
    expected = read_manifest(source)
    for modality in expected.modalities:
        assert written.paths[modality] == expected.paths[modality]
    row = frame["file_name_list"].tolist().index(written.utterances[7])
    assert read_sequence(written.paths["age"][7]).tolist() == [row]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"audio": [np.ones(3)]}, r"features\['audio'\] has 1 rows, and the table has 2"),
        ({"audio": [np.ones(3), "x.npy"]}, r"\['audio'\], row 1: <U5 of shape \(\); expected"),
        ({"audio": [[1.0], [None]]}, r"\['audio'\], row 1: object of shape \(1,\); expected"),
        ({"../x": [[1.0], [2.0]]}, r"'../x' is no name of a modality"),
        ({"mood": [[1.0], [2.0]]}, r"has a column 'mood_features', and features\['mood'\]"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, message, cache):
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"], "mood_features": [1, 2]})

    with pytest.raises(ConfigError, match=message):
        toolkit.study(frame, features=features)
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_more_modalities_than_can_be_fused_are_refused_before_any_fit(given, tmp_path):
    frame, features = given
    nine = {f"m{k}": features["text"] for k in range(9)}

    with pytest.raises(ConfigError, match=r"^There are 9 modalities, m0, m1.*at most 8"):
        toolkit.study(
            frame, label="feeling", speaker="who", features=nine, out=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cache")
def test_the_checks_of_the_command_hold():
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", None]})

    with pytest.raises(ManifestError, match=r"column 'speaker'.*the cell is empty") as caught:
        toolkit.study(frame, features={"audio": np.ones((2, 3))})
    assert str(caught.value).startswith("The DataFrame (counted from row 2, below its header)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trails": 3}, "^unknown option 'trails'; did you mean 'trials'"),
        ({"trials": 0}, "^--trials 0: expected"),
        ({"dry_run": True}, "^dry_run lists units on the command line alone"),
        ({"features": np.ones((2, 3))}, "^features is ndarray; expected a mapping"),
        ({"features": pd.DataFrame({"a": [1]})}, "^features is DataFrame; expected a mapping"),
        ({"speaker": np.array(["x", "y"])}, "^speaker is ndarray; expected the header"),
        ({"label": ["a", "b"]}, r"^label is list; .* table.assign\(label=...\)"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(options, message, cache):
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"]})

    with pytest.raises(ConfigError, match=message):
        toolkit.study(frame, **{"features": {"audio": np.ones((2, 3))}} | options)
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("make", [pd.DataFrame, lambda rows: pd.Series(map(np.array, rows))])
def test_features_belong_to_the_rows_of_their_index_label(make, caplog):
    caplog.set_level("INFO", logger="toolkit")
    frame = pd.DataFrame({"label": list("abab"), "speaker": list("wxyz")}, index=list("qrst"))
    rows = np.arange(8.0).reshape(4, 2)

    def read(values, table=frame):
        manifest = read_manifest(write_data(table, {}, {"text": values})[0])
        return [read_sequence(path).tolist() for path in manifest.paths["text"]]

    own = make(rows.tolist()).set_axis(frame.index)
    assert read(rows) == read(own) == rows.tolist()
    assert not caplog.messages
    assert read(own.iloc[[2, 0, 3, 1]]) == rows.tolist()
    assert caplog.messages == [
        "Note: features['text']: rows were put in the order of the table, by its index."
    ]
    # A default index on both sides is one index; of a shuffled table it is not the order.
    plain = frame.reset_index(drop=True)
    assert read(make(rows.tolist()), plain) == rows.tolist()
    shuffled = plain.iloc[[3, 1, 0, 2]]
    assert read(make(rows.tolist()), shuffled) == rows.tolist()  # sorted by the index
    assert read(rows, shuffled) == rows[[2, 1, 3, 0]].tolist()
    # One index with a label twice, in one order, leaves no doubt.
    twice = frame.set_axis([0, 0, 1, 1]).assign(utterance=list("qrst"))
    assert read(own.set_axis([0, 0, 1, 1]), twice) == rows.tolist()


@pytest.mark.parametrize(
    ("index", "own", "fault"),
    [
        (["q", "r", "s"], [0, 1, 2], r"\(it has no 'q'\)"),
        ([0, 1, 2], [1, 2, 3], r"\(it has no 0\)"),
        ([0, 0, 1], [1, 0, 0], r"\(0 is there twice\)"),
        ([0, 0, 1], [1, 0, 2], r"\(0 is there twice\)"),
        (["1", "2", "3"], [1, 2, 3], r"\(it has no '1'\)"),
    ],
)
def test_features_of_another_index_are_refused(index, own, fault, cache):
    frame = pd.DataFrame({"label": list("aba"), "speaker": list("xyz")}, index=index)
    features = {"text": pd.DataFrame(np.ones((3, 2)), index=own)}

    with pytest.raises(ConfigError, match=fault + ", so rows may belong to other utterances"):
        toolkit.study(frame, features=features)
    assert not cache.exists()


class _ClassLabel:
    names = ("sad", "glad")


class _Value:
    pass


class StandIn:
    """A Dataset of Hugging Face as the toolkit sees it, where the library is not installed."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features

    def to_pandas(self):
        return pd.DataFrame(self.columns)

    def to_csv(self):
        raise AssertionError


FRAMES = [np.arange(6.0).reshape(3, 2), None, np.ones((1, 2)), np.zeros((2, 2))]
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def make_stand_in():
    nested = [None if one is None else np.array([*one, None], object)[:-1] for one in FRAMES]
    columns = {"label": [0, 1, 1, 0], "speaker": ["a", "a", "b", "c"], "face": nested}
    columns["text_features"] = [*VECTORS]
    return StandIn(columns, dict.fromkeys(columns, _Value()) | {"label": _ClassLabel()})


def make_dataset():
    datasets = pytest.importorskip("datasets", reason="needs the library datasets")
    kinds = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["sad", "glad"]),
            "speaker": datasets.Value("string"),
            "face": datasets.Array2D((None, 2), "float64"),
            "text_features": datasets.Sequence(datasets.Value("float32"), 3),
        }
    )
    columns = {"label": [0, 1, 1, 0], "speaker": ["a", "a", "b", "c"], "face": FRAMES}
    data = datasets.Dataset.from_dict(columns | {"text_features": [*VECTORS]}, features=kinds)
    # A choice of rows is one of indices, which the rows of the file do not show.
    return datasets.concatenate_datasets([data, data]).select([0, 5, 2, 3])


@pytest.mark.filterwarnings("ignore")  # those of another library
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("make", [make_stand_in, make_dataset])
def test_arrays_of_a_hugging_face_dataset_are_modalities(make):
    manifest = read_manifest(write_data(make(), {}, {})[0])

    assert manifest.classes == ("glad", "sad")
    assert [manifest.classes[k] for k in manifest.labels] == ["sad", "glad", "glad", "sad"]
    assert manifest.modalities == ("face", "text")
    for path, expected in zip(manifest.paths["face"], FRAMES, strict=True):
        assert (path is None) == (expected is None)
        if path is not None:
            np.testing.assert_array_equal(read_sequence(path), expected)
    found = [np.load(path) for path in manifest.paths["text"]]
    np.testing.assert_array_equal(found, VECTORS)
    assert found[0].dtype == np.float32


@pytest.mark.usefixtures("cache")
def test_a_class_label_without_a_class_is_an_empty_cell():
    data = make_stand_in()
    data.columns["label"] = [0, -1, 1, None]
    with pytest.raises(ManifestError, match=r"row 3, column 'label'.*empty") as caught:
        read_manifest(write_data(data, {}, {})[0])
    assert "row 5" in str(caught.value)


def test_columns_that_are_no_features_are_refused(cache):
    data = make_stand_in()
    with pytest.raises(ConfigError, match="a mapping of train, test; pass one"):
        toolkit.study({"train": data, "test": data}, features={})
    data.columns["face"][2] = np.array([np.ones(2), np.ones(3)], object)
    with pytest.raises(ConfigError, match=r"features\['face'\], row 2: object of shape"):
        toolkit.study(data)
    data.columns["face"] = [{"bytes": b"RIFF", "path": None}] * 4
    with pytest.raises(ConfigError, match=r"'face' holds _Value, .*remove_columns"):
        toolkit.study(data)
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_arrays_in_a_frame_are_a_modality_as_features_are():
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"]})
    given = [np.ones((2, 3)), None]
    expected = write_data(frame, {}, {"face": given})
    assert write_data(frame.assign(face=given), {}, {}) == expected
    with pytest.raises(ConfigError, match="'face' is given twice, once as 'face_features'"):
        write_data(frame.assign(face_features=given), {}, {"face": given})


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("form", ["features", "column"])
@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (np.empty((0, 3)), "has no frames"),
        (np.empty((3, 0)), "has no dimensions"),
        ([], "has no dimensions"),
        (np.full((4, 3), np.nan), "numbers is finite"),
        (np.full((1, 3), np.nan), "numbers is finite"),
        (None, ""),
        (np.nan, ""),
        (np.full(3, np.nan), ""),
        ([float("nan")] * 3, ""),
    ],
)
def test_what_a_file_may_not_hold_is_not_missing_in_memory(odd, fault, form):
    rows = [np.full(3, k) if np.ndim(odd) < 2 else np.full((2, 3), k) for k in range(12)]
    rows[5] = odd
    frame = pd.DataFrame({"label": list("ab") * 6, "speaker": list("aabbccddeeff")})
    features = {"face": rows}
    if form == "column":
        frame, features = frame.assign(face=rows), {}

    source, _ = write_data(frame, {}, features)
    manifest = read_manifest(source)
    problems = summarise_manifest(manifest).problems

    assert (manifest.paths["face"][5] is None) == (not fault)
    assert [fault in text for text in problems] == [True] * bool(fault)


MASKED = np.ma.array([[1.0, 999.0], [2.0, 3.0]], mask=[[False, True], [False, False]])


@pytest.mark.parametrize("make", [lambda a: a, list, tuple, lambda a: a[0], lambda a: a[:, 1]])
def test_masked_values_are_refused_wherever_they_are_given(make, cache):
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"]})
    given = [np.ones((2, 2)), make(MASKED)]

    for table, features in ((frame, {"face": given}), (frame.assign(face=given), {})):
        with pytest.raises(ConfigError, match=r"\['face'\], row 1: Some values are masked"):
            toolkit.study(table, features=features)
    assert not cache.exists()
    with pytest.raises(ValueError, match=r"equence 1 of modality .*: Some values are masked"):
        toolkit.SequencePooler(statistics=["max"]).fit_transform(given)
    with pytest.raises(ValueError, match="Some values are masked"):
        pool_frames(make(MASKED), ["max"])


@pytest.mark.usefixtures("cache")
def test_a_mask_of_nothing_hides_nothing():
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"]})
    plain = [np.ones((2, 2)), np.zeros((1, 2))]

    masked = write_data(frame, {}, {"face": [np.ma.array(each) for each in plain]})

    assert masked == write_data(frame, {}, {"face": plain})
    assert pool_frames(MASKED.filled(0), ["max"]).tolist() == [[2.0, 3.0]]


class Tensor:
    """An array of another library."""

    def __init__(self, values, fault=None):
        self.values, self.fault = values, fault

    def __array__(self, dtype=None, copy=None):
        if self.fault:
            raise self.fault
        return np.asarray(self.values, dtype)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "make",
    [tuple, list, np.array, Tensor, pd.Series, lambda row: array("d", row), deque],
)
def test_a_column_of_any_sequence_of_numbers_is_a_modality(make):
    frame = pd.DataFrame({"label": ["a", "b", "a"], "speaker": ["x", "y", "z"]})
    rows = [[1.0, 2.0], [3.0, 4.0]]
    expected = write_data(frame, {}, {"face": [np.array(row) for row in rows] + [None]})

    cells = pd.Series([*map(make, rows), None], dtype=object)

    assert write_data(frame.assign(face=cells), {}, {}) == expected
    assert write_data(frame, {}, {"face": [*cells]}) == expected


@pytest.mark.parametrize("other", ["x.npy", "", 3.0, {"bytes": b""}, b"RIFF"])
def test_a_cell_of_another_kind_among_arrays_is_named(other, cache):
    frame = pd.DataFrame({"label": ["a", "b", "a"], "speaker": ["x", "y", "z"]})
    frame["face"] = pd.Series([(1.0, 2.0), None, other], dtype=object)

    with pytest.raises(ConfigError, match=r"^Column 'face', row 2: .* beside arrays"):
        toolkit.study(frame)
    assert not cache.exists()


@pytest.mark.parametrize(
    "bad",
    [
        [[1.0, 2.0], [3.0]],
        Tensor([], RuntimeError("it requires grad")),
        Tensor([], TypeError("it is on cuda:0")),
    ],
)
def test_what_makes_no_array_is_named(bad, cache):
    frame = pd.DataFrame({"label": ["a", "b"], "speaker": ["x", "y"]})

    with pytest.raises(ConfigError, match=r"^features\['face'\], row 1: "):
        toolkit.study(frame, features={"face": [np.ones((2, 2)), bad]})
    assert not cache.exists()


def test_a_column_twice_in_a_frame_is_refused(cache):
    frame = pd.DataFrame([["a", "x", "y"]], columns=["label", "speaker", "speaker"])

    with pytest.raises(ConfigError, match="two columns 'speaker'; rename or remove one"):
        toolkit.study(frame, features={"face": [[1.0]]})
    assert not cache.exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,speaker,label,speaker\na,x,p,y\nb,y,q,x\n", "two columns 'speaker'"),
        (
            "id,speaker,label,text\na,x,p\nb,y,q,t.npy\n",
            "row 2: 3 fields where the header has 4",
        ),
        ("id,speaker,label\na,x,p,\nb,y,q,\n", "row 2: 4 fields where the header has 3"),
        ("id;speaker;label\na;x;p\nb;y;q\n", "separated by semicolons"),
        ('id,speaker,label\na,x,"p\nb,y,q\n', "cannot be split into cells"),
        ("", "The file is empty"),
    ],
)
def test_a_file_beside_features_is_read_by_the_rules_of_the_command(
    text, fault, tmp_path, cache
):
    path = tmp_path / "x.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=fault):
        toolkit.study(path, features={"face": np.ones((2, 3))})
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_a_file_beside_features_gives_the_manifest_of_the_command(tmp_path, caplog):
    caplog.set_level("INFO", logger="toolkit")
    path = tmp_path / "x.csv"
    for name in ("t.npy", "u.npy"):
        np.save(tmp_path / name, np.ones((2, 3)))
    path.write_text(
        '\ufeff id, speaker ,label,text_features,,\n01, NA ,"p, q",t.npy,1,2\n,,,,,\n'
        '02,"x ",1.0,u.npy,,\n03,y,1.0,,,\n'
    )
    expected = read_manifest(path)

    written, base = write_data(path, {}, {"face": np.eye(3)})
    found = read_manifest(written, roots=[base])

    assert "Note: 1 rows hold nothing but commas and were skipped." in caplog.messages
    assert found.modalities == (*expected.modalities, "face") == ("text", "face")
    assert found.paths["text"] == expected.paths["text"]
    assert found.ignored == expected.ignored == ("(column 5)", "(column 6)")
    for name in ("utterances", "labels", "speakers"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.classes == expected.classes == ("1.0", "p, q")
    padding = [note for note in expected.warnings if "white space" in note]
    assert padding == [note for note in found.warnings if "white space" in note]
    assert len(padding) == 1


@pytest.mark.parametrize(
    "order",
    [
        "import toolkit",
        "import toolkit.study",
        "import toolkit.study.config, toolkit",
        "from toolkit import study; import toolkit",
        "from toolkit.study.options import Request; import toolkit",
        "import toolkit; toolkit.StudyConfig",
        "import toolkit; toolkit.study; import toolkit.study.config",
    ],
)
def test_the_package_can_be_called_whatever_was_imported_first(order):
    check = (
        "f = toolkit.study; assert callable(f); print(f.__name__, f.config.StudyConfig().seed)"
    )
    code = f"{order}; from toolkit.study import config; {check}"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.stdout == "toolkit.study 0\n", done.stderr


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "toolkit.study", "--version"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.stdout == f"modality-toolkit {toolkit.__version__}\n", done.stderr


def test_public_names_are_all_that_is_listed():
    assert dir(toolkit) == sorted([*toolkit.__all__, "__version__"])
    assert all(getattr(toolkit, name) is not None for name in toolkit.__all__)
    assert inspect.signature(toolkit.study).parameters.keys() >= {"features", "options"}
