"""What this process remembers of what it enabled, by place: it is what later calls mean that name neither
table nor experiment."""

from __future__ import annotations

from tracelake import _place
from tracelake._tracelake import Archive

# The table that archival was last enabled to, and by table the experiments that were bound to it, names
# by id.
_tables: dict[str, str] = {}
_experiments: dict[str, dict[str, dict[str, str]]] = {}
# The table that every experiment is bound to that MLflow's client chooses (tracelake.mlflow).
_followed: dict[str, str] = {}


def enabled_table(archive: Archive) -> str | None:
    """The table that this process enabled archival to."""
    return _tables.get(_place.key(archive))


def enable_table(archive: Archive, table: str) -> None:
    """Notes that archival was enabled to it."""
    _tables[_place.key(archive)] = table


def bind(archive: Archive, table: str, experiment_id: str, name: str) -> None:
    """Notes that the experiment was bound to the table, and so to no other."""
    unbind(archive, experiment_id)
    _experiments.setdefault(_place.key(archive), {}).setdefault(table, {})[experiment_id] = name


def unbind(archive: Archive, experiment_id: str) -> None:
    """Notes that the experiment is bound to no table."""
    for bound in list(_experiments.get(_place.key(archive), {}).values()):
        bound.pop(experiment_id, None)


def is_bound(archive: Archive, table: str, experiment_id: str) -> bool:
    """Whether this process bound the experiment to the table, and did not unbind it since."""
    return experiment_id in _bound(archive, table)


def bound_experiments(archive: Archive, table: str | None) -> list[str]:
    """Names of the experiments that this process bound to the table."""
    return list(_bound(archive, table).values())


def follow(archive: Archive, table: str) -> None:
    """Notes that experiments that MLflow's client chooses go to the table, until it is disabled."""
    _followed[_place.key(archive)] = table


def followed_table(archive: Archive) -> str | None:
    """The table that they go to."""
    return _followed.get(_place.key(archive))


def unfollow(archive: Archive) -> None:
    """Forgets it."""
    _followed.pop(_place.key(archive), None)


def follow_nothing() -> None:
    """Forgets those of all places."""
    _followed.clear()


def disable_table(archive: Archive) -> None:
    """Forgets the table that archival was enabled to, unless an experiment is bound to it."""
    if not _bound(archive, enabled_table(archive)):
        _tables.pop(_place.key(archive), None)


def forget(archive: Archive) -> None:
    """Forgets a place that is no more."""
    place = _place.key(archive)
    for known in (_tables, _experiments, _followed):
        known.pop(place, None)


def _bound(archive: Archive, table: str | None) -> dict[str, str]:
    return _experiments.get(_place.key(archive), {}).get(table or "", {})
