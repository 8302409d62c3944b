"""Nothing of a held-out person reaches what is fitted or chosen without them.

The whole pipeline runs twice, the second time with other data of one held-out session. All
that its models are made of must be the same bytes. A leak is switched on for each control,
past the ledger, and must change them: a test that no leak can fail would say nothing.
"""

import json
import shutil
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from toolkit.data.corpora import CLASSES
from toolkit.files import read_archive
from toolkit.fusion import fuse
from toolkit.models import balancing, preparation
from toolkit.study import results as audit
from toolkit.study.folder import StudyFolder
from toolkit.validation import fits, search
from toolkit.validation import search as proposals
from toolkit.validation.ledger import Ledger

HELD_OUT = 1
SYSTEMS = ("text", "audio", "early")
TEXT = {"modality": ("text",)}
COLUMN_ID, COLUMN_SPEAKER = 0, 1


def learnt(folder, result, systems=SYSTEMS):
    """Everything that was fitted or chosen without the held-out session, as bytes."""
    utterances = np.array(_read_column(folder / "internal" / "rows.csv", 0))
    found = {}
    for system in systems:
        place = StudyFolder(folder).unit(system, HELD_OUT)
        files = read_archive(place)
        unit = StudyFolder(folder).read_unit(system, HELD_OUT)
        summary = json.loads(files["unit.json"])
        del summary["origin"]  # names the unit by all its rows, the held-out ones too
        rows = [
            (entry["fit"], entry["role"], entry["times"], entry["n_rows"])
            for entry in summary.pop("ledger")
        ]
        found |= {
            f"{system}: model": next(
                files[n] for n in ("model.txt", "model.json") if n in files
            ),
            f"{system}: curve": files["model.meta.json"],
            f"{system}: search": json.dumps(summary, sort_keys=True).encode(),
            f"{system}: out-of-fold probabilities": unit.inner_proba.tobytes(),
            f"{system}: out-of-fold rows": utterances[unit.inner_rows].tobytes(),
            f"{system}: fits": repr(rows).encode(),
        }
    for system, by_fold in result.facts.params.items():
        if system not in SYSTEMS:
            said = json.dumps(by_fold[f"{HELD_OUT:02d}"], sort_keys=True)
            found[f"{system}: what it learnt"] = said.encode()
    return found


def differences(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def _read_column(path, place):
    return [line.split(",")[place] for line in path.read_text().splitlines()[1:]]


def change_rows(corpus, to, change):
    """Copy a corpus, with other rows where the held-out session speaks."""
    shutil.copytree(corpus, to)
    header, *lines = (to / "dataset.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    changed = [change(row, to) if row[COLUMN_ID].startswith("Ses02") else row for row in rows]
    text = [",".join(row) for row in changed if row is not None]
    (to / "dataset.csv").write_text("\n".join([header, *text]) + "\n")
    return to


def turn_label(row, _):
    code = (int(row[-2]) + 1) % 4
    return [*row[:-2], str(code), CLASSES[code]]


def spoil_features(row, to):
    for cell in row[2:4]:
        path = to / cell.lstrip("/")
        shape = np.load(path).shape
        noise = np.random.default_rng(sum(path.name.encode()))
        np.save(path, (50 * noise.normal(size=shape)).astype(np.float32))
    return row


def delete_speaker(row, _):
    return None if row[COLUMN_SPEAKER] == "F02" else row


CHANGES = {"labels": turn_label, "features": spoil_features, "speaker": delete_speaker}


@pytest.fixture(scope="session")
def others(dyads, tmp_path_factory):
    """Each change of the held-out session, made once."""
    return lru_cache(
        lambda name: change_rows(dyads, tmp_path_factory.mktemp(name) / "c", CHANGES[name])
    )


@pytest.fixture
def compare(dyads, others, run_units, tmp_path):
    """Say what that was learnt without the held-out session differs when it changes."""

    def run(change, **options):
        systems = ("text",) if options.get("modality") == ("text",) else SYSTEMS
        found = []
        for name, corpus in (("before", dyads), ("after", others(change))):
            result = run_units(corpus, tmp_path / name, **options)
            found.append(learnt(tmp_path / name, result, systems))
        return differences(*found)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_learnt_without_a_session_does_not_depend_on_it(compare, change):
    assert compare(change) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"booster": "xgboost"},
        {"imbalance": "smote_tomek", "screening": "none"},
        {"normalise": "speaker"},
    ],
)
@pytest.mark.parametrize("change", ["labels", "features"])
def test_nor_does_it_under_other_options(compare, change, options):
    assert compare(change, **TEXT, **options) == set()


