import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.csv_table import Problems
from toolkit.data.labels import _bin_labels, _check_scale, _order_codes, make_classes


def make(labels, names=None, *, select=(), merge=None):
    problems = Problems("dataset.csv")
    numbers = range(2, len(labels) + 2)
    classes = make_classes(labels, names, numbers, problems, select=select, merge=merge or {})
    problems.raise_any()
    return classes


def test_integer_codes_are_ordered_as_numbers():
    assert _order_codes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert _order_codes(["10", "9", "01", "9"]) == ["01", "9", "10"]


def test_other_codes_are_ordered_by_code_point():
    assert _order_codes(["10", "9", "x"]) == ["10", "9", "x"]
    assert _order_codes(["b", "B", "a"]) == ["B", "a", "b"]


def test_numbers_are_ordered_as_numbers():
    assert _order_codes(["10.0", "9.0", "-1", "+0.5"]) == ["-1", "+0.5", "9.0", "10.0"]


def test_codes_serve_as_names_where_there_are_none():
    classes = make(["1", "0", "1"])

    assert classes.names == classes.codes == ("0", "1")
    assert classes.positions == (1, 0, 1)


def test_names_follow_the_order_of_their_codes():
    classes = make(["1", "0", "10"], ["anger", "sadness", "fear"])

    assert classes.names == ("sadness", "anger", "fear")
    assert classes.codes == ("0", "1", "10")


def test_a_code_with_two_names_names_both_rows():
    message = r"row 4: Code '0' is called 'anger' here and 'sadness' in row 2"
    with pytest.raises(ManifestError, match=message):
        make(["0", "1", "0"], ["sadness", "joy", "anger"])


def test_a_name_with_two_codes_names_both_rows():
    message = r"row 3: Code '1' is called 'joy' here, as is code '0' in row 2"
    with pytest.raises(ManifestError, match=message):
        make(["0", "1", "2"], ["joy", "joy", "anger"])


def test_one_mistake_over_many_rows_is_one_problem():
    with pytest.raises(ManifestError, match="has 1 problem"):
        make(["0", "1", *["0"] * 50], ["a", "b", *["c"] * 50])


def test_classes_are_chosen_by_name_or_code_and_the_others_counted():
    classes = make(list("01234"), list("abcde"), select=["e", "1", " c "])

    assert classes.names == ("b", "c", "e")
    assert classes.codes == ("1", "2", "4")
    assert classes.positions == (-1, 0, 1, -1, 2)
    assert classes.excluded == {"a": 1, "d": 1}


def test_merged_classes_take_the_name_and_code_of_the_other():
    classes = make(list("0120"), ["joy", "anger", "excited", "joy"], merge={"excited": "0"})

    assert classes.names == ("joy", "anger")
    assert classes.positions == (0, 1, 0, 0)
    assert classes.merged == {"excited": "joy"}
    assert classes.excluded == {}


def test_classes_are_merged_before_they_are_chosen():
    classes = make(list("0123"), list("abcd"), merge={"d": "a"}, select=["a", "b"])

    assert classes.positions == (0, 1, -1, 0)
    assert classes.excluded == {"c": 1}


def test_a_class_left_out_after_a_merge_counts_every_class_in_it():
    classes = make(list("01233"), list("abcdd"), merge={"d": "c"}, select=["a", "b"])

    assert classes.excluded == {"c": 1, "d": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"select": ["anger", "sadnes"]},
            r"'sadnes', which is no class; did you mean 'sadness'",
        ),
        ({"select": ["anger", "x"]}, r"'x', which is no class; the classes are 'anger', 'sadn"),
        ({"merge": {"excited": "joy"}}, "--merge names 'excited', which is no class"),
        ({"merge": {"joy": "happy"}}, "--merge names 'happy', which is no class"),
        ({"merge": {"joy": "2"}}, "--merge joins 'joy' to itself"),
        (
            {"merge": {"joy": "anger", "2": "sadness"}},
            "--merge joins 'joy' to 'anger' and 'sadness'; choose one",
        ),
        ({"merge": {"joy": "anger", "anger": "sadness"}}, "'anger', which is itself merged"),
        ({"merge": {"joy": "anger"}, "select": ["joy", "sadness"]}, "--merge joins to 'anger'"),
    ],
)
def test_what_cannot_be_chosen_or_merged_is_explained(options, message):
    with pytest.raises(ManifestError, match=message):
        make(list("012"), ["anger", "sadness", "joy"], **options)


