"""How long large corpora take, how much memory, and what a search on a sample of people loses.

    python studies/benchmarks/large.py make msp FOLDER [--share .1]
    python studies/benchmarks/large.py study FOLDER --modality text [--workers 2]
    python studies/benchmarks/large.py search FOLDER --modality text [--folds 2]
    python studies/benchmarks/large.py growth FOLDER

``make`` writes a corpus of one of three shapes: people have offsets of their own and unequal
numbers of utterances, and classes differ in means, in spread and in the product of two
directions. ``study`` runs a study of it, whole, and prints its wall and processor time, the
highest memory of one process and the score. ``search`` runs some outer folds twice, as shipped
and with all rows for every trial, and prints the difference with its interval over people.
``growth`` doubles utterances, people, columns and trials of a study of 3,000 x 192 columns.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.study.config import StudyConfig
from toolkit.study.plan import plan_study
from toolkit.validation import (
    Protocol,
    compare_systems,
    gather_predictions,
    make_features,
    run_unit,
    score_predictions,
)
from toolkit.validation.scores import find_score


@dataclass(frozen=True)
class Shape:
    """A corpus: numbers, columns of each modality, and frames where it has any."""

    n: int
    n_people: int
    n_classes: int
    tables: dict[str, int]
    sequences: dict[str, int]


SHAPES = {
    "crema": Shape(7_442, 91, 6, {}, {"audio": 128}),
    "meld": Shape(13_700, 300, 7, {"text": 768, "audio": 88}, {}),
    "msp": Shape(150_000, 2_000, 8, {"text": 768, "audio": 88}, {}),
    "growth": Shape(3_000, 60, 4, {"text": 192}, {}),
}


def draw_values(n_columns, labels, people, rng):
    """Draw a row per utterance: class signals in 12 directions, offsets of people, noise."""
    n_classes, n_people = labels.max() + 1, people.max() + 1
    directions = rng.normal(size=(12, n_columns)) / np.sqrt(12)
    latent = rng.normal(size=(len(labels), 12))
    latent[:, :8] += 0.55 * rng.normal(size=(n_classes, 8))[labels]
    # The sign of a product of two directions separates two halves of the classes: for trees.
    half = np.where(labels % 2 == 0, 1, -1)
    pair = np.abs(latent[:, 8:10])
    flip = rng.choice([-1, 1], size=len(labels))
    latent[:, 8], latent[:, 9] = 1.5 * pair[:, 0] * flip, 1.5 * pair[:, 1] * flip * half
    latent += 0.6 * rng.normal(size=(n_people, 12))[people]
    noise = rng.normal(size=(len(labels), n_columns), scale=0.8)
    return (latent @ directions + noise).astype(np.float32)


def make_corpus(shape, folder, share, seed):
    """Write ``dataset.csv`` and the features of a shape, or of a share of its people."""
    rng = np.random.default_rng(seed)
    n, n_people = round(shape.n * share), max(round(shape.n_people * share), 4)
    sizes = rng.lognormal(sigma=0.6, size=n_people)
    people = np.sort(rng.choice(n_people, size=n, p=sizes / sizes.sum()))
    priors = rng.dirichlet(np.full(shape.n_classes, 8.0))
    own = rng.dirichlet(30 * priors, size=n_people).cumsum(axis=1)
    labels = (rng.random(n)[:, None] > own[people]).sum(axis=1).clip(max=shape.n_classes - 1)
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "utterance": [f"u{row:06d}" for row in range(n)],
            "label": [f"class{label}" for label in labels],
            "speaker": [f"p{person:04d}" for person in people],
        }
    )
    for name, width in shape.tables.items():
        values = pd.DataFrame(
            draw_values(width, labels, people, rng), columns=[f"d{k}" for k in range(width)]
        )
        values.insert(0, "utterance", table["utterance"])
        values.to_parquet(folder / f"{name}.parquet")
    for name, width in shape.sequences.items():
        base = draw_values(width, labels, people, rng)
        spread = 0.6 + 0.004 * rng.normal(size=(shape.n_classes, width))
        (folder / name).mkdir()
        for row in range(n):
            frames = rng.normal(size=(rng.integers(60, 140), width), scale=spread[labels[row]])
            np.save(folder / name / f"u{row:06d}.npy", (base[row] + frames).astype(np.float32))
        table[f"{name}_features"] = [f"{name}/u{row:06d}.npy" for row in range(n)]
    table.to_csv(folder / "dataset.csv", index=False)


def list_options(folder):
    """List the options that name the tables of a corpus."""
    tables = sorted(folder.glob("*.parquet"))
    return [word for path in tables for word in ("--table", f"{path.stem}={path}")]


def run_study(folder, words):
    """Run a study; give wall and processor seconds, gigabytes of a process, and scores."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "toolkit.study", "--data", str(folder / "dataset.csv")]
    command += [*list_options(folder), *words, "--json"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": time.perf_counter() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "gigabytes": after.ru_maxrss / 2**20,
        "systems": json.loads(found.stdout),
    }


