"""The layers of a tower, whoever wrote it: which weights stand in which, and how to compute them again instead of keeping them."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from motret.errors import ConfigError


def find_block_list(tower: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The tower's layers and their name in it: the list of modules with the most weights, the outermost of equals; None without one."""
    lists = [(name, found) for name, found in tower.named_modules() if isinstance(found, nn.ModuleList)]
    return max(
        lists,
        key=lambda named: sum(weight.numel() for weight in named[1].parameters()),
        default=None,
    )


def layer_ids(tower: nn.Module) -> dict[str, int | None]:
    """For each weight how many layers lie above its own; the number of layers for embeddings; None for what comes after the layers.

    Outside of the layers an embedding is what stands in an `nn.Embedding` or has "emb" in its name.
    """
    name, layers = find_block_list(tower) or ("", nn.ModuleList())
    embeddings = tuple(f"{place}." for place, module in tower.named_modules() if isinstance(module, nn.Embedding))
    found: dict[str, int | None] = {}
    for weight, _ in tower.named_parameters():
        if weight.startswith(f"{name}."):
            found[weight] = len(layers) - 1 - int(weight.removeprefix(f"{name}.").split(".")[0])
        else:
            found[weight] = len(layers) if "emb" in weight or weight.startswith(embeddings) else None
    return found


def enable_grad_checkpointing(tower: nn.Module, name: str) -> None:
    """From now on the backward pass computes each layer again, instead of finding what lay between kept. ConfigError without layers."""
    found = find_block_list(tower)
    if found is None:
        raise ConfigError(
            "--grad_checkpoint",
            f"{name} has no list of layers",
            "leave the flag out, or take another tower",
        )
    for layer in found[1]:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
