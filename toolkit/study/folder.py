"""Finished units in the output folder: written whole, read back only if nothing changed."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import toolkit
from toolkit.data import NEAR_COSINE, Manifest, count_shared
from toolkit.files import (
    FolderError,
    format_csv,
    format_json,
    free_name,
    hash_file,
    unescape_formula,
    write_text,
)
from toolkit.pooling.statistics import VALUE
from toolkit.study.config import ConfigError, mask_password
from toolkit.validation import SearchResult, UnitResult, find_damage, fold_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.pooling import FeatureTable
    from toolkit.study.config import StudyConfig

#: Folder of the dashboard's artifacts inside a study's.
ARTIFACTS: Final = "artifacts"
#: A unit's model is ``model.txt`` or ``model.json``, in its booster's own format.
MODEL_STEM: Final = "model"

#: Beside the files it is about: their names and SHA-256.
CHECKSUMS: Final = "checksums.json"


def unit_folder(study: Path, system: str, fold: int) -> Path:
    """Name the folder of a finished unit."""
    return study / "units" / system / fold_name(fold)


def write_unit(folder: Path, unit: UnitResult, modalities: Sequence[str]) -> None:
    """Write a finished unit, whole or not at all."""

    def write(temporary: Path) -> None:
        np.save(temporary / "test.npy", unit.proba, allow_pickle=False)
        np.save(temporary / "present.npy", unit.present, allow_pickle=False)
        np.save(temporary / "inner_rows.npy", unit.inner_rows, allow_pickle=False)
        np.save(temporary / "inner.npy", unit.inner_proba, allow_pickle=False)
        np.save(temporary / "inner_present.npy", unit.inner_present, allow_pickle=False)
        summary = {
            "system": unit.system,
            "fold": unit.fold,
            "modalities": list(modalities),
            "record": dict(unit.record),
            "ledger": unit.ledger,
            "search": None if unit.search is None else asdict(unit.search),
        }
        if unit.booster is not None:
            unit.booster.save(temporary / MODEL_STEM)
        write_text(temporary / "unit.json", format_json(summary))

    write_whole(folder, write)


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder of files, whole or not at all.

    They are written into a folder beside the final one and renamed into place with their
    checksums, so a folder that can be seen is complete.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    sums = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
    write_text(temporary / CHECKSUMS, format_json(sums))
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    _sync(folder.parent)


def read_unit(folder: Path) -> UnitResult | None:
    """Read a finished unit back, without its model."""
    if not folder.exists():
        return None
    check_sums(folder)
    summary = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    search = summary["search"]
    return UnitResult(
        system=summary["system"],
        fold=summary["fold"],
        proba=np.load(folder / "test.npy", allow_pickle=False),
        present=np.load(folder / "present.npy", allow_pickle=False),
        inner_rows=np.load(folder / "inner_rows.npy", allow_pickle=False),
        inner_proba=np.load(folder / "inner.npy", allow_pickle=False),
        inner_present=np.load(folder / "inner_present.npy", allow_pickle=False),
        search=search and SearchResult(**(search | {"trials": tuple(search["trials"])})),
        booster=None,
        record=summary["record"],
        ledger=summary["ledger"],
    )


def read_modalities(folder: Path) -> list[str] | None:
    """Read which modalities a finished unit saw."""
    if not folder.exists():
        return None
    check_sums(folder)
    summary = json.loads((folder / "unit.json").read_text(encoding="utf-8"))
    return [str(name) for name in summary["modalities"]]


def check_sums(folder: Path) -> None:
    """Check a finished unit's files against the checksums written with them."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        found = {p.name: hash_file(p) for p in folder.iterdir() if p.name != CHECKSUMS}
    except (OSError, ValueError) as error:
        raise FolderError(_damaged(folder, str(error))) from None
    if found != sums:
        names = sorted(
            name for name in found.keys() | sums.keys() if found.get(name) != sums.get(name)
        )
        raise FolderError(_damaged(folder, f"{', '.join(names)} changed since it was written"))


def _damaged(folder: Path, why: str) -> str:
    return (
        f"The finished unit in {folder} is damaged: {why}. Delete that folder and run the same "
        "command again: the unit is made anew, everything else is kept."
    )


def _sync(path: Path) -> None:
    """Have the operating system write a file, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and needs not
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


ROWS: Final = "rows.csv"
DATA: Final = "data.json"
_COLUMNS: Final = ("utterance", "label", "speaker", "session", "dialogue", "split")


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
    same, near = count_shared(
        table.values[table.present],
        speakers[table.present],
        compare=table.statistics == (VALUE,),
    )
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


logger = logging.getLogger(__name__)

#: More processes than this wait on one another for SQLite's single lock.
MOST_SQLITE_WORKERS: Final = 8


def storage_url(folder: Path) -> str:
    """Name the Optuna storage of a study that was given no other."""
    return f"sqlite:///{(folder / 'search.db').resolve().as_posix()}"


def set_damaged_aside(database: Path) -> None:
    """Move a database of searches that cannot be trusted out of the way, and say so.

    Nothing is lost but the finished trials of unfinished units: those run again, to the same
    bytes, and finished units stand in files of their own.
    """
    if not (why := find_damage(database)):
        return
    aside = free_name(database)
    database.rename(aside)
    for end in ("-journal", "-wal", "-shm"):
        database.with_name(database.name + end).unlink(missing_ok=True)
    logger.warning(
        "%s is damaged (%s). It is now %s; finished units are kept, and searches that were "
        "not finished start again.",
        database,
        why,
        aside.name,
    )


def check_driver(url: str) -> None:
    """Refuse a server whose driver is not installed."""
    if url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            f"The storage {mask_password(url)} needs a driver that is not installed: "
            'pip install "modality-toolkit[cluster]".'
        )


def check_storage(url: str, n_workers: int) -> None:
    """Refuse more workers than a storage can take."""
    if url.startswith("sqlite") and n_workers > MOST_SQLITE_WORKERS:
        raise ConfigError(
            f"{n_workers} workers would write to one SQLite file, which takes one writer at a "
            f"time: beyond {MOST_SQLITE_WORKERS} they wait for its lock until they fail. Use "
            f"at most {MOST_SQLITE_WORKERS} (--workers), or --storage "
            "postgresql+psycopg://USER@HOST/DATABASE."
        )


def search_name(
    study: str, provenance: Mapping[str, Any], modalities: Iterable[str], *, shared: bool
) -> str:
    """Name a study's searches in a storage."""
    if not shared:
        return study
    data = provenance["data"]
    decides = {
        "identity": provenance["identity"],
        "rows": data["rows"],
        "features": [data["modalities"][name] for name in modalities],
        "versions": provenance["versions"],
        "platform": provenance["platform"],
    }
    digest = hashlib.sha256(format_json(decides).encode("utf-8")).hexdigest()
    return f"{study}-{digest[:16]}"
