import pytest

from toolkit.data import ManifestError, read_manifest


def test_a_column_of_paths_is_a_modality_and_the_others_are_ignored(columns, write_table):
    pose = [f"pose/{i}.NPY" for i in range(6)]
    more = {
        "age": list("123456"),
        "Pose_features": pose,
        "": list("012345"),
        "wav": ["a.wav"] * 6,
    }
    path = write_table(columns | more)
    for cell in pose:
        (path.parent / "pose").mkdir(exist_ok=True)
        (path.parent / cell).touch()

    manifest = read_manifest(path)

    assert manifest.modalities == ("voice", "pose")
    assert manifest.ignored == ("age", "(column 7)", "wav")


def test_an_empty_cell_is_a_missing_modality(columns, write_table):
    columns["voice"][1] = " "

    manifest = read_manifest(write_table(columns))

    assert [path is None for path in manifest.paths["voice"]] == [False, True] + [False] * 4
    assert len(manifest) == 6
    assert manifest.absent == {}


def test_a_column_of_empty_cells_is_ignored(columns, write_table):
    assert read_manifest(write_table(columns | {"pose": [""] * 6})).ignored == ("pose",)


def test_a_column_of_files_and_other_words_is_ignored_with_a_warning(columns, write_table):
    columns["note"] = ["voice/u1.npy", "see above", "", "", "", ""]

    manifest = read_manifest(write_table(columns))

    assert manifest.modalities == ("voice",)
    assert manifest.ignored == ("note",)
    assert "Column 'note' is ignored: 1 of 2 cells end in .npy" in manifest.warnings[0]


def test_a_wrong_cell_does_not_cost_the_task_a_modality(columns, write_table):
    columns["visual_features"] = columns.pop("voice")
    columns["visual_features"][3] = "voice/u4.mp4"

    message = r"row 5, column 'visual_features': 'voice/u4\.mp4' does not end in \.npy"
    with pytest.raises(ManifestError, match=message):
        read_manifest(write_table(columns))


def test_no_modality_is_refused(columns, write_table):
    columns["voice"] = [f"{i}.xyz" for i in range(6)]

    with pytest.raises(ManifestError, match=r"No column lists feature files ending in \.npy"):
        read_manifest(write_table(columns))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("early", "name of a fusion or baseline"),
        ("head pose", "cannot name a modality"),
        ("", "Column 5 lists feature files but has no name"),
        ("Voice_features", "Columns 'voice' and 'Voice_features' are both modality 'voice'"),
    ],
)
def test_a_column_that_cannot_be_named_is_refused(columns, write_table, header, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(write_table(columns | {header: columns["voice"]}))


def test_a_missing_file_is_named_with_its_row_and_column(columns, write_table):
    path = write_table(columns)
    (path.parent / "voice" / "u3.npy").unlink()

    message = r"row 4, column 'voice': 'voice/u3\.npy' does not exist; .*--missing allow"
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_a_missing_file_can_be_a_missing_modality_and_is_counted(columns, write_table):
    path = write_table(columns)
    (path.parent / "voice" / "u3.npy").unlink()
    columns["voice"][2] = ""

    manifest = read_manifest(path, missing="allow")

    assert manifest.paths["voice"][2] is None
    assert manifest.absent == {"voice": 1}
    assert "1 files that the table names do not exist" in manifest.warnings[0]
    assert len(manifest) == 6


def test_a_modality_without_any_file_is_a_mistake_even_where_files_may_be_missing(
    columns, write_table
):
    path = write_table(columns, files=False)

    with pytest.raises(ManifestError, match="nor does any other file of this column"):
        read_manifest(path, missing="allow")


def test_a_missing_folder_is_one_problem(columns, write_table):
    path = write_table(columns, files=False)

    with pytest.raises(ManifestError, match=r"folder 'voice' .*first of 6 rows") as caught:
        read_manifest(path)

    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("missing", ["refuse", "allow"])
def test_a_path_that_leads_out_is_refused_whatever_may_be_missing(
    columns, write_table, missing
):
    other = write_table(columns, folder="corpus_other").parent
    columns["voice"][0] = "../corpus_other/voice/u1.npy"
    columns["voice"][1] = str(other / "voice" / "u2.npy")
    path = write_table(columns, files=False)
    for cell in columns["voice"][2:]:
        (path.parent / "voice").mkdir(exist_ok=True)
        (path.parent / cell).touch()

    with pytest.raises(ManifestError, match="leads out of the folder of the table") as caught:
        read_manifest(path, missing=missing)

    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "row 2, column 'voice'",
        "row 3, column 'voice'",
    ]


def test_a_path_over_two_lines_is_refused(columns, write_table):
    columns["voice"][0] = "voice/\nu1.npy"

    with pytest.raises(ManifestError, match="control character; write the path on one line"):
        read_manifest(write_table(columns, files=False))


def test_a_file_for_two_utterances_is_pointed_out(columns, write_table):
    columns["voice"][0] = columns["voice"][1]

    manifest = read_manifest(write_table(columns))

    assert "1 rows name a file that another row names too" in manifest.warnings[0]


def test_only_the_modalities_asked_for_need_their_files(columns, write_table):
    path = write_table(columns)
    lines = path.read_text().splitlines()
    text = [f"{line},text/{i}.npy" for i, line in enumerate(lines)]
    path.write_text("\n".join([lines[0] + ",lexical_features", *text[1:]]))

    manifest = read_manifest(path, modalities=["voice"])

    assert manifest.modalities == ("voice",)
    assert manifest.ignored == ()
    with pytest.raises(ManifestError, match="folder 'text' does not exist"):
        read_manifest(path, modalities=["voice", "language"])
    with pytest.raises(ManifestError, match=r"no modality 'face'; .*'voice', 'text'"):
        read_manifest(path, modalities=["face"])


def test_a_modality_that_no_kept_class_has_is_pointed_out(columns, write_table):
    columns["label"][0] = columns["label"][2] = "2"
    columns["pose"] = ["pose/1.npy", "", "pose/3.npy", "", "", ""]

    manifest = read_manifest(write_table(columns), classes=["0", "1"], outer="3", modalities=())

    assert manifest.paths["pose"] == (None,) * 4
    assert "Modality 'pose' is missing from every utterance" in " ".join(manifest.warnings)
