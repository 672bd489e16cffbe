"""Questions to the tables, answered here, by a service, or by Spark."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Union, get_args, overload

from tracelake import _place, _state
from tracelake._time import micros
from tracelake._tracelake import QueryResult, question_sql
from tracelake.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from pyspark.sql import DataFrame, SparkSession
    from typing_extensions import Unpack

__all__ = [
    "Grouping",
    "analyze_trace_errors",
    "analyze_trace_performance",
    "get_trace",
    "list_traces",
    "query_archived_traces",
    "sql",
]

Grouping = Literal["span_name", "span_type", "model", "experiment", "hour"]
"""What ``analyze_trace_performance`` groups by."""

Path = Union[str, "os.PathLike[str]"]

# Where a Spark DataFrame notes what it is about.
_SCOPE = "_tracelake_scope"
_DAY = timedelta(days=1)


class _Scope(NamedTuple):
    """What a question is about."""

    table: str | None
    since: int | None
    until: int | None


class _About(NamedTuple):
    """What a question is about, where it is asked, and the Spark session that goes with it."""

    scope: _Scope
    place: Path | None
    session: Any


class _Asked(TypedDict, total=False):
    """What every question takes by name: see ``query_archived_traces``."""

    limit: int | None
    explain: bool
    uri: Path | None


class _Analysed(_Asked, total=False):
    """What every analysis takes by name."""

    start_time: datetime | None
    end_time: datetime | None


@overload
def query_archived_traces(
    start_time: datetime | None = ...,
    end_time: datetime | None = ...,
    trace_table: Path | None = ...,
    *,
    payloads: bool = ...,
    as_mlflow: Literal[False] = ...,
    spark: None = ...,
    **asked: Unpack[_Asked],
) -> QueryResult: ...


@overload
def query_archived_traces(
    start_time: datetime | None = ...,
    end_time: datetime | None = ...,
    trace_table: Path | None = ...,
    *,
    as_mlflow: Literal[True],
    **asked: Unpack[_Asked],
) -> list[Trace]: ...


@overload
def query_archived_traces(
    start_time: datetime | None = ...,
    end_time: datetime | None = ...,
    trace_table: Path | None = ...,
    *,
    payloads: bool = ...,
    spark: SparkSession,
    **asked: Unpack[_Asked],
) -> DataFrame: ...


def query_archived_traces(
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    trace_table: Path | None = None,
    *,
    limit: int | None = None,
    payloads: bool = True,
    as_mlflow: bool = False,
    spark: SparkSession | None = None,
    explain: bool = False,
    uri: Path | None = None,
) -> QueryResult | list[Trace] | DataFrame:
    """Archived traces, whole rows, newest first. A row is a trace where ``part`` is null; a large trace has
    further rows with more of its spans.

    Args:
        start_time: Archived at or after this (default: 24 hours ago). Without a time zone it is local
            time.
        end_time: Archived at or before this (default: no end).
        trace_table: ``catalog.schema.table`` or the path of a table's folder; by default the one that
            this process enabled archival to, or the table of experiments that are archived nowhere else.
        limit: Rows at the most.
        payloads: With the texts that clients sent. Without them ``request_preview``,
            ``response_preview`` and ``trace_metadata`` are left out, and of each span inputs, outputs,
            tags, metadata, events, links, scope, resource and bytes: most of what there is to read.
        as_mlflow: Return MLflow's ``Trace`` objects.
        spark: A Spark session to run the query on; the answer is its DataFrame.
        explain: Print the SQL before it runs.
        uri: Where, if not as ``get_uri`` says.

    Raises:
        TableNotFoundError: no such table.
        QueryLimitError: more rows than fit; narrow the range, or leave the payloads out.
    """
    question = "archived_traces" if payloads else "archived_traces_without_payloads"
    if as_mlflow and (spark is not None or not payloads):
        raise InvalidArgumentError(
            "MLflow traces are made of whole rows in this process",
            "leave out spark= and payloads=, or as_mlflow=",
        )
    about = _about(None, trace_table, start_time, end_time, uri)
    answer = _answer(question, about, limit, spark, explain)
    if as_mlflow and isinstance(answer, QueryResult):
        from tracelake._client import traces_of

        return traces_of(answer)
    return answer


@overload
def list_traces(
    start_time: datetime | None = ...,
    end_time: datetime | None = ...,
    trace_table: Path | None = ...,
    *,
    spark: None = ...,
    **asked: Unpack[_Asked],
) -> QueryResult: ...


@overload
def list_traces(
    start_time: datetime | None = ...,
    end_time: datetime | None = ...,
    trace_table: Path | None = ...,
    *,
    spark: SparkSession,
    **asked: Unpack[_Asked],
) -> DataFrame: ...


def list_traces(
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    trace_table: Path | None = None,
    *,
    limit: int | None = None,
    spark: SparkSession | None = None,
    explain: bool = False,
    uri: Path | None = None,
) -> QueryResult | DataFrame:
    """One short row for each archived trace, newest first. Arguments are those of
    ``query_archived_traces``."""
    about = _about(None, trace_table, start_time, end_time, uri)
    return _answer("traces", about, limit, spark, explain)


@overload
def analyze_trace_errors(
    traces_df: QueryResult | None = ...,
    trace_table: Path | None = ...,
    *,
    group: bool = ...,
    spark: None = ...,
    **asked: Unpack[_Analysed],
) -> QueryResult: ...


@overload
def analyze_trace_errors(
    traces_df: DataFrame,
    trace_table: Path | None = ...,
    *,
    group: bool = ...,
    spark: SparkSession | None = ...,
    **asked: Unpack[_Analysed],
) -> DataFrame: ...


@overload
def analyze_trace_errors(
    traces_df: None = ...,
    trace_table: Path | None = ...,
    *,
    group: bool = ...,
    spark: SparkSession,
    **asked: Unpack[_Analysed],
) -> DataFrame: ...


def analyze_trace_errors(
    traces_df: QueryResult | DataFrame | None = None,
    trace_table: Path | None = None,
    *,
    group: bool = False,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    limit: int | None = None,
    spark: SparkSession | None = None,
    explain: bool = False,
    uri: Path | None = None,
) -> QueryResult | DataFrame:
    """What failed: traces with status ERROR or with a span that has it, newest first.

    Args:
        traces_df: What ``query_archived_traces`` returned: its place, table, range and Spark session are
            those of the analysis, unless said otherwise. Other frames, such as one that was filtered,
            give at most their session: ``trace_table`` must be named.
        trace_table: As for ``query_archived_traces``.
        group: One row for each message and exception type, those with most traces first.
        start_time: As for ``query_archived_traces``.
        end_time: Likewise.
        limit: Rows at the most.
        spark: A Spark session to run the analysis on; the answer is its DataFrame.
        explain: Print the SQL before it runs.
        uri: Where, if not as ``get_uri`` says.
    """
    about = _about(traces_df, trace_table, start_time, end_time, uri)
    return _answer("error_groups" if group else "errors", about, limit, spark, explain)


@overload
def analyze_trace_performance(
    traces_df: QueryResult | None = ...,
    trace_table: Path | None = ...,
    *,
    by: Grouping | None = ...,
    spark: None = ...,
    **asked: Unpack[_Analysed],
) -> QueryResult: ...


@overload
def analyze_trace_performance(
    traces_df: DataFrame,
    trace_table: Path | None = ...,
    *,
    by: Grouping | None = ...,
    spark: SparkSession | None = ...,
    **asked: Unpack[_Analysed],
) -> DataFrame: ...


@overload
def analyze_trace_performance(
    traces_df: None = ...,
    trace_table: Path | None = ...,
    *,
    by: Grouping | None = ...,
    spark: SparkSession,
    **asked: Unpack[_Analysed],
) -> DataFrame: ...


def analyze_trace_performance(
    traces_df: QueryResult | DataFrame | None = None,
    trace_table: Path | None = None,
    *,
    by: Grouping | None = None,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    limit: int | None = None,
    spark: SparkSession | None = None,
    explain: bool = False,
    uri: Path | None = None,
) -> QueryResult | DataFrame:
    """What is slow: span count, total and mean span duration in milliseconds per trace, newest first.

    Args:
        traces_df: What ``query_archived_traces`` returned: its place, table, range and Spark session are
            those of the analysis, unless said otherwise. Other frames, such as one that was filtered,
            give at most their session: ``trace_table`` must be named.
        trace_table: As for ``query_archived_traces``.
        by: One row for each of these, with percentiles, errors and tokens; most time first.
        start_time: As for ``query_archived_traces``.
        end_time: Likewise.
        limit: Rows at the most.
        spark: A Spark session to run the analysis on; the answer is its DataFrame.
        explain: Print the SQL before it runs.
        uri: Where, if not as ``get_uri`` says.
    """
    about = _about(traces_df, trace_table, start_time, end_time, uri)
    if by is not None and by not in get_args(Grouping):
        raise InvalidArgumentError(
            f"by {by!r} is nothing to group by", f"one of {', '.join(get_args(Grouping))}"
        )
    question = "performance" if by is None else f"performance_by_{by}"
    return _answer(question, about, limit, spark, explain)


@overload
def sql(
    statement: str,
    *,
    trace_table: Path | None = ...,
    spark: None = ...,
    uri: Path | None = ...,
) -> QueryResult: ...


@overload
def sql(
    statement: str,
    *,
    trace_table: Path | None = ...,
    spark: SparkSession,
    uri: Path | None = ...,
) -> DataFrame: ...


def sql(
    statement: str,
    *,
    trace_table: Path | None = None,
    spark: SparkSession | None = None,
    uri: Path | None = None,
) -> QueryResult | DataFrame:
    """Runs one read-only SQL statement over the tables.

    Args:
        statement: The statement. Tables are ``catalog.schema.table``.
        trace_table: What the bare name ``traces`` stands for, when Spark does not run it; the default
            is that of ``query_archived_traces``.
        spark: A Spark session to run it on, as it is.
        uri: Where, if not as ``get_uri`` says.

    Raises:
        SqlSyntaxError: it is no SQL.
        ReadOnlyError: it would change something.
        QueryError: it cannot be answered.
    """
    if spark is not None:
        return spark.sql(statement)
    archive = _place.archive(uri)
    table = _table_text(trace_table) or _state.enabled_table(archive)
    return archive.sql(statement, table)


@overload
def get_trace(
    trace_id: str,
    *,
    trace_table: Path | None = ...,
    as_mlflow: Literal[False] = ...,
    uri: Path | None = ...,
) -> QueryResult: ...


@overload
def get_trace(
    trace_id: str,
    *,
    trace_table: Path | None = ...,
    as_mlflow: Literal[True],
    uri: Path | None = ...,
) -> Trace: ...


def get_trace(
    trace_id: str,
    *,
    trace_table: Path | None = None,
    as_mlflow: bool = False,
    uri: Path | None = None,
) -> QueryResult | Trace:
    """One trace, wherever it is archived or on its way to.

    Args:
        trace_id: 32 hex digits, with or without ``tr-`` before them.
        trace_table: The only table to look into.
        as_mlflow: Return MLflow's ``Trace`` object.
        uri: Where, if not as ``get_uri`` says.

    Raises:
        TraceNotFoundError: no such trace.
    """
    result = _place.archive(uri).trace(trace_id, _table_text(trace_table))
    if as_mlflow:
        from tracelake._client import traces_of

        return traces_of(result)[0]
    return result


def _about(
    frame: object,
    trace_table: Path | None,
    start_time: datetime | None,
    end_time: datetime | None,
    uri: Path | None,
) -> _About:
    """What is said, or else what the frame is about, or else the last day of the table that archival was
    enabled to."""
    session = _session_of(frame)
    noted = _noted(frame)
    if frame is not None and noted is None and trace_table is None:
        raise InvalidArgumentError(
            "traces_df does not say which table and range it is about",
            "give what query_archived_traces returned, as it is, or name trace_table=",
        )
    place = getattr(frame, "place", None) if uri is None and isinstance(frame, QueryResult) else uri
    since, until = micros(start_time), micros(end_time)
    if noted is not None:
        since = noted.since if since is None else since
        until = noted.until if until is None else until
    elif since is None:
        since = micros(datetime.now(timezone.utc) - _DAY)
    if since is not None and until is not None and since > until:
        raise InvalidArgumentError(
            "the range ends before it begins",
            "give start_time= and end_time= in their order; the default begins 24 hours ago",
        )
    table = _table_text(trace_table)
    if table is None:
        enabled = _state.enabled_table
        table = enabled(_place.archive(place)) if noted is None else noted.table
    return _About(_Scope(table, since, until), place, session)


def _noted(frame: object) -> _Scope | None:
    """What a frame was asked about; None if it is no answer to a ready-made question."""
    if isinstance(frame, QueryResult):
        return None if frame.scope is None else _Scope(*frame.scope)
    noted = getattr(frame, _SCOPE, None)
    return noted if isinstance(noted, _Scope) else None


def _table_text(table: Path | None) -> str | None:
    """A name or a folder. What is a path by its type is never taken for a name."""
    if isinstance(table, os.PathLike):
        return os.path.abspath(os.fsdecode(table))
    return table


def _rows(limit: int | None) -> int | None:
    """A limit as 63 bits; no answer has as many rows as a greater one allows."""
    if limit is None:
        return None
    if not isinstance(limit, int) or limit < 0:
        raise InvalidArgumentError(f"limit {limit!r} is no number of rows", "write limit=100")
    return min(limit, 2**63 - 1)


def _session_of(frame: object) -> Any:
    """The Spark session of a DataFrame; None for other frames."""
    if frame is None or isinstance(frame, QueryResult):
        return None
    session = getattr(frame, "sparkSession", None)
    if session is None:
        raise InvalidArgumentError(
            f"traces_df is a {type(frame).__name__}",
            "give what query_archived_traces returned, or leave it out",
        )
    return session


def _answer(
    question: str, about: _About, limit: int | None, spark: SparkSession | None, explain: bool
) -> QueryResult | DataFrame:
    session = spark if spark is not None else about.session
    rows = _rows(limit)
    if session is None:
        if explain:
            print(question_sql(question, about.scope, rows, False))
        return _place.archive(about.place).ask(question, about.scope, rows)
    statement = question_sql(question, about.scope, rows, True)
    if explain:
        print(statement)
    frame: DataFrame = session.sql(statement)
    setattr(frame, _SCOPE, about.scope)
    return frame
