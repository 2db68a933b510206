"""Packages that bring drivers, as pip lays them out, in a folder for PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

SIMULATED = '''
"""Simulated hosts, as a package brings them."""
from dataclasses import replace

from drivers import fake_host

CONTRACT = 1
OWN_TRANSPORT = True


async def connect(endpoint, settings):
    return replace(await fake_host.connect(endpoint, settings), kind="acme")
'''


def install(site: Path, name: str, module: str, text: str) -> None:
    """Lay a package with one driver out as pip does."""
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rackflow.drivers]\n{name} = {module}\n")
