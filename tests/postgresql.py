"""A PostgreSQL server of one's own for tests: made in a temporary folder, stopped afterwards."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DRIVERS = ("psycopg", "psycopg2")
USER = "tuner"


def missing() -> str:
    """Why no server can be started or reached here; empty where one can."""
    if not shutil.which("initdb", path=_programs()):
        return "PostgreSQL's initdb is not installed (Debian: apt-get install postgresql)"
    if not any(find_spec(name) for name in DRIVERS):
        return 'no driver of PostgreSQL is installed (pip install "psycopg[binary]")'
    return ""


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """Starts a server that listens on a socket in its folder alone; gives Optuna's URL."""
    driver = next(name for name in DRIVERS if find_spec(name))
    folder = Path(tempfile.mkdtemp(prefix="postgresql"))
    account = _account()
    if account:
        os.chown(folder, account["user"], account["group"])

    def call(program: str, *arguments: str) -> None:
        path = shutil.which(program, path=_programs())
        assert path is not None
        options: dict[str, Any] = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([path, "-D", str(folder / "data"), *arguments], **options, **account)

    try:
        call("initdb", "--auth=trust", f"--username={USER}", "--no-sync")
        quick = "-c fsync=off -c listen_addresses=''"
        log = str(folder / "server.log")
        call("pg_ctl", "start", "-w", "-t", "120", "-l", log, "-o", f"-k {folder} {quick}")
        try:
            yield f"postgresql+{driver}://{USER}@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "-w", "-m", "fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> str:
    """Where PostgreSQL's programs are searched: Debian keeps them out of PATH."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return os.pathsep.join([os.environ.get("PATH", ""), *debian])


def _account() -> dict[str, Any]:
    """User and group that the server runs as, where root starts it, which it refuses."""
    if os.geteuid() != 0:
        return {}
    known = {account.pw_name: account for account in pwd.getpwall()}
    account = known.get("postgres") or known["nobody"]
    return {"user": account.pw_uid, "group": account.pw_gid}
