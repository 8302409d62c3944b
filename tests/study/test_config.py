"""The configuration: one home for names and defaults, clear words where something is wrong."""

import tomllib

import pytest

from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.options import format_config, load_config
from toolkit.study.plan import _make_search_options


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('trials = 7\nseed = 3\nmodality = ["text"]\n')

    config = load_config(path, {"trials": 9})

    assert (config.trials, config.seed, config.modality) == (9, 3, ("text",))


def test_mappings_are_combined_by_key_and_the_command_line_wins(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('merge = {angry = "sad", calm = "neutral"}\n[table]\nvoice = "a.csv"\n')

    config = load_config(path, {"merge": {"happy": "neutral", "calm": "sad"}})

    assert config.merge == {"angry": "sad", "calm": "sad", "happy": "neutral"}
    assert config.table == {"voice": tmp_path / "a.csv"}
    with pytest.raises(ConfigError, match="--merge 'x'"):
        load_config(path, {"merge": "x"})
    path.write_text('merge = "x"\n')
    assert load_config(path, {"merge": {"a": "b"}}).merge == {"a": "b"}


def test_paths_in_a_file_are_relative_to_it(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('data = "data/dataset.csv"\n')

    assert load_config(path, {}).data == tmp_path / "data" / "dataset.csv"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("trails = 7\n")

    with pytest.raises(ConfigError, match="unknown key 'trails'; did you mean 'trials'"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials 0: expected a number greater than or equal to 1"),
        ({"trials": "many"}, "--trials 'many'.*integer"),
        ({"metric": "auc"}, "--metric 'auc': expected 'f1_micro', .* or 'brier'"),
        ({"booster": "catboost"}, "--booster 'catboost'.*'lightgbm', 'xgboost' or 'both'"),
        ({"imbalance": "smoot"}, "smoot is unknown; choose among auto, none"),
        ({"imbalance": "auto,none"}, "auto stands alone"),
        ({"screening": "ftest"}, "choose auto, none, ftest-N, mutual-N or gain-N"),
        ({"screening": "auto,none"}, "auto stands alone"),
        ({"device": "tpu"}, "--device 'tpu': .*'cpu' or 'cuda'"),
        ({"wide": "maybe"}, "--wide 'maybe': .*'screen', 'reduce' or 'keep'"),
        ({"space": {"catboost": {}}}, "--space .*'lightgbm' or 'xgboost'"),
        ({"grid": {"lightgbm": {}}}, r"^\[grid\] is for --sampler grid"),
        ({"space": {"lightgbm": {}}, "sampler": "grid"}, r"^\[space\] is not for --sampler"),
        ({"space": {"xgboost": {}}}, r"^\[space\.xgboost\] is not for --booster lightgbm"),
        ({"outer": "random"}, "choose auto, speaker, session, split or a number"),
        ({"only": "text"}, "write SYSTEM/FOLD"),
        ({"figures": ("png",)}, "svg cannot be left out"),
        ({"figures": ("svg", "gif")}, "--figures.*'svg', 'png' or 'pdf'"),
        ({"inner": 1}, "--inner 1: .*greater than or equal to 2"),
        (
            {"fusion": ("early", "hybrid")},
            "--fusion .*hybrid was replaced by log-pool; write log",
        ),
        ({"fusion": ("soft", "log-pool")}, "log-pool needs early: early fusion is one of its"),
        ({"fusion": ("none", "soft")}, "none stands alone"),
        ({"fusion": ("mean",)}, "--fusion .*'stacked' or 'log-pool'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, options)


@pytest.mark.parametrize("fusion", ['["early", "hybrid"]', '"early,hybrid"'])
def test_a_file_with_hybrid_is_refused(tmp_path, fusion):
    path = tmp_path / "study.toml"
    path.write_text(f"fusion = {fusion}\n")

    with pytest.raises(ConfigError, match="hybrid was replaced by log-pool"):
        load_config(path, {})


def test_the_options_of_a_folder_give_the_same_study(tmp_path):
    path = tmp_path / "study.toml"
    for config in (StudyConfig(), StudyConfig(quick=True), StudyConfig(quick=True, trials=7)):
        path.write_text(format_config(config))
        again = load_config(path, {})

        assert again.identity() == config.identity()
        assert again.n_trials == config.n_trials


@pytest.mark.parametrize(
    ("text", "options", "trials", "statistics"),
    [
        ("", {"quick": True}, 5, ("basic",)),
        ("", {"quick": True, "trials": 12}, 12, ("basic",)),
        ("", {"quick": True, "statistics": "rich"}, 5, ("rich",)),
        # The command line wins over the file; within the file what is explicit wins.
        ('trials = 50\nstatistics = "full"', {"quick": True}, 5, ("basic",)),
        ("trials = 50", {"quick": True, "trials": 3}, 3, ("basic",)),
        ("trials = 50\nquick = true", {}, 50, ("basic",)),
        ("quick = true", {"trials": 9}, 9, ("basic",)),
    ],
)
def test_explicit_options_win_over_quick(tmp_path, text, options, trials, statistics):
    path = tmp_path / "study.toml"
    path.write_text(text)

    config = load_config(path, options)

    assert (config.n_trials, config.searched_statistics) == (trials, statistics)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"metric": "UAR"}, "uar"),
        ({"metric": "F1-micro"}, "f1_micro"),
        ({"metric": "log-loss"}, "log_loss"),
        ({"fusion": ("Early", "LOG_POOL")}, ("early", "log-pool")),
        ({"booster": "XGBoost"}, "xgboost"),
        ({"imbalance": "SMOTE"}, "smote"),
        ({"outer": "Session"}, "session"),
        ({"label": "Emotion"}, "Emotion"),
        ({"modality": ("Text",)}, ("Text",)),
    ],
)
def test_the_case_of_choices_does_not_count(given, expected):
    (name,) = given

    assert getattr(load_config(None, given), name) == expected


