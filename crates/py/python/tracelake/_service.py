"""A service in this process, for notebooks and tests."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Mapping
from types import TracebackType

from tracelake import _place, _state
from tracelake._tracelake import EmbeddedService
from tracelake.errors import InvalidArgumentError

__all__ = ["Service", "serve"]


class Service:
    """A running service. Ends with ``stop``, with its ``with`` block, or with the process."""

    def __init__(self, native: EmbeddedService) -> None:
        self._native = native

    @property
    def uri(self) -> str:
        """Address for MLflow clients, OTLP over HTTP, and calls of this package."""
        return f"http://{self._native.http}"

    @property
    def otlp_grpc(self) -> str:
        """Address for OTLP over gRPC, as ``HOST:PORT``."""
        return self._native.otlp_grpc

    @property
    def data_dir(self) -> str:
        """Folder of journal, registry and tables."""
        return os.fspath(self._native.data_dir)

    @property
    def is_running(self) -> bool:
        """Whether it serves."""
        return self._native.is_running

    def stop(self) -> None:
        """Commits what has settled and ends the service. What was acknowledged is never lost: the rest
        is in the journal, and the next service on the folder commits it."""
        atexit.unregister(self.stop)
        _place.stopped(self)
        # The next service at this address may be another archive.
        _state.forget(_place.archive(self.uri))
        self._native.stop()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<tracelake service at {self.uri} on {self.data_dir!r}, {state}>"


def serve(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    listen: str = "127.0.0.1:0",
    otlp_grpc: str = "127.0.0.1:0",
    **settings: str | int | os.PathLike[str] | dict[str, str],
) -> Service:
    """Starts a service in this process and returns when it answers.

    Calls of this package go to it from then on, unless ``set_uri`` chose another place. For MLflow:
    ``mlflow.set_tracking_uri(service.uri)``.

    Args:
        data_dir: Folder of the archive, created if it is not there. By default
            ``TRACELAKE_DATA_DIR``, or ``./tracelake-data``.
        listen: Address of HTTP; port 0 takes a free one.
        otlp_grpc: Address of OTLP over gRPC, likewise.
        settings: Other settings by the names of ``tracelake.toml``, such as ``settle_after="1s"``.

    Raises:
        ConflictError: a service runs on the folder already.
        InvalidArgumentError: a setting makes no sense.
    """
    folder = _place.data_dir() if data_dir is None else os.fsdecode(data_dir)
    service = Service(EmbeddedService(folder, listen, otlp_grpc, _toml(settings)))
    atexit.register(service.stop)
    _place.started(service)
    return service


def _toml(settings: Mapping[str, object]) -> str:
    """A table stands behind all else."""
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    lines = [_line(key, value) for key, value in settings.items() if key not in tables]
    for name, table in tables.items():
        lines.append(f"[{_text(name)}]")
        lines.extend(_line(key, value) for key, value in table.items())
    return "\n".join(lines)


def _line(key: str, value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, (str, int)):
        raise InvalidArgumentError(
            f"setting {key!r}: {value!r} is neither text nor a whole number",
            'times and sizes are texts, such as "2s" and "64MiB"; leave out what is to be as usual',
        )
    return f"{_text(key)} = {_text(value) if isinstance(value, str) else json.dumps(value)}"


def _text(text: str) -> str:
    """JSON's texts are TOML's, but for surrogates, which TOML does not know."""
    return json.dumps(text, ensure_ascii=False)
