import csv
import dataclasses
import pickle
import random
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from toolkit.data import Manifest, ManifestError, make_corpus, read_manifest
from toolkit.data.manifest import _check_outer, read_unlabelled

TASK_HEADER = (
    "file_name_list, speakers, visual_features, acoustic_features, lexical_features, "
    "emotion_labels"
)


def assert_same(one, other):
    for entry in dataclasses.fields(Manifest):
        left, right = getattr(one, entry.name), getattr(other, entry.name)
        if isinstance(left, np.ndarray):
            assert_array_equal(left, right, strict=True)
        else:
            assert left == right, entry.name


@pytest.fixture
def task_table(tmp_path):
    """The task's own file: both partners of three sessions, paths that begin with a slash."""
    lines = [TASK_HEADER]
    for i, (session, gender) in enumerate([(s, g) for s in (3, 1, 2) for g in "MF"] * 2):
        name = f"Ses0{session}F_impro0{i % 4 + 1}_{gender}{i:03d}"
        cells = []
        for folder in ("visual", "acoustic", "lexical"):
            cell = f"/features/{folder}_features/Session{session}/{name}.npy"
            path = tmp_path / cell.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            cells.append(cell)
        cells[0] = "" if i == 5 else cells[0]
        lines.append(", ".join([name, f"{gender}0{session} ", *cells, str(3 - i % 4)]))
    path = tmp_path / "dataset.csv"
    path.write_text("\r\n".join(lines))
    return path


def test_the_task_s_own_file_is_read_as_it_is(task_table):
    manifest = read_manifest(task_table)

    assert manifest.modalities == ("visual", "audio", "text")
    assert manifest.classes == manifest.codes == ("0", "1", "2", "3")
    assert sorted(set(manifest.speakers)) == ["F01", "F02", "F03", "M01", "M02", "M03"]
    assert manifest.utterances.tolist() == sorted(manifest.utterances.tolist())
    assert manifest.utterances[0] == "Ses01F_impro01_M008"
    assert manifest.speakers[0] == "M01"
    assert manifest.sessions[0] == "Ses01"
    assert manifest.dialogues[0] == "Ses01F_impro01"
    assert manifest.labels[0] == 3 - 8 % 4
    assert manifest.ignored == ()
    assert manifest.splits is None
    assert [name for name, files in manifest.paths.items() if None in files] == ["visual"]
    assert manifest.paths["audio"][0] == (
        manifest.root / "features/acoustic_features/Session1/Ses01F_impro01_M008.npy"
    )


def test_speakers_come_from_the_ids_where_there_is_no_column(task_table):
    with_column = read_manifest(task_table)
    lines = [line.split(",") for line in task_table.read_text().splitlines()]
    task_table.write_text("\n".join(",".join(c[:1] + c[2:]) for c in lines))

    manifest = read_manifest(task_table, outer="session")

    assert_array_equal(manifest.speakers, with_column.speakers)
    assert manifest.digest() == with_column.digest()
    assert "The table has no columns speaker, session" in manifest.warnings[0]


def test_a_merge_that_fails_is_not_followed_by_other_problems(task_table):
    lines = [line.split(",") for line in task_table.read_text().splitlines()]
    task_table.write_text("\n".join(",".join(c[:1] + c[2:]) for c in lines))

    circle = {"0": "1", "1": "2", "2": "3", "3": "0"}
    with pytest.raises(ManifestError, match="has 4 problems") as caught:
        read_manifest(task_table, merge=circle)

    assert all(problem.startswith("--merge") for problem in caught.value.problems)


def test_a_table_without_speakers_is_refused(columns, write_table):
    del columns["speaker"]

    with pytest.raises(ManifestError, match="No column holds the speaker"):
        read_manifest(write_table(columns))


def test_a_header_over_two_columns_is_refused(columns, write_table):
    path = write_table(columns | {"age": list("123456"), "city": list("123456")})
    path.write_text(path.read_text().replace("city", " age "))

    with pytest.raises(ManifestError, match="Columns 5 and 6 are both called 'age'"):
        read_manifest(path)


def test_text_stays_text(columns, write_table):
    columns["speaker"] = ["01", "01", "1e5", "1e5", "NA", "NA"]
    columns["label"] = ["NA", "none", "NA", "none", "NA", "none"]

    manifest = read_manifest(write_table(columns))

    assert manifest.speakers.tolist() == ["01", "01", "1e5", "1e5", "NA", "NA"]
    assert manifest.classes == ("NA", "none")
    assert len(manifest) == 6


