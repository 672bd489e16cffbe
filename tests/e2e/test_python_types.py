"""What type checkers say of the package, of a user's code, and of the stub of the native module."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import REPOSITORY

SAMPLE = Path(__file__).parent / "clients" / "typed_sample.py"
PROJECT = REPOSITORY / "crates" / "py" / "pyproject.toml"
# What mypy found out of other packages: it takes half a minute to read them.
CACHE = REPOSITORY / "target" / "mypy"
SOURCES = REPOSITORY / "crates" / "py" / "python" / "tracelake"

# A user's mistakes, one a line.
MISTAKES = [
    'tracelake.query_archived_traces("yesterday")',
    'tracelake.analyze_trace_performance(by="colour")',
    "tracelake.sql(1)",
    "tracelake.serve().port",
    "tracelake.query_archived_traces().show()",
]


@pytest.fixture(scope="module")
def installed() -> Path:
    """The package as installed; it is the one of the present sources."""
    import tracelake

    folder = Path(tracelake.__file__).parent
    for source in sorted(SOURCES.glob("*.py*")):
        assert (folder / source.name).read_text() == source.read_text(), (
            f"{source.name} is not what is installed\nhint: run make e2e"
        )
    return folder


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=240, cwd=cwd, stdin=subprocess.DEVNULL,
        env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip


def mypy(cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """mypy with the settings of the package, which are the strict ones."""
    program = (sys.executable, "-m", "mypy", "--config-file", PROJECT, "--cache-dir", CACHE)
    return run(*program, *arguments, cwd=cwd)


def pyright(cwd: Path, project: Path) -> list[dict]:
    """What pyright says of a project, warnings included."""
    program = os.environ.get("TRACELAKE_PYRIGHT")
    if not program:
        pytest.fail("no pyright\nhint: run make e2e, or set TRACELAKE_PYRIGHT")
    done = run(program, "--pythonpath", sys.executable, "--outputjson", "-p", project, cwd=cwd)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > 0, done.stdout
    return report["generalDiagnostics"]


def strict(folder: Path) -> Path:
    """A project of the modules in a folder, with pyright's strict rules as they are."""
    settings = {"include": ["."], "strict": ["."], "pythonVersion": "3.10"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return folder


def told(diagnostics: list[dict]) -> list[str]:
    """One line for each, with its place."""
    return [
        f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}"
        for one in diagnostics
    ]


def test_mypy_accepts_a_users_module(installed: Path, tmp_path: Path):
    done = mypy(tmp_path, SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_a_users_module(installed: Path, tmp_path: Path):
    shutil.copy(SAMPLE, tmp_path)
    assert told(pyright(tmp_path, strict(tmp_path))) == []


def test_both_name_a_users_mistakes(installed: Path, tmp_path: Path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("\n".join(["import tracelake", *MISTAKES, ""]))
    lines = list(range(2, 2 + len(MISTAKES)))
    said = mypy(tmp_path, wrong).stdout
    by_mypy = {int(line) for line in re.findall(r"^wrong\.py:(\d+): error: ", said, re.MULTILINE)}
    by_pyright = {one["range"]["start"]["line"] + 1 for one in pyright(tmp_path, strict(tmp_path))}
    assert sorted(by_mypy) == lines, said
    assert sorted(by_pyright) == lines


def test_mypy_accepts_the_package():
    done = mypy(SOURCES.parent, "-p", "tracelake")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_the_package(tmp_path: Path):
    assert told(pyright(tmp_path, PROJECT.parent)) == []


def test_the_stub_of_the_native_module_is_what_the_module_is(installed: Path, tmp_path: Path):
    module = "tracelake._tracelake"
    # The types of other packages do not matter here, and to read them takes a minute.
    foreign = ["mlflow", "pandas", "polars", "pyarrow", "pyspark"]
    patterns = ", ".join(f'"{name}.*"' for name in foreign)
    config = tmp_path / "stubtest.toml"
    config.write_text(
        f"[tool.mypy]\n[[tool.mypy.overrides]]\nmodule = [{patterns}]\n"
        'follow_imports = "skip"\nfollow_imports_for_stubs = true\nignore_missing_imports = true\n'
    )
    done = run(
        sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", config, module, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sample_runs(installed: Path, tmp_path: Path):
    done = run(sys.executable, SAMPLE, tmp_path / "archive", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ \(0, \d+\) \[\]", last), done.stdout
