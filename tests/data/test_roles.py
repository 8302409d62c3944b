import pandas as pd
import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.csv_table import Problems, Rows
from toolkit.data.roles import ROLES, Columns

TASK = (
    "file_name_list",
    "speakers",
    "visual_features",
    "acoustic_features",
    "lexical_features",
    "emotion_labels",
)


def table(header):
    return Rows(tuple(header), (), (), (), 0, Problems("dataset.csv"))


def find(header, *, columns=None, label=None):
    rows = table(header)
    found = Columns.find(rows, columns=columns or {}, label=label)
    rows.problems.raise_any()
    return found.roles


@pytest.mark.parametrize(
    ("role", "name"), [(r, n) for r, names in ROLES.items() for n in names]
)
def test_every_header_is_known_in_any_case(role, name):
    assert find(["x", name.upper()])[role] == 1


def test_the_task_s_own_header_is_understood():
    assert find(TASK) == {"utterance": 0, "label": 5, "speaker": 1}


def test_two_candidates_are_refused_until_one_is_chosen():
    header = ["id", "label", "speaker", "subject"]

    with pytest.raises(
        ManifestError, match=r"'speaker' and 'subject' could each be the speaker"
    ):
        find(header)
    assert find(header, columns={"speaker": "subject"})["speaker"] == 3


def test_a_column_plays_no_role_beside_the_one_it_was_chosen_for():
    assert find(["id", "session"], columns={"speaker": "session"}) == {
        "utterance": 0,
        "speaker": 1,
    }


def test_a_chosen_header_is_found_in_any_case_and_exactly_first():
    assert find(["Who", "WHO"], columns={"speaker": "WHO"}) == {"speaker": 1}
    assert find(["Who"], columns={"speaker": " who "}) == {"speaker": 0}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"columns": {"speakr": "id"}}, r"no role 'speakr'; did you mean 'speaker'\?"),
        ({"columns": {"speaker": "nobody"}}, "Column 'nobody' was chosen as the speaker"),
        ({"label": "labl"}, r"did you mean 'label'\? the columns are 'id', 'label'"),
        ({"columns": {"label": "id", "speaker": "id"}}, "chosen for two roles"),
        ({"columns": {"label": "id"}, "label": "label"}, "label column is given twice"),
    ],
)
def test_a_wrong_choice_says_what_there_is(asked, message):
    with pytest.raises(ManifestError, match=message):
        find(["id", "label"], **asked)


def test_a_choice_that_fails_leaves_one_problem_a_role():
    rows = table(["id", "emotion", "label", "speaker", "subject"])
    found = Columns.find(rows, columns={"speaker": "x"}, label="y")

    found.check([], needed={"speaker"}, excused={"speaker", "label"})

    assert len(rows.problems) == 2


def test_label_names_go_with_the_label_they_stand_beside():
    header = ["id", "label", "label_name", "emotion"]

    assert find(header, label="label")["label_name"] == 2
    assert "label_name" not in find(header, label="emotion")
    assert find(["id", "code", "label_name"], label="code")["label_name"] == 2


def test_missing_roles_are_named_with_the_headers_they_go_by():
    rows = table(["a", "b"])

    Columns(rows, {"label": 0}).check([], needed={"speaker"}, excused=())

    with pytest.raises(ManifestError, match="has 2 problems") as caught:
        rows.problems.raise_any()
    assert "holds the utterance; expected one called 'file_name_list' or" in str(caught.value)
    assert "--column speaker=HEADER. The columns are 'a', 'b'" in str(caught.value)


def test_the_column_of_the_likest_header_is_suggested():
    header = ("who", "spk", "emotion_name", "clip")
    cells = [("x", "s", "sad", "1"), ("x", "s", "sad", "2")]
    rows = Rows(header, (2, 3), cells, (), 0, Problems("dataset.csv"))

    Columns(rows, {"utterance": 3}).check([], needed={"speaker"}, excused=())

    with pytest.raises(ManifestError, match="label=emotion_name") as caught:
        rows.problems.raise_any()
    assert "speaker=spk" in str(caught.value)


