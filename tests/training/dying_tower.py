"""A motion tower that kills its process in the middle of a training, for tests of what follows."""

import os
import signal

from torch import Tensor

from motret.data.inputs import MotionBatch
from motret.models.motion_tower import MotionTransformer

DIES = "DYING_TOWER_RANK"
"""Environment variable: the rank whose process dies."""
LAST_BUCKET = 4


class DyingTower(MotionTransformer):
    """The transformer, in one process killed at the fifth bucket that it trains on."""

    buckets = 0

    def forward(self, batch: MotionBatch) -> Tensor:
        self.buckets += batch.generator is not None
        if self.buckets > LAST_BUCKET and os.environ.get("RANK") == os.environ.get(DIES, "none"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(batch)
