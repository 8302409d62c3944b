"""``toolkit transfer``: final models of several studies scored on several labelled corpora."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from toolkit.data import Manifest
from toolkit.data.feature_files import TEXT_NAMES
from toolkit.data.roles import suggest
from toolkit.data.spellings import canonical_name
from toolkit.files import FolderError, format_csv, lock_folder, write_bytes, write_text
from toolkit.fusion import NewPredictions
from toolkit.report import render_figure
from toolkit.report.transfer_page import (
    TransferCell,
    describe_cell,
    format_transfer,
    plot_transfer,
    transfer_table,
)
from toolkit.study.applying import Applied, open_finals
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request
from toolkit.study.outcome import choose_system
from toolkit.study.terminal import is_quiet, print_json, print_table
from toolkit.systems import MAJORITY
from toolkit.validation import METRICS, Predictions, parse_predictions, score_predictions

logger = logging.getLogger(__name__)

_Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """A study: its class names after merging, and its training data.

    - data: A table with all utterances of training, whose features have the digests of then.
    """

    name: str
    system: str
    classes: tuple[str, ...]
    out_of_fold: Predictions
    data: Applied


def _measure_transfer(
    folders: Sequence[Path],
    corpora: Sequence[Path],
    *,
    system: str | None = None,
    merge: Mapping[str, str] | None = None,
    **reading: Any,
) -> list[TransferCell]:
    """Score the final models of studies on corpora, study by study.

    - merge: Label and the label to merge it into, in studies and corpora.
    - reading: As :func:`toolkit.study.predict.predict_new` takes it.
    """
    merge = merge or {}
    studies, columns = _name_apart(folders), _name_apart(corpora)
    opened = {s: open_finals(folder) for s, folder in zip(studies, folders, strict=True)}
    applied = {
        (study, column): apply(path, **reading)
        for study, apply in opened.items()
        for column, path in zip(columns, corpora, strict=True)
    }
    _check_merge(merge, applied.values())
    trained = {
        study: _read_trained(
            StudyFolder(folder),
            opened[study],
            [applied[study, column] for column in columns],
            name=study,
            system=system,
            merge=merge,
        )
        for study, folder in zip(studies, folders, strict=True)
    }
    truths = {
        column: _find_truth(column, [applied[study, column] for study in studies], merge)
        for column in columns
    }
    return [
        _score_cell(trained[study], column, applied[study, column], truths[column], trained)
        for study in studies
        for column in columns
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


def _check_merge(merge: Mapping[str, str], applied: Sequence[Applied] | Any) -> None:
    """Refuse a merge of or into a label that is nowhere, and a chain of merges."""
    known = {
        word
        for each in applied
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


def _name_classes(trained: Manifest, merge: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(merge.get(name, name) for name in trained.classes)


def _read_labels(applied: Applied, merge: Mapping[str, str]) -> _Names:
    """Name the class of each utterance as the study does, after merging; None for others."""
    trained, manifest = applied.trained, applied.manifest
    named = _name_classes(trained, merge)
    class_of = {source: merge.get(name, name) for source, name in trained.merged.items()}
    class_of |= dict(zip((*trained.classes, *named), (*named, *named), strict=True))
    # By name alone: another corpus may give a code another meaning.
    found = [class_of.get(merge.get(name, name)) for name in manifest.classes]
    return np.array([*found, None], dtype=object)[manifest.labels]  # the last of no label


def _find_truth(column: str, applied: Sequence[Applied], merge: Mapping[str, str]) -> _Names:
    """Name the class of each utterance that all studies know; None where one does not."""
    labels = np.stack([_read_labels(each, merge) for each in applied])
    for row, names in enumerate(labels.T.tolist()):
        if None not in names and len(set(names)) > 1:
            raise ConfigError(
                f"The label of utterance {str(applied[0].manifest.utterances[row])!r} of "
                f"{column} is {' in one study and '.join(sorted(set(names)))} in another. Give "
                "it one name with --merge LABEL=CLASS."
            )
    agreed: _Names = labels[0]
    agreed[(labels == None).any(axis=0)] = None  # noqa: E711
    return agreed


def _read_trained(
    study: StudyFolder,
    apply: Callable[..., Applied],
    applied: Sequence[Applied],
    *,
    name: str,
    system: str | None,
    merge: Mapping[str, str],
) -> _Trained:
    """Read out-of-fold predictions, and find the training data to compare recordings with."""
    chosen = choose_system(applied[0].systems, system or applied[0].primary)
    path = study.path / "predictions.csv"
    if not path.exists():
        raise FolderError(f"There is no {path}; toolkit report {study.path} writes it.")
    tables = parse_predictions(path.read_bytes().decode("utf-8"), str(path))
    provenance = study.read_provenance() or {"data": {"modalities": {}}}
    digests = provenance["data"]["modalities"]
    source = provenance["data"].get("path")
    data = next((each for each in applied if _is_training(each, digests)), None)
    if data is None and source is not None and Path(source).exists():
        config = study.read_config()
        earlier = apply(
            Path(source),
            columns=config.column,
            roots=config.root,
            tables=provenance["data"].get("tables", {}),
        )
        data = earlier if _is_training(earlier, digests) else None
    if data is None:
        # A copy of training rows under other names would get the final model's own score.
        raise FolderError(
            f"The data of {name} are not in {source or 'a file'}, as they were in training: "
            "recordings that a corpus shares with them would go unnoticed. Name the study's "
            "own table among the corpora."
        )
    named = _name_classes(applied[0].trained, merge)
    return _Trained(name, chosen, named, tables[chosen], data)


def _is_training(applied: Applied, digests: Mapping[str, str]) -> bool:
    """Check that a table holds all utterances of training, with the features of then."""
    manifest, trained = applied.manifest, applied.trained
    rows = np.flatnonzero(np.isin(manifest.utterances, trained.utterances))
    if len(rows) < len(trained) or [*applied.tables] != [*manifest.modalities]:
        return False
    kept = _take_rows(manifest, rows)
    same = _fold_names(kept.speakers) == _fold_names(trained.speakers)
    return same and all(
        applied.pool(kept, modality).digest == digests.get(modality)
        for modality in applied.tables
    )


def _take_rows(manifest: Manifest, rows: NDArray[np.int64]) -> Manifest:
    return replace(
        manifest,
        utterances=manifest.utterances[rows],
        labels=manifest.labels[rows],
        speakers=manifest.speakers[rows],
        sessions=None,
        dialogues=None,
        splits=None,
        contents=None,
        paths={name: tuple(own[row] for row in rows) for name, own in manifest.paths.items()},
    )


def _fold_names(names: NDArray[np.str_]) -> list[str]:
    return [canonical_name(name) for name in names.tolist()]


def _compare_rows(
    new: Applied, training: Applied
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find utterances that are training rows, and those that hold the numbers of one.

    People may share words, and so their vectors: those count where all modalities are alike.
    """
    used = np.isin(training.manifest.utterances, training.trained.utterances)
    row_of = {name: row for row, name in enumerate(training.manifest.utterances.tolist())}
    places = np.array([row_of.get(name, -1) for name in new.manifest.utterances.tolist()])
    own = (places >= 0) & used[places]
    alike = np.zeros(len(own), dtype=bool)
    everywhere = np.any([table.present for table in new.tables.values()], axis=0)
    for modality, table in new.tables.items():
        other = training.tables[modality]
        # Features of transcripts are made later, by the models.
        rows = list(table.texts or (row.tobytes() for row in table.values))
        others = list(other.texts or (row.tobytes() for row in other.values))
        own &= [p >= 0 and rows[i] == others[p] for i, p in enumerate(places.tolist())]
        kept = {others[row] for row in np.flatnonzero(other.present & used)}
        # Numbers that are all the same, as of silence, are no mark of a recording.
        varied = table.present & (bool(table.texts) | (np.ptp(table.values, axis=1) > 0))
        found = varied & np.array([row in kept for row in rows], dtype=bool)
        everywhere &= found | ~table.present
        alike |= found if modality not in TEXT_NAMES else False
    return own, alike | everywhere