@pytest.mark.slow
def test_text_alone_learns_nothing_of_a_session_held_out(compare):
    assert compare("labels", **TEXT) == set()


def resample_before_the_split(patch):
    """Keep the rows of the training fold, and add what was made of all rows."""
    honest = fits.prepare

    def prepare(recipe, features, rows, labels, **others):
        def balance(X, y, strategy, *, seed):
            everything = features.take(np.arange(len(labels)), features.presets["minimal"])
            whole = balancing.balance(everything, labels, strategy, seed=seed)
            made = whole.X[len(labels) :], whole.y[len(labels) :]
            n = len(y) + len(made[1])
            return replace(
                whole,
                X=np.vstack([X, made[0]]),
                y=np.concatenate([y, made[1]]),
                rows=np.full(n, -1),
                origins=[],
            )

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(preparation, "balance", balance)
            return honest(recipe, features, rows, labels, **others)

    patch.setattr(fits, "prepare", prepare)


def screen_before_the_split(patch):
    """Choose the features on all rows."""
    honest = fits.InnerFits._rank

    def rank(self, statistics, method, _packed_rows):
        return honest(self, statistics, method, np.arange(len(self.labels)).tobytes())

    patch.setattr(fits.InnerFits, "_rank", rank)


def stop_on_the_test_fold(patch):
    """Follow the test rows' loss, and choose the rounds and the trial by it."""
    honest = fits.InnerFits.evaluate

    def evaluate(self, params, folds, **others):
        reported = self.ledger.fold.test
        if len(reported):  # the final models' fold has none
            folds = [replace(inner, test=reported) for inner in folds]
        return honest(self, params, folds, **others)

    patch.setattr(fits.InnerFits, "evaluate", evaluate)
    patch.setattr(fits.InnerFits, "record_trial", lambda *_: None)


def fuse_on_the_reported_predictions(patch):
    """Fit weights, stackers and offsets on the very predictions that are scored."""
    honest = fuse._make_base_predictions

    def _make_base_predictions(predictions, units, *, labels, groups):
        voter = honest(predictions, units, labels=labels, groups=groups)
        reported = replace(
            voter.inner[HELD_OUT],
            rows=np.arange(len(labels)),
            labels=labels,
            groups=groups,
            present=predictions.present,
            proba=predictions.proba,
        )
        return replace(voter, inner=dict.fromkeys(voter.inner, reported))

    patch.setattr(fuse, "_make_base_predictions", _make_base_predictions)


def start_from_the_winner_of_another_fold(patch):
    """Begin a search where that of the fold before ended, which saw this fold's people."""
    winners = []
    make_result, first_params = search._make_result, proposals._first_params

    def remember(study, stopped_by):
        winners.append(study.best_trial.params)
        return make_result(study, stopped_by)

    patch.setattr(search, "_make_result", remember)
    patch.setattr(
        proposals,
        "_first_params",
        lambda *said: winners[-1] if winners else first_params(*said),
    )


def bin_before_the_split(patch):
    """Take the edges of the bins from all rows."""
    honest = fits.InnerFits._reference

    def reference(self, recipe):
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "outer_rows", np.arange(len(self.labels)))
            return honest(self, recipe)

    patch.setattr(fits.InnerFits, "_reference", reference)


LEAKS = [
    (resample_before_the_split, "labels", TEXT | {"screening": "none"}),
    (screen_before_the_split, "labels", TEXT),
    (stop_on_the_test_fold, "labels", TEXT),
    (fuse_on_the_reported_predictions, "labels", {"fusion": ("early", "weighted", "stacked")}),
    (start_from_the_winner_of_another_fold, "labels", TEXT | {"trials": 4}),
    (bin_before_the_split, "features", TEXT | {"screening": "none", "imbalance": "none"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leak", "change", "options"), LEAKS, ids=lambda it: getattr(it, "__name__", None)
)
def test_a_leak_past_the_ledger_is_seen(compare, monkeypatch, leak, change, options):
    # The control: whoever leaks does not write down what it leaks.
    monkeypatch.setattr(Ledger, "_refuse", lambda *_: None)
    monkeypatch.setattr(audit, "audit_entries", lambda *_: [])
    leak(monkeypatch)

    assert compare(change, **options)
