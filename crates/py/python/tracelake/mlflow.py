"""MLflow's own functions for trace archival, carried out by tracelake.

>>> import mlflow, tracelake.mlflow
>>> tracelake.mlflow.install()
>>> mlflow.set_tracking_uri("http://127.0.0.1:5000")
>>> from mlflow.tracing.archival import enable_databricks_trace_archival
>>> enable_databricks_trace_archival(
...     delta_table_fullname="production.monitoring.agent_traces", experiment_id="1"
... )

In stock MLflow these functions need the closed package ``databricks-agents``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from tracelake import _archival, _place, _state
from tracelake._tracelake import Archive
from tracelake.errors import (
    InvalidArgumentError,
    MissingPackageError,
    ServiceUnavailableError,
    TracelakeError,
    TrackingUriError,
)

if TYPE_CHECKING:
    from mlflow.entities import Experiment

    from tracelake._client import MlflowClient

__all__ = [
    "disable_databricks_trace_archival",
    "enable_databricks_trace_archival",
    "install",
    "uninstall",
]

_ABSENT = object()

_lock = threading.Lock()
# What takes back what `install` changed; None when it is not installed.
_undo: ExitStack | None = None


def install() -> None:
    """Makes MLflow's functions for trace archival work without the package ``databricks-agents``.

    - ``mlflow.tracing.archival.enable_databricks_trace_archival`` and ``disable_...``, also where they
      were imported from there before. They take their arguments by position as well.
    - ``mlflow.enable_databricks_trace_archival(catalog, schema, table)`` and ``disable_...``, which are
      the functions of this module.
    - ``mlflow.set_experiment`` archives what it chooses to the table of the latter.

    Where ``databricks-agents`` is installed, everything stays as it is, with a warning. Called again,
    it changes nothing.

    Raises:
        MissingPackageError: MLflow 3 is not installed.
    """
    global _undo
    with _lock:
        if _undo is not None:
            return
        mlflow = _mlflow()
        if _has_databricks_agents():
            warnings.warn(
                "the package databricks-agents is installed, so MLflow's functions for trace archival"
                " stay those of Databricks; tracelake.enable_trace_archival archives to tracelake",
                stacklevel=2,
            )
            return
        with ExitStack() as undo:
            _replace_stock(undo)
            for function in (enable_databricks_trace_archival, disable_databricks_trace_archival):
                _set(undo, mlflow, function.__name__, function)
            fluent = importlib.import_module("mlflow.tracking.fluent")
            for module in (fluent, mlflow):
                _set(undo, module, "set_experiment", _following(module.set_experiment))
            undo.callback(_state.follow_nothing)
            _undo = undo.pop_all()


def uninstall() -> None:
    """Takes back what ``install`` changed. What was archived stays, and so does what is bound."""
    global _undo
    with _lock:
        if _undo is not None:
            _undo.close()
            _undo = None


def enable_databricks_trace_archival(
    catalog: str, schema: str, table: str, *, experiment_id: str | None = None
) -> None:
    """Archives experiments of MLflow's client to a table, which is created if it is not there.

    With ``experiment_id``: this experiment. Without: the one that was chosen, by
    ``mlflow.set_experiment`` or the environment, and each that ``mlflow.set_experiment`` chooses
    afterwards in this process, until archival is disabled. ``Default`` is archived only when it is
    chosen by name or id.

    Args:
        catalog: Unity Catalog catalog name.
        schema: Schema name.
        table: Table name for archived traces.
        experiment_id: The MLflow experiment by id.

    Raises:
        ConflictError: what is there under that name cannot hold traces.
        ExperimentNotFoundError: the tracking server has no such experiment.
        TrackingUriError: MLflow's tracking URI is not that of a tracelake service.
    """
    archive = _archive()
    name = f"{catalog}.{schema}.{table}"
    if experiment_id is not None:
        _archival.enable(archive, name, _experiment_name(archive, experiment_id), False)
        return
    experiment = _client(archive).chosen_experiment()
    _archival.enable(archive, name, experiment, False)
    _state.follow(archive, name)
    if experiment is None:
        print(
            f"No experiment is chosen. Archival to {name} begins with the next mlflow.set_experiment,"
            " or name one: experiment_id="
        )


def disable_databricks_trace_archival(
    catalog: str | None = None,
    schema: str | None = None,
    table: str | None = None,
    *,
    experiment_id: str | None = None,
) -> None:
    """Sends traces to the default table again. What is archived stays. Without ``experiment_id``, or with
    the table, this ends what ``enable_databricks_trace_archival`` began: experiments that are chosen
    afterwards are not archived.

    Args:
        catalog: With ``schema`` and ``table``: the table that it is archived to; another is an error.
        schema: Schema name.
        table: Table name.
        experiment_id: The MLflow experiment by id. Without it: those that this process enabled, or else
            the one that was chosen.

    Raises:
        ConflictError: it is archived to another table.
        ExperimentNotFoundError: the tracking server has no such experiment.
        InvalidArgumentError: nothing says which experiment.
        TrackingUriError: MLflow's tracking URI is not that of a tracelake service.
    """
    archive = _archive()
    name = _archival.table_name(catalog, schema, table)
    if experiment_id is not None:
        experiments = [_experiment_name(archive, experiment_id)]
    else:
        experiments = _archival.enabled_experiments(archive, name)
    if not experiments and _state.followed_table(archive) is None:
        raise InvalidArgumentError(
            "which experiment's archival is to be disabled is not said",
            "name it: mlflow.disable_databricks_trace_archival(experiment_id=...)",
        )
    _archival.disable(archive, experiments, name, named=experiment_id is not None)


def _enable_stock(delta_table_fullname: str, experiment_id: str | None = None) -> None:
    # Runs with the globals of mlflow.tracing.archival: see `_replace_stock`.
    from tracelake.mlflow import enable_table

    enable_table(delta_table_fullname, experiment_id)


def _disable_stock(experiment_id: str | None = None) -> None:
    from tracelake.mlflow import disable_experiment

    disable_experiment(experiment_id)


def enable_table(table: str, experiment_id: str | None) -> None:
    """What MLflow's own ``enable_databricks_trace_archival`` does when this is installed."""
    archive = _archive()
    experiment = _experiment_name(archive, experiment_id)
    _archival.enable(archive, table, experiment, False)


