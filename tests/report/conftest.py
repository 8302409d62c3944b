"""Made-up studies: real scores, comparisons and ledger over made-up predictions."""

import numpy as np
import pytest

from toolkit.fusion.fuse import fusion_records
from toolkit.report import StudyFacts
from toolkit.validation import (
    Predictions,
    SearchResult,
    no_information_predictions,
    score_predictions,
)
from toolkit.validation.comparison import compare_families

EMOTIONS = ("anger", "sadness", "happiness", "neutral")
#: Names as bad as data can hold; each must come out as the text it is.
HOSTILE = (
    "<script>alert('x')</script>",
    '"quoted" & <b>bold</b>',
    "=cmd|' /C calc'!A1",
    "-2+3",
    "@SUM(A1)",
    "$\\frac{1}{0}$ 100% #1_a^b~{}",
    "\u202egnilrettirw \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "ah " * 100,
)


def make_predictions(
    system="text",
    *,
    classes=EMOTIONS,
    n_speakers=10,
    per_speaker=40,
    skill=0.5,
    seed=0,
    speakers=None,
    sessions=True,
    absent=0,
    one_fold=False,
):
    """Predictions of a system that is right with some probability beyond chance."""
    truth = np.random.default_rng(99)
    n = n_speakers * per_speaker
    labels = truth.choice(len(classes), size=n, p=shares(len(classes)))
    rng = np.random.default_rng(seed)
    favourite = np.where(rng.random(n) < skill, labels, rng.integers(len(classes), size=n))
    proba = rng.dirichlet(np.ones(len(classes)), size=n) * 0.5
    proba[np.arange(n), favourite] += 0.5
    names = np.array(speakers or [f"S{i:02d}" for i in range(n_speakers)])
    who = np.repeat(np.arange(n_speakers), per_speaker)
    present = np.ones(n, dtype=bool)
    present[:absent] = False
    return Predictions(
        system=system,
        classes=tuple(classes),
        utterances=np.array([f"u{i:05d}" for i in range(n)]),
        speakers=names[who],
        sessions=np.array([f"Ses{i // 2:02d}" for i in who]) if sessions else None,
        folds=np.zeros_like(who) if one_fold else who,
        present=present,
        labels=labels,
        proba=proba,
    )


def shares(n_classes):
    weights = np.arange(1, n_classes + 1, dtype=float)
    return weights / weights.sum()


def make_majority(like):
    counts = np.bincount(like.labels, minlength=len(like.classes))
    return Predictions(
        "majority",
        like.classes,
        like.utterances,
        like.speakers,
        like.sessions,
        like.folds,
        np.ones_like(like.present),
        like.labels,
        np.tile(counts / counts.sum(), (len(like), 1)),
    )


def make_search(seed, *, n_trials=6, learning_rate=0.12, stopped_by="trials"):
    rng = np.random.default_rng(seed)
    states = ["complete", *rng.choice(["complete", "pruned"], size=n_trials - 1)]
    params = {
        "booster": "lightgbm",
        "statistics": "rich",
        "screening": "none",
        "imbalance": "weights",
        "learning_rate": learning_rate,
        "num_leaves": 8,
        "extra_trees": True,
        "max_bin": 63,
    }
    trials = tuple(
        {
            "number": number,
            "state": str(state),
            "score": float(0.5 + 0.1 * rng.random()),
            "n_rounds": 80,
            "params": params,
            "failure": None,
        }
        for number, state in enumerate(states)
    )
    return SearchResult(params, 80, 0.55, trials, stopped_by)


