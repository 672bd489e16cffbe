"""MLflow's client in this process. Imported only where MLflow is."""

from __future__ import annotations

import importlib
import json
import os
from typing import TYPE_CHECKING

from tracelake import _place
from tracelake._tracelake import Archive, QueryResult
from tracelake.errors import ExperimentNotFoundError, InvalidArgumentError, MissingPackageError

if TYPE_CHECKING:
    from mlflow.entities import Trace


class MlflowClient:
    """MLflow's client, which talks to the archive's service."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def chosen_experiment(self) -> str | None:
        """Name of the experiment that was chosen, in code or in the environment."""
        if not has_chosen():
            return None
        # MLflow asks again for minutes where nobody answers.
        self._archive.version()
        return self.experiment_name(active_experiment_id())

    def experiment_name(self, experiment_id: str) -> str:
        """The name of an experiment. tracelake takes names and ids, and one's name may be another's
        id."""
        import mlflow
        from mlflow.exceptions import MlflowException

        # MlflowClient is not in the package mlflow-tracing.
        calls = importlib.import_module("mlflow.tracking._tracking_service.client")
        client = calls.TrackingServiceClient(mlflow.get_tracking_uri())
        try:
            return str(client.get_experiment(str(experiment_id)).name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ExperimentNotFoundError(
                f"no experiment with the id `{experiment_id}` at {self._archive.uri}",
                "mlflow.set_experiment(NAME) chooses one, and creates it if it is not there",
            ) from error

    def choose_experiment(self, name: str) -> None:
        """Makes it the one that traces are logged to."""
        import mlflow

        mlflow.set_experiment(name)


def of(archive: Archive) -> MlflowClient | None:
    """The client, if its tracking URI is the archive's service."""
    theirs = service()
    if theirs is None or _place.key(theirs) != _place.key(archive):
        return None
    return MlflowClient(archive)


def service() -> Archive | None:
    """What the client's tracking URI is, if that is a service's address. It may be another server."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if not uri.lower().startswith(("http://", "https://")):
        return None
    try:
        return _place.archive(uri)
    except InvalidArgumentError:
        return None


def has_chosen() -> bool:
    """Whether an experiment was chosen, in code or in the environment."""
    fluent = importlib.import_module("mlflow.tracking.fluent")
    variables = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    return bool(
        getattr(fluent, "_active_experiment_id", None) or any(map(os.environ.get, variables))
    )


def active_experiment_id() -> str:
    """As MLflow's own functions have it: the chosen experiment, or else ``Default``."""
    return str(importlib.import_module("mlflow.tracking.fluent")._get_experiment_id())


def traces_of(result: QueryResult) -> list[Trace]:
    """Rows as MLflow's own traces, by the way in which its client reads a tracking server's answers."""
    try:
        from mlflow.entities import Trace
        from mlflow.protos import service_pb2
        from mlflow.utils.proto_json_utils import parse_dict
    except ImportError as error:
        raise MissingPackageError(
            "MLflow traces need the package mlflow, which is not installed",
            "pip install mlflow, or leave out as_mlflow=",
        ) from error
    traces = []
    for text in result.mlflow_json():
        message = service_pb2.Trace()
        parse_dict(json.loads(text), message)  # type: ignore[no-untyped-call]
        traces.append(Trace.from_proto(message))
    return traces
