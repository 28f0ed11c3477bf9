"""The layers of any tower: their weights, and how to compute them in less memory."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from motret.errors import ConfigError


def find_block_list(tower: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The tower's layers and their name in it; None where it has no list of modules.

    They are the list of modules with the most weights, the outermost of equals.
    """
    lists = [
        (name, module)
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    return max(lists, key=lambda named: _weight_count(named[1]), default=None)


def layer_ids(tower: nn.Module) -> dict[str, int | None]:
    """For each weight the number of layers above its own (layer-wise rate decay, as in BEiT).

    It is the number of layers for embeddings, and None for what comes after the layers. Outside of
    the layers an embedding is what belongs to an `nn.Embedding` or has "emb" in its name.
    """
    list_name, blocks = find_block_list(tower) or ("", nn.ModuleList())
    embeddings = tuple(
        f"{name}." for name, module in tower.named_modules() if isinstance(module, nn.Embedding)
    )
    ids: dict[str, int | None] = {}
    for name, _ in tower.named_parameters():
        if name.startswith(f"{list_name}."):
            index = int(name.removeprefix(f"{list_name}.").split(".")[0])
            ids[name] = len(blocks) - 1 - index
        else:
            is_embedding = "emb" in name or name.startswith(embeddings)
            ids[name] = len(blocks) if is_embedding else None
    return ids


def enable_grad_checkpointing(tower: nn.Module, tower_name: str) -> None:
    """From now on the backward pass computes each layer again, instead of keeping what it computed.

    tower_name: for the message. ConfigError where the tower has no list of layers.
    """
    blocks = find_block_list(tower)
    if blocks is None:
        problem = f"{tower_name} has no list of layers"
        raise ConfigError("--grad_checkpoint", problem, "leave the flag out, or take another tower")
    for block in blocks[1]:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _weight_count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
