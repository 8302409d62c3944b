"""``toolkit transfer``: final models of several studies scored on several labelled corpora."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.feature_files import TEXT_NAMES
from toolkit.data.roles import suggest
from toolkit.files import FolderError, format_csv, lock_folder
from toolkit.fusion.inputs import NewPredictions
from toolkit.pooling import FeatureTable
from toolkit.report import render_figure
from toolkit.report.transfer_page import (
    TransferCell,
    format_transfer,
    plot_transfer,
    transfer_table,
)
from toolkit.study.config import ConfigError
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request
from toolkit.study.outcome import NewResult
from toolkit.study.plan import plan_study
from toolkit.study.predict import apply_models
from toolkit.study.terminal import is_quiet, print_json, print_lines, print_table
from toolkit.validation import Predictions
from toolkit.validation.folds import holds_content
from toolkit.validation.predictions import parse_predictions

_Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """A study: its class names after merging, and the rows of training to compare with."""

    name: str
    system: str
    classes: tuple[str, ...]
    out_of_fold: Predictions
    utterances: NDArray[np.str_]
    tables: Mapping[str, FeatureTable]


def _measure_transfer(
    folders: Sequence[Path],
    corpora: Sequence[Path],
    *,
    system: str | None = None,
    merge: Mapping[str, str] | None = None,
    roots: Sequence[Path] = (),
    **reading: Any,
) -> list[TransferCell]:
    """Score the final models of studies on corpora, study by study.

    - merge: Label and the label to merge it into, in studies and corpora.
    - reading: As :func:`toolkit.study.predict.predict_new` takes it.
    """
    merge = merge or {}
    studies, columns = _name_apart(folders), _name_apart(corpora)
    # Labels are compared by name, so another header may hold them.
    results = [
        [apply_models(f, c, roots=roots, any_label=True, **reading) for c in corpora]
        for f in folders
    ]
    _check_merge(merge, [result for row in results for result in row])
    trained = [
        _read_study(folder, name, row[0], corpora, system=system, merge=merge, roots=roots)
        for folder, name, row in zip(folders, studies, results, strict=True)
    ]
    truths = [
        _find_truth(column, on, merge)
        for column, on in zip(columns, zip(*results, strict=True), strict=True)
    ]
    shared = [n for n in trained[0].classes if all(n in each.classes for each in trained)]
    return [
        _score_cell(study, column, result, truth, shared)
        for study, row in zip(trained, results, strict=True)
        for column, result, truth in zip(columns, row, truths, strict=True)
    ]


def _name_apart(paths: Sequence[Path]) -> list[str]:
    """Name paths by as few of their last parts as tell them apart."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise ConfigError(f"{twice} is given twice.")
    for n in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-n:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def _check_merge(merge: Mapping[str, str], results: Sequence[Any]) -> None:
    """Refuse a merge of or into a label that is nowhere, and a chain of merges."""
    known = {
        word
        for each in results
        for manifest in (each.trained, each.manifest)
        for word in (*manifest.classes, *manifest.merged)
    }
    for source, target in merge.items():
        for word in (source, target):
            if word not in known:
                raise ConfigError(
                    f"--merge {source}={target}: no study and no corpus has the label "
                    f"{word!r};{suggest(word, sorted(known))} the labels are "
                    f"{', '.join(sorted(known))}."
                )
        if target in merge:
            raise ConfigError(
                f"--merge {source}={target}: {target!r} is itself merged into "
                f"{merge[target]!r}. Name the label that is to be left."
            )


def _read_labels(result: Any, merge: Mapping[str, str]) -> _Names:
    """Name the class of each utterance as the study does, after merging; None for others."""
    trained, manifest = result.trained, result.manifest
    named = [merge.get(name, name) for name in trained.classes]
    class_of = {source: merge.get(name, name) for source, name in trained.merged.items()}
    class_of |= dict(zip((*trained.classes, *named), (*named, *named), strict=True))
    # By name alone: another corpus may give a code another meaning.
    found = [class_of.get(merge.get(name, name)) for name in manifest.classes]
    names: _Names = np.array([*found, None], dtype=object)[manifest.labels]
    return names  # the last of no label


def _find_truth(column: str, results: Sequence[Any], merge: Mapping[str, str]) -> _Names:
    """Name the class of each utterance that all studies know; None where one does not."""
    labels = np.stack([_read_labels(each, merge) for each in results])
    for row, names in enumerate(labels.T.tolist()):
        if None not in names and len(set(names)) > 1:
            raise ConfigError(
                f"The label of utterance {str(results[0].manifest.utterances[row])!r} of "
                f"{column} is {' in one study and '.join(sorted(set(names)))} in another. Give "
                "it one name with --merge LABEL=CLASS."
            )
    agreed: _Names = labels[0]
    agreed[(labels == None).any(axis=0)] = None  # noqa: E711
    return agreed


