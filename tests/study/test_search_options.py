"""From the words of a configuration to what a search may choose."""

import pytest

from toolkit.models.spaces import _IMBALANCE_GRID, IMBALANCE_AUTO, SCREENING_AUTO
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.plan import _make_search_options as resolve
from toolkit.study.workers import Unit, widest_fit
from toolkit.validation import MOST_COLUMNS, SearchOptions
from toolkit.validation.fits import estimate_memory


def test_unsaid_options_are_those_of_the_search():
    options, unsaid = resolve(StudyConfig()), SearchOptions()

    for name in ("boosters", "statistics", "screening", "imbalance", "sampler", "spaces"):
        assert getattr(options, name) == getattr(unsaid, name)
    assert (options.screen_above, options.most_columns) == (MOST_COLUMNS, None)


def test_auto_is_less_beside_a_grid():
    auto = resolve(StudyConfig())
    grid = resolve(StudyConfig(sampler="grid"))

    assert (auto.imbalance, auto.screening) == (IMBALANCE_AUTO, SCREENING_AUTO)
    assert (grid.imbalance, grid.screening) == (_IMBALANCE_GRID, ("none",))


def test_words_are_candidates_once_and_in_order():
    config = StudyConfig(screening="gain-50,none,gain-50", imbalance="smote,none")

    options = resolve(config)

    assert options.screening == ("gain-50", "none")
    assert options.imbalance == ("smote", "none")


def test_a_table_changes_the_space_of_its_booster_and_no_other():
    config = StudyConfig(booster="both", space={"xgboost": {"max_depth": 6}})

    options = resolve(config)

    assert options.spaces["xgboost"]["max_depth"].choices == (6,)
    assert options.spaces["lightgbm"] == SearchOptions().spaces["lightgbm"]


def test_very_wide_modalities_are_reduced_or_kept_where_that_is_asked():
    reduced, kept = (resolve(StudyConfig(wide=way)) for way in ("reduce", "keep"))

    assert (reduced.screen_above, reduced.most_columns) == (None, MOST_COLUMNS)
    assert kept.screen_above is kept.most_columns is None


@pytest.mark.parametrize(
    ("widths", "screening", "expected"),
    [
        ([[20_000, 19_000]], "auto", 39_000),  # no table is too wide
        ([[20_001, 500]], "auto", 5_000),
        ([[20_001, 500]], "ftest-500", 5_000),  # of the logistic baseline
        ([[20_001, 500]], "none,mutual-9000", 9_000),
        ([[20_001, 500]], "none,mutual-30000", 20_501),
        ([[20_001], [7_000]], "auto", 5_000),
        ([[20_001, 500]], "gain-500", 20_501),  # gains come from a booster of all columns
    ],
)
def test_the_widest_fit_of_a_very_wide_modality_is_that_of_its_screens(
    widths, screening, expected
):
    options = resolve(StudyConfig(screening=screening))
    whole = resolve(StudyConfig(screening=screening, wide="keep"))

    assert widest_fit(widths, options) == expected
    assert widest_fit(widths, whole) == max(map(sum, widths))


def test_memory_is_bounded_by_the_widest_fit_and_tables_side_by_side():
    class Rows(list):
        classes = "abcd"

    unit = Unit("early", None, (), None, resolve(StudyConfig(imbalance="none")))

    alone, early = (unit.bound_memory(Rows(range(100)), [w]) for w in ([30_000], [30_000, 700]))

    assert alone == estimate_memory(100, 5_000, rounds=4 * 600, resampled=False)
    assert early == alone + 4 * 100 * 30_700


@pytest.mark.parametrize("table", ["space", "grid"])
def test_a_name_that_the_booster_does_not_have_is_refused(table):
    sampler = "grid" if table == "grid" else "tpe"
    config = StudyConfig(sampler=sampler, **{table: {"lightgbm": {"num_leafs": [3, 5, 9]}}})

    with pytest.raises(ConfigError, match=rf"\[{table}\.lightgbm\]: .*'num_leaves'"):
        resolve(config)


def test_the_grid_of_both_boosters_is_crossed_with_the_other_choices():
    config = StudyConfig(
        sampler="grid",
        booster="both",
        grid={"xgboost": {"eta": [0.1, 0.2]}},
        statistics="auto",
        imbalance="none",
    )

    assert resolve(config).n_trials == (9 + 2) * 2


def test_a_grid_runs_every_point_unless_fewer_are_asked_for():
    table = {"lightgbm": {"num_leaves": [3, 5, 7], "max_bin": 63}}

    def n_trials(**options):
        config = StudyConfig(sampler="grid", grid=table, **options)
        return resolve(config).n_trials

    # auto is none and weights beside a grid, and no screen.
    assert n_trials() == 3 * 2
    assert n_trials(imbalance="none,smote,weights", screening="none,gain-9") == 3 * 3 * 2
    assert n_trials(trials=4) == 4
    assert n_trials(trials=100) == 6
    assert n_trials(quick=True) == 5
    both = StudyConfig(sampler="grid", booster="both")
    assert resolve(both).n_trials == (9 + 6) * 2
