"""Whose numbers a folder holds: data, configuration, versions; and refusing other ones."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import toolkit
from toolkit.files import FolderError, format_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.study.config import StudyConfig

_FILE: Final = "provenance.json"
_LIBRARIES: Final = (
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


def make_provenance(
    config: StudyConfig, manifest: Manifest, tables: Iterable[FeatureTable]
) -> dict[str, Any]:
    """Collect what a study's numbers depend on."""
    return {
        "identity": config.identity(),
        "trials": config.n_trials,
        "data": {
            "file": manifest.source,
            "path": None if config.data is None else str(config.data.resolve()),
            "generated": manifest.generated,
            "rows": manifest.digest(),
            "modalities": {table.modality: table.digest for table in tables},
        },
        "code": hash_code(),
        "versions": {"modality-toolkit": toolkit.__version__, "python": sys.version.split()[0]}
        | library_versions(),
        "platform": {"system": platform.system(), "machine": platform.machine()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def hash_code() -> str:
    """Hash this package's own code, which between releases says more than its version."""
    root = Path(toolkit.__file__).parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        code.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        code.update(content)
    return code.hexdigest()


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Read what a folder's numbers depend on."""
    path = folder / _FILE
    if not path.exists():
        if (folder / "units").exists():
            raise FolderError(
                f"{folder} holds finished units but no {_FILE} that says of which data and "
                "options. Choose another folder with --out, or start again with --fresh."
            )
        return None
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known["identity"], known["trials"], known["data"]["modalities"]
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"{path} is damaged ({error}). Choose another folder with --out, or start again "
            "with --fresh."
        ) from None
    return known


def check_identity(folder: Path, provenance: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse to go on in a folder that holds another study."""
    known = read_provenance(folder)
    if known is None:
        return None
    before, after = known["identity"], provenance["identity"]
    changed = [
        f"--{name.replace('_', '-')} was {before.get(name)!r}, is {after.get(name)!r}"
        for name in before | after  # what is not said is left out of either
        if before.get(name) != after.get(name)
    ]
    if provenance["trials"] < known["trials"]:
        changed.append(
            f"--trials was {known['trials']}, is {provenance['trials']} (it may be raised only)"
        )
    if provenance["data"]["rows"] != known["data"]["rows"]:
        changed.append(
            f"the rows of {provenance['data']['file']} (ids, labels, speakers, sessions, split)"
        )
    changed += [
        f"the {modality} features"
        for modality, digest in provenance["data"]["modalities"].items()
        if known["data"]["modalities"].get(modality, digest) != digest
    ]
    if changed:
        raise FolderError(
            f"{folder} holds another study. Changed: {'; '.join(changed)}. Choose another "
            "folder with --out, or --fresh to set the old one aside and start again."
        )
    return known


def write_provenance(
    folder: Path, provenance: dict[str, Any], known: dict[str, Any] | None
) -> None:
    """Write what the folder's numbers depend on, keeping modalities of earlier runs."""
    modalities = {} if known is None else known["data"]["modalities"]
    data = provenance["data"] | {"modalities": modalities | provenance["data"]["modalities"]}
    write_text(folder / _FILE, format_json(provenance | {"data": data}))


def library_versions() -> dict[str, str]:
    """Name the versions of the libraries that numbers depend on."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # one of the two names of xgboost
            continue
    return versions
