"""What numbers are computed in: bfloat16 matrix products where the hardware has them."""

import contextlib

import torch


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16. On a CPU asked of torch, where it knows (torch >= 2.12)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def autocast(device: torch.device, amp: bool) -> contextlib.AbstractContextManager:
    """Matrix products in bfloat16 where `amp`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if amp else contextlib.nullcontext()
