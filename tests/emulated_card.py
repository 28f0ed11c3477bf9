"""A card emulated on the CPU, for tests of what happens on a GPU where there is none.

Within `emulated_card` the device `CARD` holds real tensors. An operation on tensors of two devices
is an error, as on a GPU, and every reading back (`.item()`, a shape that depends on values, a copy
to the CPU) is counted: on a GPU each of them waits until the card has done all its work.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = torch.device("meta")
"""torch's own meta device, which autograd takes without a driver."""
READS = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
}
"""Operations whose result or shape is known only when values are read."""
TAKES_TWO_DEVICES = {"aten::copy_", "aten::_to_copy"}
"""Operations that take tensors of a card and of the CPU."""


class CardTensor(torch.Tensor):
    """A tensor on the emulated card; `values` holds its numbers on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Self:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=CARD,
            requires_grad=values.requires_grad,
        )
        tensor.values = values
        return tensor

    def __repr__(self, **_: object) -> str:
        return f"CardTensor({self.values})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.values.detach().__reduce_ex__(protocol)  # saved as what it holds

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, _: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{operation} outside of emulated_card")


class EmulatedCard(TorchDispatchMode):
    """Runs operations; `reads` names those that read back from the card."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, _: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = operation._schema.name, dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_card = [tensor for tensor in tensors if isinstance(tensor, CardTensor)]
        on_cpu = [tensor for tensor in tensors if not isinstance(tensor, CardTensor)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if name == "aten::_has_compatible_shallow_copy_type":
            return not on_card or not on_cpu
        if on_card and name not in TAKES_TWO_DEVICES:
            mixed = [tensor for tensor in on_cpu if tensor.ndim]
            assert not mixed, f"{name} takes tensors of two devices: {[*map(_shape, tensors)]}"
        if on_card and (
            name in READS or _indexes_by_mask(name, args) or _is_copy_back(name, args, target)
        ):
            self.reads.append(name)
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(CardTensor, lambda tensor: tensor.values, (args, kwargs))
        result = operation(*args, **kwargs)
        if target == CARD or (on_card and target is None):
            return tree_map_only(Tensor, self._wrapped(on_card), result)
        return result

    @staticmethod
    def _wrapped(known: list[CardTensor]) -> Any:
        """Wraps a result; what an operation changed in place stays the tensor that it was."""
        wrappers = {id(tensor.values): tensor for tensor in known}
        return lambda values: wrappers[id(values)] if id(values) in wrappers else CardTensor(values)


def _shape(tensor: Tensor) -> str:
    return f"{tensor.device} {tuple(tensor.shape)}"


def _indexes_by_mask(name: str, args: Any) -> bool:
    if name not in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _is_copy_back(name: str, args: Any, target: torch.device | None) -> bool:
    if name == "aten::copy_":
        return isinstance(args[1], CardTensor) and not isinstance(args[0], CardTensor)
    return name == "aten::_to_copy" and target is not None and target != CARD


@contextmanager
def emulated_card() -> Iterator[EmulatedCard]:
    """An emulated card while the context lasts. It knows no autocast, no fused optimizer and no
    generator of its own."""
    with ExitStack() as patches:
        for owner, name, stand_in in (
            (torch, "is_autocast_enabled", lambda _: False),
            (torch, "load", _load),
            (torch, "Generator", _CpuGenerator),
            (torch.optim, "AdamW", _adamw),
            (torch.inference_mode, "__enter__", _enter_no_grad),
            (torch.inference_mode, "__exit__", _exit_no_grad),
        ):
            patches.enter_context(mock.patch.object(owner, name, stand_in))
        yield patches.enter_context(EmulatedCard())


ADAMW, LOAD = torch.optim.AdamW, torch.load


class _CpuGenerator(torch.Generator):
    def __new__(cls, _: object = None) -> Self:
        return super().__new__(cls)


def _enter_no_grad(context: Any) -> None:
    """Stands in for inference mode, in which no tensor can be wrapped."""
    context.gradients = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _exit_no_grad(context: Any, *_: object) -> None:
    torch.set_grad_enabled(context.gradients)


def _adamw(*args: Any, **settings: Any) -> torch.optim.Optimizer:
    return ADAMW(*args, **settings | {"fused": False})


def _load(file: Any, map_location: torch.device | None = None, **settings: Any) -> Any:
    content = LOAD(file, map_location="cpu", **settings)
    if map_location != CARD:
        return content
    return tree_map_only(Tensor, lambda tensor: tensor.to(CARD), content)
