"""Log files in data_dir/logs: one per process, rotated by copying and truncating (they are open for append)."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from core.errors import NotFound, RackflowError
from core.settings import Paths

RUNS = ("prefect.flow_runs", "prefect.task_runs")
LARGEST_BYTES = 8 * 2**20
KEPT = 3


def folder(paths: Paths) -> Path:
    """Return the folder of the log files."""
    return paths.data_dir / "logs"


def configure() -> None:
    """Send this process's log to standard error, which the supervisor appends to the file; times in UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=os.environ.get("RACKFLOW_LOG_LEVEL", "INFO"),
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    for noisy in ("asyncssh", "httpx", "httpcore", "alembic", "docket"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for prefects in RUNS:
        logging.getLogger(prefects).addFilter(_told)


def _told(record: logging.LogRecord) -> bool:
    """Let a run that failed for a known reason say that in one line; only what nobody foresaw has a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RackflowError):
        record.msg, record.args, record.exc_info = str(error), (), None
    return True


def rotate(files: Iterable[Path], largest_bytes: int = LARGEST_BYTES, kept: int = KEPT) -> list[Path]:
    """Copy each file that has grown too large to FILE.1 (older ones move on) and empty it; return those."""
    rotated = []
    for file in files:
        if not file.exists() or file.stat().st_size < largest_bytes:
            continue
        for number in range(kept - 1, 0, -1):
            older = file.with_name(f"{file.name}.{number}")
            if older.exists():
                older.replace(file.with_name(f"{file.name}.{number + 1}"))
        shutil.copyfile(file, file.with_name(f"{file.name}.1"))
        os.truncate(file, 0)
        rotated.append(file)
    return rotated


def tail(file: Path, lines: int) -> list[str]:
    """Return the last lines of a file; none when there is no file."""
    try:
        with file.open("rb") as source:
            source.seek(0, os.SEEK_END)
            source.seek(max(0, source.tell() - 400 * lines))
            text = source.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def show(paths: Paths, process: str | None, *, lines: int, follow: bool, write: Callable[[str], object]) -> None:
    """Write the last lines of one process's log, or of all (each line then begins with its name); follow: go on."""
    known = {file.stem: file for file in sorted(folder(paths).glob("*.log"))}
    if process is not None and process not in known:
        raise NotFound(
            f"there is no log of {process!r}", f"process/{process}", {"known": sorted(known)},
            fix="one of: " + ", ".join(sorted(known)) if known else "rackflow was never up with this data folder",
        )
    chosen = known if process is None else {process: known[process]}
    width = max((len(name) for name in chosen), default=0)
    prefixes = {name: "" if process else f"{name:<{width}} | " for name in chosen}
    for name, file in chosen.items():
        for line in tail(file, lines):
            write(prefixes[name] + line)
    if follow:
        _follow({prefixes[name]: file for name, file in chosen.items()}, write)


def _follow(files: dict[str, Path], write: Callable[[str], object]) -> None:
    sources: dict[str, BinaryIO] = {prefix: file.open("rb") for prefix, file in files.items()}
    for source in sources.values():
        source.seek(0, os.SEEK_END)
    rests = dict.fromkeys(sources, b"")
    while True:
        for prefix, source in sources.items():
            if os.fstat(source.fileno()).st_size < source.tell():
                source.seek(0)  # it was rotated
            *whole, rests[prefix] = (rests[prefix] + source.read()).split(b"\n")
            for line in whole:
                write(prefix + line.decode(errors="replace"))
        time.sleep(0.2)
