import os

import pytest

from toolkit.data.feature_files import FeatureFolder, MissingFileError


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


def test_a_missing_folder_is_told_by_its_uppermost_part(root):
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
