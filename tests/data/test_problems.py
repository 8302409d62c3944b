import pickle

from toolkit.data.csv_table import ManifestError, Problems


def test_twenty_problems_are_shown_and_all_counted():
    error = ManifestError([f"problem {i}" for i in range(25)], source="dataset.csv")

    lines = str(error).splitlines()

    assert lines[0] == "dataset.csv has 25 problems:"
    assert lines[1:21] == [f"- problem {i}" for i in range(20)]
    assert lines[21:] == ["... and 5 more."]
    assert len(error.problems) == 25


def test_one_problem_is_said_in_the_singular_and_nothing_is_more():
    assert str(ManifestError(["no label"])) == "The data set has 1 problem:\n- no label"


def test_a_bare_sentence_is_one_problem():
    assert ManifestError("no label").problems == ("no label",)


def test_the_error_survives_the_way_out_of_a_worker():
    error = ManifestError(["no label"], source="dataset.csv")

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == str(error)
    assert again.problems == error.problems


def test_problems_come_in_the_order_of_their_rows_with_the_table_first():
    problems = Problems("dataset.csv")
    problems.add("late", row=1_234, column="voice")
    problems.add("early", row=3)
    problems.add("everywhere")

    try:
        problems.raise_any()
    except ManifestError as error:
        told = error.problems

    assert told == ("everywhere", "row 3: early", "row 1,234, column 'voice': late")


def test_no_problem_raises_nothing():
    Problems("dataset.csv").raise_any()
