"""A small cloud in the record, in memory."""

from __future__ import annotations

import pytest

from tests.rig import Rig, in_memory


@pytest.fixture
def rig() -> Rig:
    return Rig(in_memory())


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    """Two hosts of 4 cores and 4 GiB, the network lan, the image tiny."""
    rig.network()
    rig.image()
    rig.host("h1")
    rig.host("h2")
    return rig