def test_repeated_headers_are_refused_and_nameless_ones_are_not():
    with pytest.raises(
        ManifestError, match=r"1 problem:\n- Columns 3 and 5 are both called 'x'"
    ):
        find(["id", "", "x", "", "x"])


@pytest.mark.parametrize("role", ["utterance", "label", "speaker"])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cell_of_a_needed_role_is_refused(columns, write_table, role, empty):
    columns[role][2] = empty

    with pytest.raises(ManifestError, match=rf"row 4, column '{role}': the cell is empty"):
        read_manifest(write_table(columns))


@pytest.mark.parametrize("role", ["utterance", "label", "label_name", "speaker", "session"])
@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "#N/A", "NULL"])
def test_a_missing_value_that_a_program_wrote_is_no_name(columns, write_table, role, word):
    columns["label_name"] = ["sad", "glad"] * 3
    columns["session"] = ["x", "x", "y", "y", "z", "z"]
    columns[role][2] = word

    fault = rf"row 4, column '{role}': '{word}' stands for a missing value"
    with pytest.raises(ManifestError, match=fault):
        read_manifest(write_table(columns))


@pytest.mark.parametrize("role", ["utterance", "label", "speaker", "session"])
def test_words_that_may_be_names_are_names(columns, write_table, role):
    words = ["NA", "none", "Nan", "Null", "N/A", "-"]
    columns["session"] = ["x", "x", "y", "y", "z", "z"]
    expected = dict(zip(columns[role], words, strict=False))
    columns[role] = [expected[cell] for cell in columns[role]]

    manifest = read_manifest(write_table(columns))

    found = manifest.classes if role == "label" else getattr(manifest, f"{role}s")
    assert {*found} == {*expected.values()}


