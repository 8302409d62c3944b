"""Seeds depend on names alone."""

import subprocess
import sys

from toolkit.validation.folds import derive_seed


def test_every_name_and_its_place_count():
    seeds = [
        derive_seed(0, "text", 1),
        derive_seed(1, "text", 1),
        derive_seed(0, "text", 2),
        derive_seed(0, "audio", 1),
        derive_seed(0, 1, "text"),
        derive_seed(0, "text1"),
    ]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_hash_randomisation_changes_nothing():
    code = "from toolkit.validation.folds import derive_seed; print(derive_seed(3, 'a', 7))"
    seeds = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert seeds == {f"{derive_seed(3, 'a', 7)}\n"}
