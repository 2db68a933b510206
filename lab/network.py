"""The lab's wires: a switch in a namespace, two networks, and a way in from this machine.

management 198.18.16.0/24: this machine .1 (rfctl0), host hN .(10+N) on mgmt0: ssh.
data       198.18.17.0/24: this machine .1 (rfctl1), host hN .(10+N) on br0; VMs on br0 from .100.
containers 198.18.(20+N).0/24 behind lxcbr0 of hN, routed by way of the host.
Hosts have no default route: nothing can be reached but the lab.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab.settings import SWITCH, LabSettings
from lab.shell import ip, run
from lab.topology import LabHost, Topology

_NETWORKS = ("mgmt", "data")


def switch_up(settings: LabSettings, topology: Topology) -> None:
    """Make the switch and this machine's two ports, and the routes to the hosts' containers."""
    ip(f"netns add {SWITCH}")
    ip("link set lo up", netns=SWITCH)
    _bridges_without_firewall(SWITCH)
    for number, network in enumerate(_NETWORKS):
        ip(f"link add rf{network} type bridge", f"link set rf{network} up", netns=SWITCH)
        ip(f"link add rfctl{number} type veth peer name ctl{number} netns {SWITCH}")
        ip(f"link set ctl{number} master rf{network} up", netns=SWITCH)
    ip(f"addr add {settings.management(1)}/24 dev rfctl0", "link set rfctl0 up")
    ip(f"addr add {settings.data(1)}/24 dev rfctl1", "link set rfctl1 up")
    for host in topology.hosts:
        ip(f"route add {_containers_of(settings, host)} dev rfctl0")


def switch_down() -> None:
    """Take the switch away; routes and addresses go with the ports."""
    for number in range(len(_NETWORKS)):
        ip(f"link del rfctl{number}", check=False)
    ip(f"netns del {SWITCH}", check=False)


def plug_in(settings: LabSettings, host: LabHost, topology: Topology) -> None:
    """Make a host's network namespace and wire it to the switch.

    The ports are hN-mgmt and hN-data in the switch: `lab cut h2` takes h2-mgmt down. MAC addresses are
    fixed, so a host that boots again does not upset the others' ARP tables.
    """
    ip(f"netns add {host.netns}")
    ip("link set lo up", netns=host.netns)
    for number, network in enumerate(_NETWORKS):
        ip(
            f"link add {host.name}-{network} type veth peer name {network}0 address {_mac(host, number)} "
            f"netns {host.netns}",
            f"link set {host.name}-{network} master rf{network} up",
            netns=SWITCH,
        )
    ip(
        "link set mgmt0 up",
        f"addr add {settings.management(host.last_octet)}/24 dev mgmt0",
        f"link add br0 address {_mac(host, 1)} type bridge",
        "link set data0 up master br0",
        "link set br0 up",
        f"addr add {settings.data(host.last_octet)}/24 dev br0",
        *(f"route add {_containers_of(settings, other)}" for other in topology.hosts if other != host),
        netns=host.netns,
    )
    _bridges_without_firewall(host.netns)
    run(["ip", "netns", "exec", host.netns, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def unplug(host: LabHost) -> None:
    """Take away a host's network namespace and its ports, if there are any."""
    for network in _NETWORKS:
        ip(f"link del {host.name}-{network}", netns=SWITCH, check=False)
    ip(f"netns del {host.netns}", check=False)


def cut(host: LabHost, *, off: bool) -> None:
    """Take a host's port of the management network down, or up again."""
    ip(f"link set {host.name}-{_NETWORKS[0]} {'down' if off else 'up'}", netns=SWITCH)


def is_cut(host: LabHost) -> bool:
    """Say whether that port is down."""
    up = run(["ip", "-n", SWITCH, "-json", "link", "show", f"{host.name}-{_NETWORKS[0]}"], check=False)
    return bool(up) and "UP" not in json.loads(up)[0]["flags"]


def exists(netns: str) -> bool:
    """Is there a network namespace by that name?"""
    return Path("/run/netns", netns).exists()


def _containers_of(settings: LabSettings, host: LabHost) -> str:
    return f"{settings.containers(host.number)} via {settings.management(host.last_octet)}"


def _mac(host: LabHost, network: int) -> str:
    return f"02:52:46:00:{network:02x}:{host.number:02x}"


def _bridges_without_firewall(netns: str) -> None:
    """Keep this machine's br_netfilter (docker loads it) from filtering what the lab's bridges carry."""
    names = ("iptables", "ip6tables", "arptables")
    words = [f"net.bridge.bridge-nf-call-{name}=0" for name in names]
    run(["ip", "netns", "exec", netns, "sysctl", "-qw", *words], check=False)
