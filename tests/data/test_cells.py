import pytest

from toolkit.data import ManifestError, read_manifest


@pytest.mark.parametrize("role", ["utterance", "label", "speaker"])
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cell_of_a_needed_role_is_refused(columns, write_table, role, empty):
    columns[role][2] = empty

    with pytest.raises(ManifestError, match=rf"row 4, column '{role}': the cell is empty"):
        read_manifest(write_table(columns))


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
