"""The garbage collector, left alone while very many objects are made that all live on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for: a hundred thousand new objects, none of them garbage, would call for it in vain.

    Counts for the whole process, so for short work only; may be entered again inside.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
