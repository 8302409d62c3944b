"""What is handed out: a wheel that holds all it needs and runs where the repository is not."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder of the sdist and of the wheel that was made of it."""
    pytest.importorskip("build", reason="the extra dev is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def list_sources(folder):
    """Files of the package, but for what Python compiles."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_package_and_no_other_code(dist):
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert names == list_sources("toolkit")
    assert {"toolkit/py.typed", "toolkit/report/templates/page.html"} <= names


def test_the_sdist_holds_tests_studies_and_pages(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}

    for folder in ("toolkit", "tests", "docs"):
        assert list_sources(folder) <= names
    assert {"README.md", "LICENSE", "constraints.txt", "studies/README.md"} <= names


def test_the_wheel_runs_where_the_repository_is_not(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, str(site), str(wheel)], check=True, capture_output=True)

    def run(*words):
        env = os.environ | {"PYTHONPATH": str(site), "TOOLKIT_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, check=True, capture_output=True
        )
        return done.stdout.decode()

    where = run("-c", "import toolkit; print(toolkit.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    assert "COMMAND" in run("-m", "toolkit", "--help")
    run("-m", "toolkit", "demo", "corpus")
    quick = ["--quick", "--trials", "1", "--outer", "session", "--contributions", "none"]
    run("-m", "toolkit", "study", "--data", "corpus/dataset.csv", "--modality", "text", *quick)
    assert (tmp_path / "outputs" / "corpus-quick" / "report.html").exists()
