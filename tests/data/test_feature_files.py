import os
import re

import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.csv_table import Problems
from toolkit.data.feature_files import _name_modality, _resolve_modality, lists_files
from toolkit.data.feature_folder import FeatureFolder, MissingFileError


@pytest.fixture
def root(tmp_path):
    root = tmp_path.resolve() / "corpus"
    for path in (root / "features" / "a.npy", root.parent / "corpus_other" / "a.npy"):
        path.parent.mkdir(parents=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    "cell",
    [
        "features/a.npy",
        "/features/a.npy",
        "//features//a.npy",
        "./features/./a.npy",
        "features/../features/a.npy",
        "../corpus/features/a.npy",
        r"features\a.npy",
        r"\features\a.npy",
    ],
)
def test_every_way_to_write_a_path_below_the_folder_leads_to_the_file(root, cell):
    assert FeatureFolder(root).find(cell) == root / "features" / "a.npy"


def test_an_absolute_path_below_the_folder_is_taken(root):
    path = root / "features" / "a.npy"

    assert FeatureFolder(root).find(str(path)) == path


def test_a_file_beside_the_table_is_found(root):
    (root / "b.npy").touch()

    assert FeatureFolder(root).find("/b.npy") == root / "b.npy"


@pytest.mark.parametrize(
    "cell",
    [
        "../corpus_other/a.npy",
        "/../corpus_other/a.npy",
        "features/../../corpus_other/a.npy",
        "../a.npy",
        "../../../../../../../../etc/a.npy",
        "../nowhere/a.npy",
    ],
)
def test_dots_cannot_lead_out(root, cell):
    with pytest.raises(ValueError, match="leads out of the folder of the table"):
        FeatureFolder(root).find(cell)


def test_a_folder_that_only_begins_alike_is_outside(root):
    cell = str(root.parent / "corpus_other" / "a.npy")
    assert cell.startswith(str(root))

    with pytest.raises(ValueError, match="leads out of the folder of the table"):
        FeatureFolder(root).find(cell)


def test_a_link_to_a_file_outside_is_refused(root):
    (root / "features" / "b.npy").symlink_to(root.parent / "corpus_other" / "a.npy")

    with pytest.raises(ValueError, match="leads out of the folder of the table"):
        FeatureFolder(root).find("features/b.npy")


def test_a_link_to_a_folder_outside_is_refused(root):
    (root / "linked").symlink_to(root.parent / "corpus_other")

    with pytest.raises(ValueError, match="leads out of the folder of the table"):
        FeatureFolder(root).find("linked/a.npy")


def test_links_within_the_folder_are_followed(root):
    (root / "linked").symlink_to(root / "features")
    (root / "features" / "b.npy").symlink_to(root / "features" / "a.npy")

    assert FeatureFolder(root).find("linked/b.npy") == root / "features" / "b.npy"


def test_a_missing_file_is_its_own_kind_of_problem(root):
    with pytest.raises(MissingFileError, match=r"'features/b\.npy' does not exist$") as caught:
        FeatureFolder(root).find("features/b.npy")
    assert caught.value.folder is None


def test_a_missing_folder_is_named_by_its_uppermost_part(root):
    with pytest.raises(MissingFileError, match="folder 'features/x' does not exist") as caught:
        FeatureFolder(root).find("features/x/y/a.npy")
    assert caught.value.folder == "features/x"


@pytest.mark.parametrize("cell", ["features/A.NPY", "Features/a.npy"])
def test_a_name_in_another_case_is_found_only_where_the_file_system_finds_it(root, cell):
    folder = FeatureFolder(root)

    if os.path.lexists(root / cell):
        assert folder.find(cell).samefile(root / "features" / "a.npy")
    else:
        with pytest.raises(MissingFileError, match="does not exist"):
            folder.find(cell)


def test_a_file_that_differs_by_case_is_pointed_out(root):
    if os.path.lexists(root / "FEATURES"):
        pytest.skip("this file system takes any case")

    with pytest.raises(MissingFileError, match=r"does not exist \(the folder has 'a\.npy'\)"):
        FeatureFolder(root).find("features/A.npy")


