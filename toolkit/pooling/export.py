"""A table written for other programs: the features and a description of rows and columns."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.pooling.table import FeatureTable


def write_table(
    table: FeatureTable,
    utterances: Sequence[str],
    folder: Path | str,
    *,
    form: Literal["npy", "parquet"] = "npy",
) -> Path:
    """Write a table and, beside it, ``<modality>.schema.json``, which says what it holds.

    Parameters
    ----------
    table : FeatureTable
        From :func:`pool_manifest`.
    utterances : sequence of str
        Id of each row.
    folder : Path or str
        Created where it is missing; files of the same names are replaced.
    form : {"npy", "parquet"}, default="npy"
        ``<modality>.npy`` holds the values alone. ``<modality>.parquet`` has the columns
        ``utterance``, ``present``, ``n_frames``, and one a feature.

    Returns
    -------
    Path
        The file with the values.

    Raises
    ------
    ValueError
        If the form is unknown, or there is not one utterance a row.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from types import MappingProxyType
    >>> table = FeatureTable(
    ...     "voice", ("mean",), ("voice__mean__0000",), np.zeros((2, 1), np.float32),
    ...     np.ones(2, np.bool_), np.full(2, 7), "0a", MappingProxyType({}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_table(table, ["u1", "u2"], folder)
    ...     path.name, np.load(path).shape
    ('voice.npy', (2, 1))
    """
    if form not in {"npy", "parquet"}:
        raise ValueError(f"Unknown form {form!r}; expected npy or parquet.")
    ids = [str(utterance) for utterance in utterances]
    if len(ids) != len(table.values):
        raise ValueError(
            f"Got {len(ids)} utterances for a table of {len(table.values)} rows; expected one "
            "a row."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table.modality}.{form}"
    draft = folder / f".{path.name}.{os.getpid()}"
    if form == "npy":
        _write_npy(table.values, draft)
    else:
        _write_parquet(table, ids, draft)
    draft.replace(path)
    schema = {
        "modality": table.modality,
        "values": path.name,
        "dtype": "float32",
        "shape": list(table.values.shape),
        "missing": "NaN",
        "statistics": list(table.statistics),
        "columns": list(table.names),
        "rows": [
            {"utterance": utterance, "present": bool(present), "n_frames": int(n_frames)}
            for utterance, present, n_frames in zip(
                ids, table.present, table.n_frames, strict=True
            )
        ],
        "counts": dict(table.counts),
        "digest": table.digest,
    }
    said = json.dumps(schema, indent=1, ensure_ascii=False)
    (folder / f"{table.modality}.schema.json").write_text(f"{said}\n", encoding="utf-8")
    return path


def _write_npy(values: NDArray[np.float32], draft: Path) -> None:
    if isinstance(values, np.memmap) and values.flags.c_contiguous:
        source = Path(str(values.filename))
        if values.offset + values.nbytes == source.stat().st_size:
            # The whole of a mapped file: read through the map it would all be in memory.
            shutil.copyfile(source, draft)
            return
    with draft.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def _write_parquet(table: FeatureTable, utterances: Sequence[str], path: Path) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow, which is not installed: "
            'pip install "modality-toolkit[formats]".'
        ) from error
    columns = {"utterance": pa.array(utterances)}
    columns["present"] = pa.array(table.present)
    columns["n_frames"] = pa.array(table.n_frames)
    for column, name in enumerate(table.names):
        columns[name] = pa.array(np.ascontiguousarray(table.values[:, column]))
    parquet.write_table(pa.table(columns), path)
