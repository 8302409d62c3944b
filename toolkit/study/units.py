"""A finished unit on disk: its arrays, and the rows, features and code that it is made from."""

import csv
import hashlib
import importlib.metadata
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import toolkit
from toolkit.data import Manifest
from toolkit.data.examination import NEAR_COSINE, count_shared
from toolkit.files import (
    AnyPath,
    FolderError,
    format_csv,
    format_json,
    read_array,
    unescape_formula,
    write_text,
)
from toolkit.pooling import FeatureTable
from toolkit.validation import Fold, SearchResult, UnitResult

_COLUMNS: Final = ("utterance", "label", "speaker", "session", "dialogue", "split")

#: Fields of a manifest that are plain data, as ``data.json`` keeps them.
PLAIN: Final = (
    *("source", "generated", "classes", "codes", "available", "ignored", "excluded", "merged"),
    "warnings",
)

#: Arrays of a unit, and the stems of their files.
_ARRAYS: Final = {
    "proba": "test",
    "present": "present",
    "inner_rows": "inner_rows",
    "inner_proba": "inner",
    "inner_present": "inner_present",
}

#: Arrays of a unit with a linear part, by part, and the array of both parts together.
_PARTS: Final = {"parts": "proba", "inner_parts": "inner_proba"}

logger = logging.getLogger(__name__)

#: Packages whose versions decide numbers.
LIBRARIES: Final = (
    "lightgbm",
    "xgboost-cpu",
    "xgboost",
    "optuna",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "imbalanced-learn",
    "numba",
    "joblib",
    "matplotlib",
)


def save_unit(
    folder: Path, unit: UnitResult, modalities: Sequence[str], origin: Mapping[str, Any]
) -> None:
    """Write a unit's arrays and ``unit.json``, without its model."""
    for name, file in _ARRAYS.items():
        np.save(folder / f"{file}.npy", getattr(unit, name), allow_pickle=False)
    for name, whole in _PARTS.items():
        for part, proba in getattr(unit, name).items():
            np.save(folder / f"{_ARRAYS[whole]}_{part}.npy", proba, allow_pickle=False)
    summary = {
        "system": unit.system,
        "fold": unit.fold,
        "modalities": list(modalities),
        "origin": dict(origin) | {"code": hash_code(), "toolkit": toolkit.__version__},
        "record": dict(unit.record),
        "ledger": unit.ledger,
        "search": None if unit.search is None else _to_plain(unit.search),
    }
    write_text(folder / "unit.json", format_json(summary))


def open_unit(folder: AnyPath, summary: Mapping[str, Any]) -> UnitResult:
    """Read a unit's arrays beside its summary, which is that of ``unit.json``."""
    search = summary["search"]
    arrays: dict[str, Any] = {
        name: read_array(folder / f"{file}.npy") for name, file in _ARRAYS.items()
    }
    for name, rows in (("proba", "present"), ("inner_proba", "inner_present")):
        if arrays[name].ndim != 2 or arrays[rows].shape != arrays[name].shape[:1]:
            raise FolderError(f"The arrays of the finished unit in {folder} do not fit.")
    parts: dict[str, Any] = {name: {} for name in _PARTS}
    if summary["record"].get("linear"):
        for name, whole in _PARTS.items():
            for part in ("trees", "linear"):
                parts[name][part] = read_array(folder / f"{_ARRAYS[whole]}_{part}.npy")
                if parts[name][part].shape != arrays[whole].shape:
                    raise FolderError(
                        f"The arrays of the finished unit in {folder} do not fit."
                    )
    return UnitResult(
        system=summary["system"],
        fold=summary["fold"],
        **arrays,
        **parts,
        search=search and SearchResult(**{k: _freeze(v) for k, v in search.items()}),
        booster=None,
        record=summary["record"],
        ledger=summary["ledger"],
    )


def _to_plain(search: SearchResult) -> dict[str, Any]:
    """Give a search as plain data, without the fields of a sample where there was none."""
    optional = ("n_sampled", "finalists")
    return {k: v for k, v in asdict(search).items() if v or k not in optional}


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def describe_rows(manifest: Manifest, fold: Fold) -> dict[str, Any]:
    """Name the groups that a fold holds out, and hash its rows and their labels."""
    rows = [
        [(manifest.utterances[k], manifest.classes[manifest.labels[k]]) for k in part.tolist()]
        for part in (fold.train, fold.test)
    ]
    digest = hashlib.sha256(format_json(rows).encode("utf-8")).hexdigest()
    return {"held_out": list(fold.held_out), "rows": digest}


def warn_of_other_code(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Warn where finished units were made by other versions than the rest will be."""
    old, new = before.get("versions", {}), after["versions"]
    changed = [
        f"{name} was {old[name]}, is {new.get(name, 'missing')}"
        for name in sorted(old)
        if old[name] != new.get(name)
    ]
    if not changed and before.get("code", after["code"]) != after["code"]:
        changed = ["the code of modality-toolkit is another, of the same version"]
    if changed:
        logger.warning(
            "Finished units were made under other versions: %s. They are kept, and numbers of "
            "both kinds stand side by side; --fresh makes them all again.",
            "; ".join(changed),
        )


@cache
def hash_code() -> str:
    """Hash this package's own code, which between releases says more than its version."""
    root = Path(toolkit.__file__).parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        code.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        code.update(content)
    return code.hexdigest()


def library_versions() -> dict[str, str]:
    """Name the versions of the libraries that numbers depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # one of the two names of xgboost
            continue
    return versions


def format_rows(manifest: Manifest) -> str:
    """Write utterances, labels and groups as CSV."""
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
    header = list(_COLUMNS)
    if manifest.contents is not None:
        header.append("content")
        columns.append(manifest.contents.tolist())
    return format_csv(header, zip(*columns, strict=True))


def parse_rows(text: str, data: dict[str, Any]) -> Manifest:
    """Read the rows back, without paths of features; the rest of the data is in ``data``."""
    cells = csv.reader(io.StringIO(text, newline=""), strict=True)
    header, *rows = ([unescape_formula(cell) for cell in row] for row in cells)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    codes = {name: code for code, name in enumerate(data["classes"])}

    def optional(name: str) -> NDArray[np.str_] | None:
        return np.array(columns[name]) if any(columns.get(name, ())) else None

    plain: dict[str, Any] = {name: _freeze(data[name]) for name in PLAIN}
    return Manifest(
        **plain,
        root=Path(),
        modalities=tuple(data["modalities"]),
        utterances=np.array(columns["utterance"]),
        labels=np.array([codes[name] for name in columns["label"]], dtype=np.int64),
        speakers=np.array(columns["speaker"]),
        sessions=optional("session"),
        dialogues=optional("dialogue"),
        splits=optional("split"),
        paths={},
        contents=optional("content"),
    )


def describe_table(table: FeatureTable, speakers: NDArray[np.str_]) -> dict[str, Any]:
    """Describe the pooled features of a modality: sizes, frames and shared rows."""
    timed = table.n_frames[table.n_frames > 0]
    values = table.values
    if table.texts:  # one number per transcript: features are fitted later
        words = [text.casefold() for text in table.texts]
        values = np.unique(words, return_inverse=True)[1][:, None].astype(np.float32)
    same, near = count_shared(
        values[table.present],
        speakers[table.present],
        compare=not table.has_time and not table.texts,
    )
    return {
        "n_dims": table.n_dims,
        "n_features": len(table.names),
        "n_present": int(table.present.sum()),
        "statistics": list(table.statistics),
        "frames": None
        if not table.has_time or not len(timed)
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
