"""The command ``toolkit dashboard``: Optuna's dashboard on a study's searches, annotated.

The page of each search gets a note with the scores of its system, the confusion matrix, the
figures and a link to the report; report and figures are artifacts of the Optuna study. The
dashboard has no password: it listens on the loopback address only, answers only pages of that
address, and edits nothing.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna_dashboard import get_note, save_note, wsgi
from optuna_dashboard.artifact import get_artifact_path

from toolkit.files import FolderError, hash_file, refuse_links
from toolkit.study.folder import ARTIFACTS, StudyFolder
from toolkit.study.options import Request
from toolkit.validation import (
    METRICS,
    Predictions,
    confusion_matrices,
    find_score,
    parse_predictions,
    score_predictions,
)
from toolkit.validation.trials import open_storage

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_LOOPBACK: Final = frozenset({_HOST, "localhost", "[::1]"})
_SHOWN: Final = ("f1_micro", "f1_macro", "uar", "log_loss")
#: Figures of the system of all modalities.
_PICTURES: Final = ("modalities.png", "shap-bar.png", "shap-beeswarm-*.png")


def _open_storage(folder: Path) -> AbstractContextManager[optuna.storages.RDBStorage]:
    """Open the searches of a study, which may be running."""
    study = StudyFolder(folder)
    if not study.database.exists():
        raise FolderError(f"{folder} holds no search.db: no search has started there.")
    return open_storage(study.storage_url)


def _annotate_searches(folder: Path, storage: optuna.storages.RDBStorage) -> int:
    """Write a note with artifacts on every search of a scored system; give their number."""
    refuse_links(folder, folder / ARTIFACTS)
    (folder / ARTIFACTS).mkdir(exist_ok=True)
    found = sorted(
        summary.study_name
        for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)
    )
    path = folder / "predictions.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    tables = parse_predictions(text, path.name) if text else {}
    notes: dict[str, str] = {}
    n = 0
    for name in found:
        _, system, fold = name.rsplit("/", 2)
        if system not in tables:
            continue
        study = optuna.load_study(study_name=name, storage=storage)
        if system not in notes:
            # The search of the first fold holds the artifacts; all notes show them.
            files = [folder / "report.html", *_pictures(folder, system)]
            notes[system] = _format_note(
                tables[system], _attach(study, folder / ARTIFACTS, files)
            )
        note = f"# {system}, outer fold {fold}\n\n{notes[system]}"
        if get_note(study) != note:
            save_note(study, note)
        n += 1
    return n


def _format_note(predictions: Predictions, artifacts: Mapping[str, str]) -> str:
    """Describe a system in the dashboard's Markdown."""
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
    lines += ["", "Scores are of all outer folds; the search of this page is of one.", ""]
    # The dashboard shows pictures that it serves itself, and no others.
    for name, address in artifacts.items():
        if name.endswith(".png"):
            lines += [f"![{name.removesuffix('.png')}]({address})", ""]
    if "report.html" in artifacts:
        lines.append(f"[The whole report]({artifacts['report.html']})")
    return "\n".join(lines)


def _pictures(folder: Path, system: str) -> list[Path]:
    """Find the figures of a system; those of shap belong to the system of all modalities."""
    pictures = folder / ARTIFACTS
    found = [pictures / f"confusion-{system}.png", pictures / f"shap-bar-{system}.png"]
    if not found[1].exists():
        found += [path for stem in _PICTURES for path in sorted(pictures.glob(stem))]
    return [path for path in dict.fromkeys(found) if path.exists()]


def _attach(study: optuna.Study, folder: Path, files: list[Path]) -> dict[str, str]:
    """Upload files that are no artifacts of the study yet; give the address of each."""
    store = FileSystemArtifactStore(str(folder))
    known = {
        (meta.filename, hash_file(folder / meta.artifact_id)): meta.artifact_id
        for meta in get_all_artifact_meta(study)
        if (folder / meta.artifact_id).exists()
    }
    addresses = {}
    for path in files:
        if path.exists():
            artifact = known.get((path.name, hash_file(path))) or upload_artifact(
                artifact_store=store, file_path=str(path), study_or_trial=study
            )
            addresses[path.name] = str(get_artifact_path(study, artifact))
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
            # Resuming reads these searches, so no web page may change them.
            status, reason = "405 Method Not Allowed", "The searches can only be read here."
        else:
            return app(environ, start_response)
        headers = [("Content-Type", "application/json"), ("Allow", "GET, HEAD")]
        start_response(status, headers)
        return [json.dumps({"reason": reason}).encode()]

    return restricted


def _serve_dashboard(folder: Path, port: int) -> int:
    """Annotate the searches of a study and serve the dashboard until an interrupt."""
    logger.info("Writing notes to the searches of %s", folder)
    with _open_storage(folder) as storage:
        n = _annotate_searches(folder, storage)
        store = FileSystemArtifactStore(str(folder / ARTIFACTS))
        app = _restrict(wsgi(storage, artifact_store=store))
        with make_server(_HOST, port, app, _Server, _Quiet) as server:
            print(  # noqa: T201
                f"{n} searches annotated. Dashboard: http://{_HOST}:{server.server_port}/ "
                "(Ctrl-C ends it)",
                flush=True,
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return 0
    return 0


def dashboard_command(request: Request) -> int:
    """Serve the dashboard of a study."""
    return _serve_dashboard(request.arguments["folder"], request.arguments["port"])
