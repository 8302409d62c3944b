"""Data in memory, a DataFrame or Dataset and arrays of features, as the files of a study."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from toolkit.data.audio import is_recording
from toolkit.data.csv_table import Rows
from toolkit.data.feature_files import lists_files
from toolkit.data.roles import Columns
from toolkit.files import cache_folder, format_array, write_bytes
from toolkit.study.config import ConfigError


def write_data(
    data: Any,
    columns: Mapping[str, str],
    features: Mapping[str, Any],
    *,
    recordings: bool = False,
) -> tuple[Path, Path]:
    """Write a table and its features below a folder named by their content.

    Gives the written table, and the folder of the files that ``data`` lists itself: a
    DataFrame, a Dataset of Hugging Face or the path of a CSV file.

    - recordings: Whether columns of recordings list files as well, which are extracted.
    """
    if isinstance(data, Mapping):
        raise ConfigError(f"Data are a mapping of {', '.join(data)}; pass one of them.")
    if hasattr(data, "to_csv"):
        frame = data.copy() if isinstance(data, pd.DataFrame) else _to_frame(data)
        features, base = _take_arrays(frame, features), Path.cwd()
    else:
        frame = pd.read_csv(data, dtype=str, keep_default_na=False, skipinitialspace=True)
        base = Path(data).resolve().parent
    for header in frame.columns:
        cells = ["" if pd.isna(cell) else str(cell).strip() for cell in frame[header].tolist()]
        if lists_files(cells) or (recordings and all(map(is_recording, filter(None, cells)))):
            frame[header] = [cell and _resolve(cell, base) for cell in cells]
    width = len(str(len(frame)))
    rows = Rows.read(frame)
    found = Columns.find(rows, columns=columns, label=None, lists_files=lists_files)
    if "utterance" not in found.roles:
        ids = frame.index
        if isinstance(ids, pd.RangeIndex):
            ids = pd.Index([f"{row:0{width}d}" for row in range(len(frame))])
        frame.insert(0, "utterance", ids)
    arrays: dict[str, NDArray[Any]] = {}
    for modality, values in features.items():
        # Beside a column of transcripts that is called as the modality is.
        header = f"{modality}_features"
        if not modality.isidentifier():  # it is a part of paths
            raise ConfigError(f"features: {modality!r} is no name of a modality.")
        if header in frame.columns:
            raise ConfigError(f"The table has a column {header!r}, and features[{modality!r}].")
        names = [f"features/{modality}/{row:0{width}d}.npy" for row in range(len(frame))]
        given = zip(names, _list_rows(modality, values, len(frame)), strict=True)
        arrays |= {name: array for name, array in given if array is not None}
        frame[header] = [name if name in arrays else "" for name in names]
    text = frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
    digest = hashlib.sha256(text)
    for array in arrays.values():
        digest.update(format_array(array))
    folder = cache_folder() / "memory" / digest.hexdigest()[:24]
    for name, array in arrays.items():
        _write_anew(folder / name, format_array(array))
    _write_anew(folder / "dataset.csv", text)
    return folder / "dataset.csv", base


def _to_frame(data: Any) -> pd.DataFrame:
    """Convert a Dataset of Hugging Face, whose library is imported by its owner alone."""
    frame: pd.DataFrame = data.to_pandas()
    for header, feature in data.features.items():
        if names := getattr(feature, "names", None):  # a ClassLabel; no label is -1 or null
            known = dict(enumerate(names))
            frame[header] = [known.get(code, "") for code in frame[header].tolist()]
        elif any(isinstance(cell, dict) for cell in frame[header].tolist()):
            raise ConfigError(
                f"Column {header!r} holds {type(feature).__name__}, no numbers or text. "
                "Extract features from it, and leave it out with remove_columns."
            )
    return frame


def _take_arrays(frame: pd.DataFrame, features: Mapping[str, Any]) -> dict[str, Any]:
    """Take columns of arrays and lists out of a table; a modality each, beside the features."""
    arrays = dict(features)
    for header in frame.columns:
        cells = frame[header].tolist()
        are = [isinstance(cell, np.ndarray | list) for cell in cells]
        if any(are) and all(
            is_array or pd.isna(cell) for is_array, cell in zip(are, cells, strict=True)
        ):
            name = str(header).removesuffix("_features")
            if name in arrays:
                raise ConfigError(f"Modality {name!r} is given twice, once as {header!r}.")
            arrays[name] = [_stack(c) if k else None for k, c in zip(are, cells, strict=True)]
            del frame[header]
    return arrays


def _stack(cell: Any) -> Any:
    """Stack frames that are arrays of their own, as Arrow gives them."""
    array = np.asarray(cell)
    if array.dtype == object and array.size:
        with suppress(ValueError):  # frames of several lengths are refused with their row
            return np.stack([*array])
    return array


def _resolve(cell: str, base: Path) -> str:
    """Make a path absolute, as the reader of a table in ``base`` would find it."""
    below = base / cell.lstrip("/")
    exists = Path(str(below).partition("#")[0]).exists()
    return str(below) if exists or not Path(cell).is_absolute() else cell


def _list_rows(modality: str, values: Any, n_rows: int) -> list[NDArray[Any] | None]:
    """List the array of each row; None where it is missing."""
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if len(values) != n_rows:
        raise ConfigError(
            f"features[{modality!r}] has {len(values)} rows, and the table has {n_rows}."
        )
    rows: list[NDArray[Any] | None] = []
    for number, value in enumerate(values):
        array = np.asarray(value)
        if value is None or (array.dtype.kind == "f" and np.isnan(array).all()):
            rows.append(None)
        elif array.dtype.kind in "fiu":
            rows.append(array)
        else:
            raise ConfigError(
                f"features[{modality!r}], row {number}: {array.dtype} of shape {array.shape}; "
                "expected an array of integers or floats, or None where it is missing."
            )
    return rows


def _write_anew(path: Path, content: bytes) -> None:
    """Write a file, but leave one of this content alone: its pooled features are cached."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
