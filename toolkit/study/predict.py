"""``toolkit predict``: a study's final models applied to new utterances."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, split_member
from toolkit.data.audio import Sound, has_recordings, name_versions
from toolkit.data.dimension_names import name_dimensions
from toolkit.data.headers import SequenceError
from toolkit.data.labels import canonical_name
from toolkit.data.manifest import read_unlabelled
from toolkit.files import (
    FolderError,
    cache_folder,
    format_csv,
    format_records,
    replace_file,
    write_bytes,
    write_text,
)
from toolkit.fusion.inputs import NewPredictions
from toolkit.fusion.learned import LearnedFusion
from toolkit.models import FittedBooster
from toolkit.pooling import FeatureTable
from toolkit.pooling.corpus import pool_modality
from toolkit.pooling.statistics import FramesPolicy
from toolkit.pooling.table import normalise_speakers, write_parquet
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.final_models import load_finals
from toolkit.study.folder import StudyFolder
from toolkit.study.options import Request
from toolkit.study.outcome import NewResult, format_score
from toolkit.study.terminal import print_json
from toolkit.validation import METRICS, Score

logger = logging.getLogger(__name__)


#: Metrics that are shown at once; the file has all.
_SHOWN: Final = ("f1_micro", "f1_macro", "uar", "log_loss")


def predict_new(
    folder: Path | str,
    data: Path | str | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    missing: Literal["refuse", "allow"] | None = None,
    frames: FramesPolicy | None = None,
    roots: Sequence[Path | str] = (),
    tables: Mapping[str, Path | str] | None = None,
) -> NewResult:
    """Apply a study's final models to new utterances.

    Parameters
    ----------
    folder : Path or str
        A study's folder; nothing in it is changed.
    data : Path, str or DataFrame
        Table of new utterances, as a study's own. Labels and speakers may be lacking. Labels
        decide no prediction; they are for scores.
    columns : mapping of str to str, optional
        Header of the column that plays a role, where its name does not show it. Columns that
        the study named for ids, labels and speakers are found without it.
    missing : {"refuse", "allow"}, optional
        Whether unreadable or absent files count as missing modalities; the study's choice
        by default.
    frames : {"refuse", "drop", "interpolate"}, optional
        Treatment of frames that are not finite; the study's choice by default.
    roots : sequence of Path or str, default=()
        Folders that feature files may lie below, beside that of the table.
    tables : mapping of str to (Path or str), optional
        Modality and its table of features, with a row per new utterance.

    Returns
    -------
    NewResult
        Predictions of the models that were fitted on every speaker: ``table()`` by the primary
        system, ``table(system)``, ``table_all()``; ``score(systems)`` where there are labels.

    Raises
    ------
    FolderError
        If the study has no final models, or one of them has changed.
    ManifestError
        If the data lack a modality or are wrong otherwise.
    ValueError
        If features have other dimensions than those of training.
    """
    result = apply_models(
        Path(folder),
        data,
        columns=columns,
        missing=missing,
        frames=frames,
        roots=roots,
        tables=tables,
    )
    _warn_of_known(result.manifest, result.known)
    _warn_of_labels(result)
    return result


def apply_models(
    folder: Path,
    data: Path | str | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    missing: Literal["refuse", "allow"] | None = None,
    frames: FramesPolicy | None = None,
    roots: Sequence[Path | str] = (),
    tables: Mapping[str, Path | str] | None = None,
    any_label: bool = False,
) -> NewResult:
    """Predict as :func:`predict_new` does, without warnings of known speakers and labels.

    `any_label` is that of :func:`read_unlabelled`.
    """
    study = StudyFolder(folder)
    final, boosters = load_finals(folder)
    trained, described = study.read_data()
    config = study.read_config()
    fusion = LearnedFusion.restore(final["fusion"])
    chosen = {"missing": missing, "frames": frames}
    own = ("utterance", "label", "label_name", "speaker")
    pooling = final["pooling"] | {name: choice for name, choice in chosen.items() if choice}
    manifest = read_unlabelled(
        data,
        tuple(final["modalities"]),
        columns=columns or {},
        usual=({} if config.label is None else {"label": config.label})
        | {role: name for role, name in config.column.items() if role in own},
        any_label=any_label,
        spellings="join" if config.spellings == "join" else "keep",
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
    pooled = {
        name: _pool(manifest, name, expected, pooling)
        for name, expected in final["modalities"].items()
        if any(path is not None for path in manifest.paths[name])
    }
    for name, expected in final["modalities"].items():
        about = described["modalities"].get(name, {})
        known = about.get("headers", about.get("dimensions", []))
        _check_names(manifest, name, expected["n_dims"], known)
    seen = pooled
    if pooling["normalise"] != "none":
        given = {name: pooling[name] for name in ("missing", "frames")}
        given["cache"] = cache_folder() / "features"
        seen = {
            name: normalise_speakers(table, manifest.speakers, **given)
            for name, table in pooled.items()
        }
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
    seen_people = {canonical_name(name) for name in trained.speakers.tolist()}
    known = np.array(
        [canonical_name(name) in seen_people for name in manifest.speakers.tolist()], dtype=bool
    )
    known &= manifest.speakers != ""
    known |= np.isin(manifest.utterances, trained.utterances)
    return NewResult(
        classes=trained.classes,
        utterances=manifest.utterances,
        speakers=manifest.speakers,
        known=known,
        systems=systems,
        primary=described["primary"][-1],
        labels=_find_labels(manifest, trained),
        priors=fusion.priors,
        manifest=manifest,
        trained=trained,
        tables=pooled,
    )


def _describe_recordings(manifest: Manifest) -> None:
    """Describe new recordings, whose rates and channels may be other ones than in training."""
    for modality, paths in manifest.paths.items():
        sounds = []
        for path in filter(None, paths) if has_recordings(paths) else ():
            with suppress(SequenceError):  # refused or counted where it is pooled
                if (sound := Sound.describe(path)) is not None:
                    sounds.append((path, sound))
        for note in Sound.describe_all(f"Modality {modality!r}", sounds):
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


def _pool(
    manifest: Manifest, modality: str, expected: Mapping[str, Any], pooling: Mapping[str, Any]
) -> FeatureTable:
    table = pool_modality(
        manifest,
        modality,
        expected["statistics"][0],  # the extractor of transcripts
        n_dims=expected["n_dims"],
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


def _check_names(manifest: Manifest, modality: str, n_dims: int, known: Sequence[str]) -> None:
    """Refuse a dimension at another position than in training; warn of other names."""
    found = name_dimensions(manifest, {modality: n_dims}, {}).get(modality, ())
    pairs = zip(found, known, strict=False)
    others = [(at, *pair) for at, pair in enumerate(pairs, start=1) if pair[0] != pair[1]]
    for at, name, _ in others:
        if name in known:
            raise ValueError(
                f"Modality {modality!r} of {manifest.source}: dimension {at} is {name!r}, "
                f"which was dimension {[*known].index(name) + 1} in training. Write the "
                "dimensions in the order of the study's files."
            )
    if others:
        shown = "; ".join(f"{at} is {name!r}, was {old!r}" for at, name, old in others[:3])
        logger.warning(
            "Modality %r: dimensions are matched by position, and %d have another name than in "
            "training (%s). Predictions are wrong if the order differs.",
            *(modality, len(others), shown + ("; ..." if len(others) > 3 else "")),
        )


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
            _name_some(alone),
        )


def _describe_shape(time_axis: bool, n_dims: int) -> str:
    return f"{'a' if time_axis else 'no'} time axis and {n_dims:,} dimensions"


def _apply(
    booster: FittedBooster, tables: list[FeatureTable], priors: NDArray[np.float64], n_rows: int
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


def _find_labels(manifest: Manifest, trained: Manifest) -> NDArray[np.int64]:
    """Find the study's class of each label, as it is or in another case; -1 for others.

    Another table may give a code another meaning, so codes count where one side has no names.
    """
    own = {name: k for k, name in enumerate(trained.classes)}
    by_name = {old: own[new] for old, new in trained.merged.items() if new in own} | own
    by_any = {name: k for k, name in enumerate(trained.codes)} | by_name
    found = []
    for name, code in zip(manifest.classes, manifest.codes, strict=True):
        known = by_any if name == code else by_name
        same = [known[word] for word in (name, code) if word in known]
        alike = {known[word] for word in known if canonical_name(word) == canonical_name(name)}
        # Two classes of the study may differ in case alone.
        classes = same or (list(alike) if len(alike) == 1 else [-1])
        found.append(classes[0])
    return np.array([*found, -1], dtype=np.int64)[manifest.labels]  # the last of no label


def _warn_of_labels(result: NewResult) -> None:
    manifest, labelled = result.manifest, result.manifest.labels >= 0
    if labelled.any() and not labelled.all():
        n_empty = int((~labelled).sum())
        logger.warning("%d of %d utterances have no label: not scored.", n_empty, len(manifest))
    scored = set(result.labels[(result.labels >= 0) & ~result.known].tolist())
    absent = [name for k, name in enumerate(result.classes) if k not in scored]
    if scored and absent:
        logger.warning(
            "No scored utterance is labelled %s: UAR and F1-macro are means over all %d "
            "classes of the study, and count 0 there.",
            _name_some(absent),
            len(result.classes),
        )
    left = manifest.labels[(result.labels < 0) & labelled]
    if len(left):
        others = [manifest.classes[k] for k in np.unique(left)]
        logger.warning(
            "%d of %d utterances have no score: their labels (%s) are no classes of the study "
            "(%s).",
            len(left),
            len(manifest),
            _name_some(others),
            ", ".join(result.classes),
        )


def _format_new(table: pd.DataFrame) -> str:
    """Write predictions for new utterances as CSV."""
    rows = (
        [f"{c:.6f}" if isinstance(c, float) else "" if c is pd.NA else c for c in row]
        for row in table.itertuples(index=False)
    )
    return format_csv(list(table.columns), rows)


def _warn_of_known(manifest: Manifest, known: NDArray[np.bool_]) -> None:
    if not known.any():
        return
    names = np.unique(manifest.speakers[known & (manifest.speakers != "")]).tolist()
    who = f"by {len(names)} speaker(s) who were in training ({_name_some(names)})"
    logger.warning(
        "%d of %d utterances are %s: these are no predictions for unseen speakers.",
        int(known.sum()),
        len(manifest),
        who if names else "in training under the same ids",
    )


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _check_out(out: Path, folder: Path, sources: Iterable[Path]) -> None:
    """Refuse to write over what is read, into the study's folder, or where no file can be."""
    advice = "Name another file with --out."
    if out.resolve().is_relative_to(folder.resolve()):
        raise FolderError(f"--out {out} lies in the folder of the study. {advice}")
    if not out.exists():
        return
    if out.is_dir() or out.is_block_device():
        kind = "a folder" if out.is_dir() else "a disk"
        raise FolderError(f"--out {out} is {kind}, not a file. {advice}")
    # By the file, not by its name: links and other spellings lead to it too.
    if any(path.exists() and out.samefile(path) for path in sources):
        raise FolderError(f"--out {out} is a file that the predictions are made from. {advice}")