def make_facts(
    skills=(("audio", 0.3), ("text", 0.5)),
    *,
    fused=(("early", 0.5), ("vote", 0.5)),
    metric="f1_micro",
    outer="speaker",
    searches=make_search,
    primary=None,
    **how,
):
    """A finished study over made-up predictions."""
    singles = [
        make_predictions(name, skill=skill, seed=i, **how)
        for i, (name, skill) in enumerate(skills)
    ]
    fusions = [
        make_predictions(name, skill=skill, seed=50 + i, **how)
        for i, (name, skill) in enumerate(fused)
    ]
    first = singles[0]
    majority = make_majority(first)
    tables = [majority, no_information_predictions(majority), *singles]
    logistic = [
        make_predictions(f"{name}-logistic", skill=skill / 2, seed=90 + i, **how)
        for i, (name, skill) in enumerate(skills)
    ]
    records, params = [], {}
    n_folds = len(set(first.folds.tolist()))
    if fusions:
        best = make_predictions("best-single", skill=skills[-1][1], seed=len(skills) - 1, **how)
        tables += [fusions[0], best, *fusions[1:]]
        records = fusion_records(singles, fusions, best)
        params["best-single"] = {
            f"{f:02d}": {"modality": skills[-1][0]} for f in range(n_folds)
        }
    tables += logistic
    record = {
        "absent_classes": [],
        "before": {str(code): 100 for code in range(len(first.classes))},
        "fallbacks": [],
        "inner_folds": 3,
        "n_features": 500,
    }
    found = {}
    for number, (name, _) in enumerate(skills):
        found[name] = [searches(100 * number + fold) for fold in range(n_folds)]
        params[name] = {
            f"{fold:02d}": {"params": dict(search.params), "record": record}
            for fold, search in enumerate(found[name])
        }
    speakers = tuple(sorted(set(first.speakers.tolist())))
    counts = [
        np.bincount(first.labels[first.speakers == s], minlength=len(first.classes)).tolist()
        for s in speakers
    ]
    modality = {
        "n_dims": 12,
        "n_features": 24,
        "n_present": len(first),
        "statistics": ["mean", "std"],
        "frames": {"min": 3, "median": 40.5, "max": 99, "total": 9000},
        "counts": {"files_absent": 0, "frames_dropped": 2},
        "same_as_other_speaker": 0,
        "near_other_speaker": None,
        "near_cosine": 0.99,
    }
    # Without sessions held out, each shared session is on both sides.
    known = first.sessions is not None and outer != "session"
    return StudyFacts(
        n_known_session=len(first) if known else 0,
        data={
            "name": "feelings",
            "corpus": "iemocap",
            "source": "dataset.csv",
            "generated": False,
            "classes": list(first.classes),
            "available": [name for name, _ in skills],
            "ignored": [],
            "excluded": {},
            "merged": {},
            "warnings": [],
            "modalities": {name: dict(modality) for name, _ in skills},
            "primary": primary or ["early" if fused else skills[0][0]],
        },
        speakers=speakers,
        counts=counts,
        predictions={table.system: table for table in tables},
        scores=[score for table in tables for score in score_predictions(table)],
        comparisons=compare_families(tables, [name for name, _ in skills], metric),
        fusion=records,
        params=params,
        searches=found,
        audit={
            "verdict": "no leakage found",
            "n_folds": n_folds,
            "n_tested": len(first),
            "n_utterances": len(first),
            "held_out_unit": "session" if outer == "session" else "speaker",
            "systems": {"text": {"fits_and_choices": 12, "by_role": {"train": 12}}},
            "final_models": {"text": {"fits_and_choices": 3, "by_role": {"train": 3}}},
        },
        options={
            "metric": metric,
            "outer": outer,
            "inner": 3,
            "trials": 6,
            "rounds": 200,
            "booster": "lightgbm",
            "sampler": "tpe",
            "space": {},
            "grid": {},
            "statistics": "rich",
            "screening": "auto",
            "imbalance": "auto",
            "normalise": "none",
            "quick": False,
            "seed": 0,
            "table_metrics": ("f1_micro", "f1_macro", "uar", "log_loss"),
            "version": "1.2.3",
        },
    )


@pytest.fixture(scope="session")
def facts():
    """A study of two modalities and two fusions, ten speakers in five sessions."""
    return make_facts()


@pytest.fixture(scope="session")
def hostile():
    """A study of eight classes and eight speakers with the worst of names."""
    speakers = [name[::-1] if i == 7 else name for i, name in enumerate(HOSTILE)]
    return make_facts(classes=HOSTILE, speakers=speakers, n_speakers=8, sessions=False)


@pytest.fixture(name="make_facts", scope="session")
def _make_facts():
    return make_facts


@pytest.fixture(name="make_search", scope="session")
def _make_search():
    return make_search
