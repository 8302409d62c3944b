"""How fast are frames in CSV files read, compared with pandas, polars and pyarrow?

Files like those of OpenFace, 100 frames x 49 columns, are read one by one, in turns, by one
thread. The smallest processor time of several rounds counts, since other programs only add to
it. Every reader's numbers must be those of pandas.
"""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.data import read_sequence

N_FRAMES, N_DIMS = 100, 44


def write_files(folder: Path, n_files: int) -> list[Path]:
    rng = np.random.default_rng(0)
    gaze = [f"gaze_{k}" for k in range(8)]
    units = [f"AU{k:02d}_r" for k in range(N_DIMS - len(gaze))]
    header = ["frame", "face_id", "timestamp", "confidence", "success", *gaze, *units]
    paths = []
    for number in range(n_files):
        rows = [",".join(header)]
        for k, values in enumerate(rng.normal(size=(N_FRAMES, N_DIMS))):
            places = [6] * len(gaze) + [2] * len(units)
            cells = [f"{v:.{n}f}" for v, n in zip(values, places, strict=True)]
            rows.append(",".join([str(k + 1), "0", f"{k / 30:.3f}", "0.98", "1", *cells]))
        paths.append(folder / f"{number:04d}.csv")
        paths[-1].write_text("\n".join(rows) + "\n", encoding="utf-8")
    return paths


def find_readers() -> dict[str, Callable[[Path], Any]]:
    readers = {
        "toolkit": read_sequence,
        "pandas": pd.read_csv,
    }
    for name, module in {"polars": "polars", "pyarrow": "pyarrow.csv"}.items():
        try:
            readers[name] = importlib.import_module(module).read_csv
        except ImportError:
            print(f"{name} is not installed, and left out")
    return readers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), options.files)
        readers, took = find_readers(), {}
        for name, read in readers.items():
            table = read(paths[0])
            numbers = np.array(table.to_pandas() if hasattr(table, "to_pandas") else table)
            expected = readers["pandas"](paths[0]).to_numpy()[:, -N_DIMS:]
            np.testing.assert_array_equal(numbers[:, -N_DIMS:], expected, err_msg=name)
        for _ in range(options.rounds):
            for name, read in readers.items():
                start = time.process_time()
                for path in paths:
                    read(path)
                took.setdefault(name, []).append(time.process_time() - start)
    for name, times in took.items():
        ratio = min(took["pandas"]) / min(times)
        print(f"{name:8} {1000 * min(times) / options.files:.2f} ms per file, {ratio:.1f} x")


if __name__ == "__main__":
    main()
