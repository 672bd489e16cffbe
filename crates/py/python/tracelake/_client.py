"""MLflow's client in this process. Imported only where MLflow is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tracelake._tracelake import Archive, QueryResult
from tracelake.errors import MissingPackageError

if TYPE_CHECKING:
    from mlflow.entities import Trace


class MlflowClient:
    """MLflow's client, which talks to the archive's service."""

    def chosen_experiment(self) -> str | None:
        """Id or name of the experiment that was chosen, in code or in the environment."""
        from mlflow.tracking import fluent

        chosen = getattr(fluent, "_active_experiment_id", None)
        variables = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
        return chosen or next(filter(None, map(os.environ.get, variables)), None)

    def choose_experiment(self, name: str) -> None:
        """Makes it the one that traces are logged to."""
        import mlflow

        mlflow.set_experiment(name)


def of(archive: Archive) -> MlflowClient | None:
    """The client, if its tracking URI is the archive's service."""
    import mlflow

    return MlflowClient() if mlflow.get_tracking_uri().rstrip("/") == archive.uri else None


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
