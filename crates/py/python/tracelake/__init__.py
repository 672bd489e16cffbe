"""The open trace archive for MLflow: Delta tables on infrastructure that you own.

>>> import tracelake
>>> service = tracelake.serve("./tracelake-data")
>>> tracelake.setup_trace_archival("production", "monitoring", "agent_traces", "/Shared/agent")
>>> tracelake.analyze_trace_errors().to_pandas()

Calls go to a service, a data folder or a table: see ``get_uri``. MLflow's own functions for trace
archival work with ``tracelake.mlflow.install()``.
"""

from tracelake import errors
from tracelake._archival import (
    check,
    configure_trace_archival_experiment,
    disable_trace_archival,
    enable_trace_archival,
    flush,
    import_traces,
    setup_trace_archival,
    verify,
)
from tracelake._place import get_uri, set_uri
from tracelake._query import (
    Grouping,
    analyze_trace_errors,
    analyze_trace_performance,
    get_trace,
    list_traces,
    query_archived_traces,
    sql,
)
from tracelake._reports import (
    CheckItem,
    CheckReport,
    Figures,
    HourLine,
    ImportReport,
    TraceLine,
    VerifyReport,
)
from tracelake._service import Service, serve
from tracelake._tracelake import QueryResult, version
from tracelake.errors import TracelakeError

__version__: str = version()

__all__ = [
    "CheckItem",
    "CheckReport",
    "Figures",
    "Grouping",
    "HourLine",
    "ImportReport",
    "QueryResult",
    "Service",
    "TraceLine",
    "TracelakeError",
    "VerifyReport",
    "__version__",
    "analyze_trace_errors",
    "analyze_trace_performance",
    "check",
    "configure_trace_archival_experiment",
    "disable_trace_archival",
    "enable_trace_archival",
    "errors",
    "flush",
    "get_trace",
    "get_uri",
    "import_traces",
    "list_traces",
    "query_archived_traces",
    "serve",
    "set_uri",
    "setup_trace_archival",
    "sql",
    "verify",
]
