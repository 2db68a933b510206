"""Whatever a test does: what placement keeps of hosts between two looks is what stands in the database."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa

from control import placing_book
from control.placing_book import Book


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, dict):  # what is nowhere is as good as not there
        found = {key: _plain(one) for key, one in value.items()}
        return {key: one for key, one in found.items() if not _is_nowhere(one)}
    return value


def _is_nowhere(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_nowhere, value.values()))
    return isinstance(value, list) and not any(value)


def differences(kept: Book, whole: Book) -> dict[str, tuple[Any, Any]]:
    """Return the parts of a book that are not as they were read anew."""
    pairs = {
        name: (_plain(getattr(kept, name)), _plain(getattr(whole, name)))
        for name in ("ids", "rows", "columns", "held", "held_cpu_m", "sizes", "reach", "own")
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@contextmanager
def checked() -> Iterator[None]:
    """Compare each book with the database when it is read; on SQLite, where a transaction sees one moment."""
    read = placing_book.read

    def compared(c: sa.Connection) -> Book:
        book = read(c)
        if c.dialect.name == "sqlite":
            found = differences(book, placing_book.whole(c, book.ids))
            assert not found, f"a host changed without a new mark (control/marks.py): {found}"
        return book

    placing_book.read = compared
    try:
        yield
    finally:
        placing_book.read = read