def test_two_wrong_values_come_in_one_message():
    with pytest.raises(ConfigError, match=r"--trials 0.*; --inner 1|--inner 1.*; --trials 0"):
        load_config(None, {"trials": 0, "inner": 1})


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("trials = = 3")

    with pytest.raises(ConfigError, match=r"study\.toml cannot be read as TOML.*line 1"):
        load_config(path, {})


def test_the_written_configuration_reads_back_as_the_same_study(tmp_path):
    config = StudyConfig(
        seed=4, merge={"excited": "happiness", 'a"b': "c"}, classes=("x", "ÿ"), quick=True
    )
    path = tmp_path / "study.toml"
    path.write_text(format_config(config), encoding="utf-8")

    assert load_config(path, {}).identity() == config.identity()
    written = set(tomllib.loads(path.read_text(encoding="utf-8")))
    assert written <= {*StudyConfig.identity_fields(), "fusion", "shapley"}


@pytest.mark.parametrize("metrics", [("f1_micro", "f1_macro", "uar", "log_loss"), ("mcc",)])
def test_the_metrics_of_the_table_are_kept_for_a_report_made_again(tmp_path, metrics):
    config = StudyConfig(table_metrics=metrics)
    path = tmp_path / "study.toml"
    path.write_text(format_config(config), encoding="utf-8")

    assert load_config(path, {}).table_metrics == metrics
    assert config.identity() == StudyConfig().identity()


@pytest.mark.parametrize("figures", [("svg",), ("svg", "pdf")])
def test_the_formats_of_figures_are_kept_for_a_report_made_again(tmp_path, figures):
    config = StudyConfig(figures=figures)
    path = tmp_path / "study.toml"
    path.write_text(format_config(config), encoding="utf-8")

    assert load_config(path, {}).figures == figures
    assert config.identity() == StudyConfig().identity()
    assert StudyConfig(figures=(*figures[::-1], "svg")).figures == figures
    assert ("figures" in path.read_text(encoding="utf-8")) == (figures != ("svg",))


def test_quick_is_five_trials_of_basic_statistics():
    quick = StudyConfig(quick=True)

    assert (quick.n_trials, quick.searched_statistics) == (5, ("basic",))
    assert {quick.count_rounds(n) for n in (100, 5_000, 50_000)} == {600}
    assert StudyConfig(quick=True, statistics="rich").searched_statistics == ("rich",)


def test_tens_of_thousands_of_utterances_get_fewer_rounds():
    assert [StudyConfig().count_rounds(n) for n in (60, 20_000, 20_001)] == [1200, 1200, 600]


def test_the_identity_ignores_where_and_how_fast():
    here, there = StudyConfig(workers=1, out="a"), StudyConfig(workers=8, data="x/dataset.csv")

    assert here.identity() == there.identity()


@pytest.mark.parametrize(("wrong", "right"), [("boster", "booster"), ("modalty", "modality")])
def test_the_nearest_option_is_suggested(wrong, right):
    with pytest.raises(ConfigError, match=f"^unknown option '{wrong}'; did you mean '{right}'"):
        load_config(None, {wrong: 1})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "seed = 1\nabstain = [0.1, .2]",
            "line 2, column 17): abstain = [0.1, .2]. Write 0.2.",
        ),
        ("space = {x = -.5}", "column 14): space = {x = -.5}. Write -0.5."),
        ("data = ./my data.csv", 'data = ./my data.csv. Write "./my".'),
        ("seed = 1 .5", "(at line 1, column 10): seed = 1 .5."),
        ("quick = True", "quick = True. Write true."),
        ("seed = \n", "(at line 1, column 8): seed =."),
        ('name = "x', "Unterminated string (at end of document)."),
        ("[study]\ntrials = 3", "unknown key 'study'; write its keys at the top level, in no"),
    ],
)
def test_the_line_of_a_fault_in_toml_is_shown_with_the_right_form(tmp_path, text, hint):
    path = tmp_path / "study.toml"
    path.write_text(text)

    with pytest.raises(ConfigError) as error:
        load_config(path, {})
    assert hint in str(error.value)


