"""The wheel in an environment that holds nothing else: plain Python first, then a notebook with MLflow."""

from __future__ import annotations

import json
import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from support.package import Environment, package_environment, wheel

EXPERIMENT = "/Shared/health_monitor_agent/production"
TABLE = "production.monitoring.agent_traces"

# What a user types, cell by cell.
CELLS = {
    "serve": """
import tracelake
service = tracelake.serve("archive", settle_after="200ms", commit_every="300ms")
service
""",
    "client": """
import mlflow
mlflow.set_tracking_uri(service.uri)
""",
    "setup": f"""
experiment_id = tracelake.setup_trace_archival(
    catalog="production",
    schema="monitoring",
    table="agent_traces",
    experiment_name="{EXPERIMENT}",
)
""",
    "log": """
@mlflow.trace(span_type="TOOL")
def divide(a, b):
    return a / b

@mlflow.trace(name="agent", span_type="AGENT")
def agent(question, by):
    return divide(len(question), by)

for number in range(4):
    agent(f"<b>question</b> {number}", 2)
try:
    agent("impossible", 0)
except ZeroDivisionError:
    failed = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()
tracelake.flush()
""",
    "query": """
traces_df = tracelake.query_archived_traces()
traces_df
""",
    "errors": """
error_traces = tracelake.analyze_trace_errors(traces_df)
assert [row["trace_id"] for row in error_traces.to_dicts()] == [failed]
error_traces
""",
    "performance": """
performance_df = tracelake.analyze_trace_performance(traces_df)
print(sorted(performance_df.column_names))
[row["span_count"] for row in performance_df.to_dicts()]
""",
    "sql": """
tracelake.sql("SELECT count(*) AS n, max(experiment_id) AS e FROM traces").to_dicts(), experiment_id
""",
    "check": """
report = tracelake.check()
report
""",
    "verdict": """
print(report)
assert report, report.failed
""",
    "mlflow": """
trace = tracelake.get_trace(failed, as_mlflow=True)
(trace.info.trace_id == failed, trace.info.status.value, [span.name for span in trace.data.spans])
""",
    "stop": """
service.stop()
service
""",
}  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and nothing else; pip may not even ask an index."""
    made = Environment(tmp_path_factory.mktemp("wheel") / "venv")
    made.install("--no-index", str(wheel()))
    return made


@pytest.fixture(scope="module")
def notebook(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """The outputs of each cell, run by the kernel of the environment beside MLflow's tracing SDK."""
    environment.install("mlflow-tracing", "ipykernel")
    folder = tmp_path_factory.mktemp("notebook")
    spec = folder / "kernels" / "plain"
    spec.mkdir(parents=True)
    argv = [str(environment.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "plain", "language": "python"})
    )
    manager = AsyncKernelManager(
        kernel_name="plain",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent)]),
        connection_file=str(folder / "connection.json"),
    )
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.values()]
    document = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        document, km=manager, timeout=120, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=package_environment(IPYTHONDIR=str(folder / "ipython"), HOME=str(folder)))
    assert not (folder / "archive" / "server.json").exists(), "the service stopped"
    return {name: cell.outputs for name, cell in zip(CELLS, document.cells, strict=True)}


def printed(outputs: list) -> str:
    return "".join(
        output["text"] for output in outputs if output.output_type == "stream" and output["name"] == "stdout"
    )


def shown(outputs: list, kind: str = "text/plain") -> str:
    """What the cell's last expression shows."""
    (result,) = [output for output in outputs if output.output_type == "execute_result"]
    assert kind in result["data"], sorted(result["data"])
    return result["data"][kind]


