"""Which hosts a lab has: "kvm:2 lxd:2" becomes h1 h2 (libvirt) h3 h4 (LXD); kept in LAB_DIR/lab.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

from core.errors import Invalid, NotFound
from lab.settings import LabSettings

Kind = Literal["kvm", "lxd"]
MAX_HOSTS = 50  # addresses .11 to .60; lxcbr0 networks 21 to 70; VMs begin at .100


@dataclass(frozen=True)
class LabHost:
    """One host; all its names and addresses follow from the number."""

    number: int
    kind: Kind

    @property
    def name(self) -> str:
        return f"h{self.number}"

    @property
    def netns(self) -> str:
        return f"rf{self.name}"

    @property
    def last_octet(self) -> int:
        return 10 + self.number


@dataclass(frozen=True)
class Topology:
    """The lab's hosts. complete: `up` came to its end."""

    hosts: tuple[LabHost, ...]
    complete: bool = False

    def host(self, name: str) -> LabHost:
        """Return a host by name. Raise NotFound."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts) or "no hosts at all"
        raise NotFound(f"the lab has no host {name}", f"host/{name}", fix=f"it has {known}")


def parse(words: Sequence[str]) -> Topology:
    """Read ["kvm:2", "lxd:2"]. Raise Invalid."""
    hosts: list[LabHost] = []
    for word in words:
        kind, _, count = word.partition(":")
        if kind not in ("kvm", "lxd") or not (count or "1").isdigit():
            raise Invalid(f"{word!r} is not a kind of host and a number", fix="write for example kvm:2 lxd:2")
        hosts += [LabHost(len(hosts) + i, cast(Kind, kind)) for i in range(1, int(count or "1") + 1)]
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise Invalid(f"a lab has 1 to {MAX_HOSTS} hosts, not {len(hosts)}", fix="write for example kvm:2 lxd:2")
    return Topology(tuple(hosts))


def save(settings: LabSettings, topology: Topology) -> None:
    """Write LAB_DIR/lab.json."""
    (settings.dir / "lab.json").write_text(json.dumps(asdict(topology)) + "\n")


def read(settings: LabSettings) -> Topology:
    """Return what `save` wrote; no hosts when there is no lab or its file is torn."""
    try:
        data = json.loads((settings.dir / "lab.json").read_text())
        return Topology(tuple(LabHost(**host) for host in data["hosts"]), bool(data["complete"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Topology(())