def _score_cell(
    study: _Trained,
    column: str,
    applied: Applied,
    truth: _Names,
    others: Mapping[str, _Trained],
) -> TransferCell:
    """Score a study on the utterances of a corpus that its final model has not seen.

    The rows of its own data have been seen: they get the out-of-fold predictions.
    """
    manifest = applied.manifest
    shared = [n for n in study.classes if all(n in each.classes for each in others.values())]
    classes = tuple(n for n in dict.fromkeys(shared) if (truth == n).any())
    if len(classes) < 2:
        raise ConfigError(
            f"{column} and the studies share {len(classes)} classes"
            f"{f' ({classes[0]})' if classes else ''}, and two are needed: the corpus has "
            f"{', '.join(manifest.classes) or 'no label'}, {study.name} has "
            f"{', '.join(study.classes)}. Join labels of one meaning with --merge."
        )
    labelled = np.isin(truth.astype(str), classes) & (truth != None)  # noqa: E711
    own, alike = _compare_rows(applied, study.data)
    own &= np.isin(manifest.utterances, study.out_of_fold.utterances)
    # The guard of the matrix: no row that the final model was fitted on gets its score.
    fresh = labelled & ~(applied.known | alike)
    is_own = (labelled & own).sum() > fresh.sum()
    rows = np.flatnonzero(labelled & own if is_own else fresh)
    if is_own:
        tested = study.out_of_fold
        at = np.searchsorted(tested.utterances, manifest.utterances[rows])
        found = NewPredictions(tested.proba[at], tested.y_pred[at], tested.present[at])
    else:
        model = applied.systems[study.system]
        found = NewPredictions(model.proba[rows], model.y_pred[rows], model.present[rows])
    left = labelled.copy()
    left[rows] = False
    labels = np.array([classes.index(name) for name in truth[rows]], dtype=np.int64)
    speakers = manifest.speakers[rows]
    priors = np.tile(applied.priors, (len(rows), 1))
    given = {
        study.system: found,
        MAJORITY: NewPredictions(priors, priors.argmax(axis=1), np.ones(len(rows), bool)),
    }
    scores = [
        score
        for name, each in given.items()
        if len(rows)
        for score in score_predictions(
            Predictions(
                system=name,
                classes=classes,
                utterances=manifest.utterances[rows],
                # Rows without a speaker are one group, which has no interval.
                speakers=np.where(speakers == "", "unknown", speakers),
                sessions=None,
                folds=np.zeros(len(rows), dtype=np.int64),
                present=each.present,
                labels=labels,
                **_restrict(each, study.classes, classes, applied.priors),
            )
        )
        if score.scope == "all"
    ]
    return TransferCell(
        study=study.name,
        corpus=column,
        system=study.system,
        kind="out-of-fold" if is_own else "unseen people" if len(rows) else "none",
        classes=classes,
        n_utterances=len(manifest),
        n_scored=len(rows),
        n_unlabelled=int((manifest.labels < 0).sum()),
        n_other=int((~labelled & (manifest.labels >= 0)).sum()),
        n_known=int((left & applied.known).sum()),
        n_alike=int((left & alike & ~applied.known).sum()),
        n_apart=int((left & fresh).sum()),
        known=tuple(np.unique(manifest.speakers[left & applied.known]).tolist()),
        generated=manifest.generated,
        n_people=len(set(speakers.tolist()) - {""}),
        scores=tuple(scores),
    )


