"""The documentation as tests see it: the examples of a document, and a terminal to run them in."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from support import table
from support.server import REPOSITORY, Server, binary, clean_environment

FENCE_LINE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands of a table cell or a sentence that can be run as they stand: no placeholders in them.
INLINE = re.compile(r'`((?:curl -|du -|tracelake sql ")[^`\n]*)`')
SERVE = re.compile(r"^(\S*tracelake serve.*)$", re.MULTILINE)

# Before each shell example. A user sees an answer that refuses, and the file that is not there; a test
# needs the exit code. Nothing is left for `make build` to do: the binary under test is there.
SHELL_PRELUDE = """
curl() {
  for word in "$@"; do
    case "$word" in @*) test -r "${word#@}" || { echo "no file ${word#@}" >&2; return 26; } ;; esac
  done
  case "$1" in -f) ;; *) set -- --fail-with-body "$@" ;; esac
  command curl "$@"
}
make() { test "$*" = build; }
"""


@dataclass(frozen=True)
class Example:
    """One fenced block, or one command within a sentence."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} ({self.language})\n{self.text}"

    @property
    def starts_the_service(self) -> bool:
        """Whether it does not end by itself."""
        return self.language == "sh" and SERVE.search(self.text) is not None


def documents() -> list[str]:
    """All documents of the repository, relative to its root."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


def examples(document: str) -> list[Example]:
    """What can be run in a document, in its order."""
    content = (REPOSITORY / document).read_text()
    found = [(m.start(), m["language"], m["text"]) for m in FENCE.finditer(content)]
    fences = len(FENCE_LINE.findall(content))
    assert fences == 2 * len(found), f"{document}: a fence that no test would see"
    prose = FENCE.sub(lambda fence: " " * len(fence[0]), content)
    found += [(m.start(), "sh", m[1].replace("\\|", "|") + "\n") for m in INLINE.finditer(prose)]
    return [
        Example(document, content.count("\n", 0, start) + 1, language.strip(), text)
        for start, language, text in sorted(found)
    ]


class Terminal:
    """A reader's terminal in a folder of its own: what one example exports, the next one has."""

    def __init__(self, folder: Path, *, installed: bool):
        """`installed`: whether `tracelake` is on PATH. It always lies at `target/debug` as well."""
        self.folder = folder
        built = folder / "target" / "debug"
        built.mkdir(parents=True)
        (built / "tracelake").symlink_to(binary())
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if installed:
            path.insert(0, str(built))
        # `check` notes a journal that may grow beyond the room on this machine's disk.
        self.environment = clean_environment(
            PATH=os.pathsep.join(path), HOME=str(folder), MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
            TRACELAKE_JOURNAL_BUDGET="256MiB",
        )  # fmt: skip
        self.server: Server | None = None
        self.spark = None

    @property
    def data_dir(self) -> Path:
        """Where the archive lies when nothing says otherwise."""
        return self.folder / "tracelake-data"

    def run(self, example: Example) -> str:
        """Runs one example to its end; gives what it printed."""
        text = example.text
        if self.server is not None:
            text = text.replace("127.0.0.1:5000", self.server.http)
            text = text.replace("127.0.0.1:4317", self.server.grpc)
        match example.language:
            case "sh":
                return self.shell(SHELL_PRELUDE + text, str(example))
            case "python" if "`spark` is your session" in text:
                return self.spark_program(text)
            case "python":
                program = self.folder / "example.py"
                program.write_text(text)
                return self.shell("python example.py", str(example))
            case "sql":
                return self.duckdb(text)
        raise AssertionError(f"no way to run {example}")

    def shell(self, script: str, subject: str) -> str:
        """Runs a script, which must succeed in each of its commands, and keeps its exports."""
        after = self.folder / ".environment"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > '{after}'"],
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            cwd=self.folder, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"{subject}exited {done.returncode}\n{done.stdout}\n{done.stderr[-6000:]}"
        )
        pairs = (pair.partition("=") for pair in after.read_text().split("\0") if pair)
        self.environment = {name: value for name, _, value in pairs}
        return done.stdout

    def duckdb(self, text: str) -> str:
        """The rows of the last statement. `INSTALL` would fetch from the network, and `LOAD` takes
        what it fetched: the extension is loaded from its Python package instead."""
        for statement in ("INSTALL delta;", "LOAD delta;"):
            assert statement in text
            text = text.replace(statement, "")
        with chdir(self.folder), table.duckdb_connection() as connection:
            return str(connection.execute(text).fetchall())

    def spark_program(self, text: str) -> str:
        """Runs a program for which `spark` is a Spark Connect session, by Sail."""
        printed = io.StringIO()
        with chdir(self.folder), redirect_stdout(printed):
            exec(compile(text, "example.py", "exec"), {"spark": self.spark})
        return printed.getvalue()


class DocumentedServer(Server):
    """The service as an example starts it, but for its ports, which are free ones."""

    def __init__(self, terminal: Terminal, example: Example):
        super().__init__(terminal.data_dir)
        self.terminal, self.example = terminal, example

    def spawn(self) -> subprocess.Popen:
        """Runs the example; the shell makes room for the service, so the process is the service."""
        script = SHELL_PRELUDE + SERVE.sub(r"exec \1", self.example.text)
        environment = self.terminal.environment | {
            "TRACELAKE_LISTEN": "127.0.0.1:0", "TRACELAKE_OTLP_GRPC": "127.0.0.1:0",
        }  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.terminal.folder, env=environment,
            )  # fmt: skip
        return self.process
