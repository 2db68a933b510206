"""SSH connections to a server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings import DriverSettings
from drivers.transport.base import Endpoint, Transport
from drivers.transport.ssh import connect
from tests.contract.transport import TransportContract, TransportRig
from tests.integration.sshd import sshd


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with sshd(tmp_path) as found:
        yield found


@pytest.fixture
async def transport(endpoint: Endpoint) -> AsyncIterator[Transport]:
    found = await connect(endpoint, DriverSettings())
    yield found
    await found.close()


class TestSshTransport(TransportContract):
    """The suite of all transports."""

    @pytest.fixture
    def rig(self, transport: Transport, tmp_path: Path) -> TransportRig:
        return TransportRig(transport, str(tmp_path), transport.endpoint.port)
