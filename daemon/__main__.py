"""`python -m daemon VERB`: for people up, down, status, logs; for the supervisor the processes themselves."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from core.errors import RackflowError
from core.settings import Settings

_FLAGS = {  # setting -> what its value is, what it is for
    "data_dir": ("DIR", "what must survive: state, history, images, keys, logs"),
    "run_dir": ("DIR", "sockets and pid files"),
    "database_url": ("URL", "state database, where it is not SQLite in the data folder"),
    "api_port": ("PORT", "of the API; auto: a free one"),
    "prefect_port": ("PORT", "of Prefect's server; auto: a free one"),
}
_FOR_PEOPLE = ("up", "down", "status", "logs")
_PROCESSES = {  # verb -> the module whose run(settings) is the process
    "record": "daemon.record",
    "prefect": "daemon.prefect_server",
    "analytics": "daemon.analytics_owner",
    "api": "daemon.api_server",
    "worker": "daemon.worker",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rackflow", description="the processes of a front-end")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=f"{{{','.join(_FOR_PEOPLE)}}}")
    up = verbs.add_parser("up", help="start the front-end; in the foreground until Ctrl-C, unless --detach")
    up.add_argument("--detach", action="store_true", help="return when everything is ready")
    up.add_argument("--only", metavar="NAMES", help="only these processes, separated by commas (tests, repairs)")
    up.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    verbs.add_parser("down", help="end the front-end")
    status = verbs.add_parser("status", help="show the processes and addresses")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print")
    logs = verbs.add_parser("logs", help="show the logs of one process, or of all")
    logs.add_argument("process", nargs="?", metavar="PROCESS", help="by default all")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="the last N lines of each; 100")
    for verb in _PROCESSES:
        verbs.add_parser(verb)  # started by up; not for people
    for sub in verbs.choices.values():
        for flag, (value, words) in _FLAGS.items():
            sub.add_argument(f"--{flag.replace('_', '-')}", metavar=value, help=words)
    return parser


def _local(arguments: argparse.Namespace, settings: Settings, flags: list[str]) -> int:
    if arguments.verb == "up":
        from daemon.up import detach, up

        only = arguments.only.split(",") if arguments.only else []
        again = [*flags, f"--only={arguments.only}"] if only else flags
        if arguments.detach:
            return detach(settings.paths, again)
        return up(settings, detached=arguments.detached, only=only)
    if arguments.verb == "down":
        from daemon.up import down

        return down(settings.paths)
    if arguments.verb == "status":
        from daemon.status import show

        return show(settings.paths, arguments.output)
    from daemon import logs

    logs.show(settings.paths, arguments.process, lines=arguments.lines, follow=arguments.follow, write=print)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Do one verb; return the exit code. Errors are printed, never traced, except a process's own."""
    arguments = _parser().parse_args(argv)
    given: dict[str, Any] = {name: getattr(arguments, name) for name in _FLAGS}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    try:
        from daemon.settings import load  # here: it takes its time, and Ctrl-C may come meanwhile

        settings = load(given)
        if module := _PROCESSES.get(arguments.verb):
            from daemon.logs import configure

            configure()
            importlib.import_module(module).run(settings)
            return 0
        return _local(arguments, settings, flags)
    except RackflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `logs | head`
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
