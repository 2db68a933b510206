"""A rackflow over the session's lab."""

from __future__ import annotations

from tests.live.conftest import front_end

__all__ = ["front_end"]
