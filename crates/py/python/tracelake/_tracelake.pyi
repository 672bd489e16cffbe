"""The native part."""

import os
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Archive", "EmbeddedService", "QueryResult", "question_sql", "questions", "version"]

def version() -> str: ...
def questions() -> list[str]: ...
def question_sql(
    question: str,
    scope: tuple[str | None, int | None, int | None],
    limit: int | None,
    spark: bool,
) -> str: ...
@final
class Archive:
    def __new__(cls, uri: str, memory_bytes: int, seconds: float) -> Archive: ...
    @property
    def uri(self) -> str: ...
    @property
    def is_service(self) -> bool: ...
    def version(self) -> str: ...
    def ask(
        self,
        question: str,
        scope: tuple[str | None, int | None, int | None],
        limit: int | None,
    ) -> QueryResult: ...
    def sql(self, statement: str, table: str | None) -> QueryResult: ...
    def trace(self, trace_id: str, table: str | None) -> QueryResult: ...
    def create_table(self, table: str) -> str: ...
    def create_experiment(self, name: str) -> tuple[str, bool]: ...
    def enable(self, table: str, experiment: str, from_now: bool) -> tuple[str, str, int]: ...
    def disable(self, experiment: str, table: str | None) -> tuple[str, str, str | None]: ...
    def check(
        self, table: str | None, experiment: str | None, write: bool
    ) -> list[tuple[str, str, str, str | None]]: ...
    def verify(
        self, table: str | None, range: tuple[int | None, int | None], against: str | None
    ) -> tuple[str, QueryResult]: ...
    def import_paths(
        self,
        paths: list[str],
        experiment: str | None,
        options: dict[str, bool],
    ) -> str: ...
    def flush(self) -> None: ...

@final
class QueryResult:
    """The rows of an answer, in Arrow's memory layout.

    Whatever takes the Arrow PyCapsule interface takes this without a copy: pandas, Polars, pyarrow,
    DuckDB.
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A stream of record batches that share this result's memory."""

    def __arrow_c_schema__(self) -> object:
        """Names and types of the columns."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""

    @property
    def scope(self) -> tuple[str | None, int | None, int | None] | None:
        """Table and range of a ready-made question, times in microseconds since the Unix epoch."""

    @property
    def place(self) -> str | None:
        """The place that a ready-made question was asked at, as an ``uri=``."""

    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...
    def to_arrow(self) -> pyarrow.Table:
        """The rows as a ``pyarrow.Table`` that shares their memory."""

    def to_pandas(self, **kwargs: Any) -> pandas.DataFrame:
        """The rows as a pandas DataFrame; arguments are those of ``pyarrow.Table.to_pandas``."""

    def to_polars(self) -> polars.DataFrame:
        """The rows as a Polars DataFrame."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as JSON has them: times are RFC 3339 text. Needs no other package."""

    def mlflow_json(self) -> list[str]:
        """Each row as the JSON of a trace of MLflow's tracking server."""

@final
class EmbeddedService:
    def __new__(
        cls,
        data_dir: str | os.PathLike[str],
        listen: str,
        otlp_grpc: str,
        settings: str,
    ) -> EmbeddedService: ...
    @property
    def http(self) -> str: ...
    @property
    def otlp_grpc(self) -> str: ...
    @property
    def data_dir(self) -> os.PathLike[str]: ...
    @property
    def is_running(self) -> bool: ...
    def stop(self) -> None: ...
