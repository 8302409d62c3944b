"""What is kept of the data beside the results, so that all files can be made again from it.

``rows.csv`` holds the rows of the manifest without their feature files, ``data.json`` what is
said of the recordings. With the finished units and ``study.toml`` they are all that the other
files of a study are derived from: a report can be made again where the data are not.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.data import Manifest
from toolkit.files import FolderError, format_csv, format_json, unescape_formula, write_text
from toolkit.pooling.statistics import VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from toolkit.pooling import FeatureTable

ROWS: Final = "rows.csv"
DATA: Final = "data.json"
NEAR_COSINE: Final = 0.99
"""Cosine of centred features from which two utterances count as near-duplicates."""

_COLUMNS: Final = ("utterance", "label", "speaker", "session", "dialogue", "split")
_MOST_COMPARED: Final = 20_000
_BLOCK: Final = 1_024


def write_data(folder: Path, manifest: Manifest, tables: Mapping[str, FeatureTable]) -> None:
    """Write what is kept of the data, keeping what earlier runs said of other modalities."""
    path = folder / DATA
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    modalities = before.get("modalities", {}) | {
        name: describe_table(table, manifest.speakers) for name, table in tables.items()
    }
    write_text(folder / ROWS, _format_rows(manifest))
    write_text(
        path,
        format_json(
            {
                "source": manifest.source,
                "generated": manifest.generated,
                "classes": list(manifest.classes),
                "codes": list(manifest.codes),
                "available": list(manifest.available),
                "ignored": list(manifest.ignored),
                "excluded": dict(manifest.excluded),
                "merged": dict(manifest.merged),
                "warnings": list(manifest.warnings),
                "modalities": {n: modalities[n] for n in manifest.available if n in modalities},
            }
        ),
    )


def read_data(folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """Read what was kept of the data."""
    for name in (DATA, ROWS):
        if not (folder / name).exists():
            raise FolderError(
                f"{folder} holds no {name}, which a study writes before its first unit. Name "
                "the folder of a study, or run the study's own command again: finished units "
                "are kept."
            )
    try:
        data = json.loads((folder / DATA).read_text(encoding="utf-8"))
        order = {name: place for place, name in enumerate(data["available"])}
        data["modalities"] = dict(
            sorted(data["modalities"].items(), key=lambda item: order[item[0]])
        )
        text = (folder / ROWS).read_bytes().decode("utf-8")
        cells = csv.reader(io.StringIO(text, newline=""), strict=True)
        header, *rows = ([unescape_formula(cell) for cell in row] for row in cells)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        codes = {name: code for code, name in enumerate(data["classes"])}
        manifest = Manifest(
            source=data["source"],
            root=Path(),
            modalities=tuple(data["modalities"]),
            classes=tuple(data["classes"]),
            codes=tuple(data["codes"]),
            utterances=np.array(columns["utterance"]),
            labels=np.array([codes[name] for name in columns["label"]], dtype=np.int64),
            speakers=np.array(columns["speaker"]),
            sessions=_optional(columns["session"]),
            dialogues=_optional(columns["dialogue"]),
            splits=_optional(columns["split"]),
            paths={},
            ignored=tuple(data["ignored"]),
            excluded=data["excluded"],
            merged=data["merged"],
            warnings=tuple(data["warnings"]),
            generated=data["generated"],
            available=tuple(data["available"]),
        )
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise FolderError(
            f"What {folder} kept of its data is damaged ({type(error).__name__}: {error}). Run "
            "the study's own command again: finished units are kept."
        ) from None
    return manifest, data


def describe_table(table: FeatureTable, speakers: NDArray[np.str_]) -> dict[str, Any]:
    """Say what a modality holds."""
    timed = table.n_frames[table.n_frames > 0]
    same, near = count_shared(table, speakers)
    return {
        "n_dims": table.n_dims,
        "n_features": len(table.names),
        "n_present": int(table.present.sum()),
        "statistics": list(table.statistics),
        "frames": None
        if table.statistics == (VALUE,) or not len(timed)
        else {
            "min": int(timed.min()),
            "median": float(np.median(timed)),
            "max": int(timed.max()),
            "total": int(timed.sum()),
        },
        "counts": {name: int(value) for name, value in table.counts.items()},
        "same_as_other_speaker": same,
        "near_other_speaker": near,
        "near_cosine": NEAR_COSINE,
    }


def count_shared(table: FeatureTable, speakers: NDArray[np.str_]) -> tuple[int, int | None]:
    """Count utterances that are like one of another speaker in one modality.

    A sentence that two people say has the same text features, or nearly so: a model may know
    the sentence from training rather than understand it.
    """
    rows = np.flatnonzero(table.present)
    who = np.unique(speakers, return_inverse=True)[1][rows]
    values = np.ascontiguousarray(table.values[rows])
    said: dict[bytes, list[int]] = {}
    for place, row in enumerate(values):
        said.setdefault(row.tobytes(), []).append(place)
    same = np.zeros(len(rows), dtype=bool)
    for places in said.values():
        if len(set(who[places].tolist())) > 1:
            same[places] = True
    if table.statistics != (VALUE,) or len(rows) > _MOST_COMPARED or len(rows) < 2:
        return int(same.sum()), None
    centred = np.nan_to_num(values - np.nanmean(values, axis=0))
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    near = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = centred[block] @ centred.T >= NEAR_COSINE
        near[block] = (alike & (who[block, None] != who[None, :])).any(axis=1)
    return int(same.sum()), int((near & ~same).sum())


def _format_rows(manifest: Manifest) -> str:
    n = len(manifest)
    columns = [
        manifest.utterances.tolist(),
        [manifest.classes[code] for code in manifest.labels.tolist()],
        manifest.speakers.tolist(),
        *(
            [""] * n if column is None else column.tolist()
            for column in (manifest.sessions, manifest.dialogues, manifest.splits)
        ),
    ]
    return format_csv(_COLUMNS, zip(*columns, strict=True))


def _optional(column: tuple[str, ...]) -> NDArray[np.str_] | None:
    return np.array(column) if any(column) else None
