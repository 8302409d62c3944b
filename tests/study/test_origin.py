"""Units state what they were made from: what does not fit the study is found and refused."""

import io
import json
import shutil

import numpy as np
import pytest

from toolkit.files import FolderError, format_json
from toolkit.pooling.table import TableDraft
from toolkit.study.cli import main
from toolkit.study.folder import StudyFolder
from toolkit.study.runner import _rebuild_report
from toolkit.study.verify import _verify_study


@pytest.fixture
def copy(hostile_study, tmp_path):
    return shutil.copytree(hostile_study, tmp_path / "study")


@pytest.fixture
def edit(opened):
    """Change what a unit states, and its arrays, and set its checksums right."""

    def edit(folder, change, **files):
        with opened(StudyFolder(folder).unit("text", 0), sums=True) as unit:
            summary = json.loads((unit / "unit.json").read_text(encoding="utf-8"))
            change(summary)
            (unit / "unit.json").write_text(format_json(summary), encoding="utf-8")
            for name, content in files.items():
                (unit / f"{name}.npy").write_bytes(content)

    return edit


def differences(folder):
    return [sentence for check in _verify_study(folder)[0] for sentence in check.differences]


FAULTS = {
    "another fold": (lambda s: s.update(fold=1), "not of system text, fold 0"),
    "another system": (lambda s: s.update(system="audio"), "not of system text, fold 0"),
    "other groups": (
        lambda s: s["origin"].update(held_out=["x"]),
        "made from other held-out groups",
    ),
    "other rows": (lambda s: s["origin"].update(rows="0"), "made from other rows or labels"),
    "no origin but a text": (lambda s: s.update(origin="x"), "not of system text, fold 0"),
    "no modalities": (lambda s: s.update(modalities=None), "not of system text, fold 0"),
    "no search": (lambda s: s.pop("search"), "is damaged"),
    "a search of another form": (lambda s: s.update(search=[1]), "is damaged"),
}


@pytest.mark.family
@pytest.mark.parametrize("fault", FAULTS)
def test_a_unit_of_something_else_is_refused_by_all_that_read_it(fault, copy, capsys, edit):
    change, words = FAULTS[fault]
    edit(copy, change)

    with pytest.raises(FolderError, match=words):
        _rebuild_report(copy)
    for command in ("report", "verify", "audit"):
        assert main([command, str(copy)]) == 2
        said = capsys.readouterr()
        assert words in said.out + said.err


@pytest.mark.slow
def test_features_of_another_digest_and_other_code_are_found(copy, edit):
    assert differences(copy) == []
    before = StudyFolder(copy).read_summary("text", 0)
    assert {*before["origin"]} == {"held_out", "rows", "features", "code", "toolkit"}

    edit(copy, lambda s: s["origin"]["features"].update(text="0"))
    assert any("made from other text features" in line for line in differences(copy))

    edit(copy, lambda s: s.update(before) or s["origin"].update(code="0"))
    assert [line for line in differences(copy) if "by other code" in line]


def test_a_folder_resumed_under_another_version_is_warned_of(tmp_path, caplog):
    folder = StudyFolder(tmp_path)
    folder.units.mkdir(parents=True)
    known = {
        "identity": {},
        "trials": 1,
        "data": {"rows": "r", "modalities": {}, "file": "f"},
        "code": "a",
        "versions": {"modality-toolkit": "1.0", "numpy": "2.0"},
    }
    (tmp_path / "internal" / "provenance.json").write_text(format_json(known))

    folder.check_identity(known)
    assert caplog.text == ""
    folder.check_identity(known | {"versions": {"modality-toolkit": "1.1", "numpy": "2.0"}})
    assert "modality-toolkit was 1.0, is 1.1" in caplog.text
    caplog.clear()
    folder.check_identity(known | {"code": "b"})
    assert "code of modality-toolkit is another" in caplog.text


CLAIMS = {
    "more rows than the file holds": (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 900), }"
    ),
    "a size below 0": b"{'descr': '<f8', 'fortran_order': False, 'shape': (-4, 2), }",
    "code for a type": b"{'descr': 'O', 'fortran_order': False, 'shape': (4, 2), }",
    "text": b"{'descr': '<U9', 'fortran_order': False, 'shape': (1, 2), }",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_array_that_claims_the_impossible_is_refused_by_name(claim, copy, edit):
    header = CLAIMS[claim].ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    edit(copy, lambda _: None, test=content + b"\0" * 72)

    with pytest.raises(FolderError, match=r"test\.npy (cannot be read|holds no numbers)"):
        _rebuild_report(copy)


def test_arrays_of_other_sizes_are_refused(copy, edit):
    with io.BytesIO() as file:
        np.save(file, np.zeros((3, 2)))
        edit(copy, lambda _: None, test=file.getvalue())

    with pytest.raises(FolderError, match="do not fit"):
        _rebuild_report(copy)


def test_a_table_that_changes_while_it_is_used_is_noticed(tmp_path):
    with TableDraft.lock(tmp_path, "text-0") as draft:
        values = draft.create_values((3, 2))
        values[:] = 1
        values.flush()
        record = {"modality": "text", "statistics": ["value"], "digest": "d", "counts": {}}
        present = np.ones(3, dtype=bool)
        table = draft.save("text-0", present, np.zeros(3, dtype=np.int64), **record)
    table.check_unchanged()

    with (tmp_path / "text-0" / "values.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")

    with pytest.raises(ValueError, match=r"text features in .* changed while they were used"):
        table.check_unchanged()
