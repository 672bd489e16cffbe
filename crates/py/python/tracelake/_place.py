"""Where calls go: a service, a data folder, or one table's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tracelake._tracelake import Archive

URI_VARIABLE = "TRACELAKE_URI"
DATA_DIR_VARIABLE = "TRACELAKE_DATA_DIR"
DEFAULT_DATA_DIR = "./tracelake-data"

# Limits of questions that are answered in this process. A service has its own.
_MEMORY_BYTES = 4 << 30
_SECONDS = 3600.0


class Served(Protocol):
    """A service of this process."""

    @property
    def uri(self) -> str:
        """Its address."""
        ...


_chosen: str | None = None
_services: list[Served] = []


def set_uri(uri: str | os.PathLike[str] | None) -> None:
    """Chooses where calls go from now on.

    Args:
        uri: Address of a service (``http://127.0.0.1:5000``), a data folder, or the folder of one Delta
            table. ``None`` goes back to what the environment says.
    """
    global _chosen
    if uri is None:
        _chosen = None
        return
    text = _absolute(os.fsdecode(uri))
    _open(text)
    _chosen = text


def get_uri() -> str:
    """Where calls go.

    The first of: ``set_uri``, the service that ``serve`` started in this process, the environment's
    ``TRACELAKE_URI``, its ``TRACELAKE_DATA_DIR``, ``./tracelake-data``.
    """
    return _open(_current()).uri


def archive(uri: str | os.PathLike[str] | None) -> Archive:
    """The archive that a call is for."""
    return _open(_absolute(_current() if uri is None else os.fsdecode(uri)))


def key(archive: Archive) -> str:
    """The same for every way to write a place. This machine is one host by each of its usual names."""
    if not archive.is_service:
        return os.path.realpath(archive.uri)
    # As the native part writes it: host in lower case, no password, no port that is the usual one.
    parts = urlsplit(archive.uri)
    host = "localhost" if parts.hostname in ("127.0.0.1", "::1") else parts.hostname
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def data_dir() -> str:
    """The data folder where none is named."""
    return os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR


def started(service: Served) -> None:
    """Notes a service of this process, whose address is the default."""
    _services.append(service)


def stopped(service: Served) -> None:
    """Forgets it."""
    if service in _services:
        _services.remove(service)


def _current() -> str:
    if _chosen is not None:
        return _chosen
    if _services:
        # In a forked child as well: the parent's service answers it.
        return _services[-1].uri
    return os.environ.get(URI_VARIABLE) or data_dir()


def _absolute(uri: str) -> str:
    """A folder stays the same when the process goes to another one."""
    if not uri or "://" in uri or os.path.isabs(uri):
        return uri
    try:
        return str(Path(os.getcwd(), uri))
    except FileNotFoundError:
        return uri


def _open(uri: str) -> Archive:
    return Archive(uri, _MEMORY_BYTES, _SECONDS)
