"""The same study under several seeds: mean F1-micro, and its standard error over speakers.

    python studies/benchmarks/seeds.py outputs/watch-0 outputs/watch-1 outputs/watch-2 \
        --compare accelerometer=.864 early=.900

F1-micro and UAR are computed from predictions.csv alone. The standard error is that of the
mean over seeds, by leaving out one speaker at a time: seeds share their speakers, so more
seeds do not make it small. A figure to compare with counts as reached where the mean lies no
more than one standard error below it.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd


def f1_micro(table: pd.DataFrame) -> float:
    return float((table["label"] == table["predicted"]).mean())


def uar(table: pd.DataFrame) -> float:
    right = table["label"] == table["predicted"]
    return float(right.groupby(table["label"]).mean().mean())


def standard_error(tables: list[pd.DataFrame]) -> float:
    speakers = sorted(set(tables[0]["speaker"]))
    left_out = [
        np.mean([f1_micro(table[table["speaker"] != speaker]) for table in tables])
        for speaker in speakers
    ]
    n = len(speakers)
    return float(np.sqrt((n - 1) * np.var(left_out)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--compare", nargs="*", default=[], metavar="SYSTEM=VALUE")
    said = parser.parse_args()
    figures = {name: float(value) for name, value in (s.split("=") for s in said.compare)}
    studies = [
        pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
        for folder in said.folders
    ]
    rows = []
    for system in sorted(set(studies[0]["system"])):
        tables = [study[study["system"] == system] for study in studies]
        scores = [f1_micro(table) for table in tables]
        mean, error = float(np.mean(scores)), standard_error(tables)
        row = {
            "system": system,
            "F1-micro": mean,
            "se over speakers": error,
            "UAR": float(np.mean([uar(table) for table in tables])),
        }
        row |= {folder.name: score for folder, score in zip(said.folders, scores, strict=True)}
        if figures:
            figure = figures.get(system)
            row["compared with"] = figure
            row["reached"] = "" if figure is None else mean >= figure - error
        rows.append(row)
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(
            pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format, na_rep="")
        )


if __name__ == "__main__":
    main()