def disable_experiment(experiment_id: str | None) -> None:
    """What MLflow's own ``disable_databricks_trace_archival`` does when this is installed."""
    archive = _archive()
    experiment = _experiment_name(archive, experiment_id)
    _archival.disable(archive, [experiment], None, named=True)


def _replace_stock(undo: ExitStack) -> None:
    """Gives MLflow's two functions other code. The functions stay the same objects, so that they work
    wherever they were imported before, and nothing poses as the package ``databricks``."""
    try:
        archival = importlib.import_module("mlflow.tracing.archival")
    except ModuleNotFoundError:
        warnings.warn(
            "this MLflow has no mlflow.tracing.archival, which came with 3.3:"
            " only mlflow.enable_databricks_trace_archival(catalog, schema, table) is there",
            stacklevel=3,
        )
        return
    for name, ours in (
        ("enable_databricks_trace_archival", _enable_stock),
        ("disable_databricks_trace_archival", _disable_stock),
    ):
        theirs = inspect.unwrap(getattr(archival, name))
        undo.callback(_set_code, theirs, *_code_of(theirs))
        _set_code(theirs, *_code_of(ours))


def _code_of(function: Any) -> tuple[Any, Any, Any]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _set_code(function: FunctionType, code: Any, defaults: Any, keyword_defaults: Any) -> None:
    function.__code__ = code
    function.__defaults__ = defaults
    function.__kwdefaults__ = keyword_defaults


