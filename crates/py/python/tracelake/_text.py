"""Text that others wrote, made fit to be shown."""

from __future__ import annotations

# More than any message says; texts of traces and statements may be as long as they like.
LONGEST = 10_000


def printable(text: str) -> str:
    """On one line, without what a terminal acts on, and not endless."""
    cut = text[:LONGEST]
    shown = cut if cut.isprintable() else "".join(map(_printable, cut))
    return shown if len(text) <= LONGEST else f"{shown}... ({len(text)} characters)"


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
