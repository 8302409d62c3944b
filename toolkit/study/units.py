"""A finished unit on disk: its arrays, and the rows, features and code that it is made from."""

import hashlib
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

import toolkit
from toolkit.data import Manifest
from toolkit.files import FolderError, format_json, read_array, write_text
from toolkit.validation import Fold, SearchResult, UnitResult

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
        "search": None if unit.search is None else asdict(unit.search),
    }
    write_text(folder / "unit.json", format_json(summary))


def open_unit(folder: Path, summary: Mapping[str, Any]) -> UnitResult:
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
        search=search and SearchResult(**(search | {"trials": tuple(search["trials"])})),
        booster=None,
        record=summary["record"],
        ledger=summary["ledger"],
    )


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


def compare_origins(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Name what both state, and differently."""
    differ = [
        {"held_out": "held-out groups", "rows": "rows or labels"}[name]
        for name in ("held_out", "rows")
        if name in found and name in expected and found[name] != expected[name]
    ]
    features = found.get("features", {})
    return differ + [
        f"{modality} features"
        for modality, digest in expected.get("features", {}).items()
        if isinstance(features, dict) and features.get(modality, digest) != digest
    ]


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
