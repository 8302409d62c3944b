"""The numbers that a pooling version stands for."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.pooling import PRESETS, pool_frames
from toolkit.pooling.statistics import NonFiniteError, clean_frames, compute_statistics
from toolkit.pooling.table import _POOLING_VERSION

# Stored by `python tests/pooling/test_version.py`. The frames are stored as well, since numpy
# does not promise the same random numbers for ever.
STORED = Path(__file__).with_name("version_numbers.json")
CHANGED = (
    "Pooling gives other numbers than version {} of it did, and kept tables hold the old ones. "
    "If that is meant, raise _POOLING_VERSION in toolkit/pooling/table.py and store the new "
    "numbers: python tests/pooling/test_version.py"
)


def make_cases():
    """Fixed sequences of three dimensions, the last one constant, by name."""
    rng = np.random.default_rng(20)
    cases = {}
    for n_frames in (1, 2, 3, 7, 40):
        walk = rng.normal(size=(n_frames, 3)).cumsum(axis=0).round(3)
        frames = walk * [1, 20, 0] + [0, 300, 5]
        cases[f"{n_frames} frames"] = frames, "refuse"
    holes = cases["7 frames"][0].copy()
    holes[[0, 3, 4], [1, 0, 2]] = np.nan, np.inf, np.nan
    for policy in ("drop", "interpolate", "refuse"):
        cases[f"not finite, {policy}"] = holes, policy
    return cases


def compute(frames, policy):
    """Statistics by the plain definitions in float64; None where the frames are refused."""
    try:
        clean = clean_frames(frames, policy).frames
    except NonFiniteError:
        return None
    return compute_statistics(clean, PRESETS["full"])


@pytest.fixture(scope="module")
def stored():
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", make_cases())
def test_the_numbers_of_this_version_are_the_stored_ones(stored, name):
    case = stored["cases"][name]
    frames, message = np.array(case["frames"]), CHANGED.format(stored["version"])

    numbers = compute(frames, case["policy"])

    assert (numbers is None) == (case["numbers"] is None), message
    if numbers is not None:
        expected = np.array(list(case["numbers"].values()))
        assert list(case["numbers"]) == list(PRESETS["full"]), message
        assert_allclose(numbers, expected, rtol=1e-6, atol=1e-9, err_msg=message)
        pooled = pool_frames(clean_frames(frames, case["policy"]).frames, PRESETS["full"])
        assert_allclose(pooled, expected, rtol=1e-5, atol=1e-5, err_msg=message)


def test_the_stored_numbers_are_of_this_version(stored):
    assert stored["version"] == _POOLING_VERSION, CHANGED.format(stored["version"])


if __name__ == "__main__":
    cases = {}
    for name, (frames, policy) in make_cases().items():
        numbers = compute(frames, policy)
        if numbers is not None:
            numbers = dict(zip(PRESETS["full"], numbers.tolist(), strict=True))
        cases[name] = {"policy": policy, "frames": frames.tolist(), "numbers": numbers}
    content = json.dumps({"version": _POOLING_VERSION, "cases": cases})
    STORED.write_text(f"{content}\n", encoding="utf-8")
