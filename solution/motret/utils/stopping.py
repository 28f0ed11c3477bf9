"""How a process ends before it is done: by a signal, or because its parent has ended.

Whatever the moment, files are whole: a process may always be stopped, and even be killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from motret.utils.on_error import OnError

PARENT = "MOTRET_PARENT"
"""Environment variable: the process with which a script ends, where a script started it."""
BROKEN_PIPE = 141
"""Exit code where nobody reads the output any longer, as of programs that SIGPIPE ends."""
POLL_SECONDS = 0.5
GRACE_SECONDS = 10
"""How long a child has to end by itself after a signal."""
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_TRACKER_FILTER = "ignore:resource_tracker:UserWarning"
_children: set[subprocess.Popen[Any]] = set()
_watching: set[int] = set()
"""This process, once it watches its parent; a copy of it by fork watches anew."""


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to stop. number: of the signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def signal_of(error: BaseException) -> int:
    """The signal that ends the children of a process that ends with an exception."""
    return error.number if isinstance(error, Stopped) else signal.SIGTERM


def exit_code(number: int) -> int:
    """The exit code of a process that a signal has stopped."""
    return 128 + number


# ---- signals


class StopRequest:
    """The first signal that asked for a stop; None so far."""

    number: int | None = None


def exit_at_once_on_signals() -> None:
    """Ends this process without a word on a signal: while it imports, there is nothing to keep."""

    def stop(number: int, _frame: FrameType | None) -> None:
        os._exit(exit_code(number))

    for each in _heeded_signals():
        signal.signal(each, stop)


@contextlib.contextmanager
def raise_on_signals() -> Iterator[StopRequest]:
    """Within it, SIGINT, SIGTERM and SIGHUP raise `Stopped`; a second one ends the process.

    A signal that is ignored (nohup) stays so. Threads other than the main one get no signals.
    """
    request = StopRequest()

    def stop(number: int, _frame: FrameType | None) -> None:
        if request.number is not None:
            os._exit(exit_code(request.number))
        request.number = number
        raise Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, stop) for each in _heeded_signals()}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _forget_handlers() -> None:
    """In a process made by fork: a worker that its pool terminates must end, not raise."""
    for each in _SIGNALS:
        if each != signal.SIGINT and callable(signal.getsignal(each)):
            signal.signal(each, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_handlers)


def _heeded_signals() -> list[signal.Signals]:
    return [each for each in _SIGNALS if signal.getsignal(each) not in (signal.SIG_IGN, None)]


def discard_output() -> None:
    """Sends what is still to be printed nowhere, so that nothing complains when Python exits."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


# ---- parents and children


def silence_resource_trackers() -> None:
    """Keeps the processes that clean up after killed workers from listing what they removed."""
    filters = [each for each in os.environ.get("PYTHONWARNINGS", "").split(",") if each]
    os.environ["PYTHONWARNINGS"] = ",".join(dict.fromkeys([*filters, _TRACKER_FILTER]))


def end_with_parent(parent: int | None = None) -> None:
    """Ends this process within a second of its parent, whose worker or step it is; idempotent.

    A killed parent cannot stop its children, and they would compute on for nobody. parent: its
    number, by default that of the parent of now.
    """
    expected = os.getppid() if parent is None else parent
    if os.getpid() in _watching:
        return
    _watching.add(os.getpid())

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(POLL_SECONDS)
        os._exit(exit_code(signal.SIGTERM))

    threading.Thread(target=watch, name="watches its parent", daemon=True).start()


def end_with_calling_script() -> None:
    """Ends this process with the script that started it, if one did."""
    if parent := os.environ.pop(PARENT, ""):
        end_with_parent(int(parent))


@contextlib.contextmanager
def running_child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A script as a process that ends with this one; it has ended when the block has.

    options: of `subprocess.Popen`. An exception within the block ends it, with the same signal if
    it is `Stopped`.
    """
    environment = {**(options.pop("env", None) or os.environ), PARENT: str(os.getpid())}

    def end(error: BaseException) -> None:
        _signal_child(process, signal_of(error))
        _await_end(process)

    with subprocess.Popen(command, env=environment, **options) as process:
        _children.add(process)
        try:
            with OnError(end):
                yield process
        finally:
            _children.discard(process)


def end_children(number: int) -> None:
    """Passes a signal on to the children of all threads and waits for their end."""
    children = tuple(_children)
    for process in children:
        _signal_child(process, number)
    for process in children:
        _await_end(process)


def _signal_child(process: subprocess.Popen[Any], number: int) -> None:
    """Passes a signal on. Ctrl-C reaches a child by itself, as a rule, and a second signal would
    end it in the middle of its last words."""
    if number != signal.SIGINT:
        process.send_signal(number)


def _await_end(process: subprocess.Popen[Any]) -> None:
    for harder in (process.terminate, process.kill):
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            harder()
        else:
            return
    process.wait()