def _restrict(
    found: NewPredictions,
    named: Sequence[str],
    classes: Sequence[str],
    priors: NDArray[np.float64],
) -> dict[str, Any]:
    """Give probabilities and predicted class among some classes, of those of the study.

    Probabilities of merged classes are added, and all divided by their sum. A decision of the
    system stays where all of its classes are scored one by one.
    """
    belongs = np.array([[name == other for other in classes] for name in named], dtype=float)
    proba, shares = found.proba @ belongs, priors @ belongs
    sums = proba.sum(axis=1, keepdims=True)
    proba = np.where(sums > 0, proba / np.where(sums > 0, sums, 1), shares / shares.sum())
    if len(set(named)) == len(named) == len(classes):
        return {"proba": proba, "y_pred": belongs.argmax(axis=1)[found.y_pred]}
    return {"proba": proba, "y_pred": proba.argmax(axis=1)}


def _format_cells(cells: Sequence[TransferCell]) -> str:
    """Write a row per cell, system and score, and one without a score for an empty cell."""
    counts = (
        *("n_utterances", "n_scored", "n_people", "n_known", "n_alike", "n_other"),
        *("n_unlabelled", "n_apart"),
    )
    rows: list[list[Any]] = []
    for cell in cells:
        before = [cell.study, cell.corpus, cell.kind, ", ".join(cell.classes)]
        before += [getattr(cell, name) for name in counts]
        rows += [
            [*before, s.system, s.metric, s.value, s.low, s.high, s.method] for s in cell.scores
        ] or [[*before, cell.system, "", None, None, None, ""]]
    header = ["study", "corpus", "kind", "classes", *counts]
    header += ["system", "metric", "value", "low", "high", "method"]
    return format_csv(header, ([_plain(each) for each in row] for row in rows))


