import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.csv_table import Problems
from toolkit.data.speakers import _Origin, _People, _read_origins, read_people


@pytest.mark.parametrize(
    ("utterance", "origin"),
    [
        ("Ses01F_impro01_F001", _Origin("F01", "Ses01", "Ses01F_impro01", "impro01")),
        ("Ses05M_script03_2_F012", _Origin("F05", "Ses05", "Ses05M_script03_2", "script03")),
        ("Ses03M_script01_1b_M003", _Origin("M03", "Ses03", "Ses03M_script01_1b", "script01")),
        ("Ses04F_impro05a_MXX0", _Origin("M04", "Ses04", "Ses04F_impro05a", "impro05")),
    ],
)
def test_ids_of_iemocap_tell_where_they_come_from(utterance, origin):
    assert _read_origins([utterance]) == [origin]


def test_the_speaker_is_not_who_wears_the_markers():
    (by_partner,) = _read_origins(["Ses02F_impro01_M000"])

    assert by_partner.speaker == "M02"


@pytest.mark.parametrize(
    "utterance",
    [
        "",
        "Ses01F_impro01",
        "Ses1F_impro01_F001",
        "Ses01F_impro01_001",
        "Ses01F_impro01_F001.npy",
    ],
)
def test_a_single_other_id_makes_them_nobody_s(utterance):
    assert _read_origins(["Ses01F_impro01_F001", utterance]) is None
    assert _read_origins([]) is None


IDS = ["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses02M_impro02_F000"]


def test_speakers_sessions_and_dialogues_are_read_where_no_column_tells():
    warnings = []

    people = read_people({"utterance": IDS}, [2, 0, 1], warnings, needed={"speaker"})

    assert people == _People(
        speakers=["F02", "F01", "M01"],
        sessions=["Ses02", "Ses01", "Ses01"],
        dialogues=["Ses02M_impro02", "Ses01F_impro01", "Ses01F_impro01"],
        splits=None,
        contents=["impro02", "impro01", "impro01"],
    )
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "columns speaker, session, dialogue and content. They were read"),
        (["speaker"], "columns session, dialogue and content. They were read"),
        (["speaker", "content"], "columns session and dialogue. They were read"),
        (["dialogue", "session", "content"], "column speaker. It was read"),
        (["speaker", "session", "dialogue", "content"], None),
    ],
)
def test_columns_read_from_the_ids_are_named(given, expected):
    warnings = []

    read_people(
        {"utterance": IDS} | {role: ["F01", "M01", "F02"] for role in given},
        [0, 1, 2],
        warnings,
        needed={"speaker"},
    )

    assert [
        note.startswith(f"The table has no {expected} from the ids") for note in warnings
    ] == ([True] if expected else [])
    columns = "columns" if expected and expected.startswith("columns") else "column"
    assert all(note.endswith(f"Add the {columns} if that is wrong.") for note in warnings)


def test_columns_come_before_ids():
    cells = {"utterance": IDS, "speaker": ["a", "b", "c"], "session": ["x", "y", "z"]}

    people = read_people(cells, [0, 1, 2], [], needed={"speaker"})

    assert people.speakers == ["a", "b", "c"]
    assert people.sessions == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("speakers", "message"),
    [
        (["F01", "F01", "F02"], "'F01' in the column is 'F01' and 'M01' after the ids"),
        (["a", "b", "c", "d"], "'a' and 'd' in the column is F01 after the ids"),
    ],
)
def test_speakers_that_the_ids_contradict_are_named(speakers, message):
    ids = [*IDS, "Ses01F_impro01_F009"][: len(speakers)]
    warnings = []

    cells = {"utterance": ids, "speaker": speakers}
    read_people(cells, range(len(ids)), warnings, needed={"speaker"})

    assert message in warnings[0]


def test_other_names_for_the_same_speakers_are_no_contradiction():
    warnings = []

    cells = {"utterance": IDS, "speaker": list("123"), "session": list("112")}
    cells |= {"dialogue": list("xyz"), "content": list("xxy")}
    read_people(cells, [0, 1, 2], warnings, needed={"speaker"})

    assert warnings == []


def test_sessions_with_gaps_are_not_used_unless_needed():
    cells = {"speaker": ["a", "b"], "session": ["x", ""]}
    warnings = []

    assert read_people(cells, [0, 1], warnings, needed={"speaker"}).sessions is None
    assert warnings == ["Sessions are not used: 1 of 2 rows have none."]
    assert read_people(cells, [0, 1], [], needed={"session"}).sessions == ["x", ""]


