"""``toolkit predict``: a study's final models applied to new utterances."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from toolkit.data import Manifest, split_member
from toolkit.files import (
    FolderError,
    format_csv,
    format_records,
    replace_file,
    write_bytes,
    write_text,
)
from toolkit.pooling.frames import FramesPolicy
from toolkit.pooling.table import write_parquet
from toolkit.study.applying import open_finals
from toolkit.study.config import ConfigError
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
        Header of the column that plays a role, where its name does not show it.
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
    applied = open_finals(Path(folder))(
        data,
        columns=columns,
        missing=missing,
        frames=frames,
        roots=roots,
        tables=tables,
    )
    manifest = applied.manifest
    _warn_of_known(manifest, applied.known)
    return NewResult(
        classes=applied.trained.classes,
        utterances=manifest.utterances,
        speakers=manifest.speakers,
        known=applied.known,
        systems=applied.systems,
        primary=applied.primary,
        labels=_find_labels(manifest, applied.trained),
        priors=applied.priors,
        sources=tuple(
            path if (member := split_member(path)) is None else Path(member.file)
            for paths in manifest.paths.values()
            for path in paths
            if path is not None
        ),
    )


def _find_labels(manifest: Manifest, trained: Manifest) -> NDArray[np.int64]:
    """Find the study's class of each label, by name or code; -1 for others, which are named."""
    position = {name: k for k, name in enumerate(trained.codes)}
    position |= {name: k for k, name in enumerate(trained.classes)}
    words = zip(manifest.classes, manifest.codes, strict=True)
    merged = [[trained.merged.get(word, word) for word in pair] for pair in words]
    found = [next((position[w] for w in pair if w in position), -1) for pair in merged]
    labels = np.array([*found, -1], dtype=np.int64)[manifest.labels]  # the last of no label
    others = [name for name, k in zip(manifest.classes, found, strict=True) if k < 0]
    if others:
        n_others = int(((labels < 0) & (manifest.labels >= 0)).sum())
        logger.warning(
            "%d of %d utterances have no score: their labels (%s) are no classes of the study "
            "(%s).",
            n_others,
            len(manifest),
            ", ".join(others[:5]) + (", ..." if len(others) > 5 else ""),
            ", ".join(trained.classes),
        )
    return labels


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
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    source = f"by {len(names)} speaker(s) who were in training ({shown})" if names else ""
    logger.warning(
        "%d of %d utterances are %s: these are no predictions for unseen speakers.",
        int(known.sum()),
        len(manifest),
        source or "in training under the same ids",
    )


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
    open_file = out.absolute().is_relative_to("/dev") or out.absolute().is_relative_to("/proc")
    return out.exists() and (open_file or not out.is_file())


def _check_kind(out: Path) -> None:
    """Refuse a name whose ending promises a format that is not written."""
    if out.suffix.lower() not in {".csv", ".parquet"} and not _is_stream(out):
        raise FolderError(f"--out {out}: predictions are written as .csv or .parquet.")


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
    for score in scores:
        if score.scope == "all" and score.metric in _SHOWN:
            title = METRICS[score.metric].title
            logger.info("%s, %s: %s", score.system, title, format_score(score))
    if scores:
        logger.info(
            "Of %d labelled utterances by unseen speakers, 95 %% intervals.", scores[0].n
        )


def predict_command(request: Request) -> int:
    """Apply a study's final models to new utterances."""
    config, arguments = request.config, request.arguments
    out: Path | None = arguments["out"]
    if arguments["system"] is not None and arguments["all_systems"]:
        raise ConfigError("--system names one system and --all-systems all: give one of them.")
    if out is not None:
        _check_out(out, arguments["folder"], [arguments["data"]])
        _check_kind(out)
    given = config.model_fields_set  # what is not given is as the study had it
    result = predict_new(
        arguments["folder"],
        arguments["data"],
        columns=config.column,
        missing=config.missing if "missing" in given else None,
        frames=config.frames if "frames" in given else None,
        roots=config.root,
        tables=config.table,
    )
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
        print_json(plain | {"scores": [asdict(score) for score in scores]})
        return 0
    if out is None:
        sys.stdout.write(_format_new(table))
    else:
        sources = [arguments["data"], *result.sources]
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
    _show_scores(scores)
    return 0