def _plain(value: Any) -> Any:
    return "" if value is None else repr(value) if isinstance(value, float) else value


def transfer_command(request: Request) -> int:
    """Score the final models of studies on corpora, and write the matrix."""
    config: StudyConfig = request.config
    paths: list[Path] = request.arguments["inputs"]
    folders = [path for path in paths if path.is_dir()]
    corpora = [path for path in paths if not path.is_dir()]
    if not folders or not corpora:
        lacking = "a study's folder" if not folders else "the table of a labelled corpus"
        raise ConfigError(f"Name {lacking} too: toolkit transfer DIR... OTHER.csv...")
    given = config.model_fields_set  # what is not given is as the study had it
    cells = _measure_transfer(
        folders,
        corpora,
        system=request.arguments["system"],
        merge=config.merge,
        columns=config.column,
        missing=config.missing if "missing" in given else None,
        frames=config.frames if "frames" in given else None,
        roots=config.root,
        tables=config.table,
    )
    if config.out is not None:
        _write_transfer(config, cells)
    if request.as_json:
        keys = [name for name in TransferCell.__slots__ if name != "scores"]
        print_json(
            [
                {key: getattr(cell, key) for key in keys}
                | {
                    s.metric: [s.value, s.low, s.high]
                    for s in (cell.score(name) for name in METRICS)
                    if s is not None
                }
                for cell in cells
            ]
        )
    elif not is_quiet():
        print_table(transfer_table(cells, config.metric))
        console = Console()
        for text in filter(None, map(describe_cell, cells)):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        if config.out is not None:
            last = f"Report: {config.out / 'transfer.md'}"
            console.print(last, highlight=False, markup=False, soft_wrap=True)
    return 0


def _write_transfer(config: StudyConfig, cells: Sequence[TransferCell]) -> None:
    folder = config.out
    assert folder is not None
    inventory = Inventory(folder)
    inventory.claim("transfer")
    pictures = {end: f"figures/transfer.{end}" for end in config.figures}
    with lock_folder(folder):
        inventory.reserve(["transfer.csv", "transfer.md", *pictures.values()])
        write_text(folder / "transfer.csv", _format_cells(cells))
        write_text(folder / "transfer.md", format_transfer(cells, config.metric))
        ax = plot_transfer(cells, config.metric)
        for end, name in pictures.items():
            write_bytes(folder / name, render_figure(ax, end))
