"""What libvirt says, in our words: errors, statistics, the guest agent's answers, the probe of KVM."""

from __future__ import annotations

import base64
from typing import Any

import libvirt
import pytest

from core import errors
from core.states import InstanceKind, PowerState
from drivers.hypervisor.accelerator import KERNEL, judge, probe_argv, rom
from drivers.hypervisor.base import ExecResult
from drivers.hypervisor.domain import domain_uuid
from drivers.hypervisor.domain_calls import is_working
from drivers.hypervisor.domain_stats import observed
from drivers.hypervisor.guest_agent import result, start_request
from drivers.hypervisor.libvirt_errors import translate
from drivers.transport.base import Result

ID = "06h0fb767w34khybzh0h"
NAME, UUID = f"rf-{ID}", domain_uuid(ID)


def seen(code: int, text: str) -> libvirt.libvirtError:
    """Return an error as libvirt-python gives it: code, domain, message, …"""
    error = libvirt.libvirtError(text)
    error.err = (code, libvirt.VIR_FROM_QEMU, text, 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        # code and text as libvirt 9.0.0 gave them
        (libvirt.VIR_ERR_NO_DOMAIN, "Domain not found: no domain with matching name 'x'", errors.NotFound),
        (libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is already running",
         errors.Conflict),
        (libvirt.VIR_ERR_OPERATION_FAILED, "operation failed: domain 'x' already exists with uuid 1", errors.Conflict),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT,
         "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainCreate)",
         errors.Busy),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: QEMU guest agent is not connected",
         errors.Busy),
        (libvirt.VIR_ERR_RPC, "internal error: client socket is closed", errors.Unreachable),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "End of file while reading data: Input/output error", errors.Unreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: client socket is closed", errors.Unreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR,
         "internal error: process exited while connecting to monitor: cannot set up guest memory 'pc.ram': "
         "Cannot allocate memory", errors.NoCapacityNow),
        (libvirt.VIR_ERR_SYSTEM_ERROR,
         "Cannot access storage file '/x/root.qcow2' (as uid:64055, gid:106): No such file or directory",
         errors.HostFault),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot get interface MTU on 'br9': No such device", errors.HostFault),
        (libvirt.VIR_ERR_INTERNAL_ERROR,
         "internal error: Unable to find any usable hugetlbfs mount for 1048576 KiB", errors.HostFault),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: NUMA node 1 is unavailable", errors.HostFault),
        (libvirt.VIR_ERR_SYSTEM_ERROR,
         "Unable to write to '/sys/fs/cgroup/cpuset/machine/qemu-3-x.libvirt-qemu/emulator/cpuset.cpus': "
         "Numerical result out of range", errors.HostFault),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
         "unsupported configuration: host doesn't support passthrough of host PCI devices", errors.HostFault),
        (libvirt.VIR_ERR_XML_ERROR, "XML error: no OS type", errors.Invalid),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: spice graphics", errors.Unsupported),
        (libvirt.VIR_ERR_INVALID_ARG, "invalid argument: invalid path vdb not assigned to domain", errors.Busy),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: backup job data missing", errors.Busy),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Unable to read from monitor: Connection reset by peer", errors.Busy),
        (libvirt.VIR_ERR_OPERATION_ABORTED, "operation aborted: migration out job: canceled by client", errors.Busy),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: something new", errors.HostFault),
    ],
)  # fmt: skip
def test_errors(code: int, text: str, kind: type[errors.RackflowError]) -> None:
    found = translate(seen(code, text), "instance/x", "starting x")
    assert type(found) is kind
    assert found.message == f"starting x: {text}"
    assert (found.subject, found.evidence["libvirt_code"]) == ("instance/x", code)


