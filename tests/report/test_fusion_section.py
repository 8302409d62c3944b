"""The fusion section: what fusions learnt, fold by fold."""

from dataclasses import replace

import pytest

from toolkit.report.document import Table
from toolkit.report.drivers import fusion_parts

POOL = {
    "00": {"early (linear)": 0.25, "early (trees)": 0.5, "audio (trees)": 0.125},
    "01": {"early (linear)": 0.0, "early (trees)": 1.5, "audio (trees)": 0.375},
}


def read_learnt(facts, params):
    """Header and shown cells of the table of learnt parameters; None without one."""
    found = fusion_parts(replace(facts, params=params))
    parts = [p for p in found if isinstance(p, Table) and p.name == "fusion-learnt"]
    if not parts:
        return None
    (table,) = parts
    return [list(table.header), *([cell.text for cell in row] for row in table.rows)]


@pytest.fixture
def learnt():
    return {
        "best-single": {"00": {"modality": "text"}, "01": {"modality": "audio"}},
        "weighted": {
            "00": {"weights": {"text": 0.75, "audio": 0.25}},
            "01": {"weights": {"text": 0.5, "audio": 0.5}},
        },
        "stacked": {"00": {"C": 0.1}, "01": {"C": 1.0}},
        "log-pool": {fold: {"weights": weights} for fold, weights in POOL.items()},
    }


def test_weights_of_the_pool_stand_member_by_member(facts, learnt):
    assert read_learnt(facts, learnt) == [
        [
            "fold",
            "best-single",
            "weight of audio",
            "weight of text",
            "C of stacked",
            "log-pool: audio (trees)",
            "log-pool: early (linear)",
            "log-pool: early (trees)",
        ],
        ["00", "text", "0.250", "0.750", "0.1", "0.125", "0.250", "0.500"],
        ["01", "audio", "0.500", "0.500", "1", "0.375", "0.000", "1.500"],
    ]


def test_the_pool_alone_has_its_table(facts, learnt):
    alone = read_learnt(facts, {name: learnt[name] for name in ("best-single", "log-pool")})

    assert alone[0] == [
        "fold",
        "best-single",
        "log-pool: audio (trees)",
        "log-pool: early (linear)",
        "log-pool: early (trees)",
    ]
    assert [row[0] for row in alone[1:]] == ["00", "01"]


def test_without_a_pool_there_are_no_columns_of_it(facts, learnt):
    del learnt["log-pool"]

    header = read_learnt(facts, learnt)[0]

    assert not [name for name in header if "log-pool" in name]
