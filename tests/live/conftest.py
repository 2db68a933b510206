"""A rackflow over the session's lab: the real thing, brought up by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cloud import Cloud, cloud
from tests.labs import Lab


@pytest.fixture(scope="session")
def front_end(lab: Lab) -> Iterator[Cloud]:
    """Its hosts enrolled and images imported; reconciles every 15 s, so that tests need not wait for a minute."""
    base = Path("/var/tmp/rackflow-test")
    with cloud(base=base, lab_dir=lab.dir, reconcile_every_s="15", domain_type="qemu") as found:
        yield found
