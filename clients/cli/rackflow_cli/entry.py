"""Where the script `rackflow` begins: while the rest is loaded, Ctrl-C ends it without a word."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line of this process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where it is ignored, as behind `nohup … &`
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rackflow_cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
