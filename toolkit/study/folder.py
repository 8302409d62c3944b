"""The folder of a study: every file in it is written whole and read back only if unchanged."""

from __future__ import annotations

import csv
import json
import logging
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.files import (
    CHECKSUMS,
    INTERNAL,
    AnyPath,
    FolderError,
    format_json,
    free_name,
    hash_folder,
    open_archive,
    read_archive,
    read_checksums,
    read_json,
    refuse_links,
    write_archive,
    write_folder,
    write_text,
)
from toolkit.models import FittedBooster
from toolkit.pooling import FeatureTable
from toolkit.study.config import StudyConfig
from toolkit.study.options import format_config, load_config
from toolkit.study.units import (
    PLAIN,
    describe_rows,
    describe_table,
    format_rows,
    open_unit,
    parse_rows,
    save_unit,
    warn_of_other_code,
)
from toolkit.systems import variant_name
from toolkit.validation import (
    FINAL,
    Fold,
    Predictions,
    UnitResult,
    gather_predictions,
    make_folds,
    outer_grouping,
)
from toolkit.validation.folds import final_fold, fold_name
from toolkit.validation.trials import find_damage, sqlite_url

logger = logging.getLogger(__name__)

#: A unit's model is ``model.txt`` or ``model.json``, in its booster's own format.
MODEL_STEM: Final = "model"

