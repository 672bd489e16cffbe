"""Points in time as the native part has them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tracelake.errors import InvalidArgumentError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def micros(moment: datetime | None) -> int | None:
    """Microseconds since the Unix epoch, exactly. Without a time zone it is local time."""
    if moment is None:
        return None
    # pandas has a datetime that is none, and is not equal to itself.
    if not isinstance(moment, datetime) or moment != moment:
        raise InvalidArgumentError(f"{moment!r} is no datetime", "write datetime(2026, 11, 22, 10, 0)")
    if hasattr(moment, "to_pydatetime"):
        # pandas counts nanoseconds, and cannot tell the zone of local time.
        moment = datetime.combine(moment.date(), moment.timetz())
    if moment.tzinfo is None:
        try:
            moment = moment.astimezone()
        except (OverflowError, ValueError):
            # A day off the first or last year, where the zone makes no difference.
            moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // timedelta(microseconds=1)
