"""Floating-point operations of a network, counted by torch."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from duodiff.early_exit import AdaDiff
from duodiff.uvit import UViT


def _matrix_vector(matrix: tuple[int, int], *_, **__) -> int:
    rows, columns = matrix
    return 2 * rows * columns


_ALSO = {torch.ops.aten.mv: _matrix_vector}
"""An operation that torch's counter does not count: the matrix-vector product in an uncertainty head."""


def one_image(net: UViT) -> tuple[Tensor, Tensor, Tensor | None]:
    """Zeros as the input of one image, on the network's device.

    x is [1, C, H, W], t [1] and y int64 [1], or None for an unconditional network.
    """
    device = net.pos_embed.device
    y = torch.zeros(1, dtype=torch.long, device=device) if net.num_classes > 0 else None
    x = torch.zeros(1, net.in_chans, net.img_size, net.img_size, device=device)
    return x, torch.zeros(1, device=device), y


def gflops(net: UViT, call: Callable | None = None) -> float:
    """GFLOPs of one forward pass of one image, or of `call` on it (a multiply-add counts two)."""
    counter = FlopCounterMode(display=False, custom_mapping=_ALSO)
    with counter, torch.inference_mode():
        (call or net)(*one_image(net))
    return counter.get_total_flops() / 1e9


def exit_gflops(model: AdaDiff) -> list[float]:
    """GFLOPs of a call for one image that exits at layer 0, ..., N: [N + 1].

    The call runs the blocks before its exit, the uncertainty heads up to its exit and one output head (at N: the
    network's own).
    """
    return [gflops(model.uvit, partial(_exit_at, i, model)) for i in range(model.uvit.depth + 1)]


def _exit_at(layer: int, model: AdaDiff, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """The part of `AdaDiff.forward` that runs for a sample that exits at `layer`."""
    net = model.uvit
    time_emb = net.embed_time(t)
    tokens = net.embed(x, time_emb, y)
    skips: list[Tensor] = []
    for i in range(net.depth):
        model.uncertainty_heads[i](tokens, time_emb)
        if i == layer:
            return model.output_heads[i](tokens, net)
        tokens = net.run_block(i, tokens, skips)
    return net.decode(tokens)


def parameters(net: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in net.parameters())
