"""Private database servers for tests: from the distribution's packages, as an unprivileged user, on unix sockets."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

START_S = 60.0


def postgres_bin() -> Path | None:
    """Return the folder with initdb and postgres of the newest version installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


def mariadbd() -> str | None:
    """Return the path of MariaDB's server."""
    return shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL of one's own; yield the URL of its server without a database."""
    folder = postgres_bin()
    assert folder is not None
    with _folder("postgres") as (home, user):
        data = home / "data"
        _run(user, [str(folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "rackflow", "--no-sync"])
        argv = [
            str(folder / "postgres"), "-D", str(data), "-k", str(home), "-c", "listen_addresses=", "-c", "fsync=off",
        ]  # fmt: skip
        url = f"postgresql+psycopg://rackflow@/{{database}}?host={home}"
        with _server(user, argv, home, url.format(database="postgres")):
            yield url


@contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB of one's own; yield the URL of its server without a database."""
    server = mariadbd()
    assert server is not None
    with _folder("mysql") as (home, user):
        data, socket = home / "data", home / "s"
        _run(user, [
            "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ])  # fmt: skip
        argv = [
            server, "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
            f"--pid-file={home}/pid", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M",
        ]  # fmt: skip
        url = f"mariadb+pymysql://root@localhost/{{database}}?unix_socket={socket}"
        with _server(user, argv, home, url.format(database="mysql")):
            yield url


@contextmanager
def _folder(account: str) -> Iterator[tuple[Path, str | None]]:
    """Yield a short folder and the user to run as: oneself, or the package's user when oneself is root."""
    home = Path(tempfile.mkdtemp(prefix="rf-db-", dir="/tmp"))
    user = account if os.geteuid() == 0 else None
    try:
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(home, entry.pw_uid, entry.pw_gid)
        yield home, user
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _as(user: str | None, argv: Sequence[str]) -> list[str]:
    if user is None:
        return list(argv)
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", "--", *argv]


def _run(user: str | None, argv: Sequence[str]) -> None:
    done = subprocess.run(_as(user, argv), capture_output=True, text=True, cwd="/", timeout=120, check=False)
    assert done.returncode == 0, f"{argv[0]}: {done.stdout}{done.stderr}"


@contextmanager
def _server(user: str | None, argv: Sequence[str], home: Path, url: str) -> Iterator[None]:
    with (home / "log").open("w") as log:
        child = subprocess.Popen(_as(user, argv), stdout=log, stderr=log, cwd="/", start_new_session=True)
    try:
        _wait(lambda: child.poll() is None, url, home / "log")
        yield
    finally:
        child.terminate()  # MariaDB ends; PostgreSQL waits for its clients ("smart"), so it is told again
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.send_signal(2)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(alive: Callable[[], bool], url: str, log: Path) -> None:
    engine = sa.create_engine(url)
    until = time.monotonic() + START_S
    try:
        while True:
            with suppress(sa.exc.OperationalError), engine.connect():
                return
            assert alive(), log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
    finally:
        engine.dispose()


def create_database(url: str, maintenance: str, name: str) -> str:
    """Make an empty database on a server and return its URL; one of that name is taken away first."""
    engine = sa.create_engine(url.format(database=maintenance), isolation_level="AUTOCOMMIT")
    with engine.connect() as c:
        c.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")
        c.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return url.format(database=name)
