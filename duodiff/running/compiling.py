"""A training's loss as a GPU computes it fast: compiled. How work is run is no part of its identity.

`duodiff.identity` reads `faster(loss, ...)` as `loss`. Compiled and eager losses are equal up to rounding, as those of
a CPU and of a GPU are. What made a result says that its training was compiled (`duodiff.running.provenance`).
"""

import shutil
from collections.abc import Callable
from typing import Any

used: set[str] = set()
"""What compiled a loss in this process: torch with its version."""


def faster(loss: Callable[..., Any], device: str, precision: str) -> Callable[..., Any]:
    """`loss(model, batch)` for a training: on a GPU in bfloat16, forwards and backwards compiled by torch.compile.

    Where there are no gradients, as for held-out losses in float32, on other devices, and on a GPU without a compiler
    it is `loss` itself.
    """
    import torch  # what does not train needs no torch

    if torch.device(device).type != "cuda" or precision != "bfloat16" or not _has_compiler():
        return loss
    used.add(f"torch {torch.__version__}")

    def of_training(model: Any, batch: Any) -> Any:
        return loss(model, batch)  # a function of its own, also for a partial one

    compiled = torch.compile(of_training, dynamic=False, fullgraph=True)

    def chosen(model: Any, batch: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else loss)(model, batch)

    return chosen


def _has_compiler() -> bool:
    """Whether torch.compile finds Triton, and a C compiler for its launcher (as `noise` asks)."""
    from torch.utils._triton import has_triton

    return any(map(shutil.which, ("cc", "gcc", "clang"))) and has_triton()
