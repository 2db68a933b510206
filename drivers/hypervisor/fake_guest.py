"""Inside simulated instances: commands, consoles, screens; and the adoption of those that somebody else made.

A guest has one file on its root disk (any path, but /dev/…: one in its memory), which is what `World.write` and
`World.remember` set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from secrets import token_hex

from core.errors import Conflict
from core.states import PowerState
from drivers.fake_things import FakeHost, FakeInstance
from drivers.hypervisor.base import ExecResult, InstanceSpec
from drivers.hypervisor.fake_part import FakePart, found, that_runs
from drivers.hypervisor.powers import (
    Adopts,
    ConsoleLogs,
    Consoles,
    Displays,
    Executes,
    Found,
    ScreenTicket,
    Tickets,
)
from drivers.transport.base import ByteStream

Program = Callable[[FakeHost, FakeInstance, Sequence[str], bytes], ExecResult]
IN_MEMORY = "/dev/"


def _tee(host: FakeHost, instance: FakeInstance, argv: Sequence[str], stdin: bytes) -> ExecResult:
    text, root = stdin.decode(), next(host.disks(instance), None)
    if argv[1].startswith(IN_MEMORY):
        instance.memory = text
    elif root is not None:
        root.content = text
    else:
        return ExecResult(1, text, f"tee: {argv[1]}: Read-only file system\n")
    return ExecResult(0, text, "")


def _cat(host: FakeHost, instance: FakeInstance, argv: Sequence[str], stdin: bytes) -> ExecResult:
    if len(argv) == 1:
        return ExecResult(0, stdin.decode(), "")
    root = next(host.disks(instance), None)
    text = instance.memory if argv[1].startswith(IN_MEMORY) else root.content if root else ""
    return ExecResult(0, text, "") if text else ExecResult(1, "", f"cat: {argv[1]}: No such file or directory\n")


PROGRAMS: dict[str, Program] = {
    "true": lambda host, instance, argv, stdin: ExecResult(0, "", ""),
    "sync": lambda host, instance, argv, stdin: ExecResult(0, "", ""),
    "false": lambda host, instance, argv, stdin: ExecResult(1, "", ""),
    "echo": lambda host, instance, argv, stdin: ExecResult(0, " ".join(argv[1:]) + "\n", ""),
    "hostname": lambda host, instance, argv, stdin: ExecResult(0, instance.name + "\n", ""),
    "tee": _tee,
    "cat": _cat,
}  # what can be run inside an instance


class FakeExecutes(FakePart, Executes):
    """Run what PROGRAMS names."""

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        async with self.call("exec") as host:
            found(host, name)
            instance = that_runs(host, name, paused=False)
            program = PROGRAMS.get(argv[0])
            if program is None:
                return ExecResult(127, "", f"{argv[0]}: not found\n")
            return program(host, instance, argv, stdin)


class FakeConsoleLogs(FakePart, ConsoleLogs):
    """The log says when it booted and ended."""

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        async with self.call("console_log") as host:
            return "".join(line + "\n" for line in found(host, name).console)[-max_bytes:]


class FakeConsoles(FakePart, Consoles):
    """A console that echoes."""

    @asynccontextmanager
    async def console(self, name: str) -> AsyncIterator[ByteStream]:
        async with self.call("console") as host:
            that_runs(host, name)
        async with self.transport.stream(f"{name} login: ".encode(), lambda typed: typed) as stream:
            yield stream


class FakeDisplays(FakePart, Displays):
    """A screen that says which protocol it speaks, and no more."""

    @asynccontextmanager
    async def display(self, name: str) -> AsyncIterator[ByteStream]:
        async with self.call("display") as host:
            that_runs(host, name)
        async with self.transport.stream(b"RFB 003.008\n", lambda sent: b"") as stream:
            yield stream


class FakeTickets(FakePart, Tickets):
    """Tickets to a place where nobody listens."""

    async def ticket(self, name: str) -> ScreenTicket:
        async with self.call("ticket") as host:
            that_runs(host, name)
            return ScreenTicket("fake", f"wss://{host.name}.invalid/ticket/{token_hex(8)}", "00:" * 19 + "00")


class FakeAdopts(FakePart, Adopts):
    """Adoption of what FakeHost.add_foreign put there."""

    async def describe(self, name: str) -> Found:
        async with self.call("describe") as host:
            instance = found(host, name)
            what = instance.what or InstanceSpec("", name, name, instance.kind, 1, 64, (), ())
            return Found(
                name, instance.kind, instance.power, what.cpu, what.memory_mib, what.disks, what.nics,
                instance.problems,
            )  # fmt: skip

    async def adopt(self, name: str, instance_id: str) -> bool:
        async with self.call("adopt") as host:
            instance = found(host, name)
            if instance.spec is not None:
                if instance.spec.id == instance_id and instance.foreign is not None:
                    return False
                raise Conflict(f"host {host.name}: {name} is ours already", f"instance/{instance.spec.id}")
            if instance.problems:
                reasons = "; ".join(instance.problems)
                raise Conflict(f"host {host.name}: {name} cannot be adopted: {reasons}", f"instance/{instance_id}")
            what = instance.foreign or InstanceSpec("", name, name, instance.kind, 1, 64, (), ())
            instance.foreign, instance.spec = what, replace(what, id=instance_id)
            if instance.power is PowerState.RUNNING:
                instance.active = instance.spec
            return True

    async def disown(self, name: str) -> bool:
        async with self.call("disown") as host:
            instance = host.instances.get(name)
            if instance is None or instance.spec is None or instance.foreign is None:
                return False
            instance.spec, instance.active = None, instance.foreign if instance.is_on else None
            return True
