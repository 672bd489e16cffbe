"""Runs the Python blocks of a document, as a user would. Run as: run_seed.py DOCUMENT SERVICE FOLDER.

The blocks run in their order in one namespace, unchanged but for what comes before them: the import of
`tracelake.mlflow`, and a Spark session in which the service's tables have their names. Every answer is
written to FOLDER as an Arrow file; `report.json` has what was printed, and what failed and why.
"""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.feather

import tracelake
import tracelake.mlflow
from support import spark as engines

DOCUMENT, SERVICE, FOLDER = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLES = {"default": "catalog.schema.agent_traces", "named": "production.monitoring.agent_traces"}

# The SQL of the document that no engine takes, and the nearest that one does, by name.
EXISTS = r"EXISTS\s*\(\s*SELECT 1\s+FROM UNNEST\(spans\) AS span\s+WHERE span\.status = 'ERROR'\s*\)"
EXPLODE = r"LATERAL VIEW EXPLODE\(spans\) AS spans\b"
NEAREST = {
    "lambda": [(EXISTS, "EXISTS(spans, span -> span.status = 'ERROR')")],
    "nearest": [
        (EXISTS, "array_contains(spans.status, 'ERROR')"),
        (EXPLODE, "LATERAL VIEW EXPLODE(spans) exploded AS span"),
        (r"COUNT\(spans\)", "COUNT(span)"),
        (r"UNIX_TIMESTAMP\(spans\.", "UNIX_TIMESTAMP(span."),
    ],
}

failed: dict[str, list[str]] = {}


def write(name: str, ask) -> None:
    """An answer as a file, or why there is none."""
    try:
        answer = ask()
        found = answer.toArrow() if hasattr(answer, "toArrow") else pa.table(answer)
    except Exception as error:
        failed[name] = [type(error).__name__, str(error)]
        return
    pyarrow.feather.write_feather(found, FOLDER / f"{name}.arrow", compression="uncompressed")


def catalogs() -> str:
    uri = f"{SERVICE}/api/2.1/unity-catalog"
    names = [table.partition(".")[0] for table in TABLES.values()]
    entries = [
        f'{{name="{name}", type="unity", default_catalog="{name}", uri="{uri}"}}' for name in names
    ]
    return f"[{', '.join(entries)}]"


blocks = BLOCK.findall(DOCUMENT.read_text())
mlflow.set_tracking_uri(SERVICE)
tracelake.set_uri(SERVICE)
tracelake.mlflow.install()
with engines.sail(
    SAIL_CATALOG__LIST=catalogs(), SAIL_CATALOG__DEFAULT_CATALOG="catalog"
) as session:
    space = {"spark": session}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{DOCUMENT.name}, Python block {number}", "exec"), space)
    for name in ("traces_df", "error_traces", "performance_df"):
        write(f"verbatim.{name}", lambda: space[name])
    corrected = {}
    for form, changes in NEAREST.items():
        corrected[form] = {"spark": session}
        for block in blocks[:-1]:
            for pattern, replacement in changes:
                block = re.sub(pattern, replacement, block)
            exec(block, corrected[form])
    for place, table in TABLES.items():
        write(f"{place}.traces", lambda: space["query_archived_traces"](trace_table=table))
        write(f"{place}.errors", lambda: space["analyze_trace_errors"](None, table))
        write(f"{place}.performance", lambda: space["analyze_trace_performance"](None, table))
        for form, fixed in corrected.items():
            write(f"{place}.errors.{form}", lambda: fixed["analyze_trace_errors"](None, table))
        write(
            f"{place}.performance.nearest",
            lambda: corrected["nearest"]["analyze_trace_performance"](None, table),
        )

    # The package's functions, by the document's calls: its own names, in this process and on Spark.
    week = {"start_time": datetime.now() - timedelta(days=7), "end_time": datetime.now()}
    for engine, where in (("here", {}), ("spark", {"spark": session})):
        traces_df = tracelake.query_archived_traces(**week, **where)
        write(f"ours.traces.{engine}", lambda: traces_df)
        write(f"ours.errors.{engine}", lambda: tracelake.analyze_trace_errors(traces_df))
        write(f"ours.performance.{engine}", lambda: tracelake.analyze_trace_performance(traces_df))
        write(
            f"ours.default.{engine}",
            lambda: tracelake.analyze_trace_performance(None, TABLES["default"], **week, **where),
        )
    pandas = tracelake.query_archived_traces(**week).to_pandas()

bound = mlflow.get_experiment_by_name("/Shared/health_monitor_agent/production").tags
report = {
    "printed": printed.getvalue(),
    "failed": failed,
    "bound": bound.get("tracelake.archive.table"),
    "pandas": [len(pandas), int(pandas["span_count"].sum()), int(pandas["spans"].map(len).sum())],
}
(FOLDER / "report.json").write_text(json.dumps(report))