def test_names_stand_for_codes_in_the_order_of_the_codes(columns, write_table):
    columns["label"] = ["10", "9", "10", "9", "10", "9"]
    columns["label_name"] = ["calm", "sad", "calm", "sad", "calm", "sad"]

    manifest = read_manifest(write_table(columns))

    assert manifest.codes == ("9", "10")
    assert manifest.classes == ("sad", "calm")
    assert manifest.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_another_label_column_can_be_chosen(columns, write_table):
    columns["arousal"] = ["low", "high", "high", "low", "low", "high"]

    manifest = read_manifest(write_table(columns), label="Arousal")

    assert manifest.classes == ("high", "low")
    assert manifest.ignored == ("label",)


def test_classes_left_out_and_merged_are_counted(columns, write_table):
    columns["label"] = ["a", "b", "c", "b", "a", "d"]

    manifest = read_manifest(
        write_table(columns), classes=["a", "b"], merge={"c": "a"}, outer="speaker"
    )

    assert manifest.utterances.tolist() == ["u1", "u2", "u3", "u4", "u5"]
    assert manifest.labels.tolist() == [0, 1, 0, 1, 0]
    assert manifest.excluded == {"d": 1}
    assert manifest.merged == {"c": "a"}


def test_groups_are_counted_after_classes_are_left_out(columns, write_table):
    columns["label"] = ["a", "b", "a", "b", "c", "c"]

    with pytest.raises(ManifestError, match=r"at least 3 speakers, but there are 2"):
        read_manifest(write_table(columns), classes=["a", "b"])


def test_all_problems_come_in_one_error(columns, write_table):
    columns["utterance"][1] = "u1"
    columns["speaker"][2] = ""
    columns["voice"][3] = "../u4.npy"
    columns["voice"][4] = "voice/nowhere.npy"
    columns["early"] = columns["voice"]
    path = write_table(columns)
    (path.parent / "voice" / "nowhere.npy").unlink()
    with path.open("a") as file:
        file.write("u7,0,dan,voice/u1.npy\n")

    with pytest.raises(ManifestError, match=r"^dataset\.csv has 6 problems") as caught:
        read_manifest(path, classes=["0", "1"])

    rows = [problem.split(":")[0].split(",")[0] for problem in caught.value.problems]
    assert rows == ["column 'early'", "row 3", "row 4", "row 5", "row 6", "row 8"]


def test_rows_of_commas_are_counted_and_skipped(columns, write_table):
    path = write_table(columns)
    with path.open("a") as file:
        file.write(",,,\n,,,\n")

    manifest = read_manifest(path)

    assert len(manifest) == 6
    assert manifest.warnings == ("2 rows hold nothing but commas and were skipped.",)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(columns, write_table, seed):
    columns["speaker"] = ["Ann", "ann", "bob", "bob", "cat", "cat"]
    columns["label"] = ["c", "a", "b", "a", "b", "a"]
    columns["voice"][2] = columns["voice"][3]
    path = write_table(columns)
    expected = read_manifest(path, spellings="keep")
    header, *lines = path.read_text().splitlines()

    random.Random(seed).shuffle(lines)
    path.write_text("\n".join([header, *lines]))

    assert expected.warnings
    assert_same(read_manifest(path, spellings="keep"), expected)


def test_the_order_of_columns_and_the_folder_do_not_matter_to_the_digest(columns, write_table):
    columns["session"] = ["x", "x", "x", "y", "y", "z"]
    expected = read_manifest(write_table(columns)).digest()

    turned = dict(reversed(columns.items()))

    assert read_manifest(write_table(turned, folder="elsewhere")).digest() == expected


@pytest.mark.parametrize("role", ["utterance", "label", "speaker", "session", "split"])
def test_the_digest_tells_every_change_of_a_row(columns, write_table, role):
    columns |= {"session": ["x", "y", "z"] * 2, "split": ["train", "test"] * 3}
    before = read_manifest(write_table(columns)).digest()

    columns[role][0] = {"label": "1", "utterance": "u0"}.get(role, "other")

    assert read_manifest(write_table(columns)).digest() != before


def test_the_digest_knows_where_a_name_ends(columns, write_table):
    digests = set()
    for speaker, session in [("a,b", "c"), ("a", "b,c"), ('a","b', "c"), ("a", 'b","c')]:
        columns["speaker"][0], columns["session"] = speaker, [session, *"xyzxy"]
        digests.add(read_manifest(write_table(columns)).digest())

    assert len(digests) == 4