def test_a_word_for_two_classes_is_refused():
    with pytest.raises(ManifestError, match="'1', which is the name of one class and the code"):
        make(["0", "1", "2"], ["1", "2", "x"], select=["1", "x"])


@pytest.mark.parametrize("options", [{"select": ["a"]}, {"merge": {"b": "a"}}, {}])
def test_a_study_needs_two_classes(options):
    labels = ["a", "b"] if options else ["a", "a"]

    with pytest.raises(ManifestError, match="at least two classes, but there is 1, 'a'"):
        make(labels, **options)


def test_empty_labels_belong_to_no_class():
    classes = make(["a", "", "b"])

    assert classes.positions == (0, -1, 1)
    assert classes.excluded == {}


def test_a_class_that_does_not_exist_is_the_only_problem():
    with pytest.raises(ManifestError, match="has 1 problem"):
        make(list("012"), select=["9"])


def test_every_class_that_does_not_exist_is_named():
    with pytest.raises(ManifestError, match="has 2 problems"):
        make(list("012"), select=["8", "9"])


def test_classes_merged_in_a_circle_are_refused():
    with pytest.raises(ManifestError, match="has 2 problems"):
        make(list("012"), merge={"0": "1", "1": "0"})


def scale(labels):
    problems = Problems("")
    _check_scale(labels, "mood", problems)
    try:
        problems.raise_any()
    except ManifestError as error:
        return error.problems
    return ()


def test_a_scale_is_no_set_of_classes():
    (problem,) = scale([f"{i / 10}" for i in range(21)] * 20)

    assert problem.startswith(
        "column 'mood': 21 different numbers in 420 rows are a continuous"
    )
    assert "--bins=1," in problem
    assert "--label HEADER" in problem
    assert scale([str(i) for i in range(20)] * 20) == ()


def test_more_classes_than_a_fifth_of_the_rows_are_refused():
    (problem,) = scale([f"word{i}" for i in range(7)] * 4)

    assert "7 classes in 28 rows are more than a fifth of the rows" in problem
    assert scale([f"word{i}" for i in range(7)] * 5) == ()
    assert scale(["a", "b", "c", "d"]) == ()
    assert "5 different numbers in 24 rows" in scale(["1", "2", "3", "4"] * 5 + ["5"] * 4)[0]


def test_the_classes_of_bins_begin_at_their_edges():
    codes, names = _bin_labels(
        ["-2", "-1", "0.5", "1.0", "9", ""], [-1, 1], range(6), Problems("")
    )

    assert codes == ["0", "1", "1", "2", "2", ""]
    assert names == [
        *("below -1", "from -1 to below 1", "from -1 to below 1", "from 1", "from 1", ""),
    ]


def test_bins_make_classes_of_a_table(columns, write_table):
    columns["label"] = ["-0.5", "3", "0", "2.5", "-1", "x"]

    with pytest.raises(ManifestError, match="row 7: The label 'x' is no number"):
        read_manifest(write_table(columns), bins=[0])
    columns["label"][5] = "10"
    manifest = read_manifest(write_table(columns), bins=[0], classes=["below 0", "from 0"])

    assert manifest.classes == ("below 0", "from 0")
    assert manifest.labels.tolist() == [0, 1, 1, 1, 0, 1]


def test_a_table_with_a_scale_for_labels_is_refused_until_it_is_binned(columns, write_table):
    many = {name: cells * 4 for name, cells in columns.items()}
    many["utterance"] = [f"u{i}" for i in range(24)]
    many["label"] = [f"{i / 8}" for i in range(24)]
    table = write_table(many)

    with pytest.raises(ManifestError, match="column 'label': 24 different numbers in 24 rows"):
        read_manifest(table)
    assert read_manifest(table, bins=[1, 2]).classes == (
        *("below 1", "from 1 to below 2", "from 2"),
    )