#: Folder of the dashboard's artifacts inside a study's.
ARTIFACTS: Final = f"{INTERNAL}/artifacts"
#: What an explanation records beside its arrays.
SUMMARY: Final = "summary.json"
_UNKNOWN: Final[Mapping[str, Any]] = MappingProxyType({})
#: Predictions of the learning curve, by number of training speakers.
CURVE: Final = f"{INTERNAL}/learning_curve.zip"
_ROWS: Final = f"{INTERNAL}/rows.csv"
_DATA: Final = f"{INTERNAL}/data.json"
_PROVENANCE: Final = f"{INTERNAL}/provenance.json"


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A study as its folder keeps it, with the content of ``data.json``."""

    folder: StudyFolder
    config: StudyConfig
    manifest: Manifest
    data: dict[str, Any]
    folds: tuple[Fold, ...]

    @property
    def groups(self) -> NDArray[np.str_]:
        """Speaker or session of every utterance, as it is held out, and held-out content."""
        return self.manifest.groups(outer_grouping(self.config.outer))

    def read_unit(self, system: str, number: int) -> UnitResult | None:
        """Read a unit of these rows and folds; None where it is not finished."""
        fold = final_fold(self.manifest) if number == FINAL else self.folds[number]
        unit = self.folder.read_unit(system, number, describe_rows(self.manifest, fold))
        n, n_classes = len(self.manifest), len(self.manifest.classes)
        if unit is not None and not (
            len(unit.proba) == len(fold.test)
            and unit.proba.shape[1] == unit.inner_proba.shape[1] == n_classes
            and unit.inner_rows.shape == unit.inner_present.shape
            and all(0 <= row < n for row in unit.inner_rows.tolist())
        ):
            raise FolderError(
                f"The finished unit in {self.folder.unit(system, number)} holds arrays of "
                "other sizes than its fold has rows and classes."
            )
        return unit

    def gather(self, system: str, units: Sequence[UnitResult]) -> Predictions:
        """Gather the test predictions of a system's units, one per outer fold."""
        probas, present = [unit.proba for unit in units], [unit.present for unit in units]
        return gather_predictions(self.manifest, self.folds, system, probas, present)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a study: its paths, and what is read from and written to them."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file of the searches."""
        return self.path / INTERNAL / "search.db"

    @property
    def storage_url(self) -> str:
        """The Optuna storage of a study without ``--storage``."""
        refuse_links(self.path, self.database)
        return sqlite_url(self.database)

    @property
    def units(self) -> Path:
        """The folder of the finished units, one archive per system and fold."""
        return self.path / INTERNAL / "units"

    def unit(self, system: str, fold: int) -> Path:
        """Name the archive of a finished unit."""
        return self.units / system / f"{fold_name(fold)}.zip"

    def contributions(self, system: str) -> Path:
        """Name the folder of a system's contributions."""
        return self.path / "explain" / "contributions" / system

    def permuted(self, system: str, fold: int) -> Path:
        """Name the archive of a system's refits on permuted labels in an outer fold."""
        return self.unit(variant_name(system, "permuted"), fold)

    def model_sums(self, system: str, numbers: Iterable[int]) -> list[str]:
        """Hash a system's models in outer folds; nothing where one of them is unfinished."""
        units = [self.unit(system, number) for number in numbers]
        if not all(unit.exists() for unit in units):
            return []
        return [
            value
            for sums in map(_read_packed_sums, units)
            for name, value in sorted(sums.items())
            if name.startswith(f"{MODEL_STEM}.")
            # Beside a linear part it holds weights; else nothing that is explained.
            and (name != f"{MODEL_STEM}.meta.json" or f"{MODEL_STEM}.linear.npy" in sums)
        ]

    def load_model(self, system: str, fold: int) -> FittedBooster:
        """Load the model of a finished unit; a changed one is never handed to its library."""
        with self.open_part(self.unit(system, fold)) as folder:
            return FittedBooster.load(folder / MODEL_STEM)

    def read_models(self, system: str, fold: int) -> dict[str, bytes]:
        """Read the model files of a finished unit, named by what follows ``model``."""
        unit = self.unit(system, fold)
        names = [n for n in _read_packed_sums(unit) if n.startswith(f"{MODEL_STEM}.")]
        found = read_archive(unit, *sorted(names)) if names else {}
        return {name.removeprefix(MODEL_STEM): content for name, content in found.items()}

    def read_explanation(
        self, path: Path, system: str, numbers: Iterable[int]
    ) -> dict[str, Any] | None:
        """Read an explanation's summary; None if there is none, or the models changed since."""
        if not path.exists():
            return None
        with self.open_part(path) as folder:
            summary: dict[str, Any] = read_json(folder / SUMMARY)
        return summary if summary["models"] == self.model_sums(system, numbers) else None

    def check_exists(self) -> None:
        """Refuse a folder that is not there."""
        if not self.path.is_dir():
            raise FolderError(f"There is no folder {self.path}.")

    def refuse_first_layout(self) -> None:
        """Refuse a folder whose files lie where earlier versions put them."""
        if not (self.path / "provenance.json").exists() or not (self.path / "units").is_dir():
            return
        where = shlex.quote(str(self.path))
        raise FolderError(
            f"{self.path} was written by an earlier version, with another layout. This command "
            f"sets it aside and runs the study again: toolkit study {where}/study.toml --data "
            f"DATASET.csv --out {where} --fresh"
        )

    def write_unit(
        self, unit: UnitResult, modalities: Sequence[str], origin: Mapping[str, Any] = _UNKNOWN
    ) -> None:
        """Write a finished unit, whole or not at all.

        - origin: Content of :func:`describe_rows`, and the digest of each modality's features.
        """

        def write(temporary: Path) -> None:
            save_unit(temporary, unit, modalities, origin)
            if unit.booster is not None:
                unit.booster.save(temporary / MODEL_STEM)

        self.write_part(self.unit(unit.system, unit.fold), write)

    def write_part(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a folder of finished work, or a ZIP archive of it, whole and past no link."""
        refuse_links(self.path, path)
        (write_archive if path.suffix == ".zip" else write_folder)(path, write)

    @contextmanager
    def open_part(self, path: Path) -> Iterator[AnyPath]:
        """Give the folder of finished work, or its archive as one, with the files checked.

        Nothing in it may be changed, and it may be gone after the block.
        """
        with ExitStack() as stack:
            try:
                packed = path.suffix == ".zip"
                folder = stack.enter_context(open_archive(path)) if packed else path
                why = _compare_sums(folder)
            except FolderError as error:
                why = str(error)
            if why:
                raise _describe_damage(path, why)
            yield folder

    def read_unit(
        self, system: str, fold: int, origin: Mapping[str, Any] = _UNKNOWN
    ) -> UnitResult | None:
        """Read a unit back, without its model; None where it is not finished.

        A unit of another origin, as :meth:`write_unit` describes it, is refused.
        """
        path = self.unit(system, fold)
        if not path.exists():
            return None
        with self.open_part(path) as folder:
            summary = self._check_summary(read_json(folder / "unit.json"), system, fold)
            if differ := _compare_origins(summary["origin"], origin):
                raise FolderError(
                    f"The finished unit {path} was made from other {', '.join(differ)} than "
                    "this study has there. Delete that file and run the study's own command "
                    "again: the unit is made anew, everything else is kept."
                )
            try:
                return open_unit(folder, summary)
            except (KeyError, TypeError, AttributeError) as error:
                raise _describe_damage(path, f"{type(error).__name__}: {error}") from None

    def read_modalities(self, system: str, fold: int) -> list[str] | None:
        """Read the modalities of a unit; None where it is not finished."""
        summary = self.read_summary(system, fold)
        return None if summary is None else [str(name) for name in summary["modalities"]]

    def read_summary(self, system: str, fold: int) -> dict[str, Any] | None:
        """Read a unit's record, search and origin; None where it is not finished."""
        path = self.unit(system, fold)
        if not path.exists():
            return None
        with self.open_part(path) as folder:
            return self._check_summary(read_json(folder / "unit.json"), system, fold)

    def _check_summary(self, summary: Any, system: str, fold: int) -> dict[str, Any]:
        match summary:
            case {"system": name, "fold": n, "modalities": [*_], "origin": {}} if (name, n) == (
                system,
                fold,
            ):
                return dict(summary)
        raise FolderError(
            f"{self.unit(system, fold)} is not of system {system}, fold {fold}. Delete that "
            "file and run the study's own command again: everything else is kept."
        )

    def write_config(self, config: StudyConfig) -> None:
        """Write the resolved configuration."""
        write_text(self.path / "study.toml", format_config(config))

    def read_config(self) -> StudyConfig:
        """Read the configuration back, without the place of the data."""
        return load_config(self.path / "study.toml", {})

    def write_data(
        self,
        manifest: Manifest,
        tables: Mapping[str, FeatureTable],
        *,
        study: str,
        primary: str,
        explicit: bool,
        about: Mapping[str, dict[str, Any]] = _UNKNOWN,
    ) -> None:
        """Write rows, modalities and primary system, keeping those of earlier runs.

        A primary system that was asked for explicitly is added to the recorded one.

        - about: Modalities to the notes on their files and the names of their dimensions.
        """
        path = self.path / _DATA
        before = read_json(path) if path.exists() else {}
        # Modalities may be added run by run: what earlier ones wrote stays.
        modalities = before.get("modalities", {})
        for name, table in tables.items():
            names = modalities.get(name, {}).get("dimensions", [])
            kept = {"notes": [], "dimensions": names}
            described = kept | describe_table(table, manifest.speakers)
            modalities[name] = described | about.get(name, {})
        recorded = before.get("primary", [])
        # Without a finished unit no result can have suggested the change.
        if not recorded or not self.units.exists():
            recorded = [primary]
        elif explicit and recorded[-1] != primary:
            recorded = [*recorded, primary]
        write_text(self.path / _ROWS, format_rows(manifest))
        plain = [(name, getattr(manifest, name)) for name in PLAIN]
        data = {
            # The title of the report, also after folders were renamed.
            "name": before.get("name", study),
            "corpus": before.get("corpus", manifest.root.resolve().name),
            **{n: dict(v) if isinstance(v, Mapping) else v for n, v in plain},
            "modalities": {n: modalities[n] for n in manifest.available if n in modalities},
            "primary": recorded,
        }
        if manifest.traits:
            data["traits"] = list(manifest.traits.items())
        write_text(path, format_json(data))

    def read_data(self) -> tuple[Manifest, dict[str, Any]]:
        """Read the rows back, without paths of features, and the content of ``data.json``."""
        self.refuse_first_layout()
        for name in (_DATA, _ROWS):
            if not (self.path / name).exists():
                raise FolderError(
                    f"{self.path} holds no {name}, which a study writes before its first unit. "
                    "Name the folder of a study, or run the study's own command again: "
                    "finished units are kept."
                )
        try:
            data = read_json(self.path / _DATA)
            order = {name: index for index, name in enumerate(data["available"])}
            ranked = sorted(data["modalities"], key=lambda name: order[name])
            data["modalities"] = {name: data["modalities"][name] for name in ranked}
            for modality in data["modalities"].values():
                data["warnings"] += modality.pop("notes")
            text = (self.path / _ROWS).read_bytes().decode("utf-8")
            return parse_rows(text, data), data
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise FolderError(
                f"What {self.path} kept of its data is damaged ({type(error).__name__}: "
                f"{error}). Run the study's own command again: finished units are kept."
            ) from None

    def read_study(self) -> Study:
        """Read what every derived number of a study rests on."""
        manifest, data = self.read_data()
        config = self.read_config()
        parts = config.content_parts
        folds = make_folds(manifest, config.outer, seed=config.seed, content_parts=parts)
        return Study(self, config, manifest, data, folds)

    def read_provenance(self) -> dict[str, Any] | None:
        """Read what a folder's numbers depend on; None before the first unit."""
        self.refuse_first_layout()
        path = self.path / _PROVENANCE
        if not path.exists():
            if self.units.exists():
                raise FolderError(
                    f"{self.path} holds finished units but no {_PROVENANCE} that says of which "
                    "data and options. Choose another folder with --out, or start again with "
                    "--fresh."
                )
            return None
        try:
            provenance: dict[str, Any] = read_json(path)
            provenance["identity"], provenance["trials"], provenance["data"]["modalities"]
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{path} is damaged ({error}). Choose another folder with --out, or start "
                "again with --fresh."
            ) from None
        return provenance

    def check_identity(self, provenance: dict[str, Any]) -> dict[str, Any] | None:
        """Refuse to go on in a folder of another study; give the provenance it has."""
        known = self.read_provenance()
        if known is None:
            return None
        before, after = known["identity"], provenance["identity"]
        changed = [
            f"--{name.replace('_', '-')} was {before.get(name)!r}, is {after.get(name)!r}"
            for name in before | after  # options at their defaults may be left out of either
            if before.get(name) != after.get(name)
        ]
        # Finished searches cannot be taken back.
        for name in ("trials", "seeds"):
            was, now = known.get(name, 1), provenance.get(name, 1)
            if now < was:
                changed.append(f"--{name} was {was}, is {now} (it may be raised only)")
        if provenance.get("seeds", 1) > 1 and "seeds" not in known and self._has_quick_seeds():
            changed.append(
                "--shapley seeds of an earlier version, whose searches under further seeds had "
                "the budget of --quick"
            )
        if provenance["data"]["rows"] != known["data"]["rows"]:
            changed.append(
                f"the rows of {provenance['data']['file']} (ids, labels, speakers, sessions, "
                "split, content)"
            )
        both = [n for n in provenance["data"]["modalities"] if n in known["data"]["modalities"]]
        kinds = {"modalities": "the {} features", "screened": "--wide for {} (before: reduce)"}
        for key, words in kinds.items():
            old, new = known["data"].get(key, {}), provenance["data"].get(key, {})
            changed += [words.format(name) for name in both if old.get(name) != new.get(name)]
        if changed:
            raise FolderError(
                f"{self.path} holds another study. Changed: {'; '.join(changed)}. Choose "
                "another folder with --out, or --fresh to set the old one aside and start "
                "again."
            )
        if self.units.exists():
            warn_of_other_code(known, provenance)
        return known

    def _has_quick_seeds(self) -> bool:
        """Check whether an earlier version began to repeat searches with fewer trials."""
        options = self.path / "study.toml"
        asked = options.exists() and self.read_config().shapley == "seeds"
        return asked or any(self.units.glob("*-seed-*"))

    def write_provenance(
        self, provenance: dict[str, Any], known: dict[str, Any] | None
    ) -> None:
        """Write what the folder's numbers depend on, keeping modalities of earlier runs."""
        before = {} if known is None else known["data"]
        data = dict(provenance["data"])
        for name in ("modalities", "tables", "screened"):
            if name in before | data:
                data[name] = before.get(name, {}) | data.get(name, {})
        write_text(self.path / _PROVENANCE, format_json(provenance | {"data": data}))

    def set_damaged_aside(self) -> None:
        """Rename a damaged database of searches, with a warning.

        Nothing is lost but the finished trials of unfinished units: those run again, to the
        same bytes, and finished units stand in files of their own.
        """
        database = self.database
        if not (why := find_damage(database)):
            return
        aside = free_name(database)
        database.rename(aside)
        # SQLite would apply a journal of the damaged file to the new one.
        for end in ("-journal", "-wal", "-shm"):
            database.with_name(database.name + end).unlink(missing_ok=True)
        logger.warning(
            "%s is damaged (%s). It is now %s; finished units are kept, and searches that were "
            "not finished start again.",
            database,
            why,
            aside.name,
        )


def _compare_sums(folder: AnyPath) -> str:
    """Compare finished files with the checksums written with them; describe a difference."""
    try:
        sums, found = read_checksums(folder), hash_folder(folder)
    except (OSError, ValueError) as error:
        return str(error)
    names = sorted(n for n in found.keys() | sums.keys() if found.get(n) != sums.get(n))
    return f"{', '.join(names)} changed since it was written" if names else ""


def _compare_origins(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
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


def _describe_damage(path: Path, why: str) -> FolderError:
    return FolderError(
        f"The finished work in {path} is damaged: {why}. Delete it and run the study's own "
        "command again: it is made anew, everything else is kept."
    )


def _read_packed_sums(path: Path) -> dict[str, str]:
    """Read the checksums of an archive of finished work."""
    try:
        sums = json.loads(read_archive(path, CHECKSUMS)[CHECKSUMS])
    except ValueError as error:
        raise _describe_damage(path, str(error)) from None
    if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
        raise _describe_damage(path, f"{CHECKSUMS} holds no checksums")
    return sums
