"""Write seglearn's watch recordings in this toolkit's layout: one row a recording.

    pip install seglearn && python studies/watch/make_data.py

140 recordings of 7 shoulder exercises by 10 people (Burns et al. 2018), at 50 Hz, each with an
accelerometer and a gyroscope, T x 3. The package carries the data; nothing is downloaded.
"""

import csv
from pathlib import Path

import numpy as np
from seglearn.datasets import load_watch

FOLDER = Path(__file__).parent / "data"


def main() -> None:
    watch = load_watch()
    rows = []
    counts: dict[tuple[int, int], int] = {}
    recordings = zip(watch["X"], watch["y"], watch["subject"], strict=True)
    for frames, label, subject in recordings:
        number = counts[subject, label] = counts.get((subject, label), 0) + 1
        exercise = watch["y_labels"][label]
        utterance = f"s{int(subject):02d}_{exercise}_{number}"
        paths = {}
        for modality, columns in {
            "accelerometer": slice(0, 3),
            "gyroscope": slice(3, 6),
        }.items():
            path = FOLDER / modality / f"{utterance}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, frames[:, columns].astype(np.float32))
            paths[modality] = path.relative_to(FOLDER).as_posix()
        rows.append([utterance, label, exercise, f"s{int(subject):02d}", *paths.values()])
    with (FOLDER / "dataset.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["utterance", "label", "label_name", "speaker", "accelerometer", "gyroscope"]
        )
        writer.writerows(sorted(rows))
    print(f"{len(rows)} recordings in {FOLDER}")


if __name__ == "__main__":
    main()
