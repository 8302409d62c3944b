"""The house is tidy: files that are read in one sitting."""

from pathlib import Path

import toolkit


def test_no_file_of_the_package_is_longer_than_one_sitting():
    files = Path(toolkit.__file__).parent.rglob("*.py")

    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}

    assert {name: n for name, n in lengths.items() if n > 400} == {}
