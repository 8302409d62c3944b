"""Closed and broken streams, pipes and devices: each gets a plain answer."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toolkit.files import FolderError
from toolkit.study.cli import main
from toolkit.study.predict import _check_out, _is_stream


def shell(command, **how):
    return subprocess.run(
        command.replace("toolkit ", f"{sys.executable} -m toolkit "),
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **how,
    )


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    probe = (
        "import sys, contextlib; from toolkit.study.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--version'])\n"
        "file = open(sys.argv[1], 'w'); assert file.fileno() > 2; "
        "print('x', file=sys.stderr, flush=True); print('x', flush=True)"
    )
    for closed in ("2>&-", ">&-", "<&-", "<&- >&- 2>&-"):
        command = f'{sys.executable} -c "{probe}" {tmp_path}/file {closed}'
        assert shell(command).returncode == 0, closed

    assert shell("toolkit check absent.csv 2>&-", cwd=tmp_path).returncode == 2
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGPIPE")
def test_a_reader_that_ends_first_ends_the_command_quietly(tmp_path):
    command = "(toolkit check --help; toolkit --version; echo code $? >&2) | true"

    answer = shell(f"sleep 0 ; {command}", cwd=tmp_path)

    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGPIPE")
def test_the_output_of_a_command_that_is_not_read_is_dropped(monkeypatch):
    def answer(*_):
        read, write = os.pipe()
        os.close(read)
        monkeypatch.setattr(sys, "stdout", os.fdopen(write, "w"))
        sys.stdout.write("a line" * 100_000)
        return 0

    monkeypatch.setattr("toolkit.study.cli._carry_out", answer)

    assert main(["demo", "folder"]) == 141
    sys.stdout.close()  # what is left goes nowhere, without an error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_behind_the_output_is_an_error_in_words(monkeypatch, capfd):
    def answer(*_):
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"))
        sys.stdout.write("a line")
        return 0

    monkeypatch.setattr("toolkit.study.cli._carry_out", answer)

    assert main(["demo", "folder"]) == 2
    assert "No space left" in capfd.readouterr().err
    sys.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="there are no FIFOs")
def test_a_table_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "table.csv")

    assert main(["check", str(tmp_path / "table.csv")]) == 2
    assert "is a pipe or a device. Save the table as a file" in capsys.readouterr().err


@pytest.mark.parametrize("utterance", ["-a1", "-v3", "--x", "-"])
def test_an_utterance_that_begins_with_a_minus_is_read_or_the_way_is_named(utterance, capsys):
    try:
        code = main(["explain", "absent", utterance])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err

    assert code == 2
    assert (
        "write -- before an utterance" in error
        or "There is no folder absent" in error
        or ("absent holds no" in error)
    )


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def test_predictions_are_not_written_over_what_they_come_from(study, tmp_path):
    source = tmp_path / "new.csv"
    source.write_text("mine")
    (tmp_path / "soft.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    (tmp_path / "loop").symlink_to(tmp_path)

    for out in ("new.csv", "soft.csv", "hard.csv", "loop/new.csv", "study/../new.csv"):
        with pytest.raises(FolderError, match="the predictions are made from"):
            _check_out(tmp_path / out, study, [source])
    for out in ("study/scores.csv", "loop/study/new", "study/new/x.csv"):
        with pytest.raises(FolderError, match="lies in the folder of the study"):
            _check_out(tmp_path / out, study, [source])
    with pytest.raises(FolderError, match="is a folder"):
        _check_out(tmp_path, study, [source])

    _check_out(tmp_path / "other.csv", study, [source])


@pytest.mark.skipif(os.name == "nt", reason="there are no FIFOs")
def test_pipes_and_devices_are_written_to_and_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "plain.csv").touch()
    (tmp_path / "null").symlink_to("/dev/null")

    found = [_is_stream(tmp_path / name) for name in ("pipe", "null", "plain.csv", "new.csv")]

    assert found == [True, True, False, False]
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no folder of files in memory")
def test_a_file_in_memory_is_a_file_though_it_lies_below_the_devices():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        assert not _is_stream(Path(file.name))
