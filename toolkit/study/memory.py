"""A study of data in memory: a DataFrame, and arrays for the features."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from toolkit.data.csv_table import Rows
from toolkit.data.feature_files import lists_files
from toolkit.data.roles import Columns
from toolkit.files import write_bytes
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.options import load_config
from toolkit.study.outcome import StudyResult
from toolkit.study.plan import cache_folder
from toolkit.study.runner import run_study

#: Options that are a list, and may be one name.
_LISTS = ("modality", "classes", "fusion", "figures")


def study(
    data: Any,
    *,
    label: str | None = None,
    speaker: str | None = None,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> StudyResult:
    """Run a study of a table in memory, or of a CSV file.

    Parameters
    ----------
    data : DataFrame, Path or str
        One row per utterance, as in ``dataset.csv``. Without a column of ids, those are the
        index of the DataFrame.
    label, speaker : str, optional
        Header of the column, where its name does not show its role.
    features : mapping of str to array-like, optional
        Modality to its features in the order of the rows: a list of arrays of shape
        (n_frames, n_dims), with None where one is missing, or a matrix of shape (n, n_dims),
        where a row of NaN is missing.
    **options : object
        Fields of :class:`toolkit.StudyConfig`, such as ``trials=5`` or ``out="outputs/x"``.

    Returns
    -------
    StudyResult
        As of :func:`toolkit.run_study`.

    Raises
    ------
    ValueError
        If the options, the table or the features are wrong.

    Notes
    -----
    Table and features are written to the cache, under a name made of their content, and read
    from there with all checks of the command. The same data in files give the same numbers.

    Examples
    --------
    >>> import toolkit
    >>> table = pd.DataFrame({"emotion": ["sad", "glad"], "speaker": ["ann", "bob"]})
    >>> toolkit.study(table, features={"face": [[0.5]]})
    Traceback (most recent call last):
    ...
    toolkit.study.config.ConfigError: features['face'] has 1 rows, and the table has 2.
    """
    if unknown := [name for name in options if name not in StudyConfig.model_fields]:
        raise ConfigError(f"{', '.join(unknown)}: no such option of a study; see StudyConfig.")
    columns = {"speaker": speaker} if speaker is not None else {}
    columns |= options.get("column", {})
    if features is None and not isinstance(data, pd.DataFrame):
        source = Path(data)
    else:
        is_frame = isinstance(data, pd.DataFrame)
        base = Path.cwd() if is_frame else Path(data).resolve().parent
        frame = data if is_frame else _read_csv(data)
        source = _write_data(frame, base, columns, features or {})
        options = {"name": "dataframe"} | options
        options["root"] = [base, *options.get("root", ())]
    for name in _LISTS:
        if isinstance(options.get(name), str):
            options[name] = options[name].split(",")
    if "outer" in options:
        options["outer"] = str(options["outer"])
    if label is not None:
        options["label"] = label
    return run_study(load_config(None, options | {"data": source, "column": columns}))


def _read_csv(path: Any) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)


def _write_data(
    frame: pd.DataFrame, base: Path, columns: Mapping[str, str], features: Mapping[str, Any]
) -> Path:
    """Write a table and its features below a folder named by their content; give the table.

    - base: Folder that paths in the table are relative to.
    """
    frame = frame.copy()
    for header in frame.columns:
        cells = ["" if pd.isna(cell) else str(cell).strip() for cell in frame[header].tolist()]
        if lists_files(cells):
            frame[header] = [cell and _resolve(cell, base) for cell in cells]
    width = len(str(len(frame)))
    if "utterance" not in _find_roles(frame, columns):
        ids = frame.index
        if isinstance(ids, pd.RangeIndex):
            ids = pd.Index([f"{row:0{width}d}" for row in range(len(frame))])
        frame.insert(0, "utterance", ids)
    arrays: dict[str, NDArray[Any]] = {}
    for modality, values in features.items():
        # Beside a column of transcripts that is called as the modality is.
        header, rows = f"{modality}_features", _list_rows(modality, values, len(frame))
        if header in frame.columns:
            raise ConfigError(f"The table has a column {header!r}, and features[{modality!r}].")
        names = [f"features/{modality}/{row:0{width}d}.npy" for row in range(len(rows))]
        found = {n: row for n, row in zip(names, rows, strict=True) if row is not None}
        frame[header] = [name if name in found else "" for name in names]
        arrays |= found
    text = frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
    digest = hashlib.sha256(text)
    for array in arrays.values():
        digest.update(_to_bytes(array))
    folder = cache_folder() / "memory" / digest.hexdigest()[:24]
    for name, array in arrays.items():
        _write_anew(folder / name, _to_bytes(array))
    _write_anew(folder / "dataset.csv", text)
    return folder / "dataset.csv"


def _find_roles(frame: pd.DataFrame, columns: Mapping[str, str]) -> Mapping[str, int]:
    rows = Rows.read(frame)
    return Columns.find(rows, columns=columns, label=None, lists_files=lists_files).roles


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


def _to_bytes(array: NDArray[Any]) -> bytes:
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=False)
        return file.getvalue()


def _write_anew(path: Path, content: bytes) -> None:
    """Write a file, but leave one of this content alone: its pooled features are cached."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
