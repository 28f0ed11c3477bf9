"""A motion tower that waits to be killed: not in the default configuration, and only where a pipe is named to tell that it waits."""

import os
import signal
from pathlib import Path

from motret.config import MotionSettings
from motret.motion import MotionTransformer

PIPE = "WAITING_TOWER_PIPE"
DEFAULT_DROP = 0.5


class WaitingTower(MotionTransformer):
    def __init__(self, settings: MotionSettings, persons: int, columns: dict[str, slice]):
        super().__init__(settings, persons, columns)
        if PIPE in os.environ and settings.token_drop != DEFAULT_DROP:
            Path(os.environ[PIPE]).write_text("waiting")
            signal.pause()