def test_ranges_and_grids_are_of_the_file_and_of_the_identity(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        'booster = "both"\n[space.lightgbm]\nnum_leaves = [15, 63]\nextra_trees = true\n'
        "[space.xgboost]\neta = {low = 0.01, high = 0.1, log = true}\n"
    )

    config = load_config(path, {})

    assert config.identity()["space"] == {
        "lightgbm": {"num_leaves": [15, 63], "extra_trees": True},
        "xgboost": {"eta": {"low": 0.01, "high": 0.1, "log": True}},
    }
    path.write_text(format_config(config), encoding="utf-8")
    assert load_config(path, {}).identity() == config.identity()


def test_a_grid_reads_back_as_the_same_study(tmp_path):
    grid = StudyConfig(sampler="grid", grid={"lightgbm": {"num_leaves": [3, 5]}})
    path = tmp_path / "study.toml"
    path.write_text(format_config(grid), encoding="utf-8")

    read = load_config(path, {})

    assert read.identity() == grid.identity()
    assert _make_search_options(read).n_trials == 4


def test_what_was_not_asked_leaves_the_identity_of_an_older_folder_alone():
    assert not {"space", "grid", "wide", "device"} & set(StudyConfig().identity())
    assert StudyConfig(wide="reduce").identity() == StudyConfig().identity()
    assert StudyConfig(wide="keep").identity()["wide"] == "keep"


def test_a_published_protocol_is_its_options(tmp_path):
    words = {"classes": ("ang", "hap", "sad", "neu"), "merge": {"exc": "hap"}}
    by_hand = StudyConfig(outer="session", **words)

    named = StudyConfig(protocol="iemocap4-session")
    path = tmp_path / "study.toml"
    path.write_text('protocol = "iemocap4-session"\n')

    assert named.identity() == by_hand.identity()
    assert load_config(path, {}) == named
    # The same value beside the protocol is no contradiction.
    assert load_config(path, {"outer": "session"}).identity() == named.identity()


@pytest.mark.parametrize(
    "option", [{"outer": "speaker"}, {"merge": {"exc": "neu"}}, {"classes": ("ang", "sad")}]
)
def test_an_option_that_contradicts_the_protocol_is_refused(option):
    with pytest.raises(ConfigError, match=f"--{next(iter(option))} .* contradicts --protocol"):
        load_config(None, {"protocol": "iemocap4-session"} | option)


PUBLISHED = """
[[published]]
system = "WavLM-large"
metric = "{metric}"
value = {value}
protocol = "by session"
source = "Ma et al. 2024"
"""


@pytest.mark.parametrize(("metric", "key"), [("WA", "f1_micro"), ("UA", "uar"), ("mcc", "mcc")])
def test_published_scores_are_kept_and_are_no_part_of_the_identity(tmp_path, metric, key):
    path = tmp_path / "study.toml"
    path.write_text(PUBLISHED.format(metric=metric, value=0.691))

    config = load_config(path, {})
    path.write_text(format_config(config))

    assert [(each.metric, each.value) for each in config.published] == [(key, 0.691)]
    assert load_config(path, {}) == config
    assert config.identity() == StudyConfig().identity()


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("uar", 69.1, "write 57.7 % as .577"),
        ("WER", 0.1, "--published metric 'WER'.*'f1_micro'"),
    ],
)
def test_a_published_score_without_a_known_metric_or_in_per_cent_is_refused(
    tmp_path, metric, value, message
):
    path = tmp_path / "study.toml"
    path.write_text(PUBLISHED.format(metric=metric, value=value))

    with pytest.raises(ConfigError, match=message):
        load_config(path, {})


def test_a_file_from_outside_is_a_key_of_the_file_and_no_part_of_the_identity(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('with = {net = "net.csv"}\n')

    config = load_config(path, {})

    assert config.with_ == {"net": tmp_path / "net.csv"}
    # In its folder a study names its own copy of the file.
    path.write_text(format_config(config))
    assert load_config(path, {}).with_ == {"net": tmp_path / "internal/outside/net.csv"}
    assert config.identity() == StudyConfig().identity()


def test_groups_and_errors_are_kept_for_a_report_made_again_and_are_no_identity(tmp_path):
    config = load_config(None, {"by": ["sex", "age"], "abstain": [0.2, 0.05]})
    path = tmp_path / "study.toml"
    path.write_text(format_config(config), encoding="utf-8")

    assert load_config(path, {}).by == ("sex", "age")
    assert load_config(path, {}).abstain == (0.05, 0.2)
    assert config.identity() == StudyConfig().identity()
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        load_config(None, {"abstain": [0.1, 1]})
