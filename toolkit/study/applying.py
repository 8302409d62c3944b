"""A study's final models, loaded and checked, and applied to new utterances."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest
from toolkit.data.audio import Sound, describe_recordings, has_recordings, name_versions
from toolkit.data.dimension_names import name_dimensions
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import read_unlabelled
from toolkit.data.spellings import canonical_name
from toolkit.files import FolderError, cache_folder, hash_file, read_json
from toolkit.fusion import LearnedFusion, NewPredictions
from toolkit.models import FittedBooster
from toolkit.pooling import FeatureTable, normalise_speakers, pool_manifest
from toolkit.pooling.frames import FramesPolicy
from toolkit.pooling.statistics import UNTIMED, resolve_statistics
from toolkit.pooling.transcripts import pool_texts
from toolkit.study.config import StudyConfig
from toolkit.study.final_models import FINAL_FILE
from toolkit.study.folder import StudyFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """Final models applied to new utterances, before labels are read.

    - trained, manifest: Utterances of the study, and the new ones.
    - known: Whether speaker or utterance has a name of training.
    - tables: Pooled features of the new utterances, never normalised.
    - pool: Pools a modality of other rows in the same way.
    - systems, priors: As in :class:`NewResult`.
    """

    trained: Manifest
    manifest: Manifest
    known: NDArray[np.bool_]
    tables: Mapping[str, FeatureTable]
    pool: Callable[[Manifest, str], FeatureTable]
    systems: Mapping[str, NewPredictions]
    primary: str
    priors: NDArray[np.float64]


def open_finals(folder: Path) -> Callable[..., Applied]:
    """Load a study's final models; give the function that applies them to new utterances.

    It takes the arguments of :func:`predict_new` but the folder.
    """
    study = StudyFolder(folder)
    final = _read_final(folder)
    trained, described = study.read_data()
    config = study.read_config()
    boosters = {name: _load_model(folder, name, final) for name in final["systems"]}
    fusion = LearnedFusion.restore(final["fusion"])

    def apply(
        data: Path | str | pd.DataFrame,
        *,
        columns: Mapping[str, str] | None = None,
        missing: Literal["refuse", "allow"] | None = None,
        frames: FramesPolicy | None = None,
        roots: Sequence[Path | str] = (),
        tables: Mapping[str, Path | str] | None = None,
    ) -> Applied:
        given = {"missing": missing, "frames": frames}
        pooling = final["pooling"] | {name: choice for name, choice in given.items() if choice}
        manifest = read_unlabelled(
            data,
            tuple(final["modalities"]),
            columns=columns or {},
            label=config.label,
            bins=config.bins,
            missing=pooling["missing"],
            roots=[Path(root) for root in roots],
            tables={name: Path(path) for name, path in (tables or {}).items()},
            extract={m: how for m, how in config.extract.items() if m in final["modalities"]},
            frames_columns=config.frames_columns,
        )
        for warning in manifest.warnings:
            logger.info("Note: %s", warning)
        _describe_recordings(manifest)
        _warn_of_versions(study, config)
        if pooling["normalise"] == "speaker":
            _check_speakers(manifest)

        def pool(rows: Manifest, modality: str) -> FeatureTable:
            return _pool(rows, modality, final["modalities"][modality], pooling)

        pooled = {
            name: pool(manifest, name)
            for name in final["modalities"]
            if any(path is not None for path in manifest.paths[name])
        }
        for name, expected in final["modalities"].items():
            known = described["modalities"].get(name, {}).get("dimensions", [])
            _check_names(manifest, name, expected["n_dims"], known)
        seen = {name: _normalise(manifest, table, pooling) for name, table in pooled.items()}
        # One thread, as in training: the last bits of sums must not depend on the cores.
        with threadpool_limits(1):
            boosted = {
                name: _apply(
                    booster,
                    [seen[m] for m in final["systems"][name]["modalities"] if m in seen],
                    fusion.priors,
                    len(manifest),
                )
                for name, booster in boosters.items()
            }
            systems = fusion.apply(boosted)
        known = np.isin(_canonical(manifest.speakers), _canonical(trained.speakers))
        known &= manifest.speakers != ""
        known |= np.isin(manifest.utterances, trained.utterances)
        return Applied(
            trained=trained,
            manifest=manifest,
            known=known,
            tables=pooled,
            pool=pool,
            systems=systems,
            primary=described["primary"][-1],
            priors=fusion.priors,
        )

    return apply


def _describe_recordings(manifest: Manifest) -> None:
    """Describe new recordings, whose rates and channels may be other ones than in training."""
    for modality, paths in manifest.paths.items():
        sounds = []
        for path in filter(None, paths) if has_recordings(paths) else ():
            with suppress(SequenceError):  # refused or counted where it is pooled
                if (sound := Sound.describe(path)) is not None:
                    sounds.append((path, sound))
        for note in describe_recordings(f"Modality {modality!r}", sounds):
            logger.info("Note: %s", note)


def _warn_of_versions(study: StudyFolder, config: StudyConfig) -> None:
    """Warn where recordings are extracted by another version than those of the study."""
    before = (study.read_provenance() or {}).get("versions", {})
    for name, version in name_versions(config.extract.values()).items():
        if before.get(name, version) != version:
            logger.warning(
                "Features of recordings are computed by %s %s, those of the study by %s.",
                *(name, version, before[name]),
            )


def _canonical(names: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.array([canonical_name(name) for name in names.tolist()])


def _read_final(folder: Path) -> dict[str, Any]:
    StudyFolder(folder).refuse_first_layout()
    path = folder / FINAL_FILE
    if not path.exists():
        raise FolderError(
            f"{folder} holds no {FINAL_FILE}: the models fitted on everybody are made at the "
            "end of a study. Name the folder of a finished study, or run its command again."
        )
    try:
        final: dict[str, Any] = read_json(path)
        _check_final(final)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FolderError(
            f"{path} is damaged ({error}). Make it again with toolkit report {folder}."
        ) from None
    return final


def _check_final(final: Mapping[str, Any]) -> None:
    """Check that the names are plain ones, and that the fusions fit the systems."""
    classes, systems, modalities = final["classes"], final["systems"], final["modalities"]
    names = [*classes, *systems, *modalities, *final["pooling"].values()]
    names += [name for system in systems.values() for name in system["files"]]
    if not systems or not all(isinstance(name, str) and name for name in names):
        raise ValueError("names are missing, or are no text")
    # They are joined to paths: a crafted one would lead elsewhere.
    plain = [name for name in names[len(classes) :] if {"/", "\\", ":"}.isdisjoint(name)]
    if len(plain) < len(names) - len(classes) or ".." in plain:
        raise ValueError("names lead to other folders")
    for modality in modalities.values():
        if type(modality["n_dims"]) is not int or modality["n_dims"] < 1:
            raise ValueError("a modality has no dimensions")
        if UNTIMED.isdisjoint(modality["statistics"]):
            resolve_statistics(modality["statistics"])
    for system in systems.values():
        if not set(system["modalities"]) <= modalities.keys():
            raise ValueError("a system sees modalities that are not described")
    _check_fusion(LearnedFusion.restore(final["fusion"]), systems, len(classes))


def _check_fusion(fusion: LearnedFusion, systems: Iterable[str], n_classes: int) -> None:
    """Fuse one row of priors: the result has a finite probability per class."""
    priors = fusion.priors
    if priors.shape != (n_classes,) or not (np.isfinite(priors) & (priors >= 0)).all():
        raise ValueError("the shares of the classes are not those of the classes")
    seen = np.ones(1, dtype=bool)
    shares = priors[None, :]
    parts = {"trees": shares, "linear": shares} if "early (linear)" in fusion.members else {}
    row = NewPredictions(shares, shares.argmax(axis=1), seen, parts)
    for name, fused in fusion.apply(dict.fromkeys(systems, row)).items():
        fits = fused.proba.shape == (1, n_classes) and np.isfinite(fused.proba).all()
        if not fits or not 0 <= int(fused.y_pred[0]) < n_classes:
            raise ValueError(f"{name} gives no probabilities of these classes")


def _load_model(folder: Path, system: str, final: Mapping[str, Any]) -> FittedBooster:
    """Load a model whose files have the bytes that were written, and no other."""
    models = folder / "models" / system
    # The boosters' native code reads these files: it gets the bytes of the study alone.
    for name, expected in final["systems"][system]["files"].items():
        path = models / name
        if not path.exists() or hash_file(path) != expected:
            fault = "is not what was written" if path.exists() else "is missing"
            raise FolderError(
                f"The model file {path} {fault}; it was not loaded. If the study's units are "
                f"whole, toolkit report {folder} copies it again."
            )
    booster = FittedBooster.load(models / "final")
    if booster.n_classes != len(final["classes"]):
        raise FolderError(f"The model in {models} is of {booster.n_classes} classes.")
    return booster


def _pool(
    manifest: Manifest, modality: str, expected: Mapping[str, Any], pooling: Mapping[str, Any]
) -> FeatureTable:
    if modality in manifest.texts:
        n_dims, (extractor, *_) = expected["n_dims"], expected["statistics"]
        cache = cache_folder() / "features"
        return pool_texts(manifest, modality, extractor, cache=cache, n_dims=n_dims)
    table = pool_manifest(
        manifest,
        modality,
        statistics=tuple(expected["statistics"]) if expected["time_axis"] else "minimal",
        cache=cache_folder() / "features",
        missing=pooling["missing"],
        frames=pooling["frames"],
        n_threads=StudyConfig().n_workers if has_recordings(manifest.paths[modality]) else 1,
    )
    found = _describe_shape(table.has_time, table.n_dims)
    shape = _describe_shape(expected["time_axis"], expected["n_dims"])
    if found != shape:
        raise ValueError(
            f"The {modality} features of {manifest.source} have {found}; the models were "
            f"trained on {shape}. Extract them as those of the study were."
        )
    return table


def _normalise(
    manifest: Manifest, table: FeatureTable, pooling: Mapping[str, Any]
) -> FeatureTable:
    if pooling["normalise"] == "none":
        return table
    return normalise_speakers(
        table,
        manifest.speakers,
        cache=cache_folder() / "features",
        missing=pooling["missing"],
        frames=pooling["frames"],
    )


def _check_names(manifest: Manifest, modality: str, n_dims: int, known: Sequence[str]) -> None:
    """Refuse dimensions in another order than in training; mention other names."""
    found = name_dimensions(manifest, {modality: n_dims}, {}).get(modality, ())
    if not found or not known or [*found] == [*known]:
        return
    if sorted(found) == sorted(known):
        raise ValueError(
            f"The dimensions of modality {modality!r} of {manifest.source} are those of "
            "training in another order. Write them in the order of the study's files."
        )
    text = "Modality %r: names of dimensions differ from those of training, such as %r."
    logger.warning(text, modality, next(name for name in found if name not in known))


def _check_speakers(manifest: Manifest) -> None:
    """Refuse data without speakers; warn of speakers whose features all become 0."""
    if not manifest.speakers.all():
        raise ValueError(
            f"The study standardised features within each speaker, and {manifest.source} names "
            "no speakers. Add a speaker column, or name it with --column speaker=HEADER."
        )
    names, counts = np.unique(manifest.speakers, return_counts=True)
    alone = names[counts == 1].tolist()
    if alone:
        logger.warning(
            "Features are standardised within each speaker, and %d speaker(s) have a single "
            "utterance (%s): all their features are 0, which decides no prediction.",
            len(alone),
            ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else ""),
        )


def _describe_shape(time_axis: bool, n_dims: int) -> str:
    return f"{'a' if time_axis else 'no'} time axis and {n_dims:,} dimensions"


def _apply(
    booster: FittedBooster,
    tables: list[FeatureTable],
    priors: NDArray[np.float64],
    n_rows: int,
) -> NewPredictions:
    """Predict the rows that have any of a system's modalities; others get the class priors."""
    present = np.zeros(n_rows, dtype=bool)
    # A modality that none of the utterances has is a block of missing values.
    values = np.full((n_rows, len(booster.names)), np.nan, dtype=np.float32)
    for table in tables:
        present |= table.present
        at = {name: column for column, name in enumerate(table.names)}
        found = [column for column, name in enumerate(booster.names) if name in at]
        own = table.values
        if table.texts:
            own = booster.texts[table.modality].transform(table.texts)
        values[:, found] = own[:, [at[booster.names[column]] for column in found]]

    def complete(predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        proba = np.tile(priors, (n_rows, 1))
        proba[present] = predicted
        return proba

    proba = complete(booster.predict_proba(values[present]))
    parts = {} if booster.linear is None else booster.predict_parts(values[present])
    parts = {name: complete(predicted) for name, predicted in parts.items()}
    return NewPredictions(proba, proba.argmax(axis=1), present, parts)
