"""What can be wrong with a host that has its power: its line is cut, or it hangs and still takes connections."""

from __future__ import annotations

from core.errors import HostFault
from lab import cgroups, hosts, network
from lab.topology import LabHost


def cut(host: LabHost, *, off: bool) -> bool:
    """Take a host off the management network, or let it join again; False when it was so. A boot joins it again.

    Raise HostFault (it has no power).
    """
    if not network.exists(host.netns):
        raise HostFault(f"{host.name} has no power", f"host/{host.name}", fix=f"lab start {host.name}")
    if network.is_cut(host) is off:
        return False
    network.cut(host, off=off)
    return True


def freeze(host: LabHost, *, off: bool) -> bool:
    """Let no process of a host run, or all go on; False when it was so. Its kernel still takes connections."""
    groups = cgroups.detect()
    if cgroups.is_frozen(groups, host.name) is off:
        return False
    cgroups.freeze(groups, host.name, off=off)
    hosts.wait_until(lambda: cgroups.is_frozen(groups, host.name) is off)
    return True
