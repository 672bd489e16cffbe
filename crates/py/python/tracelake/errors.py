"""What tracelake raises.

``TracelakeError`` is the root. Each error has a ``hint``: what to try next, where there is something to
say. Match on classes, never on messages. ``message`` and ``hint`` are as they are; ``str`` of an error
is safe to show: control characters are escaped, and what is very long is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelake._text import printable

if TYPE_CHECKING:
    from tracelake._reports import ImportReport

__all__ = [
    "ConflictError",
    "ExperimentNotFoundError",
    "ImportFailedError",
    "InterruptedCallError",
    "InvalidArgumentError",
    "MissingPackageError",
    "NotFoundError",
    "QueryError",
    "QueryLimitError",
    "ReadOnlyError",
    "ServiceUnavailableError",
    "SqlSyntaxError",
    "TableNotFoundError",
    "TraceNotFoundError",
    "TracelakeError",
    "TrackingUriError",
]


class TracelakeError(Exception):
    """Something failed; as this class itself: storage, or a defect of tracelake."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        message = printable(self.message)
        return message if self.hint is None else f"{message}\nhint: {printable(self.hint)}"


class InvalidArgumentError(TracelakeError, ValueError):
    """An argument is wrong by itself. The same call again cannot help."""


class TrackingUriError(InvalidArgumentError):
    """MLflow's tracking URI is not that of a tracelake service."""


class MissingPackageError(TracelakeError, ImportError):
    """A package is needed for this that is not installed."""


class NotFoundError(TracelakeError, LookupError):
    """What was named is not there."""


class TableNotFoundError(NotFoundError):
    """No such table."""


class ExperimentNotFoundError(NotFoundError):
    """No such experiment, or it is deleted."""


class TraceNotFoundError(NotFoundError):
    """No such trace in the tables that were looked into."""


class ConflictError(TracelakeError):
    """What is there forbids it: a table with other columns, another binding, a folder in use."""


class QueryError(TracelakeError):
    """The statement cannot be answered."""


class SqlSyntaxError(QueryError):
    """The statement is no SQL."""


class ReadOnlyError(QueryError):
    """The statement would change something. Only queries are run."""


class QueryLimitError(QueryError):
    """The statement needs more memory or time than it may have."""


class ServiceUnavailableError(TracelakeError, ConnectionError):
    """The service cannot be reached or has no answer at this time. Try again later."""


class InterruptedCallError(TracelakeError):
    """The call was broken off; what it had done stays."""


class ImportFailedError(TracelakeError):
    """Some files could not be imported wholly. What was imported stays; see ``report``."""

    def __init__(self, message: str, hint: str | None, report: ImportReport) -> None:
        super().__init__(message, hint)
        # What it is made of again when it is unpickled.
        self.args = (message, hint, report)
        self.report = report
