"""The command ``toolkit dashboard``: Optuna's dashboard on a copy of a study's searches.

The copy is in memory, under names that give the speakers held out, and an overview is first.
The page of each search gets a note with the scores of its system, the confusion matrix, the
figures and a link to the report. The folder of the study stays as it is, and the searches may
run meanwhile. The dashboard has no password: it listens on the loopback address only, answers
only pages of that address, and edits nothing.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from tempfile import TemporaryDirectory
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState
from optuna_dashboard import save_note, wsgi
from optuna_dashboard.artifact import get_artifact_path

from toolkit.files import FolderError
from toolkit.study.folder import ARTIFACTS, Study, StudyFolder
from toolkit.study.options import Request
from toolkit.study.terminal import list_some
from toolkit.validation import FINAL, METRICS, Fold, Predictions, score_predictions
from toolkit.validation.folds import fold_name
from toolkit.validation.metrics import confusion_matrices
from toolkit.validation.scores import find_score
from toolkit.validation.trials import open_storage

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_LOOPBACK: Final = frozenset({_HOST, "localhost", "[::1]"})
_SHOWN: Final = ("f1_micro", "f1_macro", "uar", "log_loss")
#: Figures of the system of all modalities.
_PICTURES: Final = ("modalities.png", "shap-bar.png", "shap-beeswarm-*.png")
_MOST_NAMED: Final = 3  # groups in the name of a search
_SCOPE: Final = "Scores are those of all outer folds; the search of this page belongs to one."


def _copy_searches(
    folder: StudyFolder, store: FileSystemArtifactStore
) -> optuna.storages.InMemoryStorage:
    """Copy the searches of a study, which may be running, and write a note to each."""
    folder.refuse_first_layout()
    if not folder.database.exists():
        name = folder.database.name
        raise FolderError(f"{folder.path} holds no {name}: no search has started there.")
    study = folder.read_study()
    copy, titles = optuna.storages.InMemoryStorage(), {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_storage(folder.storage_url) as storage:
        found = optuna.study.get_all_study_names(storage)
        names = sorted(name for name in found if name.count("/") > 1)  # others are no searches
        logger.info("Copying %d searches of %s and writing notes", len(names), folder.path)
        # The dashboard lists the latest study first, so the overview is made last.
        for name in reversed(names):
            titles[name] = _name_search(name, study.folds)
            optuna.copy_study(
                from_study_name=name,
                from_storage=storage,
                to_storage=copy,
                to_study_name=titles[name],
            )
    overview = optuna.create_study(
        storage=copy, study_name=f"Overview of {study.config.name or folder.path.name}"
    )
    report = _attach(overview, store, [folder.path / "report.html"])
    link = [f"[The whole report]({address})" for address in report.values()]
    notes: dict[str, str] = {}
    lines = ["# Overview", *_list_searches(copy), *link]
    for name, title in reversed(titles.items()):
        system = name.rsplit("/", 2)[1]
        if system not in notes:
            scores = _describe_system(study, system)
            lines += ["", f"## {_plain(system)}", scores]
            pictures = _attach(overview, store, _find_pictures(folder.path, system))
            # The dashboard shows pictures that it serves itself, and no others.
            images = [f"![{stem}]({address})" for stem, address in pictures.items()]
            notes[system] = "\n\n".join([scores, _SCOPE, *images, *link])
        searched = optuna.load_study(study_name=title, storage=copy)
        save_note(searched, f"# {_plain(title)}\n\n{notes[system]}")
    save_note(overview, "\n".join(lines))
    return copy


def _name_search(name: str, folds: Sequence[Fold]) -> str:
    """Name a search by its system and the speakers or sessions of its outer fold."""
    _, system, number = name.rsplit("/", 2)
    number, _, rest = number.partition(" ")  # "03 on all rows"
    system += f" {rest}" if rest else ""
    if number == fold_name(FINAL):
        return f"{system}, final model"
    for fold in folds:
        if number == fold_name(fold.number):
            return f"{system}, held out {list_some(fold.held_out, _MOST_NAMED)}"
    return name  # a search set aside


def _list_searches(copy: optuna.storages.InMemoryStorage) -> list[str]:
    """List the searches in the dashboard's Markdown, each with a link and its best value."""
    lines = ["", "| search | finished trials | best value |", "| --- | ---: | ---: |"]
    for searched in reversed(copy.get_all_studies()[:-1]):
        number = copy.get_study_id_from_name(searched.study_name)
        trials = copy.get_all_trials(number, deepcopy=False)
        n_finished = sum(trial.state.is_finished() for trial in trials)
        best = ""
        if any(trial.state == TrialState.COMPLETE for trial in trials):
            best = f"{copy.get_best_trial(number).value:.3f}"
        link = f"[{_plain(searched.study_name)}]({_page(copy, searched.study_name)})"
        lines.append(f"| {link} | {n_finished} | {best} |")
    note = "Best values come from the inner folds that chose them: they are no scores."
    return [*lines, "", note, ""]