def _is_stream(out: Path) -> bool:
    """Check for a pipe or device, which is written to and never replaced."""
    path = out.absolute()
    # A redirected /dev/stdout leads to a plain file; /dev/shm is a folder of plain files.
    opened = path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm")
    return out.exists() and (opened or path.is_relative_to("/proc") or not out.is_file())


def _write_new(table: pd.DataFrame, out: Path) -> None:
    if _is_stream(out):
        out.write_text(_format_new(table), encoding="utf-8", newline="\n")
    elif out.suffix.lower() == ".csv":
        write_text(out, _format_new(table))
    else:
        with replace_file(out) as temporary:
            write_parquet({name: table[name] for name in table.columns}, temporary)


def _write_scores(scores: Sequence[Score], out: Path) -> None:
    """Write scores beside the predictions, over no file but one of scores."""
    text = format_records(Score, scores).encode("utf-8")
    if out.exists() and not out.read_bytes().startswith(text.partition(b"\n")[0]):
        raise FolderError(f"{out} holds no scores. Move it, or name another file with --out.")
    write_bytes(out, text)


def _show_scores(scores: Sequence[Score]) -> None:
    """Log the main scores: standard output may hold the predictions."""
    shown = [score for score in scores if score.scope == "all" and score.metric in _SHOWN]
    for score in shown:
        title = METRICS[score.metric].title
        logger.info("%s, %s: %s", score.system, title, format_score(score))
    if scores:
        known = any(score.low is not None for score in shown)
        intervals = "95 % intervals" if known else "no intervals (below five speakers)"
        logger.info("Of %d labelled utterances by unseen speakers, %s.", scores[0].n, intervals)


