"""An exponential moving average of all weights (Polyak and Juditsky 1992), which is what is validated and kept."""
# MERGED: """Fine-tuning of a pretrained text tower: which of its weights learn, from when on, and how fast."""
#

import math
from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from motret.config.training import OptimConfig, TextConfig, TrainConfig
from motret.models import layers, text_tower
from motret.models.dual_encoder import DualEncoder


def start_ema(model: nn.Module, optimiser: torch.optim.Optimizer, ceiling: float) -> AveragedModel:
    """An average that follows the model after each step of the optimiser from here on; the first step is copied."""
    average = AveragedModel(model, multi_avg_fn=partial(_update_ema, ceiling))
    optimiser.register_step_post_hook(lambda *_: average.update_parameters(model))
    return average


def ema_decay(ceiling: float, steps: Tensor | int) -> float:
    """What remains of the average at a step: little at first, so that it soon forgets the random weights it began with."""
    return min(ceiling, (1 + int(steps)) / (10 + int(steps)))


@torch.no_grad()
def _update_ema(ceiling: float, kept: list[Tensor], now: list[Tensor], steps: Tensor | int) -> None:
    torch._foreach_lerp_(kept, now, 1 - ema_decay(ceiling, steps))


def set_trainable(model: DualEncoder, config: TextConfig) -> None:
    """Takes the gradient from the pretrained text weights that never learn."""
    if text_tower.is_fine_tuned(config):
        _enable_gradients(model.text_tower, config.unfrozen)


def freeze_for_epoch(model: DualEncoder, config: TextConfig, epoch: int) -> None:
    """Before an epoch (the first is 0): keeps the pretrained tower as it is in the first --freeze_text_epochs, dropout off as well."""
    if not text_tower.is_fine_tuned(config):
        return
    if epoch < config.freeze_text_epochs:
        model.text_tower.requires_grad_(False).eval()
    else:
        _enable_gradients(model.text_tower, config.unfrozen)


def text_lr_mults(tower: nn.Module, config: TextConfig) -> dict[str, float]:
    """Learning rate of each of the tower's weights as a multiple of --lr: smaller from layer to layer downwards."""
    return {name: config.text_lr_mult * config.layer_decay ** (depth or 0) for name, depth in layers.layer_ids(tower).items()}


def _enable_gradients(tower: nn.Module, unfrozen: str) -> None:
    within = layers.find_block_list(tower)[1] if unfrozen == "layers" else tower
    tower.requires_grad_(False)
    within.requires_grad_(True)


def make_optimizer(model: DualEncoder, config: TrainConfig, loaded: Collection[str] = ()) -> torch.optim.Optimizer:
    """AdamW: no decay on vectors and the temperature, own rates for heads and pretrained weights. `base_lr` is a group's full rate.

    loaded: names of the backbone's weights that came from a file. Weights without gradient are left out.
    """
    share = {f"motion_tower.backbone.{name}": config.optim.backbone_lr_mult for name in loaded}
    heads = ("motion_head.", "part_head.", "text_head.")
    share |= {name: config.optim.head_lr_mult for name, _ in model.named_parameters() if name.startswith(heads)}
    if text_tower.is_fine_tuned(config.text):
        share |= {f"text_tower.{name}": rate for name, rate in text_lr_mults(model.text_tower, config.text).items()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            rate = config.optim.lr * share.get(name, 1.0)
            decay = config.optim.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(weight)
    listed = [{"params": weights, "lr": rate, "base_lr": rate, "weight_decay": decay} for (rate, decay), weights in groups.items()]
    return torch.optim.AdamW(listed, betas=(0.9, config.optim.beta2), fused=True)


def lr_scale(step: int, steps: int, per_epoch: int, config: OptimConfig) -> float:
    """Share of the highest rate at a step: linear warm-up, then half a cosine that ends at 0 after the last step.

    By epochs the rate of a step is that of its epoch; the last epoch's is not 0 yet.
    """
    if config.schedule == "epoch":
        step, steps, per_epoch = step // per_epoch, steps // per_epoch, 1
    warm = min(config.warmup_epochs * per_epoch, steps / 2)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