def test_the_digest_tells_classes_in_another_order(columns, write_table):
    columns["label_name"] = ["sad" if code == "0" else "glad" for code in columns["label"]]
    before = read_manifest(write_table(columns)).digest()

    columns["label"] = ["1" if code == "0" else "0" for code in columns["label"]]

    assert read_manifest(write_table(columns)).digest() != before


def test_groups_are_speakers_or_sessions(columns, write_table):
    manifest = read_manifest(write_table(columns))

    assert_array_equal(manifest.groups("speaker"), manifest.speakers)
    with pytest.raises(ValueError, match=r"dataset\.csv has no sessions"):
        manifest.groups("session")
    with pytest.raises(ValueError, match="not by 'dialogue'"):
        manifest.groups("dialogue")


def test_a_manifest_cannot_be_changed(columns, write_table):
    manifest = read_manifest(write_table(columns))

    with pytest.raises(ValueError, match="read-only"):
        manifest.labels[0] = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        manifest.paths["voice"] = ()
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        manifest.source = "x"


def test_a_manifest_reaches_a_worker_unchanged(columns, write_table):
    columns["session"] = ["x", "x", "x", "y", "y", "z"]
    manifest = read_manifest(write_table(columns))

    again = pickle.loads(pickle.dumps(manifest))

    assert_same(again, manifest)
    assert not again.labels.flags.writeable


def test_arrays_of_another_length_are_refused(columns, write_table):
    manifest = read_manifest(write_table(columns))

    with pytest.raises(ValueError, match=r"labels has shape \(2,\); expected \(6,\)"):
        dataclasses.replace(manifest, labels=manifest.labels[:2])
    with pytest.raises(ValueError, match=r"Modality 'voice' has 2 paths; expected 6"):
        dataclasses.replace(manifest, paths={"voice": manifest.paths["voice"][:2]})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"outer": "fold"}, "--outer is 'fold'"), ({"missing": "x"}, "'x'")],
)
def test_options_are_checked_before_the_file_is_opened(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "nothing.csv", **options)


def test_a_generated_corpus_is_known_as_one(tmp_path, columns, write_table):
    generated = read_manifest(make_corpus(tmp_path / "generated", n_utterances=120))

    assert generated.generated
    assert generated.modalities == ("visual", "audio", "text")
    assert not read_manifest(write_table(columns)).generated


def test_a_table_of_5531_rows_is_refused_within_two_seconds(tmp_path):
    lines = [TASK_HEADER]
    for folder in ("visual", "acoustic", "lexical"):
        (tmp_path / folder).mkdir()
    for i in range(5_531):
        name = f"Ses0{i % 5 + 1}F_impro{i // 300:02d}_{'FM'[i % 2]}{i:04d}"
        files = [f"/{folder}/{name}.npy" for folder in ("visual", "acoustic", "lexical")]
        lines.append(", ".join([name, f"{'FM'[i % 2]}0{i % 5 + 1}", *files, str(i % 4)]))
    path = tmp_path / "dataset.csv"
    path.write_text("\n".join(lines))

    # Time of this process: the clock on the wall runs on while other tests have the cores.
    start = time.process_time()
    with pytest.raises(ManifestError, match=r"dataset\.csv has 3 problems") as caught:
        read_manifest(path)

    assert time.process_time() - start < 2
    assert all("5,531 rows have this fault" in text for text in caught.value.problems)


