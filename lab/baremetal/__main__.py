"""python -m lab.baremetal SERVERS ROLE: keep a machine room up until a signal ends it."""

from __future__ import annotations

import signal
import sys
from threading import Event

from core.errors import RackflowError
from lab.baremetal.site import READY, Site, servers
from lab.settings import load

_ENDS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Start all of it, write where it is, wait for a signal, end all of it."""
    asked = Event()
    for one in _ENDS:  # from the first moment on; not blocked, for what is started here would inherit that
        signal.signal(one, lambda *_: asked.set())
    site = Site(load(), servers(int(sys.argv[1])), role=sys.argv[2])
    try:
        site.start()
        (site.dir / READY).write_text(site.describe() + "\n")
        print("ready", flush=True)
        asked.wait()
    except RackflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        (site.dir / READY).unlink(missing_ok=True)
        site.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