def _set(undo: ExitStack, module: ModuleType, name: str, value: object) -> None:
    before = getattr(module, name, _ABSENT)
    setattr(module, name, value)
    undo.callback(_put_back, module, name, value, before)


def _put_back(module: ModuleType, name: str, ours: object, before: object) -> None:
    """Unless somebody else has replaced it since."""
    if getattr(module, name, _ABSENT) is not ours:
        return
    if before is _ABSENT:
        delattr(module, name)
    else:
        setattr(module, name, before)


def _following(set_experiment: Callable[..., Experiment]) -> Callable[..., Experiment]:
    """``set_experiment``, after which the experiment is archived to the table that is followed."""

    @functools.wraps(set_experiment)
    def wrapper(*args: Any, **kwargs: Any) -> Experiment:
        experiment = set_experiment(*args, **kwargs)
        _bind(experiment)
        return experiment

    return wrapper


def _bind(experiment: Experiment) -> None:
    tracking_uri = _mlflow().get_tracking_uri()
    if not _is_http(tracking_uri):
        return
    archive = _place.archive(tracking_uri)
    table = _state.followed_table(archive)
    if table is None or _state.is_bound(archive, table, experiment.experiment_id):
        return
    try:
        _archival.enable(archive, table, experiment.name, False)
    except TracelakeError as error:
        message = (
            f"experiment `{experiment.name}` is chosen, but its traces do not go to `{table}`:"
            f" {error.message}"
        )
        raise type(error)(message, error.hint) from error


def _archive() -> Archive:
    """The tracelake service that is MLflow's tracking server."""
    tracking_uri = _mlflow().get_tracking_uri()
    if not _is_http(tracking_uri):
        raise _wrong_tracking_uri(tracking_uri, "it is no address of a service")
    try:
        archive = _place.archive(tracking_uri)
        archive.version()
    except (InvalidArgumentError, ServiceUnavailableError) as error:
        raise _wrong_tracking_uri(tracking_uri, error.message) from error
    return archive


def _is_http(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def _wrong_tracking_uri(tracking_uri: str, reason: str) -> TrackingUriError:
    shown = re.sub(r"://[^/?#]*@", "://", tracking_uri.partition("?")[0])
    place = _place.archive(None)
    message = (
        f"MLflow's tracking URI is {shown}, which is not a tracelake service ({reason});"
        f" tracelake's own URI is {place.uri}"
    )
    if place.is_service and place.uri != shown.rstrip("/"):
        where = place.uri
        first = ""
    else:
        where = "http://127.0.0.1:5000"
        first = "start a service (`tracelake serve`, or tracelake.serve()) and "
    hint = (
        f"{first}point MLflow's client at it: mlflow.set_tracking_uri(\"{where}\"),"
        f" or MLFLOW_TRACKING_URI={where}"
    )
    return TrackingUriError(message, hint)


def _mlflow() -> ModuleType:
    try:
        mlflow = importlib.import_module("mlflow")
        version = str(mlflow.__version__)
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            "tracelake.mlflow needs the package mlflow, which is not installed", "pip install mlflow"
        ) from error
    if int(version.partition(".")[0]) < 3:
        raise MissingPackageError(
            f"tracelake.mlflow needs MLflow 3; this is {version}", "pip install 'mlflow>=3'"
        )
    return mlflow


def _has_databricks_agents() -> bool:
    try:
        return importlib.util.find_spec("databricks.agents") is not None
    except ModuleNotFoundError:
        return False


def _client(archive: Archive) -> MlflowClient:
    from tracelake._client import MlflowClient

    return MlflowClient(archive)


def _experiment_name(archive: Archive, experiment_id: str | None) -> str:
    """Of an experiment by its id; without one, of that which MLflow's own functions take."""
    from tracelake._client import active_experiment_id

    return _client(archive).experiment_name(experiment_id or active_experiment_id())
