"""An exponential moving average of all weights (Polyak and Juditsky 1992), which is what is validated and kept."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def start(model: nn.Module, optimiser: torch.optim.Optimizer, ceiling: float) -> AveragedModel:
    """An average that follows the model after each step of the optimiser from here on; the first step is copied."""
    average = AveragedModel(model, multi_avg_fn=partial(_follow, ceiling))
    optimiser.register_step_post_hook(lambda *_: average.update_parameters(model))
    return average


def decay(ceiling: float, steps: Tensor | int) -> float:
    """What remains of the average at a step: little at first, so that it soon forgets the random weights it began with."""
    return min(ceiling, (1 + int(steps)) / (10 + int(steps)))


@torch.no_grad()
def _follow(ceiling: float, kept: list[Tensor], now: list[Tensor], steps: Tensor | int) -> None:
    torch._foreach_lerp_(kept, now, 1 - decay(ceiling, steps))