def test_a_link_to_nothing_is_missing(root):
    (root / "features" / "b.npy").symlink_to(root / "nothing")

    with pytest.raises(MissingFileError, match="link to a file that does not exist"):
        FeatureFolder(root).find("features/b.npy")


def test_a_link_to_itself_is_refused_and_not_followed_forever(root):
    (root / "features" / "b.npy").symlink_to(root / "features" / "b.npy")

    with pytest.raises(ValueError, match="cannot be reached"):
        FeatureFolder(root).find("features/b.npy")


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_plain_file_is_refused(root, make):
    make(root / "features" / "b.npy")

    with pytest.raises(ValueError, match="is not a plain file"):
        FeatureFolder(root).find("features/b.npy")


def test_a_file_in_the_place_of_a_folder_is_a_missing_folder(root):
    with pytest.raises(MissingFileError, match=r"folder 'features/a\.npy' does not exist"):
        FeatureFolder(root).find("features/a.npy/b.npy")


def test_a_drive_is_refused_in_words(root):
    with pytest.raises(ValueError, match="begins with a drive"):
        FeatureFolder(root).find(r"C:\features\a.npy")


@pytest.mark.parametrize(
    "cell", ["x" * 5_000 + "/a.npy", "x" * 5_000 + ".npy", "a/" * 3_000 + "b"]
)
def test_endless_names_are_just_missing(root, cell):
    with pytest.raises(MissingFileError, match="does not exist"):
        FeatureFolder(root).find(cell)


def test_each_folder_is_listed_once(root, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    folder = FeatureFolder(root)

    for _ in range(3):
        folder.find("features/a.npy")

    assert listed == [root, root / "features"]


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


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("visual_features", "visual"),
        ("Acoustic_Features", "audio"),
        ("lexical_features", "text"),
        ("head_pose_features", "head_pose"),
        ("acoustic", "acoustic"),
        ("Voice2", "voice2"),
    ],
)
def test_modalities_are_named_after_their_columns(header, name):
    assert _name_modality(header) == name


@pytest.mark.parametrize(
    "header", ["2d", "face-mesh", "face mesh", "face__mesh", "_face", "face_", "é", "_features"]
)
def test_names_that_no_feature_could_carry_are_refused(header):
    with pytest.raises(ValueError, match="cannot name a modality; expected letters"):
        _name_modality(header)


@pytest.mark.parametrize(
    "header",
    [
        *("early", "vote", "soft", "weighted", "stacked", "log_pool", "hybrid"),
        *("majority", "best_single", "Early_features"),
    ],
)
def test_names_of_systems_are_refused(header):
    with pytest.raises(ValueError, match="name of a fusion or baseline"):
        _name_modality(header)


def resolve(name, known):
    problems = Problems("dataset.csv")
    found = _resolve_modality(name, known, problems)
    problems.raise_any()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", "text"),
        ("lexical", "text"),
        ("language", "text"),
        ("Acoustic", "audio"),
        ("speech", "audio"),
        ("vision", "visual"),
        ("face ", "visual"),
        ("acoustic_features", "audio"),
        ("video_features", "visual"),
    ],
)
def test_aliases_find_the_task_s_modalities(name, expected):
    assert resolve(name, ("visual", "audio", "text")) == expected


def test_a_synonym_is_noted_and_a_name_is_not():
    problems = Problems("dataset.csv")
    for name in ("Audio", "audio_features", "acoustic_features", "speech"):
        assert _resolve_modality(name, ("audio",), problems) == "audio"
    assert problems.warnings == [
        "There is no modality 'speech': 'audio', of like meaning, is taken for it."
    ]


def test_a_name_that_exists_means_itself():
    assert resolve("audio", ("audio", "speech")) == "audio"
    assert resolve("speech", ("audio", "speech")) == "speech"
    assert resolve("face", ("audio", "video")) == "video"


def test_an_ambiguous_alias_is_refused():
    with pytest.raises(ValueError, match="'acoustic' could mean 'audio', 'speech'"):
        resolve("acoustic", ("audio", "speech"))


def test_an_unknown_modality_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"'txt'; did you mean 'text'\? .* are 'visual', 'text'"
    ):
        resolve("txt", ("visual", "text"))
    with pytest.raises(ValueError, match=r"no modality 'audio'; the modalities are 'visual'"):
        resolve("audio", ("visual",))


