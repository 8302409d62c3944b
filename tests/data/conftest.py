import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

Columns = Mapping[str, Sequence[str]]


@pytest.fixture
def columns() -> dict[str, list[str]]:
    """Six utterances of three speakers, two classes, one modality; rows are 2 to 7."""
    ids = ["u1", "u2", "u3", "u4", "u5", "u6"]
    return {
        "utterance": ids,
        "label": ["0", "1", "0", "1", "0", "1"],
        "speaker": ["ann", "ann", "bob", "bob", "cat", "cat"],
        "voice": [f"voice/{name}.npy" for name in ids],
    }


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write columns as dataset.csv in a folder, with an empty file for every path below it."""

    def write(columns: Columns, *, files: bool = True, folder: str = "corpus") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        with (root / "dataset.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        for cell in {cell.strip() for cells in columns.values() for cell in cells}:
            if files and cell.endswith(".npy") and ".." not in cell and "\\" not in cell:
                path = root / cell.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return root / "dataset.csv"

    return write
