"""The real services of bare metal, once for all tests that ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.baremetal.services import FIX, Machine, Services, is_installed

MACHINES = [
    Machine(f"m{n}", f"11111111-2222-4333-8444-{n:012}", f"52:54:00:bb:00:{n:02x}", on=True) for n in range(1, 9)
]


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Ironic, Inspector and an emulated BMC with MACHINES."""
    if not is_installed():
        pytest.skip(f"no Ironic here: {FIX}")
    found = Services(tmp_path_factory.mktemp("services"), MACHINES)
    try:
        found.start()
        yield found
    finally:
        found.stop()
