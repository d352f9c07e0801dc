"""Floating-point operations of a network, counted by torch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from duodiff.uvit import UViT


def one_image(net: UViT) -> tuple[Tensor, Tensor, Tensor | None]:
    """x [1, C, H, W], t [1] and y int64 [1] (None for an unconditional network), zeros, where the network is."""
    device = net.pos_embed.device
    y = torch.zeros(1, dtype=torch.long, device=device) if net.num_classes > 0 else None
    x = torch.zeros(1, net.in_chans, net.img_size, net.img_size, device=device)
    return x, torch.zeros(1, device=device), y


def gflops(net: UViT, call: Callable | None = None) -> float:
    """GFLOPs of one forward pass of one image, or of `call` on it (a multiply-add counts two)."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        (call or net)(*one_image(net))
    return counter.get_total_flops() / 1e9


def parameters(net: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in net.parameters())