def predict_command(request: Request) -> int:
    """Apply a study's final models to new utterances."""
    arguments = request.arguments
    out: Path | None = arguments["out"]
    if arguments["system"] is not None and arguments["all_systems"]:
        raise ConfigError("--system names one system and --all-systems all: give one of them.")
    if out is not None:
        _check_out(out, arguments["folder"], [arguments["data"]])
        if out.suffix.lower() not in {".csv", ".parquet"} and not _is_stream(out):
            raise FolderError(f"--out {out}: predictions are written as .csv or .parquet.")
    result = predict_new(arguments["folder"], arguments["data"], **request.reading)
    systems = result.names
    if arguments["all_systems"]:
        table = result.table_all()
    else:
        systems = [result.choose(arguments["system"])]
        table = result.table(systems[0])
    scores = result.score(systems)
    if request.as_json:
        rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
        plain = {"classes": list(result.classes), "systems": systems, "predictions": rows}
        plain |= {"scores": [asdict(score) for score in scores]}
        print_json(plain)
        return 0
    if out is None:
        sys.stdout.write(_format_new(table))
    else:
        read = [path for paths in result.manifest.paths.values() for path in paths if path]
        members = zip(read, map(split_member, read), strict=True)
        sources = [path if member is None else Path(member.file) for path, member in members]
        sources.append(arguments["data"])
        beside = out.with_suffix(".scores.csv")
        _check_out(out, arguments["folder"], sources)
        if has_file := bool(scores) and not _is_stream(out):
            _check_out(beside, arguments["folder"], sources)
            _write_scores(scores, beside)
        _write_new(table, out)
        by = ", ".join(systems)
        print(f"{len(result.utterances):,} utterances, predicted by {by}: {out}")  # noqa: T201
        if has_file:
            print(f"Scores of the labels in the table: {beside}")  # noqa: T201
    if (result.manifest.labels < 0).all():
        logger.info("There are no labels, and so no scores: --column label=HEADER names some.")
    _show_scores(scores)
    return 0