def test_the_wheel_requires_nothing_and_says_what_it_is():
    path = wheel()
    assert re.match(r"tracelake-[0-9.]+-cp310-abi3-\w+\.whl$", path.name), path.name
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(metadata_name).decode())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tracelake", metadata_name.split("/")[0]}, "nothing beside the package"
    native = [name for name in names if name.endswith(".so")]
    assert native == ["tracelake/_tracelake.abi3.so"]
    assert {"tracelake/py.typed", "tracelake/_tracelake.pyi"} <= set(names)
    assert not [name for name in names if name.endswith((".rs", ".pyc"))]
    required = metadata.get_all("Requires-Dist") or []
    assert [line for line in required if "extra ==" not in line] == []
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_plain_python_imports_serves_asks_and_leaves_nothing_behind(
    environment: Environment, tmp_path: Path
):
    done = environment.run(
        """
import sys, tracelake
before = set(sys.modules)
service = tracelake.serve("archive")
tracelake.setup_trace_archival("a", "b", "c", "/Shared/x")
assert tracelake.check("a.b.c"), tracelake.check("a.b.c").failed
result = tracelake.sql("SELECT 1 AS one, 'x' AS text")
assert result.to_dicts() == [{"one": 1, "text": "x"}], result.to_dicts()
assert "one" in repr(result) and "<table" in result._repr_html_()
assert len(tracelake.query_archived_traces()) == 0
foreign = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert foreign <= {"tracelake"}, foreign
print("done", service.is_running)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done True"
    assert done.stderr == ""
    # The process ended without a word to the service, which stopped with it.
    assert not (tmp_path / "archive" / "server.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("method", "package"),
    [("to_pandas", "pandas"), ("to_polars", "polars"), ("to_arrow", "pyarrow")],
)
def test_a_method_whose_package_is_missing_names_it_and_how_to_get_it(
    environment: Environment, tmp_path: Path, method: str, package: str
):
    done = environment.run(
        f"""
import tracelake
with tracelake.serve("archive"):
    result = tracelake.sql("SELECT 1 AS one")
    try:
        result.{method}()
    except tracelake.errors.MissingPackageError as error:
        assert isinstance(error, ImportError)
        print(error.message, "|", error.hint)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    message, _, hint = done.stdout.partition("|")
    assert "pandas" in message or "pyarrow" in message or "polars" in message, done.stdout
    assert "pip install" in hint and package in hint, done.stdout


def test_a_wrong_call_ends_with_its_hint(environment: Environment, tmp_path: Path):
    done = environment.run(
        'import tracelake; tracelake.sql("SELECT 1", uri="http://127.0.0.1:9")', tmp_path
    )
    assert done.returncode == 1
    assert "tracelake.errors.ServiceUnavailableError" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("hint: "), done.stderr


def test_a_notebook_serves_and_sets_up(notebook: dict[str, list]):
    assert re.search(r"service at http://127\.0\.0\.1:\d+ .*running", shown(notebook["serve"]))
    assert printed(notebook["setup"]).splitlines() == [
        f"Trace archival enabled: {TABLE}",
        f"Trace archival configured for experiment: {EXPERIMENT}",
        "Trace archival setup complete:",
        f"  Table: {TABLE}",
        f"  Experiment: {EXPERIMENT}",
    ]
    assert "stopped" in shown(notebook["stop"])


def test_a_notebook_shows_traces_as_a_table_whose_texts_are_no_markup(notebook: dict[str, list]):
    html = shown(notebook["query"], "text/html")
    assert "<table" in html and "trace_id" in html
    assert len(set(re.findall(r"tr-[0-9a-f]{32}", html))) == 5
    assert "<b>question</b>" not in html, "what a client sent is shown as text"
    assert "trace_id" in shown(notebook["query"])


def test_a_notebook_answers_what_failed_and_what_is_slow(notebook: dict[str, list]):
    assert len(set(re.findall(r"tr-[0-9a-f]{32}", shown(notebook["errors"], "text/html")))) == 1
    assert shown(notebook["performance"]) == "[2, 2, 2, 2, 2]"
    for column in ("avg_span_duration_ms", "span_count", "total_duration_ms", "trace_id"):
        assert f"'{column}'" in printed(notebook["performance"])
    assert re.fullmatch(r"\(\[\{'n': 5, 'e': '(\d+)'\}\], '\1'\)", shown(notebook["sql"]))
    assert shown(notebook["mlflow"]) == "(True, 'ERROR', ['agent', 'divide'])"


def test_a_notebook_goes_through_the_checklist(notebook: dict[str, list]):
    assert "<table" in shown(notebook["check"], "text/html")
    assert TABLE in printed(notebook["verdict"])
