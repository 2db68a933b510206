"""The driver in docs/drivers.md: installed as a package, and put through the kit over SSH on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from drivers.identity import show
from tests.integration.sshd import sshd
from tests.packages import install

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "drivers.md").read_text()


async def rackflow(site: Path, data: Path, *words: str) -> tuple[int, str, str]:
    """Run the command line with packages from a folder."""
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "clients" / "cli")])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rackflow_cli.main", *words, stdout=asyncio.subprocess.PIPE, cwd=data,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "RACKFLOW_DATA_DIR": str(data)},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_driver_in_the_page_passes_the_kit(tmp_path: Path) -> None:
    text = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]
    site, store, own = tmp_path / "site", tmp_path / "store", tmp_path / "instances"
    install(site, "process", "acme_process", text.replace("/var/lib/acme-process", str(own)))
    async with sshd(tmp_path) as endpoint:
        key = await show("", endpoint.address, endpoint.port)
        code, out, err = await rackflow(
            site, tmp_path, "driver", "test", "process", "--host", f"root@{endpoint.address}:{endpoint.port}",
            "--key", str(endpoint.key_file), "--fingerprint", key.fingerprint, "--datastore", str(store),
            "--family", "hypervisor", "-o", "json",
        )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    verdicts = {row["verb"]: row["verdict"] for row in report["rows"]}
    life = ("define", "start", "stop", "undefine", "observe", "instances", "capacity", "capabilities")
    assert {verdicts[verb] for verb in life} == {"proven"}
    assert {verdicts[verb] for verb in ("exec", "snapshot", "migrate_live")} == {"unsupported"}
    assert (report["driver"], report["package"]) == ("process", "acme_process 1.0")
    ended = {one["case"]: one["verdict"] for one in report["outcomes"]}
    assert ended["all verbs in any order with faults"] == "proven"
    assert [path for path in own.iterdir() if path.suffix == ".json"] == []
    shutil.rmtree(store)


BROKEN = {
    "broken": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "wrong": ("def connect(): ...", "no `async def connect"),
    "old": ("CONTRACT = 0\nasync def connect(endpoint, settings): ...", "written for contract 0"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, (text, _) in BROKEN.items():
        install(tmp_path, name, f"acme_{name}", text)
    install(tmp_path, "kvm", "acme_kvm", "")
    return tmp_path


async def test_drivers_that_cannot_be_loaded_are_told_and_trouble_nobody(site: Path) -> None:
    code, out, err = await rackflow(site, site, "driver", "list", "-o", "json")
    assert code == 0, err
    found: dict[str, Any] = {one["name"]: one for one in json.loads(out)}
    for name, (_, reason) in BROKEN.items():
        assert reason in found[name]["error"]
        code, _, err = await rackflow(site, site, "driver", "test", name, "--host", "h1")
        assert code == 1
        assert reason in err
    assert found["kvm"]["package"] == "rackflow"
    assert "rackflow's own" in found["kvm (acme_kvm 1.0)"]["error"]
    code, _, err = await rackflow(site, site, "driver", "test", "fake", "--case", "a life", "-o", "json")
    assert code == 0, err