def _read_study(
    folder: Path,
    name: str,
    first: NewResult,
    corpora: Sequence[Path],
    *,
    system: str | None,
    merge: Mapping[str, str],
    roots: Sequence[Path],
) -> _Trained:
    """Read out-of-fold predictions, and the training data from their place or a corpus."""
    study, chosen = StudyFolder(folder), first.choose(system)
    path = folder / "predictions.csv"
    text = path.read_bytes().decode("utf-8") if path.exists() else ""
    out_of_fold = parse_predictions(text, str(path)).get(chosen) if text else None
    if out_of_fold is None:
        raise FolderError(f"{path} lacks {chosen}; toolkit report {folder} writes it.")
    before = (study.read_provenance() or {"data": {}})["data"]
    source = before.get("path")
    config = study.read_config().model_copy(
        update={
            "modality": first.trained.modalities,
            "table": {m: Path(each) for m, each in before.get("tables", {}).items()},
            "root": tuple(roots),
        }
    )
    # The generated corpus has no path.
    at = [Path(source)] if source else [None] if before.get("generated") else []
    for data in (*at, *corpora):
        try:
            plan = plan_study(config.model_copy(update={"data": data}))
            tables = {m: plan.pool(m) for m in plan.manifest.modalities}
        except (ValueError, OSError):  # another table, or none
            continue
        digests = {m: table.digest for m, table in tables.items()}
        rows = plan.manifest.digest(content=holds_content(plan.config.outer))
        if rows == before.get("rows") and digests == before["modalities"]:
            named = tuple(merge.get(each, each) for each in first.trained.classes)
            return _Trained(name, chosen, named, out_of_fold, plan.manifest.utterances, tables)
    # A copy of training rows under other names would get the final model's own score.
    raise FolderError(
        f"The data of {name} are not in {source or 'a file'}, as they were in training: "
        "recordings that a corpus shares with them would go unnoticed. Name the study's own "
        "table among the corpora, and folders of its features with --root."
    )


def _mark_rows(table: FeatureTable) -> list[Any]:
    """Give the numbers or words of each row; None without any mark of a recording."""
    if table.texts:  # features are fitted later, and of lower case
        return [text.casefold() or None for text in table.texts]
    values = table.values
    # Numbers that are all the same, as of silence, are no mark.
    lows, highs = (find.reduce(values, axis=1) for find in (np.fmin, np.fmax))
    varied = table.present & ((highs > lows) | (values.shape[1] == 1))
    return [row.tobytes() if v else None for row, v in zip(values, varied, strict=True)]


