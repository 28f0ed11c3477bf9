"""Claims: pieces of work that processes of several hosts share out by files in a common folder.

A claim is a file that one process alone can make. Its owner touches it every `HEARTBEAT_SECONDS`.
One that was not touched for `STALE_SECONDS`, or whose process of this host has ended, is that of a
killed process: another takes it over. Ages are told by the clock of the folder's file system, so
the clocks of hosts may differ.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from motret.utils import files, reading
from motret.utils.process_tokens import has_ended, process_token

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
"""Longer than a network file system keeps what it knows of a file (60 s), and several beats."""
TURN_SECONDS = 0.2


@contextlib.contextmanager
def claimed(path: Path, on_lost: Callable[[], object], only_stale: bool = False) -> Iterator[bool]:
    """Whether this process has got the claim, which it keeps within the block.

    on_lost: called where another process has taken the claim over, since this one was not heard of
    for too long; only_stale: it is taken from a killed process alone. WriteError where the
    folder cannot be written.
    """
    with files.named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_made = not only_stale and _make(path)
        has_claim = is_made or (_is_stale(path) and _take_over(path))
    if not has_claim:
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_keep, args=(path, stop, on_lost), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        if _holder(path).get("token") == process_token():
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Within it, no other process is in a block of the same path; waits for those that are."""
    while True:
        with claimed(path, lambda: None) as is_claimed:
            if is_claimed:
                yield
                return
        time.sleep(TURN_SECONDS)


def folder_time(folder: Path) -> float:
    """The time of now by the clock of a folder's file system."""
    probe = folder / files.temporary_name("time")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def describe_owner(path: Path) -> str:
    """Who has a claim, for messages."""
    holder = _holder(path)
    return f"{holder['host']}, process {holder['pid']}" if {"host", "pid"} <= holder.keys() else "?"


def _make(path: Path) -> bool:
    """Makes the file, if there is none."""
    content = {
        "token": process_token(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content))
    return True


def _holder(path: Path) -> dict[str, Any]:
    """The content of a claim; nothing where it is gone or not whole."""
    content = reading.quiet_json(path)
    return content if isinstance(content, dict) else {}


def _is_stale(path: Path) -> bool:
    if has_ended(str(_holder(path).get("token"))):
        return True
    try:
        return folder_time(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return False  # given back in this moment


def _take_over(path: Path) -> bool:
    """Takes a stale claim from its owner; False where another process was faster."""
    holder = _holder(path)
    aside = path.with_name(files.temporary_name(path.name))
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if _holder(aside) != holder:  # of one that has taken it over in this moment
        with contextlib.suppress(OSError):
            os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    if not _make(path):
        return False
    name = f"{holder.get('host', '?')}, process {holder.get('pid', '?')}"
    logger.info(f"{path.stem}: taken over from {name}, which is not heard of any longer")
    return True


def _keep(path: Path, stop: threading.Event, on_lost: Callable[[], object]) -> None:
    """Touches a claim until the work is done, or another process has it."""
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            if _holder(path).get("token") == process_token():
                os.utime(path)
                continue
        except FileNotFoundError:
            pass
        except OSError as error:  # the network is away; others see that by the claim's age
            logger.info(f"{path}: cannot be touched ({error.strerror})")
            continue
        if not stop.is_set():
            logger.info(f"{path.stem}: another process has taken it over; it is left to that one")
            on_lost()
        return