def write(folder, header, rows, name="new.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return folder / name


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a", "c"):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 2), np.float32))
    return tmp_path


def test_neither_labels_nor_speakers_are_needed(folder):
    path = write(folder, ["id", "voice"], [["b", "b.npy"], ["a", "a.npy"]])

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.utterances.tolist() == ["a", "b"]
    assert manifest.labels.tolist() == [-1, -1]
    assert manifest.speakers.tolist() == ["", ""]
    assert [p.name for p in manifest.paths["voice"]] == ["a.npy", "b.npy"]
    assert "whether a speaker was in training is unknown" in manifest.warnings[-1]


def test_labels_that_are_not_needed_are_kept_as_they_are(folder):
    rows = [["a", "anna", "?", "a.npy"], ["b", "anna", "", "b.npy"]]
    path = write(folder, ["id", "speaker", "label", "voice"], rows)

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.labels.tolist() == [0, -1]
    assert manifest.classes == ("?",)
    assert manifest.speakers.tolist() == ["anna", "anna"]


KEYS = ["id", "session", "speaker", "emotion", "voice"]
ROWS = [["a", "1", "F", "sad", "a.npy"], ["b", "2", "F", "glad", "b.npy"]]


@pytest.mark.parametrize("usual", ["session+speaker", "Session + Speaker", "SESSION+speaker"])
def test_a_joined_key_of_the_study_is_found_again(folder, usual):
    path = write(folder, KEYS, ROWS)

    manifest = read_unlabelled(path, ["voice"], usual={"speaker": usual})

    assert manifest.speakers.tolist() == ["1_F", "2_F"]
    assert not manifest.warnings
    # A column that the caller gives another role takes part in no key.
    other = read_unlabelled(
        path, ["voice"], usual={"speaker": usual}, columns={"label": "session"}
    )
    assert other.speakers.tolist() == ["F", "F"]


def test_another_column_than_the_study_named_is_told(folder):
    path = write(folder, KEYS, ROWS)
    usual = {"speaker": "room+speaker", "label": "mood"}

    manifest = read_unlabelled(path, ["voice"], usual=usual)

    assert manifest.speakers.tolist() == ["F", "F"]
    assert manifest.labels.tolist() == [-1, -1]
    of_speaker, of_label = manifest.warnings
    assert of_speaker.endswith("'room+speaker', the speaker of the study: 'speaker' is used.")
    assert of_label.startswith(
        "There is no column 'mood', the label of the study, and so no sc"
    )
    assert of_label.endswith(": --column label=HEADER names another.")


def test_labels_of_the_study_are_found_in_another_case_and_replaced_where_asked(folder):
    path = write(folder, [*KEYS[:3], "Mood", "voice"], ROWS)
    assert read_unlabelled(path, ["voice"], usual={"label": "mood"}).classes == ("glad", "sad")

    path = write(folder, KEYS, ROWS)
    for options in ({"any_label": True}, {"columns": {"label": "emotion"}}):
        found = read_unlabelled(path, ["voice"], usual={"label": "mood"}, **options)
        assert [found.classes[k] for k in found.labels] == ["sad", "glad"]
    assert read_unlabelled(path, ["voice"]).classes == ("glad", "sad")


@pytest.mark.parametrize(
    ("labels", "bins", "words"),
    [
        (
            [("0", "neg"), ("1", "pos"), ("1", "neg")],
            (),
            "'1' is called 'neg' here and 'pos'",
        ),
        (
            [("0", "neg"), ("1", "pos"), ("2", "neg")],
            (),
            "as is code '0' in row 2; a name",
        ),
        ([("1", ""), ("2.5", ""), ("high", "")], (2.0,), "The label 'high' is no number"),
    ],
)
def test_labels_that_contradict_are_refused_where_none_is_needed(folder, labels, bins, words):
    rows = [[str(k), code, name, "a.npy"] for k, (code, name) in enumerate(labels)]
    path = write(folder, ["id", "label", "label_name", "voice"], rows)

    with pytest.raises(ManifestError, match=re.escape(words)):
        read_unlabelled(path, ["voice"], bins=bins)


def test_spellings_of_a_speaker_are_told_or_joined(folder):
    rows = [["a", "1", "Ann", "sad", "a.npy"], ["b", "1", "ann", "sad", "b.npy"]]
    path = write(folder, KEYS, rows)

    kept = read_unlabelled(path, ["voice"])
    assert kept.speakers.tolist() == ["Ann", "ann"]
    assert "'Ann' (1 row) and 'ann' (1 row)" in kept.warnings[-1]
    joined = read_unlabelled(path, ["voice"], spellings="join")
    assert len({*joined.speakers.tolist()}) == 1


def test_speakers_are_read_from_the_ids_of_iemocap(folder):
    path = write(folder, ["id", "voice"], [["Ses01F_impro01_M003", "a.npy"]])

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.speakers.tolist() == ["M01"]
    assert manifest.warnings == ("No column gives the speaker: read from the utterance ids.",)


def test_a_modality_without_a_column_is_named_with_what_was_found(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"]])

    with pytest.raises(ManifestError, match=r"files of modality 'face'.*\(found: voice\)"):
        read_unlabelled(path, ["voice", "face"])


def test_a_column_without_a_file_is_a_modality_that_nobody_has(folder):
    path = write(folder, ["id", "voice", "face"], [["a", "a.npy", ""]])

    assert read_unlabelled(path, ["voice", "face"]).paths["face"] == (None,)


def test_a_column_that_the_models_do_not_know_is_left_alone(folder):
    path = write(folder, ["id", "voice", "face"], [["a", "a.npy", "nowhere.npy"]])

    assert read_unlabelled(path, ["voice"]).modalities == ("voice",)


def test_absent_files_are_refused_unless_they_may_be_missing(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"], ["b", "gone.npy"]])

    with pytest.raises(ManifestError, match=r"gone\.npy"):
        read_unlabelled(path, ["voice"])
    assert read_unlabelled(path, ["voice"], missing="allow").absent == {"voice": 1}


def test_what_is_wrong_with_the_rows_is_told_in_one_message(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"], ["a", "b.npy"], ["", "c.npy"]])

    with pytest.raises(ManifestError, match=r"(?s)'a' is in row 2 already.*the cell is empty"):
        read_unlabelled(path, ["voice"])


def test_the_generated_corpus_reads_without_its_labels(corpus, manifest, tmp_path):
    new = shutil.copytree(corpus, tmp_path / "new")
    with (new / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    at = [i for i, name in enumerate(header) if "label" not in name]
    path = write(new, [header[i] for i in at], [[row[i] for i in at] for row in rows])

    found = read_unlabelled(path, manifest.modalities)

    assert found.utterances.tolist() == manifest.utterances.tolist()
    assert found.speakers.tolist() == manifest.speakers.tolist()
    assert found.generated


def test_the_outer_grouping_is_a_word_or_a_number_of_groups():
    assert [_check_outer(word) for word in ("speaker", "session", "split", "10")] == [
        ("speaker", False),
        ("session", False),
        ("split", False),
        (10, False),
    ]
    assert _check_outer("speaker+content") == ("speaker", True)
    assert _check_outer("10+content") == (10, True)


_UNKNOWN = [
    "speakers",
    "",
    "2",
    "0",
    "-5",
    "5.0",
    "\u0665",
    "split+content",
    "speaker+contents",
]


@pytest.mark.parametrize("outer", _UNKNOWN)
def test_any_other_outer_grouping_is_refused(outer):
    with pytest.raises(ValueError, match="expected speaker, session, split, or a number"):
        _check_outer(outer)


def test_a_table_in_memory_is_read_as_its_file(task_table, monkeypatch):
    from_file = read_manifest(task_table)
    frame = pd.read_csv(task_table, skipinitialspace=True)
    monkeypatch.chdir(task_table.parent)

    from_memory = read_manifest(frame)

    assert from_memory.source == "DataFrame"
    assert_same(from_memory, dataclasses.replace(from_file, source="DataFrame"))


def test_problems_of_a_table_in_memory_are_those_of_its_file(task_table, monkeypatch):
    monkeypatch.chdir(task_table.parent)
    frame = pd.read_csv(task_table, skipinitialspace=True)
    frame.loc[3, "emotion_labels"] = None

    with pytest.raises(ManifestError, match=r"DataFrame has 1 problem:\n- row 5, column 'emo"):
        read_manifest(frame)


def test_a_manifest_is_shown_in_one_line(task_table):
    assert repr(read_manifest(task_table)) == (
        "<Manifest of dataset.csv: 12 utterances, 6 speakers, 4 classes (0, 1, 2, 3), "
        "modalities visual, audio, text>"
    )


def test_content_is_read_from_a_column_or_from_ids_and_hashed_where_it_is_held_out(task_table):
    by_id = read_manifest(task_table)
    lines = [line.strip() for line in task_table.read_text().splitlines()]
    rows = [f"{line}, {'ABC'[i % 3]}" for i, line in enumerate(lines[1:])]
    task_table.write_text("\n".join([f"{lines[0]}, Sentence", *rows]))

    by_column = read_manifest(task_table, outer="speaker+content")

    assert by_id.contents.tolist() == [name.split("_")[1] for name in by_id.utterances]
    assert sorted(set(by_column.contents.tolist())) == ["A", "B", "C"]
    assert by_column.ignored == ()
    # A study that holds out no content goes on where a table gets such a column.
    assert by_column.digest() == by_id.digest()
    assert by_column.digest(content=True) != by_id.digest(content=True)
    held_out = by_column.groups("session+content")
    assert held_out[0].tolist() == ["Ses01", f"content:{by_column.contents[0]}"]
    with pytest.raises(ValueError, match=r"has no content; leave \+content out"):
        dataclasses.replace(by_column, contents=None).groups("speaker+content")


def test_an_empty_cell_of_needed_content_is_named(task_table):
    lines = [line.strip() for line in task_table.read_text().splitlines()]
    rows = [f"{line}, {'' if i == 4 else 'ABC'[i % 3]}" for i, line in enumerate(lines[1:])]
    task_table.write_text("\n".join([f"{lines[0]}, script", *rows]))

    with pytest.raises(ManifestError, match=r"row 6, column 'script': the cell is empty"):
        read_manifest(task_table, outer="session+content")
    assert read_manifest(task_table).contents is None
