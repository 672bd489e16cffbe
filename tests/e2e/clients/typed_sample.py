"""A user's module as two strict type checkers see it; `test_python_types.py` also runs it."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from typing_extensions import assert_type

import tracelake
from tracelake.errors import TableNotFoundError, TracelakeError

if TYPE_CHECKING:
    import pandas
    import polars
    from mlflow.entities import Trace
    from pyspark.sql import DataFrame, SparkSession

TABLE = "production.monitoring.agent_traces"


def set_up(folder: str | os.PathLike[str]) -> tracelake.Service:
    service = tracelake.serve(folder, settle_after="1s", services={"payments": "0"})
    experiment_id = tracelake.setup_trace_archival(
        catalog="production", schema="monitoring", table="agent_traces", experiment_name="/Shared/x"
    )
    assert_type(experiment_id, str)
    return service


def failed_traces(days: int) -> pandas.DataFrame:
    since = datetime.now(timezone.utc) - timedelta(days=days)
    traces = tracelake.query_archived_traces(since, payloads=False, limit=10)
    assert_type(traces, tracelake.QueryResult)
    errors = tracelake.analyze_trace_errors(traces)
    assert_type(errors, tracelake.QueryResult)
    assert_type(len(errors), int)
    assert_type(errors.column_names, list[str])
    return errors.to_pandas()


def slow_spans(by: tracelake.Grouping) -> polars.DataFrame:
    return tracelake.analyze_trace_performance(trace_table=TABLE, by=by).to_polars()


def as_mlflow(trace_id: str) -> list[Trace]:
    one = tracelake.get_trace(trace_id, as_mlflow=True)
    return [one, *tracelake.query_archived_traces(as_mlflow=True)]


def on_spark(spark: SparkSession) -> DataFrame:
    traces = tracelake.query_archived_traces(trace_table=TABLE, spark=spark)
    return tracelake.analyze_trace_performance(traces)


def checked(table: str) -> list[str]:
    try:
        report = tracelake.check(table, write=False)
    except TableNotFoundError as error:
        assert_type(error.hint, "str | None")
        return [error.message]
    except TracelakeError:
        raise
    return [] if report else [item.item for item in report.failed]


if __name__ == "__main__":
    with set_up(sys.argv[1]) as started:
        print(started.uri, failed_traces(1).shape, checked(TABLE))
