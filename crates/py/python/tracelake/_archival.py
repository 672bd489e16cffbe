"""Tables and experiments: what is archived where."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tracelake import _place, _state
from tracelake._reports import (
    CheckItem,
    CheckReport,
    ImportReport,
    VerifyReport,
    import_report,
    verify_report,
)
from tracelake._time import micros
from tracelake._tracelake import Archive
from tracelake.errors import ImportFailedError, InvalidArgumentError

if TYPE_CHECKING:
    from tracelake._client import MlflowClient

__all__ = [
    "check",
    "configure_trace_archival_experiment",
    "disable_trace_archival",
    "enable_trace_archival",
    "flush",
    "import_traces",
    "setup_trace_archival",
    "verify",
]

PRODUCTION = "/Shared/health_monitor_agent/production"


def enable(archive: Archive, table: str, experiment: str | None, from_now: bool) -> None:
    """Makes the table, binds the experiment if there is one, and remembers both."""
    archive.create_table(table)
    if experiment is not None:
        experiment_id, name, _ = archive.enable(table, experiment, from_now)
        _state.bind(archive, table, experiment_id, name)
    _state.enable_table(archive, table)


def disable(archive: Archive, experiments: list[str], table: str | None, named: bool) -> None:
    """Unbinds experiments and forgets them, and the table with the last of them.

    Experiments that MLflow's client chooses are not followed any more when the table is named that they
    go to, or when neither a table nor an experiment was ``named``.
    """
    ended = {table}
    for experiment in experiments:
        experiment_id, _, unbound = archive.disable(experiment, table)
        ended.add(unbound)
        _state.unbind(archive, experiment_id)
    followed = _state.followed_table(archive)
    if followed is not None and (followed == table or (table is None and not named)):
        ended.add(followed)
        _state.unfollow(archive)
    if _state.enabled_table(archive) in ended:
        _state.disable_table(archive)


def enable_trace_archival(
    catalog: str = "catalog",
    schema: str = "schema",
    table: str = "agent_traces",
    *,
    experiment: str | None = None,
    from_now: bool = False,
    uri: str | os.PathLike[str] | None = None,
) -> None:
    """Enables trace archival to a table, which is created if it is not there.

    Args:
        catalog: Unity Catalog catalog name.
        schema: Schema name.
        table: Table name for archived traces.
        experiment: The MLflow experiment by name or id. Without it: the one that MLflow's client has
            chosen (``mlflow.set_experiment``) when it talks to the same service, and the one that
            ``configure_trace_archival_experiment`` names next.
        from_now: Leave traces that arrived before in the default table.
        uri: Where, if not as ``get_uri`` says.

    Raises:
        ConflictError: what is there under that name cannot hold traces.
        ExperimentNotFoundError: no such experiment.
    """
    archive = _place.archive(uri)
    name = f"{catalog}.{schema}.{table}"
    if experiment is None:
        experiment = _chosen_experiment(archive)
        if experiment is None:
            _warn_elsewhere(archive, "the experiment that is chosen there is not archived", True, 3)
    enable(archive, name, experiment, from_now)
    print(f"Trace archival enabled: {name}")


def disable_trace_archival(
    catalog: str | None = None,
    schema: str | None = None,
    table: str | None = None,
    *,
    experiment: str | None = None,
    uri: str | os.PathLike[str] | None = None,
) -> None:
    """Sends the traces of an experiment to the default table again. What is archived stays.

    Args:
        catalog: With ``schema`` and ``table``: the table that it is archived to; another is an error.
        schema: Schema name.
        table: Table name.
        experiment: The MLflow experiment by name or id. Without it: those that this process enabled, or
            else the one that MLflow's client has chosen.
        uri: Where, if not as ``get_uri`` says.

    Raises:
        ConflictError: it is archived to another table.
        ExperimentNotFoundError: no such experiment.
        InvalidArgumentError: nothing says which experiment.
    """
    archive = _place.archive(uri)
    name = table_name(catalog, schema, table)
    experiments = [experiment] if experiment is not None else enabled_experiments(archive, name)
    if not experiments:
        raise InvalidArgumentError(
            "which experiment's archival is to be disabled is not said",
            "name it: disable_trace_archival(experiment=...)",
        )
    disable(archive, experiments, name, named=experiment is not None)
    print(f"Trace archival disabled: {', '.join(experiments)}")


def configure_trace_archival_experiment(
    experiment_name: str = PRODUCTION,
    *,
    uri: str | os.PathLike[str] | None = None,
) -> str:
    """Configures an experiment for trace archival: creates it if there is none of that name, sends its
    traces to the table of ``enable_trace_archival``, and chooses it in MLflow's client if that talks to
    the same service.

    Args:
        experiment_name: MLflow experiment path.
        uri: Where, if not as ``get_uri`` says.

    Returns:
        The experiment's id.
    """
    archive = _place.archive(uri)
    experiment_id = _configure(archive, experiment_name, from_now=False)
    print(f"Trace archival configured for experiment: {experiment_name}")
    return experiment_id


def setup_trace_archival(
    catalog: str = "catalog",
    schema: str = "schema",
    table: str = "agent_traces",
    experiment_name: str = PRODUCTION,
    *,
    from_now: bool = False,
    uri: str | os.PathLike[str] | None = None,
) -> str:
    """Complete trace archival setup: table, experiment, and the one archived to the other.

    Args:
        catalog: Unity Catalog catalog name.
        schema: Schema name.
        table: Table name for archived traces.
        experiment_name: MLflow experiment path; created if there is none of that name.
        from_now: Leave traces that arrived before in the default table.
        uri: Where, if not as ``get_uri`` says.

    Returns:
        The experiment's id.

    Raises:
        ConflictError: what is there under that name cannot hold traces.
    """
    archive = _place.archive(uri)
    name = f"{catalog}.{schema}.{table}"
    archive.create_table(name)
    # Before anything is remembered: it may be no experiment at all.
    archive.create_experiment(experiment_name)
    enable(archive, name, None, from_now)
    print(f"Trace archival enabled: {name}")
    experiment_id = _configure(archive, experiment_name, from_now)
    print(f"Trace archival configured for experiment: {experiment_name}")
    print("Trace archival setup complete:")
    print(f"  Table: {name}")
    print(f"  Experiment: {experiment_name}")
    return experiment_id


def check(
    trace_table: str | None = None,
    *,
    experiment: str | None = None,
    write: bool = True,
    uri: str | os.PathLike[str] | None = None,
) -> CheckReport:
    """Goes through the validation checklist of a table.

    Args:
        trace_table: ``catalog.schema.table``; by default the one that this process enabled, or the
            table of experiments that are archived nowhere else.
        experiment: By name or id; by default those that are archived to the table.
        write: Whether a trace may be sent through the archive, and deleted again.
        uri: Where, if not as ``get_uri`` says.

    Returns:
        The report; a broken item is a line in it, no exception. It is false when something is broken.
    """
    archive = _place.archive(uri)
    table = trace_table or _state.enabled_table(archive)
    items = archive.check(table, experiment, write)
    return CheckReport(table, tuple(CheckItem(*item) for item in items))


def verify(
    trace_table: str | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    manifest: str | os.PathLike[str] | None = None,
    against: str | os.PathLike[str] | None = None,
    uri: str | os.PathLike[str] | None = None,
) -> VerifyReport:
    """Compares a table with what was acknowledged for it, by hour and way in, and names every trace
    that is missing, doubled or altered. Commits what was acknowledged first.

    Args:
        trace_table: ``catalog.schema.table``; by default the one that this process enabled, or the
            table of experiments that are archived nowhere else.
        since: Of what arrived in the hour of this time and later (default: all). Without a time zone
            it is local time.
        until: Of what arrived in the hour of this time and before (default: all).
        manifest: Write the report to this file, to be kept.
        against: Compare the table with such a file as well.
        uri: Where, if not as ``get_uri`` says.

    Returns:
        The report; what is wrong with the table is in it, no exception. It is false when something is
        wrong.

    Raises:
        TableNotFoundError: no such table, and nothing came for it.
        InvalidArgumentError: ``against`` is no manifest of this table.
    """
    archive = _place.archive(uri)
    table = trace_table or _state.enabled_table(archive)
    known = None if against is None else Path(against).read_text(encoding="utf-8")
    text, rows = archive.verify(table, (micros(since), micros(until)), known)
    if manifest is not None:
        Path(manifest).write_text(text + "\n", encoding="utf-8")
    return verify_report(text, rows)


def import_traces(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    experiment: str | None = None,
    again: bool = False,
    flush: bool = True,
    progress: bool | None = None,
    uri: str | os.PathLike[str] | None = None,
) -> ImportReport:
    """Imports traces from files and folders: OTLP, and what MLflow writes. What is in already is passed
    over, so that an import that was broken off goes on when it is called again.

    Args:
        paths: Files and folders.
        experiment: Experiment of all traces by name (created if it is not there) or id, whatever the
            files say.
        again: Read files again that are in already; what the tables hold is not doubled.
        flush: Return when everything is in the tables, not when it is durable.
        progress: Show progress on standard error; by default when that is a terminal.
        uri: Where, if not as ``get_uri`` says. A service must run on this machine.

    Raises:
        ImportFailedError: some files could not be imported wholly; its ``report`` names them.
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    shown = sys.stderr.isatty() if progress is None else progress
    archive = _place.archive(uri)
    names = [os.fsdecode(path) for path in listed]
    options = {"again": again, "flush": flush, "progress": shown}
    report = import_report(archive.import_paths(names, experiment, options))
    again_hint = "call it again when that is mended; what is in is passed over"
    if report.stopped is not None:
        raise ImportFailedError(f"the import stopped: {report.stopped}", again_hint, report)
    if report.failed:
        file, reason = next(iter(report.failed.items()))
        message = f"{len(report.failed)} files could not be imported wholly, such as {file}: {reason}"
        raise ImportFailedError(message, again_hint, report)
    return report


