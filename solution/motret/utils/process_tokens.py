"""Which process something belongs to, written into the name of a file or a record of a search.

A token is `host-pid-start`: a hash of where its number means a process, the number, and when the
process began, since a number is given again, in a container often at once.
"""

import contextlib
import functools
import hashlib
import os
import re
import socket
from datetime import datetime, timedelta
from pathlib import Path

TOKEN = re.compile(r"[0-9a-f]{8}-\d+-\d+")


def process_token() -> str:
    """The token of this process."""
    return f"{_host()}-{os.getpid()}-{_start_time(os.getpid())}"


def has_ended(token: str) -> bool:
    """Whether the process of a token is one of this host that runs no longer; False where nobody
    can know."""
    if not TOKEN.fullmatch(token):
        return False
    host, pid, start = token.split("-")
    return host == _host() and not (is_alive(int(pid)) and _start_time(int(pid)) == int(start))


def is_of_this_host(token: str) -> bool:
    """Whether a token is of a process of this host, alive or not."""
    return token.partition("-")[0] == _host()


def host_start() -> datetime:
    """When this host began, or this container; the earliest of times where nobody tells."""
    try:
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        first_process = _start_time(1) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return datetime.min
    return datetime.now() - timedelta(seconds=uptime - first_process)


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@functools.cache
def _host() -> str:
    """A hash of the host's name, of its boot and of the name space of its processes, as far as the
    system tells them. Machines and containers that share a folder may bear one name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 # no path: pid:[4026531836]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=4).hexdigest()


def _start_time(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[19])  # after the name, which may hold anything
    except (OSError, ValueError, IndexError):
        return 0
