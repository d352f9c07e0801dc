"""Floating-point operations of a network, counted by torch."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from duodiff.uvit import UViT


def gflops(net: UViT) -> float:
    """GFLOPs of one forward pass of one image (a multiply-add counts two)."""
    shape = (1, net.in_chans, net.img_size, net.img_size)
    device = net.pos_embed.device
    y = torch.zeros(1, dtype=torch.long, device=device) if net.num_classes > 0 else None
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(shape, device=device), torch.zeros(1, device=device), y)
    return counter.get_total_flops() / 1e9


def parameters(net: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in net.parameters())