def _page(copy: optuna.storages.InMemoryStorage, name: str) -> str:
    """Give the address of a search in the dashboard."""
    return f"/dashboard/studies/{copy.get_study_id_from_name(name)}"


def _describe_system(study: Study, system: str) -> str:
    """Describe the scores and the confusions of a system in the dashboard's Markdown."""
    units = [study.read_unit(system, fold.number) for fold in study.folds]
    finished = [unit for unit in units if unit is not None]
    if len(finished) < len(units):
        return f"No scores yet: {len(finished)} of {len(units)} outer folds are finished."
    return _format_note(study.gather(system, finished))


def _format_note(predictions: Predictions) -> str:
    """Describe predictions in the dashboard's Markdown."""
    scores = score_predictions(predictions)
    lines = ["| score | value | 95 % interval |", "| --- | ---: | --- |"]
    for name in _SHOWN:
        score = find_score(scores, predictions.system, name)
        ends = "" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
        lines.append(f"| {METRICS[name].title} | {score.value:.3f} | {ends} |")
    labels, y_pred, classes = predictions.labels, predictions.y_pred, predictions.classes
    (confusion,) = confusion_matrices(labels, y_pred, len(classes))
    names = [_plain(name) for name in classes]
    lines += ["", "True classes in rows, predicted ones in columns:", ""]
    lines += [f"| | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for name, counts in zip(names, confusion.tolist(), strict=True):
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _find_pictures(folder: Path, system: str) -> list[Path]:
    """Find the figures of a system; those of shap belong to the system of all modalities."""
    pictures = folder / ARTIFACTS
    found = [pictures / f"confusion-{system}.png", pictures / f"shap-bar-{system}.png"]
    if not found[1].exists():
        found += [path for stem in _PICTURES for path in sorted(pictures.glob(stem))]
    return list(dict.fromkeys(found))


def _attach(
    study: optuna.Study, store: FileSystemArtifactStore, files: list[Path]
) -> dict[str, str]:
    """Upload the files that exist; give the stem and the address of each."""
    addresses = {}
    for path in files:
        if path.exists():
            artifact = upload_artifact(
                artifact_store=store, file_path=str(path), study_or_trial=study
            )
            addresses[path.stem] = str(get_artifact_path(study, artifact))
    return addresses


def _plain(name: str) -> str:
    """Escape the name of a class for Markdown."""
    return "".join(c if c.isalnum() or c in " -_.,:" else f"&#{ord(c)};" for c in name)


class _Server(ThreadingMixIn, WSGIServer):
    """A server with one thread per connection: a browser keeps several open."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        logger.debug(format, *args)


def _restrict(app: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse requests of other pages, and those that would edit the searches."""

    def restricted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        host = re.sub(r":\d+$", "", environ.get("HTTP_HOST", "")).lower()
        # A page of another address can point its name to this machine (DNS rebinding); its
        # requests still carry that name.
        if host not in _LOOPBACK:
            status, reason = "403 Forbidden", f"The dashboard answers at {_HOST} only."
        elif environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            # What is shown is what was found; changes would be lost at the end anyway.
            status, reason = "405 Method Not Allowed", "The searches can only be read here."
        else:
            return app(environ, start_response)
        headers = [("Content-Type", "application/json"), ("Allow", "GET, HEAD")]
        start_response(status, headers)
        return [json.dumps({"reason": reason}).encode()]

    return restricted


def dashboard_command(request: Request) -> int:
    """Serve the dashboard on a copy of a study's searches until an interrupt."""
    with TemporaryDirectory() as uploads:
        store = FileSystemArtifactStore(uploads)
        copy = _copy_searches(StudyFolder(request.arguments["folder"]), store)
        app, port = _restrict(wsgi(copy, artifact_store=store)), request.arguments["port"]
        with make_server(_HOST, port, app, _Server, _Quiet) as server:
            *searches, overview = copy.get_all_studies()
            page = f"{_page(copy, overview.study_name)}/note"
            print(  # noqa: T201
                f"Dashboard: http://{_HOST}:{server.server_port}{page} (Ctrl-C ends it)\n"
                f"It shows {len(searches)} searches as they are now; start it again to see "
                "later trials.",
                flush=True,
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return 0
    return 0