def compare_searches(folder, modality, n_folds, many_rows):
    """Print scores and seconds of some outer folds with and without the sample."""
    given = {path.stem: path for path in folder.glob("*.parquet")}
    config = StudyConfig(data=folder / "dataset.csv", modality=(modality,), table=given)
    plan = plan_study(config, None)
    manifest, folds = plan.manifest, plan.folds[:n_folds]
    features = make_features([plan.pool(modality)], plan.options.statistics)
    print("| trials compared by | F1-micro | log-loss | CPU s | GB |\n|---|---|---|---:|---:|")
    tables = []
    for name, rows in ((f"a sample above {many_rows:,} rows", many_rows), ("all rows", 10**9)):
        options = replace(plan.options, many_rows=rows)
        started = time.process_time()
        units = [
            run_unit(
                manifest,
                features,
                fold,
                system=modality,
                protocol=Protocol(outer=config.outer),
                options=options,
            )
            for fold in folds
        ]
        found = gather_predictions(
            manifest, folds, modality, [u.proba for u in units], [u.present for u in units]
        )
        tables.append(replace(found, system=f"{modality}{len(tables)}"))
        scores = score_predictions(found)
        cells = []
        for metric in ("f1_micro", "log_loss"):
            one = find_score(scores, modality, metric)
            cells.append(f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]")
        cells.append(f"{time.process_time() - started:.0f}")
        cells.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for metric in ("f1_micro", "log_loss"):
        [pair] = compare_systems(tables, metric)
        interval = f"[{pair.low:+.4f}, {pair.high:+.4f}]"
        print(f"{metric}, sample minus all rows: {pair.difference:+.4f} {interval}")


def measure_growth(folder):
    """Double one size of a study at a time, and print the ratio of processor times."""
    base = SHAPES["growth"]
    first, cpus = "3,000 utterances, 60 people, 192 columns, 20 trials", {}
    half, double, most = (f"{n:,} utterances" for n in (1_500, 6_000, 12_000))
    print("| study | CPU s | compared with | ratio |\n|---|---:|---|---:|")
    for name, changes, trials, other in (
        (half, {"n": 1_500}, 20, None),
        (first, {}, 20, half),
        (double, {"n": 6_000}, 20, first),
        (most, {"n": 12_000}, 20, double),
        ("120 people", {"n_people": 120}, 20, first),
        ("384 columns", {"tables": {"text": 384}}, 20, first),
        ("40 trials", {}, 40, first),
    ):
        corpus = folder / name.replace(" ", "-").replace(",", "")
        make_corpus(replace(base, **changes), corpus, 1.0, 0)
        words = ["--workers", "1", "--trials", str(trials), "--out", str(corpus / "out")]
        cpus[name] = run_study(corpus, words)["cpu"]
        ratio = f"{cpus[name] / cpus[other]:.2f}" if other else ""
        print(f"| {name} | {cpus[name]:.0f} | {other or ''} | {ratio} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("shape", choices=SHAPES)
    make.add_argument("folder", type=Path)
    make.add_argument("--share", type=float, default=1.0)
    make.add_argument("--seed", type=int, default=0)
    study = commands.add_parser("study")
    study.add_argument("folder", type=Path)
    search = commands.add_parser("search")
    search.add_argument("folder", type=Path)
    search.add_argument("--modality", required=True)
    search.add_argument("--folds", type=int, default=2)
    search.add_argument("--many-rows", type=int, default=20_000)
    commands.add_parser("growth").add_argument("folder", type=Path)
    given, words = parser.parse_known_args()
    if given.command == "make":
        make_corpus(SHAPES[given.shape], given.folder, given.share, given.seed)
    elif given.command == "study":
        print(json.dumps(run_study(given.folder, words), indent=1))
    elif given.command == "search":
        compare_searches(given.folder, given.modality, given.folds, given.many_rows)
    else:
        measure_growth(given.folder)


if __name__ == "__main__":
    main()
