"""Relay frames between one host's switch port and the management network, later, fewer and slower than they came.

    relay.py HOST ONE_WAY_MS LOSS_PERCENT RATE_KBIT      (inside the switch's namespace; lab/delay.py starts it)

For kernels without tc netem. The host's port moves to a bridge of its own; two TAP devices join that to rfmgmt. SIGTERM
puts the port back. Loss and rate count per direction. Measured for 75 ms: ping 150.5-157 ms. Standard library only.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from types import FrameType

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h


class Line:
    """Two ends, and the frames on their way between them."""

    def __init__(self, ends: tuple[int, int], delay_s: float, loss_ratio: float, bytes_per_s: float) -> None:
        self.other = {ends[0]: ends[1], ends[1]: ends[0]}
        self.free_at = dict.fromkeys(ends, 0.0)  # when the line can take the next frame from that end
        self.delay_s, self.loss_ratio, self.bytes_per_s = delay_s, loss_ratio, bytes_per_s
        self.on_the_way: list[tuple[float, int, int, bytes]] = []  # due, order, to, frame
        self.count = 0

    def run(self) -> None:
        """Relay until the process ends."""
        while True:
            wait = max(0.0, self.on_the_way[0][0] - time.monotonic()) if self.on_the_way else None
            for end in select.select(list(self.other), [], [], wait)[0]:
                self._take(end)
            self._deliver()

    def _take(self, end: int) -> None:
        while True:
            try:
                frame = os.read(end, 65536)
            except BlockingIOError:
                return
            at = time.monotonic()
            if self.loss_ratio and random.random() < self.loss_ratio:
                continue
            if self.bytes_per_s:
                at = self.free_at[end] = max(at, self.free_at[end]) + len(frame) / self.bytes_per_s
            self.count += 1
            heapq.heappush(self.on_the_way, (at + self.delay_s, self.count, self.other[end], frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self.on_the_way and self.on_the_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(self.on_the_way)
            try:
                os.write(end, frame)
            except OSError:
                continue  # the port is down: a frame is lost, as on a cable


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


def _ip(*commands: str, check: bool = True) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=check)


def main() -> None:
    """Insert the line, relay, take it out at SIGTERM."""
    host, delay_ms, loss_percent, rate_kbit = sys.argv[1], *map(float, sys.argv[2:5])
    own = f"rfd-{host}"

    def stop(_signal: int, _frame: FrameType | None) -> None:
        _ip(f"link set {host}-mgmt master rfmgmt", f"link del {own}", check=False)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ends = (_tap(f"{host}-da"), _tap(f"{host}-db"))
    _ip(
        f"link add {own} type bridge", f"link set {own} up", f"link set {host}-mgmt master {own}",
        f"link set {host}-da master {own} up", f"link set {host}-db master rfmgmt up",
    )  # fmt: skip
    print("relaying", flush=True)
    Line(ends, delay_ms / 1000, loss_percent / 100, rate_kbit * 125).run()


if __name__ == "__main__":
    main()
