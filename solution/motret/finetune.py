"""Fine-tuning of a pretrained text tower: which of its weights learn, from when on, and how fast."""

from torch import nn

from motret import layers, text
from motret.config import TextSettings
from motret.model import DualEncoder


def choose_weights(model: DualEncoder, settings: TextSettings) -> None:
    """Takes the gradient from the pretrained text weights that never learn."""
    if text.fine_tunes(settings):
        _let_learn(model.text_tower, settings.unfrozen)


def hold(model: DualEncoder, settings: TextSettings, epoch: int) -> None:
    """Before an epoch (the first is 0): keeps the pretrained tower as it is in the first --freeze_text_epochs, dropout off as well."""
    if not text.fine_tunes(settings):
        return
    if epoch < settings.freeze_text_epochs:
        model.text_tower.requires_grad_(False).eval()
    else:
        _let_learn(model.text_tower, settings.unfrozen)


def rates(tower: nn.Module, settings: TextSettings) -> dict[str, float]:
    """Learning rate of each of the tower's weights as a multiple of --lr: smaller from layer to layer downwards."""
    return {name: settings.text_lr_mult * settings.layer_decay ** (depth or 0) for name, depth in layers.depths(tower).items()}


def _let_learn(tower: nn.Module, unfrozen: str) -> None:
    within = layers.stack(tower)[1] if unfrozen == "layers" else tower
    tower.requires_grad_(False)
    within.requires_grad_(True)
