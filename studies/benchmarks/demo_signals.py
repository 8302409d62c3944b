"""Which system finds which kind of signal of the generated corpus?

    python studies/benchmarks/demo_signals.py

Each corpus has one kind of signal alone, in the share of dimensions and with the gain of the
shipped corpus, and with its differences between speakers, sessions and dialogues. The cues have
less doubt, so that the table shows ability and not strength. One corpus per modality has no
signal.

The systems are those of a study; the boosted one takes the first trial, without a search.
Sessions are held out, so that no partner of a dialogue is among the training rows. The score is
UAR, where chance is .25. A system finds a kind if the 95 % jackknife interval over speakers
lies above .25 by more than .02; the rows without a signal show the error of this rule.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, corpora, make_corpus, read_manifest
from toolkit.data.corpora import CLASSES, PLANTED, _compose, _make_features
from toolkit.models import Features
from toolkit.pooling import PRESETS, pool_frames
from toolkit.validation import (
    Protocol,
    SearchOptions,
    gather_predictions,
    make_folds,
    run_logistic_unit,
    run_unit,
    score_predictions,
)
from toolkit.validation.scores import find_score

SYSTEMS = ("logistic on means", "logistic on rich", "trees", "trees + linear")
CHANCE = 1 / len(CLASSES)
DIMS = {"text": 768, "audio": 64, "visual": 64}
MARGIN = 0.02
DOUBT = 0.8  # of each cue, where the shipped blocks have 1.2 to 3
PROTOCOL = Protocol(outer="session")


def plant_one(manifest: Manifest, modality: str, blocks: list) -> Features:
    """Make and pool the features of a modality in which only ``blocks`` are planted."""
    wanted = set(manifest.utterances)
    utterances = {u.name: u for u in _compose(False, len(wanted), seed=0)}
    if utterances.keys() != wanted:
        raise ValueError("The manifest is not that of a generated corpus of this size.")
    statistics = ("value",) if modality == "text" else PRESETS["rich"]
    rows = []
    with patch.object(corpora, "PLANTED", {modality: blocks}):
        for name in manifest.utterances:
            frames = _make_features(0, modality, DIMS[modality], utterances[name])
            row = frames if modality == "text" else pool_frames(frames, statistics).ravel()
            rows.append(row)
    names = [f"{modality}__{s}__{i:04d}" for s in statistics for i in range(DIMS[modality])]
    columns = np.arange(len(names))
    means = columns[: DIMS[modality]]  # the mean is the first statistic of the preset
    return Features(
        np.array(rows),
        tuple(names),
        np.ones(len(rows), dtype=bool),
        {"rich": columns, "means": means},
    )


def measure(manifest: Manifest, features: Features, systems: tuple[str, ...]) -> dict:
    """Give the UAR of each system with its interval."""
    folds = list(make_folds(manifest, "session", seed=0))
    probas: dict[str, list] = {system: [] for system in systems}
    options = SearchOptions(n_trials=1, imbalance=("none",), screening=("none",))
    for fold in folds:
        for system in systems:
            if system.startswith("logistic"):
                unit = run_logistic_unit(
                    manifest,
                    features,
                    fold,
                    system=system,
                    statistics=system.rpartition(" ")[2],
                    metric="f1_micro",
                    protocol=PROTOCOL,
                )
                probas[system].append(unit.proba)
        unit = run_unit(
            manifest, features, fold, system="trees", protocol=PROTOCOL, options=options
        )
        probas["trees"].append(unit.parts["trees"])
        probas["trees + linear"].append(unit.proba)
    found = {}
    for system, parts in probas.items():
        present = [np.ones(len(part), dtype=bool) for part in parts]
        table = gather_predictions(manifest, folds, system, parts, present)
        found[system] = find_score(score_predictions(table), system, "uar")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=1336)
    options = parser.parse_args()
    print(f"| signal | modality | {' | '.join(SYSTEMS)} |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        small = dict.fromkeys(DIMS, 8)
        table = make_corpus(Path(name) / "corpus", n_utterances=options.utterances, dims=small)
        manifest = read_manifest(table, modalities=("text",))
    for modality, blocks in PLANTED.items():
        for block in (None, *blocks):
            alone = [] if block is None else [replace(block, doubt=DOUBT)]
            features = plant_one(manifest, modality, alone)
            # Without a time axis the value is all that there is.
            systems = SYSTEMS[1:] if modality == "text" else SYSTEMS
            scores = measure(manifest, features, systems)
            cells = ["as rich"] * (len(SYSTEMS) - len(scores))
            for score in scores.values():
                verdict = "**found**" if score.low > CHANCE + MARGIN else "chance"
                cells.append(f"{verdict} {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]")
            kind = "none" if block is None else block.kind
            print(f"| {kind} | {modality} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