@pytest.mark.parametrize("role", ["utterance", "label", "speaker", "session"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_white_space_around_a_name_is_removed_with_a_note(
    columns, write_table, role, in_memory
):
    columns["session"] = ["x", "x", "y", "y", "z", "z"]
    path = write_table(columns)
    clean = read_manifest(path)
    columns[role][1] += " "
    columns[role][4] = f"\u3000{columns[role][4]}"  # not a space, which may follow a comma
    if in_memory:
        columns["label"][0] = " 0"
        columns["voice"] = [str(path.parent / cell) for cell in columns["voice"]]

    def read(columns):
        roots = [path.parent]
        table = pd.DataFrame(columns) if in_memory else write_table(columns)
        return read_manifest(table, roots=roots)

    manifest = read(columns)

    assert manifest.digest() == clean.digest()
    note = next(w for w in manifest.warnings if w.startswith(f"Column {role!r}: white space"))
    assert f"{columns[role][1]!r} of 'u2'" in note
    assert f"{columns[role][4]!r} of 'u5'" in note
    assert any("' 0' of 'u1'" in w for w in manifest.warnings) == in_memory
    assert not any("white space" in w for w in clean.warnings)
    turned = {name: cells[::-1] for name, cells in columns.items()}
    assert read(turned).warnings == manifest.warnings


def test_an_empty_label_name_is_refused(columns, write_table):
    columns["label_name"] = ["sad", "", "sad", "glad", "sad", "glad"]

    with pytest.raises(ManifestError, match=r"row 3.* every row needs its label name"):
        read_manifest(write_table(columns))


@pytest.mark.parametrize("role", ["session", "split"])
def test_an_empty_cell_is_refused_where_the_outer_folds_need_it(columns, write_table, role):
    columns[role] = ["train", "test", "train", "", "x", "x"]
    path = write_table(columns)

    read_manifest(path)
    with pytest.raises(ManifestError, match=rf"row 5, column '{role}': the cell is empty"):
        read_manifest(path, outer=role)


@pytest.mark.parametrize("role", ["label_name", "session", "dialogue", "split"])
def test_an_empty_column_is_as_good_as_none(columns, write_table, role):
    manifest = read_manifest(write_table(columns | {role: [""] * 6}))

    assert manifest.sessions is manifest.dialogues is manifest.splits is None
    assert manifest.classes == ("0", "1")
    assert manifest.warnings == (f"Column {role!r} is empty and was not used.",)


def test_a_repeated_id_names_both_rows(columns, write_table):
    columns["utterance"][4] = " u2 "

    with pytest.raises(ManifestError, match=r"row 6, column 'utterance': 'u2' is in row 3 alr"):
        read_manifest(write_table(columns))


def test_ids_that_differ_in_case_are_two(columns, write_table):
    columns["utterance"][1] = "U1"

    assert read_manifest(write_table(columns)).utterances[:2].tolist() == ["U1", "u1"]


@pytest.mark.parametrize("role", ["utterance", "label", "speaker"])
@pytest.mark.parametrize("cell", ["a\nb", "a\tb", "a\x1bb"])
def test_control_characters_are_refused(columns, write_table, role, cell):
    columns[role][0] = cell

    with pytest.raises(ManifestError, match=rf"row 2, column '{role}': .*control character"):
        read_manifest(write_table(columns))


def test_a_text_in_the_place_of_a_name_is_refused(columns, write_table):
    columns["speaker"][0] = "x" * 100_000

    with pytest.raises(
        ManifestError, match="100,000 characters cannot name a speaker"
    ) as caught:
        read_manifest(write_table(columns))
    assert len(str(caught.value)) < 300


def test_rows_of_a_class_that_is_left_out_need_no_speaker_and_no_file(columns, write_table):
    path = write_table(columns)
    with path.open("a") as file:
        file.write("u7,2,,voice/nowhere.npy\n")

    manifest = read_manifest(path, classes=["0", "1"])

    assert manifest.excluded == {"2": 1}
    with pytest.raises(ManifestError, match="has 2 problems"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("headers", "roles"),
    [
        (("File Name", "Emotion Label", "Speaker ID"), ("utterance", "label", "speaker")),
        (("filename", "class", "actor"), ("utterance", "label", "speaker")),
        (("path", "target", "subject_id"), ("utterance", "label", "speaker")),
        (("clipID", "Label", "participant-id"), ("utterance", "label", "speaker")),
    ],
)
def test_headers_of_other_data_sets_are_understood(columns, write_table, headers, roles):
    renamed = dict(zip(headers, (columns[role] for role in roles), strict=True))

    manifest = read_manifest(write_table(renamed | {"voice": columns["voice"]}))

    assert manifest.utterances.tolist() == columns["utterance"]
    assert manifest.speakers.tolist() == columns["speaker"]
    assert manifest.modalities == ("voice",)


def test_a_header_of_the_role_itself_comes_first(columns, write_table):
    columns["actor"] = columns["filename"] = columns["class"] = ["a", "b", "c", "d", "e", "f"]

    manifest = read_manifest(write_table(columns))

    assert manifest.speakers.tolist() == columns["speaker"]
    assert manifest.ignored == ("actor", "filename", "class")


def test_a_column_path_of_features_is_no_id(columns, write_table):
    columns["path"] = columns.pop("voice")

    assert read_manifest(write_table(columns)).modalities == ("path",)
    del columns["utterance"]
    with pytest.raises(ManifestError, match="No column holds the utterance"):
        read_manifest(write_table(columns))


def test_a_refusal_gives_the_option_that_would_work(columns, write_table):
    columns["the person"] = columns.pop("speaker")

    with pytest.raises(ManifestError, match="--column speaker='the person'"):
        read_manifest(write_table(columns))
    manifest = read_manifest(write_table(columns), columns={"speaker": "the person"})
    assert manifest.speakers.tolist() == columns["the person"]


def test_one_column_of_scripts_or_sentences_is_the_content():
    assert find(["id", "label", "speaker", "Script"])["content"] == 3
    assert (
        find(["id", "label", "speaker", "scene", "x"], columns={"content": "x"})["content"] == 4
    )


def test_several_columns_that_could_be_the_content_are_named_and_none_is_taken():
    rows = table(["id", "label", "speaker", "scene", "sentence"])

    found = Columns.find(rows, columns={}, label=None)

    assert "content" not in found.roles
    (warning,) = rows.problems.warnings
    assert "'scene' and 'sentence' could each be the content; choose one" in warning
    rows.problems.raise_any()


def test_a_column_of_files_is_a_modality_and_no_content():
    rows = table(["id", "label", "speaker", "scene"])

    found = Columns.find(rows, columns={}, label=None, lists_files=lambda _: True)

    assert "content" not in found.roles
