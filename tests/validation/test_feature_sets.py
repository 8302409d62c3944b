"""Tables side by side: columns keep their names and values; very wide ones are reduced."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.pooling import PRESETS
from toolkit.pooling.table import FeatureTable
from toolkit.validation import make_features

RICH = PRESETS["rich"]


def make_table(modality, n_dims, statistics=RICH, *, n=5, start=0.0):
    names = tuple(f"{modality}__{name}__{k}" for name in statistics for k in range(n_dims))
    values = start + np.arange(n * len(names), dtype=np.float32).reshape(n, -1)
    present, frames = np.ones(n, dtype=bool), np.ones(n, dtype=np.int64)
    return FeatureTable(modality, statistics, names, values, present, frames, "", {})


@pytest.fixture
def tables():
    return make_table("visual", 30), make_table("text", 7, ("value",), start=9000.0)


def look_up(features, preset):
    return {
        features.names[column]: features.values[:, column].tolist()
        for column in features.presets[preset]
    }


def originals(table, preset):
    return {table.names[c]: table.values[:, c].tolist() for c in table.select(preset)}


@pytest.mark.parametrize("most_columns", [None, 540])
def test_up_to_the_limit_every_column_is_there_under_its_name(tables, most_columns):
    features = make_features(tables, ("rich", "basic"), most_columns=most_columns)

    for preset in ("rich", "basic"):
        expected = originals(tables[0], preset) | originals(tables[1], preset)
        assert look_up(features, preset) == expected
    assert not features.reduced


@pytest.mark.parametrize(("most_columns", "stand_in"), [(539, "basic"), (209, "minimal")])
@pytest.mark.parametrize("alone", [True, False])
def test_above_the_limit_the_largest_preset_that_fits_stands_in(
    tables, most_columns, stand_in, alone
):
    tables = tables[:1] if alone else tables

    features = make_features(tables, ("rich",), most_columns=most_columns)

    expected = originals(tables[0], stand_in)
    if not alone:
        expected |= originals(tables[1], "rich")
    assert look_up(features, "rich") == expected
    n_columns = 30 * len(PRESETS[stand_in])
    assert features.reduced == {
        "visual": {"rich": {"statistics": stand_in, "n_columns": n_columns, "n_asked": 540}}
    }


def test_where_nothing_fits_the_smallest_stands_in(tables):
    features = make_features(tables[:1], ("rich",), most_columns=10)

    assert features.reduced["visual"]["rich"]["statistics"] == "minimal"


def test_one_table_is_seen_and_not_copied(tables):
    features = make_features(tables[:1], ("rich", "basic"))

    assert features.values is tables[0].values


def test_columns_that_no_preset_takes_are_not_copied_side_by_side(tables):
    features = make_features(tables, ("rich",), most_columns=300)

    assert features.values.shape == (5, 30 * 7 + 7)


@pytest.mark.parametrize("asked", ["mean,std", "minimal"])
def test_named_statistics_and_the_smallest_preset_stay_as_they_are(asked):
    table = make_table("visual", 30, ("mean", "std"))

    features = make_features([table], (asked,), most_columns=5)

    assert look_up(features, asked) == originals(table, asked)
    assert not features.reduced


def test_a_preset_whose_statistics_are_not_there_cannot_stand_in():
    table = make_table("visual", 30, tuple(name for name in RICH if name != "p25"))
    # 'rich' cannot be asked of it; its statistics one by one can, and stay.
    features = make_features([table], (",".join(table.statistics),), most_columns=5)

    assert len(features.presets[",".join(table.statistics)]) == 30 * 17


def test_an_utterance_is_there_where_any_table_has_it(tables):
    gone = np.array([False, True, False, True, True])
    visual = replace(tables[0], present=gone)
    text = replace(tables[1], present=~gone & (np.arange(5) > 0))

    features = make_features((visual, text), ("rich",))

    assert features.present.tolist() == [False, True, True, True, True]
