"""Units state what they were made from: what does not fit the study is found and refused."""

import json
import shutil

import numpy as np
import pytest

from toolkit.files import FolderError, format_json, hash_file, hash_folder
from toolkit.pooling.table import TableDraft
from toolkit.study.cli import main
from toolkit.study.folder import StudyFolder
from toolkit.study.runner import _rebuild_report
from toolkit.study.verify import _verify_study


@pytest.fixture
def copy(hostile_study, tmp_path):
    return shutil.copytree(hostile_study, tmp_path / "study")


def edit(unit, change, **files):
    """Change what a unit states, and its arrays, and set its checksums right."""
    summary = json.loads((unit / "unit.json").read_text(encoding="utf-8"))
    change(summary)
    (unit / "unit.json").write_text(format_json(summary), encoding="utf-8")
    for name, array in files.items():
        np.save(unit / f"{name}.npy", array)
    (unit / "checksums.json").write_text(format_json(hash_folder(unit)))


def differences(folder):
    return [sentence for check in _verify_study(folder) for sentence in check.differences]


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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_unit_of_something_else_is_refused_by_all_that_read_it(fault, copy, capsys):
    change, words = FAULTS[fault]
    edit(copy / "units" / "text" / "00", change)

    with pytest.raises(FolderError, match=words):
        _rebuild_report(copy)
    for command in ("report", "verify", "audit"):
        assert main([command, str(copy)]) == 2
        said = capsys.readouterr()
        assert words in said.out + said.err


def test_features_of_another_digest_and_other_code_are_found(copy):
    assert differences(copy) == []
    unit = copy / "units" / "text" / "00"
    before = json.loads((unit / "unit.json").read_text(encoding="utf-8"))
    assert {*before["origin"]} == {"held_out", "rows", "features", "code", "toolkit"}

    edit(unit, lambda s: s["origin"]["features"].update(text="0"))
    assert any("made from other text features" in line for line in differences(copy))

    edit(unit, lambda s: s.update(before) or s["origin"].update(code="0"))
    assert [line for line in differences(copy) if "by other code" in line]


def test_units_of_an_earlier_version_are_read(copy):
    for path in sorted((copy / "units").glob("*/*/unit.json")):
        edit(path.parent, lambda s: s.pop("origin"))

    assert differences(copy) == []


def test_a_folder_resumed_under_another_version_is_warned_of(tmp_path, caplog):
    folder = StudyFolder(tmp_path)
    (tmp_path / "units").mkdir()
    known = {
        "identity": {},
        "trials": 1,
        "data": {"rows": "r", "modalities": {}, "file": "f"},
        "code": "a",
        "versions": {"modality-toolkit": "1.0", "numpy": "2.0"},
    }
    (tmp_path / "provenance.json").write_text(format_json(known))

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
def test_an_array_that_claims_the_impossible_is_refused_by_name(claim, copy):
    unit = copy / "units" / "text" / "00"
    header = CLAIMS[claim].ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (unit / "test.npy").write_bytes(content + b"\0" * 72)
    sums = hash_folder(unit)
    (unit / "checksums.json").write_text(format_json(sums))

    with pytest.raises(FolderError, match=r"test\.npy (cannot be read|holds no numbers)"):
        _rebuild_report(copy)


def test_arrays_of_other_sizes_are_refused(copy):
    unit = copy / "units" / "text" / "00"
    edit(unit, lambda _: None, test=np.zeros((3, 2)))

    with pytest.raises(FolderError, match="do not fit"):
        _rebuild_report(copy)
    assert hash_file(unit / "test.npy") in (unit / "checksums.json").read_text()


def test_a_table_that_changes_while_it_is_used_is_noticed(tmp_path):
    with TableDraft.lock(tmp_path, "text-0") as draft:
        values = draft.create_values((3, 2))
        values[:] = 1
        values.flush()
        record = {"modality": "text", "statistics": ["value"], "digest": "d", "counts": {}}
        present = np.ones(3, dtype=bool)
        table = draft.save("text-0", record, present, np.zeros(3, dtype=np.int64))
    table.check_unchanged()

    with (tmp_path / "text-0" / "values.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")

    with pytest.raises(ValueError, match=r"text features in .* changed while they were used"):
        table.check_unchanged()
