"""What a piece of work asks of its devices, seen without a GPU: on torch's meta device, which keeps no values."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
}
"""Operations for whose result the host has to wait: a number, or a tensor whose size the values decide."""


class Watched(TorchDispatchMode):
    """Notes the operations inside the block, by name.

    - `waits`: those of `WAITS`, and an index by a mask
    - `on_host`: those whose result lies on the CPU, but for arrays that become tensors
    - `between`: those with tensors of several devices, such as a copy

    In torch's inference mode `item` is seen in place of what it is made of.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        self.on_host: list[str] = []
        self.between: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        before, after = (_devices(values) for values in ((args, kwargs), result))
        if name in WAITS or (name == "index" and _has_mask(args[1])):
            self.waits.append(name)
        if "cpu" in after and name != "lift_fresh":
            self.on_host.append(name)
        if len(before | after) > 1:
            self.between.append(name)
        return result

    @property
    def counts(self) -> dict[str, int]:
        """How many operations of each kind were noted."""
        kinds = {"waits": self.waits, "on_host": self.on_host, "between": self.between}
        return {kind: len(names) for kind, names in kinds.items()}


def _devices(values) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


def _has_mask(indices) -> bool:
    """Whether a bool tensor is among the indices."""
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices)