@pytest.mark.parametrize("cell", ["nan", "NA", "None", "null", "-"])
def test_a_missing_value_in_words_is_a_refused_cell_of_any_modality(columns, write_table, cell):
    columns["voice"][3] = cell

    with pytest.raises(ManifestError) as caught:
        read_manifest(write_table(columns))

    (problem,) = caught.value.problems
    assert problem.startswith(f"row 5, column 'voice': {cell!r} does not end in .npy")
    assert problem.endswith("or leave the cell empty where there is none.")


@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        (".txt", "np.genfromtxt"),
        (".wav", "--extract audio=egemaps"),
        (".mp4", "extract features"),
        (".PT", "torch.load"),
        (".pkl", "run any code"),
        (".p", "the recipe for MOSI and MOSEI"),
        (".mat", "scipy.io.loadmat"),
        (".safetensors", "safetensors.numpy.load_file"),
        (".json", "json.load"),
        (".jsonl", "pandas.read_json"),
        (".xyz", "np.save"),
    ],
)
def test_a_column_of_other_files_is_never_ignored_in_silence(
    columns, write_table, ending, advice
):
    columns["face"] = [f"face/u{i}{ending}" for i in range(5)] + [""]
    path = write_table(columns)

    (note,) = read_manifest(path).warnings
    assert note.startswith(f"Column 'face' is ignored: it lists {ending.lower()} files. ")
    assert advice in note

    del columns["voice"]
    with pytest.raises(ManifestError, match="No column lists feature files") as caught:
        read_manifest(write_table(columns, folder="alone"))
    assert caught.value.problems[1] == note


@pytest.mark.parametrize(
    ("header", "modality"),
    [("Text", "text"), ("LANGUAGE", "language"), ("Lexical_Features", "lexical_features")],
)
def test_a_column_with_the_header_of_a_modality_is_never_ignored_in_silence(
    columns, write_table, header, modality
):
    columns[header] = ["well", "so", "no", "yes", "ah", "oh"]
    columns["remark"] = ["a", "b", "c", "d", "e", "f"]
    path = write_table(columns)

    (note,) = read_manifest(path).warnings

    assert note.startswith(f"Column {header!r} is ignored: its cells are not file names.")
    assert note.endswith(f"for words use --extract {modality}=tfidf.")
    assert all(lists_files([f"u1{ending}"]) for ending in re.findall(r"\.[a-z0-9]+", note))
    manifest = read_manifest(path, extract={modality: "tfidf"})
    assert manifest.texts[modality] == tuple(columns[header])
    assert manifest.warnings == ()


def test_a_column_may_be_named_as_a_modality(columns, write_table):
    columns["BERT (path)"] = columns.pop("voice")

    with pytest.raises(ManifestError, match=r"--column bert_path='BERT \(path\)'"):
        read_manifest(write_table(columns))
    manifest = read_manifest(write_table(columns), columns={"text": "BERT (path)"})

    assert manifest.modalities == ("text",)
    assert manifest.ignored == ()
    with pytest.raises(ManifestError, match="no role 'text'"):
        read_manifest(write_table(columns), columns={"text": "label"})


@pytest.mark.parametrize("way", ["absolute", "link", "dots"])
def test_files_of_another_folder_are_one_problem_until_it_is_allowed(
    columns, write_table, tmp_path, way
):
    elsewhere = tmp_path / "disk"
    path = write_table(columns)
    (path.parent / "voice").rename(elsewhere)
    if way == "link":
        (path.parent / "voice").symlink_to(elsewhere)
    else:
        front = str(elsewhere) if way == "absolute" else "../disk"
        columns["voice"] = [cell.replace("voice", front) for cell in columns["voice"]]
        path = write_table(columns, files=False)

    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    (problem,) = caught.value.problems
    assert "leads out of the folder" in problem
    assert f"--root {elsewhere}" in problem
    assert "6 rows have this fault" in problem
    with pytest.raises(ManifestError, match="leads out"):
        read_manifest(path, roots=[tmp_path / "dis"])  # begins alike, and is another folder

    manifest = read_manifest(path, roots=[elsewhere])

    assert [file.read_bytes() for file in manifest.paths["voice"]] == [b""] * 6
