"""The optimizer: groups of weights and their learning rates, the schedule, which weights train, and
the average of all weights."""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from motret.config.training import OptimConfig, TextConfig, TrainConfig
from motret.errors import ConfigError
from motret.models import layers, text_tower
from motret.models.dual_encoder import DualEncoder

Tensors = list[Tensor] | tuple[Tensor, ...]
HEADS = ("motion_head.", "part_head.", "text_head.")
"""Prefixes of the projections into the shared space."""

# ---- learning rates


def make_optimizer(
    model: DualEncoder, config: TrainConfig, loaded: Collection[str] = ()
) -> torch.optim.Optimizer:
    """AdamW. No weight decay on vectors and the temperature; other learning rates for heads and
    pretrained weights.

    `base_lr` of a group is its learning rate before the schedule. loaded: names of the backbone's
    weights that came from a file. Weights without gradient are left out.
    """
    lr_mults = {f"motion_tower.backbone.{name}": config.optim.backbone_lr_mult for name in loaded}
    lr_mults |= {
        name: config.optim.head_lr_mult
        for name, _ in model.named_parameters()
        if name.startswith(HEADS)
    }
    if model.text_tower is not None and text_tower.is_fine_tuned(config.text):
        tower_mults = text_lr_mults(model.text_tower, config.text)
        lr_mults |= {f"text_tower.{name}": lr_mult for name, lr_mult in tower_mults.items()}
    weights_by_group: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            lr = config.optim.lr * lr_mults.get(name, 1.0)
            decay = config.optim.weight_decay if weight.ndim > 1 else 0.0
            weights_by_group.setdefault((lr, decay), []).append(weight)
    groups = [
        {"params": weights, "lr": lr, "base_lr": lr, "weight_decay": decay}
        for (lr, decay), weights in weights_by_group.items()
    ]
    return torch.optim.AdamW(groups, betas=(0.9, config.optim.beta2), fused=True)


def text_lr_mults(tower: nn.Module, config: TextConfig) -> dict[str, float]:
    """Learning rate of each of the tower's weights as a multiple of --lr: smaller from layer to
    layer downwards."""
    layer_ids = layers.layer_ids(tower)
    return {
        name: config.text_lr_mult * config.layer_decay ** (layer or 0)
        for name, layer in layer_ids.items()
    }


def lr_scale(step: int, steps: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Learning rate at a step of `steps`, as a multiple of the base learning rate.

    Linear warm-up, then half a cosine that ends at 0 after the last step. With --schedule epoch all
    steps of an epoch have one learning rate, and the last epoch's is not 0 yet.
    """
    if config.schedule == "epoch":
        step, steps, steps_per_epoch = step // steps_per_epoch, steps // steps_per_epoch, 1
    warmup = min(config.warmup_epochs * steps_per_epoch, steps / 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Learning rate at a step of `steps`, as a multiple of the peak: half a cosine over all steps,
    times a linear rise in the first `warmup` ones."""
    rise = min(1.0, (step + 1) / max(1.0, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


# ---- weights that train


def set_trainable(model: DualEncoder, config: TextConfig) -> None:
    """Takes the gradient from the pretrained text weights that never train."""
    if model.text_tower is not None and text_tower.is_fine_tuned(config):
        _enable_gradients(model.text_tower, config.unfrozen)


def freeze_for_epoch(model: DualEncoder, config: TextConfig, epoch: int) -> None:
    """Before an epoch (the first is 0): in the first --freeze_text_epochs a pretrained text tower
    is frozen, dropout off."""
    if model.text_tower is None or not text_tower.is_fine_tuned(config):
        return
    if epoch < config.freeze_text_epochs:
        model.text_tower.requires_grad_(False).eval()
    else:
        _enable_gradients(model.text_tower, config.unfrozen)


def _enable_gradients(tower: nn.Module, unfrozen: str) -> None:
    trained = tower
    if unfrozen == "layers":
        blocks = layers.find_block_list(tower)
        if blocks is None:
            raise ConfigError(
                "--unfrozen", "layers: the text tower has no list of layers", "give all"
            )
        trained = blocks[1]
    tower.requires_grad_(False)
    trained.requires_grad_(True)


# ---- average of the weights


def start_ema(
    model: nn.Module, optimizer: torch.optim.Optimizer, max_decay: float
) -> AveragedModel:
    """An exponential moving average of all weights (Polyak and Juditsky 1992), which is what is
    validated and saved.

    It follows the model after each step of the optimizer; the first step is copied.
    """

    @torch.no_grad()
    def update(averages: Tensors, weights: Tensors, _: Tensor | int) -> None:
        # the count on the CPU: the one that is passed has been copied to the card
        decay = ema_decay(max_decay, average.n_averaged)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    average = AveragedModel(model, multi_avg_fn=update)
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
    return average


def ema_decay(max_decay: float, steps: Tensor | int) -> float:
    """Weight of the average at a step: small at first, so that the random initial weights are soon
    forgotten."""
    return min(max_decay, (1 + int(steps)) / (10 + int(steps)))
