"""What is to be done when a block ends with an exception, whatever it is, and only then.

An `except` for every exception stands at the two boundaries alone; this one catches nothing.
"""

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self


class OnError(contextlib.AbstractContextManager["OnError"]):
    """Calls a function with the exception that its block ends with, if it does; a signal, too."""

    def __init__(self, call: Callable[[BaseException], object]):
        self.call = call

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.call(error)