class Jobs:
    """A domain whose job is asked for."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def jobInfo(self) -> list[int]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer]


@pytest.mark.parametrize(
    ("answer", "working"),
    [
        (libvirt.VIR_DOMAIN_JOB_NONE, False),
        (libvirt.VIR_DOMAIN_JOB_UNBOUNDED, True),
        (seen(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: backup job data missing"), True),
    ],
)
def test_a_job_without_figures_is_one(answer: Any, working: bool) -> None:
    assert is_working(Jobs(answer)) is working


def test_what_cannot_be_asked_for_its_job_says_so() -> None:
    with pytest.raises(libvirt.libvirtError):
        is_working(Jobs(seen(libvirt.VIR_ERR_NO_DOMAIN, "Domain not found")))


@pytest.mark.parametrize(
    ("state", "reason", "power", "words"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 1, PowerState.RUNNING, ""),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, PowerState.STOPPED, ""),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, PowerState.CRASHED, "its QEMU process died"),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, PowerState.RUNNING, ""),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, PowerState.PAUSED,
         "a disk failed or its datastore is full"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, PowerState.PAUSED, ""),
        (libvirt.VIR_DOMAIN_CRASHED, 0, PowerState.CRASHED, ""),
        (99, 0, PowerState.UNKNOWN, ""),
    ],
)  # fmt: skip
def test_power(state: int, reason: int, power: PowerState, words: str) -> None:
    found = observed(NAME, UUID, {"state.state": state, "state.reason": reason})
    assert (found.power, found.reason) == (power, words)


def test_usage_of_a_running_domain() -> None:
    stats = {
        "state.state": 1, "state.reason": 1, "cpu.time": 8_304_446_850, "balloon.current": 131072,
        "balloon.maximum": 131072, "balloon.rss": 180_000, "balloon.available": 104_000, "balloon.usable": 78_400,
        "vcpu.current": 2,
    }  # fmt: skip
    found = observed(NAME, UUID, stats)
    assert (found.instance_id, found.kind, found.cpus, found.memory_mib) == (ID, InstanceKind.VM, 2, 128)
    assert (found.cpu_seconds, found.memory_used_mib) == (8.30444685, 25)
    without_driver = {key: value for key, value in stats.items() if key not in ("balloon.usable", "balloon.available")}
    assert observed(NAME, UUID, without_driver).memory_used_mib == 175
    off = observed(NAME, UUID, {**stats, "state.state": 5})
    assert (off.cpu_seconds, off.memory_used_mib) == (None, None)


@pytest.mark.parametrize(
    ("name", "uuid"), [("web", UUID), (NAME, "6ba1c9de-9c2a-4f1c-9f55-0d8a6b7c2f10"), ("rf-x", UUID)]
)
def test_what_is_not_ours(name: str, uuid: str) -> None:
    assert observed(name, uuid, {"state.state": 1}).instance_id is None


def test_the_guest_agents_words() -> None:
    assert start_request(["echo", "a b"], b"") == {
        "execute": "guest-exec", "arguments": {"path": "echo", "arg": ["a b"], "capture-output": True},
    }  # fmt: skip
    assert start_request(["cat"], b"\x00hi")["arguments"]["input-data"] == base64.b64encode(b"\x00hi").decode()
    assert result({"exited": False}) is None
    done = {"exited": True, "exitcode": 3, "out-data": base64.b64encode(b"out\n").decode()}
    assert result(done) == ExecResult(3, "out\n", "")
    assert result({"exited": True, "signal": 9}) == ExecResult(137, "", "")


def test_the_probes_rom() -> None:
    image = rom()
    assert len(image) == 65536
    assert image.startswith(KERNEL)
    assert image[0xFFF0:0xFFF5].hex() == "ea000000f0"
    assert "pc,accel=kvm" in probe_argv("kvm", "host")


@pytest.mark.parametrize(
    ("code", "said", "domain_type", "why"),
    [
        (33, "", "kvm", "a tiny kernel booted under KVM"),
        (1, "Could not access KVM kernel module: No such file or directory\nqemu: failed to initialize kvm\n", "qemu",
         "Could not access KVM kernel module"),
        (134, "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69\n", "qemu", "failed to set MSR"),
        (124, "", "qemu", "exit code 124"),
    ],
)  # fmt: skip
def test_what_the_probe_proves(code: int, said: str, domain_type: str, why: str) -> None:
    found = judge(Result(("qemu",), code, "", said))
    assert found[0] == domain_type
    assert why in found[1]
