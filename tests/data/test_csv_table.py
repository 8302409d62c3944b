import csv
import pickle

import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.csv_table import Problems, Rows


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "dataset.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        rows = Rows.read(path)
        rows.problems.raise_any()
        return rows

    return read


def test_cells_stay_text_without_the_space_around_them(read):
    rows = read(" id , speaker\n u1 , 01 \nu2,NA\n")

    assert rows.header == ("id", "speaker")
    assert rows.cells == (("u1", "01"), ("u2", "NA"))
    assert rows.column(1) == ["01", "NA"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_line_ending_is_read(read, newline):
    assert read(newline.join(["a,b", "1,2", "3,4"])).cells == (("1", "2"), ("3", "4"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(read):
    assert read("\ufeffid,label\nu1,é\n").header == ("id", "label")


def test_a_quoted_cell_may_hold_commas_quotes_and_lines(read):
    rows = read('id, "said"\nu1, "well, ""no"""\nu2,"two\nlines"\nu3,x\n')

    assert rows.cells == (("u1", 'well, "no"'), ("u2", "two\nlines"), ("u3", "x"))
    assert rows.numbers == (2, 3, 4)


def test_blank_lines_keep_their_number_and_rows_of_commas_are_told(read):
    rows = read("\nid,label\n\nu1,0\n,\nu2,1\n , \n\n")

    assert rows.numbers == (4, 6)
    assert rows.blank == (5, 7)


@pytest.mark.parametrize("row", ["u2,1,extra", "u2", "u2,1,"])
def test_a_row_with_another_number_of_fields_is_named(read, row):
    n_fields = row.count(",") + 1

    with pytest.raises(
        ManifestError, match=rf"row 3: {n_fields} fields where the header has 2"
    ):
        read(f"id,label\nu1,0\n{row}\nu3,1\n")


def test_one_extra_field_a_row_shifts_nothing(columns, write_table):
    path = write_table(columns)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line + ",x" for line in lines[1:])]))

    with pytest.raises(ManifestError, match="5 fields where the header has 4") as caught:
        read_manifest(path)

    (problem,) = caught.value.problems
    assert problem.startswith("row 2: ")
    assert problem.endswith("6 rows have this fault: also 3, 4, 5, 6, 7")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_another_delimiter_is_named(tmp_path, delimiter, name, quoting):
    path = tmp_path / "dataset.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerows([["id", "label", "note, if any"], ["u1", "0", "1,5"]])

    with pytest.raises(ManifestError, match=f"separated by {name}"):
        Rows.read(path)


def test_a_header_may_hold_another_delimiter(read):
    assert read('id,"a;b;c",d\n1,2,3\n').header == ("id", "a;b;c", "d")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_encodings_are_named(read, encoding):
    with pytest.raises(ManifestError, match="encoded as UTF-16"):
        read("id,label\nu1,0\n".encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_wide_encodings_without_a_mark_are_found_by_their_zeros(read, encoding):
    with pytest.raises(ManifestError, match=r"NUL byte at offset [01] \(line 1\).*UTF-16"):
        read("id,label\nu1,0\n".encode(encoding))


def test_a_nul_byte_is_refused_as_numpy_would_drop_it(read):
    with pytest.raises(ManifestError, match=r"NUL byte at offset 16 \(line 3\)"):
        read(b"id,label\nu,0\nu1,\0\n")


def test_latin_1_is_found_at_its_first_byte(read):
    with pytest.raises(ManifestError, match=r"Byte 0xE9 at offset 14 \(line 3\).*Latin-1"):
        read("id,label\nu,0\nvé,1\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("content", "name"), [(b"PK\x03\x04rest", "Excel"), (b"\x93NUMPY\x01\x00", "numpy array")]
)
def test_other_formats_are_named(read, content, name):
    with pytest.raises(ManifestError, match=name):
        read(content)


@pytest.mark.parametrize("text", ['id,label\n"u1"x,0\n', 'id,label\n"u1,0\nu2,1\n'])
def test_an_unbalanced_quote_is_found_in_its_row(read, text):
    with pytest.raises(ManifestError, match="Row 2 cannot be split"):
        read(text)


@pytest.mark.parametrize("text", ["", "\n\n", ",,\n"])
def test_an_empty_file_is_refused(read, text):
    with pytest.raises(ManifestError, match="file is empty"):
        read(text)


def test_a_header_without_rows_is_refused(read):
    with pytest.raises(ManifestError, match="no row below it"):
        read("id,label\n\n")


def test_no_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*other\.csv"):
        Rows.read(tmp_path / "other.csv")
    with pytest.raises(ManifestError, match="is a folder; name the table in it"):
        Rows.read(tmp_path)


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
        found = error.problems

    assert found == ("everywhere", "row 3: early", "row 1,234, column 'voice': late")


def test_no_problem_raises_nothing():
    Problems("dataset.csv").raise_any()


def change(path, lines):
    text = path.read_text()
    path.write_text(lines + text)
    return path


@pytest.mark.parametrize("line", ["sep=,\n", "SEP=,\r\n"])
def test_a_line_that_names_the_delimiter_is_skipped(columns, write_table, line):
    manifest = read_manifest(change(write_table(columns), line))

    assert manifest.utterances.tolist() == columns["utterance"]


def test_a_line_that_names_another_delimiter_leads_to_that_one(columns, write_table):
    path = write_table(columns)
    path.write_text("sep=;\n" + path.read_text().replace(",", ";"))

    with pytest.raises(ManifestError, match="separated by semicolons"):
        read_manifest(path)


@pytest.mark.parametrize("title", ["Study 3, final\n", "Study 3,,,\n", '\n"Study 3"\n\n'])
def test_a_title_above_the_header_is_one_problem(columns, write_table, title):
    path = change(write_table(columns), title.replace("3, final", "3"))

    with pytest.raises(ManifestError, match="'Study 3' alone, as a title") as caught:
        read_manifest(path)
    assert len(caught.value.problems) == 1


def test_a_fault_of_many_rows_is_one_problem_and_of_few_one_each(columns, write_table):
    many = {name: cells * 2 for name, cells in columns.items()}
    many["utterance"] = [f"u{i}" for i in range(12)]
    many["label"] = ["", *many["label"][1:]]
    many["speaker"] = [*many["speaker"][:5], *[""] * 7]

    with pytest.raises(ManifestError) as caught:
        read_manifest(write_table(many))

    one, many = caught.value.problems
    assert one == "row 2, column 'label': the cell is empty; every row needs its label."
    assert many.startswith("row 7, column 'speaker': the cell is empty;")
    assert many.endswith(" 7 rows have this fault: also 8, 9, 10, 11, 12, ...")