def _compare_rows(
    new: NewResult, study: _Trained
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find utterances that are training rows, and those that hold the numbers of one.

    People may share words or a single number: those count where all modalities are alike.
    """
    row_of = {name: row for row, name in enumerate(study.utterances.tolist())}
    places = [row_of.get(name, -1) for name in new.utterances.tolist()]
    own = np.array(places) >= 0
    alike, everywhere = np.zeros((2, len(own)), dtype=bool)
    everywhere |= np.any([table.present for table in new.tables.values()], axis=0)
    for modality, table in new.tables.items():
        marks, others = _mark_rows(table), _mark_rows(study.tables[modality])
        own &= [at >= 0 and mark == others[at] for mark, at in zip(marks, places, strict=True)]
        kept = {*others} - {None}
        found = np.array([mark in kept for mark in marks], dtype=bool)
        everywhere &= found | ~table.present
        is_text = modality in TEXT_NAMES or modality in new.manifest.texts
        if not is_text and len(table.names) > 1:
            alike |= found
    return own, alike | everywhere


def _score_cell(
    study: _Trained, column: str, result: NewResult, truth: _Names, shared: Sequence[str]
) -> TransferCell:
    """Score a study on the utterances of a corpus that its final model has not seen.

    The rows of its own data have been seen: they get the out-of-fold predictions.
    """
    manifest = result.manifest
    classes = tuple(name for name in dict.fromkeys(shared) if (truth == name).any())
    if len(classes) < 2:
        raise ConfigError(
            f"{column} and the studies share {len(classes)} classes"
            f"{f' ({classes[0]})' if classes else ''}, and two are needed: the corpus has "
            f"{', '.join(manifest.classes) or 'no label'}, {study.name} has "
            f"{', '.join(study.classes)}. Join labels of one meaning with --merge."
        )
    labels = np.array([classes.index(name) if name in classes else -1 for name in truth])
    own, alike = _compare_rows(result, study)
    own &= np.isin(manifest.utterances, study.out_of_fold.utterances)
    # The guard of the matrix: no row that the final model was fitted on gets its score.
    fresh = (labels >= 0) & ~(result.known | alike)
    is_own = ((labels >= 0) & own).sum() > fresh.sum()
    scored = (labels >= 0) & own if is_own else fresh
    left = (labels >= 0) & ~scored
    found: Any = study.out_of_fold if is_own else result.systems[study.system]
    at = np.flatnonzero(scored)
    if is_own:
        at = np.searchsorted(found.utterances, manifest.utterances[scored])
    found = NewPredictions(found.proba[at], found.y_pred[at], found.present[at])
    speakers = manifest.speakers[scored]
    tested = replace(
        result,
        classes=classes,
        utterances=manifest.utterances[scored],
        speakers=speakers,
        known=np.zeros(len(at), dtype=bool),
        labels=labels[scored],
        **_restrict(found, study, classes, result.priors),
    )
    return TransferCell(
        study=study.name,
        corpus=column,
        system=study.system,
        kind="out-of-fold" if is_own else "final model" if len(at) else "none",
        classes=classes,
        n_utterances=len(manifest),
        n_scored=len(at),
        n_people=len(set(speakers.tolist()) - {""}),
        n_unnamed=int((speakers == "").sum()),
        n_known=int((left & result.known).sum()),
        n_alike=int((left & alike & ~result.known).sum()),
        n_apart=int((left & fresh).sum()),
        n_other=int(((labels < 0) & (manifest.labels >= 0)).sum()),
        n_unlabelled=int((manifest.labels < 0).sum()),
        known=tuple(np.unique(manifest.speakers[left & result.known]).tolist()),
        generated=manifest.generated or result.trained.generated,
        scores=tuple(s for s in tested.score([study.system]) if s.scope == "all"),
    )


def _restrict(
    found: NewPredictions, study: _Trained, classes: Sequence[str], priors: NDArray[np.float64]
) -> dict[str, Any]:
    """Give priors, probabilities and predicted class among some classes of a study.

    Probabilities of merged classes are added, and all divided by their sum. A decision of the
    system stays where all of its classes are scored one by one.
    """
    named = study.classes
    belongs = np.array([[name == other for other in classes] for name in named], dtype=float)
    proba, shares = found.proba @ belongs, priors @ belongs
    shares = shares / shares.sum()
    sums = proba.sum(axis=1, keepdims=True)
    proba = np.where(sums > 0, proba / np.where(sums > 0, sums, 1), shares)
    y_pred = proba.argmax(axis=1)
    if len(set(named)) == len(named) == len(classes):
        y_pred = belongs.argmax(axis=1)[found.y_pred]
    kept = NewPredictions(proba, y_pred, found.present)
    return {"priors": shares, "systems": {study.system: kept}}


def _format_cells(cells: Sequence[TransferCell]) -> str:
    """Write a row per cell, system and score, and one without a score for an empty cell."""
    counts = [each.name for each in fields(TransferCell) if each.name.startswith("n_")]
    parts = ["metric", "value", "low", "high", "method"]
    rows: list[list[Any]] = []
    for cell in cells:
        before = [cell.study, cell.corpus, cell.kind, ", ".join(cell.classes)]
        before += [getattr(cell, name) for name in counts]
        rows += [
            [*before, score.system, *(getattr(score, part) for part in parts)]
            for score in cell.scores
        ] or [[*before, cell.system, "", None, None, None, ""]]
    header = ["study", "corpus", "kind", "classes", *counts, "system", *parts]
    return format_csv(header, rows)


def transfer_command(request: Request) -> int:
    """Score the final models of studies on corpora, and write the matrix."""
    config, arguments = request.config, request.arguments
    paths: list[Path] = arguments["inputs"]
    folders = [path for path in paths if path.is_dir()]
    corpora = [path for path in paths if not path.is_dir()]
    if not folders or not corpora:
        words = ", ".join(map(str, paths))
        lacking = "study's folder" if not folders else "table of a labelled corpus"
        raise ConfigError(f"{words}: there is no {lacking}; name one of each kind or more.")
    chosen = {"system": arguments["system"], "merge": config.merge}
    cells = _measure_transfer(folders, corpora, **chosen, **request.reading)
    metric, out = arguments["metric"], arguments["out"]
    if out is not None:
        _write_transfer(out, config.figures, cells, metric)
    if request.as_json:
        print_json([asdict(cell) for cell in cells])
    elif not is_quiet():
        table = transfer_table(cells, metric)
        print_lines(table.caption)
        print_table(table.header, ([cell.text for cell in row] for row in table.rows))
        last = () if out is None else (f"Report: {out / 'transfer.md'}",)
        print_lines(*(cell.describe() for cell in cells), *last)
    return 0


def _write_transfer(
    folder: Path, figures: Sequence[str], cells: Sequence[TransferCell], metric: str
) -> None:
    inventory = Inventory(folder)
    inventory.claim("transfer")
    ax = plot_transfer(cells, metric)
    contents = {f"figures/transfer.{end}": render_figure(ax, end) for end in figures}
    contents["transfer.csv"] = _format_cells(cells).encode("utf-8")
    contents["transfer.md"] = format_transfer(cells, metric).encode("utf-8")
    with lock_folder(folder):
        inventory.write(contents, whole=True)