def test_train_and_test_are_known_in_any_case_and_other_parts_kept():
    cells = {"speaker": list("abc"), "split": ["Train", "TEST", "Dev"]}

    people = read_people(cells, [0, 1, 2], [], needed={"split"})

    assert people.splits == ["train", "test", "Dev"]


def grouped(outer, speakers, sessions=None, splits=None):
    problems = Problems("dataset.csv")
    _People(list(speakers), sessions, None, splits).check_groups(outer, problems)
    problems.raise_any()


@pytest.mark.parametrize(
    ("outer", "speakers", "others"),
    [
        ("speaker", "aabbc", {}),
        ("session", "abcd", {"sessions": ["x", "y", "z", "z"]}),
        (4, "abcd", {}),
        ("split", "ab", {"splits": ["train", "test"]}),
    ],
)
def test_enough_groups_are_enough(outer, speakers, others):
    grouped(outer, speakers, **others)


@pytest.mark.parametrize(
    ("outer", "speakers", "others", "message"),
    [
        (
            "speaker",
            "aabb",
            {},
            r"3 speakers, but there are 2 \('a', 'b'\); add recordings of other speakers\.",
        ),
        (
            "speaker",
            "aaaa",
            {"sessions": list("xxyz")},
            "; hold out sessions with --outer session, or add recordings of other speakers",
        ),
        ("session", "abcd", {"sessions": list("xxyy")}, "3 sessions, but there are 2"),
        ("session", "abcd", {"sessions": list("xxxx")}, r"there is 1 \('x'\)"),
        ("session", "abcd", {}, "needs a column called 'session'"),
        (5, "abcd", {}, "at least 5 speakers, but there are 4 .*; lower the number, or add"),
        ("split", "abcd", {}, "needs a column called 'split'"),
        (
            "split",
            "ab",
            {"splits": ["train", "dev"]},
            "'test' rows; the values there are 'dev'",
        ),
        ("split", "ab", {"splits": ["test", "dev"]}, "'train' rows"),
    ],
)
def test_too_few_groups_are_refused(outer, speakers, others, message):
    with pytest.raises(ManifestError, match=message):
        grouped(outer, speakers, **others)


def warn(speakers, labels):
    warnings = []
    _People(speakers, None, None, None).warn(labels, warnings)
    return warnings


def test_a_class_of_one_speaker_is_pointed_out():
    warnings = warn(["a", "a", "b", "b"], ["x", "y", "x", "x"])

    assert len(warnings) == 1
    assert "Class 'y' occurs with speaker 'a' only" in warnings[0]


def test_a_speaker_a_row_is_doubted():
    warnings = warn(["a", "b", "c", "d"], ["x", "y", "x", "y"])

    (warning,) = warnings
    assert warning.startswith("Every utterance has a speaker of its own: are these speakers?")
    assert "--column speaker=HEADER" in warning


def test_a_label_per_speaker_is_said_once():
    (note,) = warn(list("aabbccdd"), list("xxyyxxyy"))

    assert note.startswith("Each speaker has a single label: here, recognising a person")
    assert warn(list("aabbccdd"), list("xyyyxxyy")) == []


def test_notes_of_single_classes_are_capped():
    notes = warn(
        [*"aabbccddeeffgg"],
        [letter + "x" if i % 2 else "y" for i, letter in enumerate("aabbccddeeffgg")],
    )

    assert len(notes) == 6
    assert notes[-1] == "Classes that occur with one speaker only: 2 more."


def doubt(speakers, sessions):
    people = _People(speakers, sessions, None, None)
    notes = []
    people.warn([f"{i % 2}" for i in range(len(speakers))], notes, key="Day+Who")
    return [note for note in notes if "several sessions" in note]


@pytest.mark.parametrize(
    "names", [("1", "2", "3"), ("left", "right"), ("A", "B"), ("host", "guest"), ("S01", "S02")]
)
def test_names_that_begin_again_in_each_session_are_doubted(names):
    speakers = [name for _ in range(4) for name in names for _ in range(2)]
    sessions = [f"d{i // (2 * len(names))}" for i in range(len(speakers))]

    (note,) = doubt(speakers, sessions)

    assert note.startswith("Speakers " + ", ".join(map(repr, sorted(names))))
    assert "--column speaker=Day+Who" in note