def flush(*, uri: str | os.PathLike[str] | None = None) -> None:
    """Settles and commits everything that was acknowledged; returns when it is in the tables.

    Args:
        uri: Where, if not as ``get_uri`` says.
    """
    _place.archive(uri).flush()


def _configure(archive: Archive, experiment_name: str, from_now: bool) -> str:
    experiment_id, _ = archive.create_experiment(experiment_name)
    table = _state.enabled_table(archive)
    if table is not None:
        # Not by its id, which may be another's name.
        enable(archive, table, experiment_name, from_now)
    client = _mlflow_client(archive)
    if client is not None:
        client.choose_experiment(experiment_name)
    else:
        _warn_elsewhere(archive, f"`{experiment_name}` is not chosen there", False, 4)
    return experiment_id


def table_name(catalog: str | None, schema: str | None, table: str | None) -> str | None:
    """The full name, if all its parts are given; None if none is."""
    parts = [part for part in (catalog, schema, table) if part is not None]
    if len(parts) not in (0, 3):
        raise InvalidArgumentError(
            "a table has three names", "give catalog, schema and table, or none of them"
        )
    return ".".join(parts) if parts else None


def enabled_experiments(archive: Archive, table: str | None) -> list[str]:
    """Names of those that this process bound to the table, or else of the one that MLflow's client has
    chosen."""
    bound = _state.bound_experiments(archive, table or _state.enabled_table(archive))
    if bound:
        return bound
    chosen = _chosen_experiment(archive)
    return [] if chosen is None else [chosen]


def _chosen_experiment(archive: Archive) -> str | None:
    client = _mlflow_client(archive)
    return None if client is None else client.chosen_experiment()


def _mlflow_client(archive: Archive) -> MlflowClient | None:
    """MLflow's client in this process, if it is in use and talks to the archive's service."""
    if sys.modules.get("mlflow") is None:
        return None
    from tracelake import _client

    return _client.of(archive)


def _warn_elsewhere(archive: Archive, consequence: str, chosen: bool, level: int) -> None:
    """Where MLflow's client talks to another server. ``chosen``: only if an experiment was chosen."""
    if sys.modules.get("mlflow") is None:
        return
    from tracelake import _client

    theirs = _client.service()
    if theirs is None or (chosen and not _client.has_chosen()):
        return
    if _place.key(theirs) == _place.key(archive):
        return
    warnings.warn(
        f"MLflow's client talks to {theirs.uri}, and archival is set up at {archive.uri}: {consequence}",
        stacklevel=level,
    )
