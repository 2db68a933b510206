"""The rackflow of benchmarks and live tests begins anew, whatever a run that was killed has left."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cloud import cloud
from tests.prefect.test_up import living

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
NETWORK = """\
networks:
- name: {name}
  bridge: br0
  subnet: 10.9.0.1/24
  ranges: [{{first: 10.9.0.10, last: 10.9.0.250}}]
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder whose name is the run folder's too, and that PostgreSQL's user can reach."""
    folder = Path("/var/tmp", f"rf-{secrets.token_hex(4)}")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(Path("/run", folder.name), ignore_errors=True)


def lab_with(network: str, folder: Path) -> Path:
    """Make what stands for a lab: no host, and a network."""
    (folder / "lab.yaml").write_text(NETWORK.format(name=network))
    return folder


def test_what_a_killed_run_left_is_taken_down_first(base: Path, tmp_path: Path) -> None:
    killed = cloud(base=base, lab_dir=lab_with("old", tmp_path))
    left = killed.__enter__().processes()
    assert living(left)
    with cloud(base=base, lab_dir=lab_with("new", tmp_path)) as after:
        assert living(left) == []
        assert [one["name"] for one in after.call("GET", "/v1/networks")] == ["new"]
    assert not base.exists()
    killed.__exit__(None, None, None)