@pytest.mark.parametrize("names", [("ann", "bob"), ("kim23", "lee99")])
def test_people_who_come_again_are_not_doubted(names):
    assert doubt([*names] * 4, [f"d{i // 2}" for i in range(8)]) == []


def test_names_of_one_session_each_are_not_doubted():
    assert doubt(["1", "1", "2", "2"], ["d1", "d1", "d2", "d2"]) == []


def test_two_columns_make_one_speaker(columns, write_table):
    columns["speaker"] = ["A", "B"] * 3
    columns["day"] = ["1", "1", "2", "2", "3", "3"]

    with pytest.raises(ManifestError, match="needs at least 3 speakers"):
        read_manifest(write_table(columns))
    manifest = read_manifest(write_table(columns), columns={"speaker": "day+speaker"})

    assert manifest.speakers.tolist() == ["1_A", "1_B", "2_A", "2_B", "3_A", "3_B"]


@pytest.mark.parametrize(
    ("first", "second"), [(("a_b", "c"), ("a", "b_c")), (("1_", "2"), ("1", "_2"))]
)
@pytest.mark.parametrize("role", ["speaker", "content"])
def test_two_columns_never_make_one_name_of_two(columns, write_table, role, first, second):
    columns["day"] = [first[0], first[0], second[0], second[0], "x", "x"]
    columns["who"] = [first[1], first[1], second[1], second[1], "y", "z"]

    pairs = " and ".join(f"{day!r} . {who!r}" for day, who in (first, second))
    fault = f"row 4, column 'day.who': {pairs} would both be {'_'.join(first)!r}; rename"
    with pytest.raises(ManifestError, match=fault):
        read_manifest(write_table(columns), columns={role: "day+who"})
    columns["day"] = [cell.replace("_", "-") for cell in columns["day"]]
    columns["who"] = [cell.replace("_", "-") for cell in columns["who"]]
    manifest = read_manifest(write_table(columns), columns={role: "day+who"})
    names = ["_".join(pair) for pair in zip(columns["day"], columns["who"], strict=True)]
    assert getattr(manifest, f"{role}s").tolist() == names


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "#N/A", "NULL"])
@pytest.mark.parametrize("part", ["day", "speaker"])
def test_a_key_with_a_missing_part_is_refused(columns, write_table, word, part):
    columns["day"] = ["1", "1", "2", "2", "3", "3"]
    columns[part] = [word, *columns[part][1:5], word]

    fault = rf"row 2, column 'day\+speaker': '{word}' stands for a missing value"
    with pytest.raises(ManifestError, match=fault):
        read_manifest(write_table(columns), columns={"speaker": "day+speaker"})


def test_too_few_speakers_whose_names_begin_again_get_the_key(columns, write_table):
    columns["speaker"] = ["A", "B"] * 3
    columns["session"] = ["1", "1", "2", "2", "3", "3"]

    with pytest.raises(ManifestError, match=r"--column speaker=session\+speaker"):
        read_manifest(write_table(columns))


def test_a_key_with_an_empty_part_is_an_empty_cell(columns, write_table):
    columns["day"] = ["1", "", "2", "2", "3", "3"]

    with pytest.raises(ManifestError, match=r"row 3, column 'day\+speaker': the cell is empty"):
        read_manifest(write_table(columns), columns={"speaker": "day+speaker"})


@pytest.mark.parametrize("cell", ["", "word " * 50, "two\nlines"])
def test_content_without_a_name_is_not_used_unless_needed(cell):
    cells = {"speaker": ["a", "b"], "content": ["x", cell]}
    warnings = []

    assert read_people(cells, [0, 1], warnings, needed={"speaker"}).contents is None
    assert warnings[0].startswith("The content is not used: 1 of 2 rows have no name of it")
    needed = read_people(cells, [0, 1], [], needed={"speaker", "content"})
    assert needed.contents == ["x", cell]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "needs a column called 'scene', 'script'"),
        (["x", "x", "x"], "needs at least 3 contents, .* here are 'x'"),
        (["x", "y", "x"], "needs at least 3 contents, .* here are 'x', 'y'"),
    ],
)
def test_content_that_cannot_be_held_out_is_refused(contents, message):
    problems = Problems("dataset.csv")

    _People(list("abc"), None, None, None, contents).check_content(problems)

    with pytest.raises(ManifestError, match=message):
        problems.raise_any()
