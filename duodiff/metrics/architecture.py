"""Descriptions of an experiment's networks, read from the modules as they run, so that diagrams agree with the code.

Networks are built on torch's meta device: shapes and costs are exact, and nothing is computed or stored.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from duodiff.early_exit import AdaDiff, UncertaintyHead
from duodiff.metrics.flops import gflops, one_image, parameters
from duodiff.uvit import UViT


def describe(networks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The description of an experiment's networks by role, from their constructors' keywords (`config.networks`).

    A backbone has

    - `architecture`: the keywords,
    - `parameters`, `gflops` (for an image and step) and `tokens`,
    - `stages`: its parts in the order they run, with the shapes of their inputs and output,
    - `block`: the layers inside its last block,
    - `skips`: the long skip connections, [from, to].

    For "adadiff" see `describe_adadiff`.
    """
    described = {}
    with torch.device("meta"):
        for role, keywords in networks.items():
            if role != "adadiff":
                described[role] = {"architecture": keywords} | _backbone(UViT(**keywords))
        if "adadiff" in networks:
            model = AdaDiff(UViT(**networks["full"]), **networks["adadiff"])
            described["adadiff"] = describe_adadiff(model)
    return described


def _backbone(net: UViT) -> dict[str, Any]:
    names = {module: name for name, module in net.named_modules() if _is_stage(net, name)}
    with _calls(names) as stages, torch.inference_mode():
        net(*one_image(net))
    makers = {id(output): name for name, _, output in stages}
    skips = [
        [makers[id(inputs[1])], name]
        for name, inputs, _ in stages
        if len(inputs) == 2 and id(inputs[1]) in makers
    ]
    block = net.out_blocks[-1]
    inside = {m: name for name, m in block.named_modules() if _is_leaf(m)}
    with _calls(inside) as layers, torch.inference_mode():
        net(*one_image(net))
    return {
        "parameters": parameters(net),
        "gflops": gflops(net),
        "tokens": net.pos_embed.shape[1],
        "stages": [_stage(net, *call) for call in stages],
        "block": [_stage(block, *call) for call in layers],
        "skips": skips,
    }


def describe_adadiff(model: AdaDiff) -> dict[str, Any]:
    """The heads that AdaDiff adds to a U-ViT.

    - `parameters`: of all heads; `gflops`: of a call with all heads computed.
    - `heads`: an entry for each layer that has heads. For each kind of head it names the `layer` whose tokens the head
      reads (layer i is the input of block i) and the head's parameters.
    - `output_head`: the layers inside the first output head, with the shapes of their inputs and output.
    - `uncertainty_head`: the first uncertainty head. `linear` is [in, out] of its linear layer. `operations` are the
      tensor operations that it runs, because it splits this layer into two products.
    """
    net, u, g = model.uvit, model.uncertainty_heads, model.output_heads
    blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]
    kinds: tuple[tuple[str, Iterable[nn.Module]], ...] = (("u", u), ("g", g), ("block", blocks))
    names = {m: f"{kind}.{i}" for kind, modules in kinds for i, m in enumerate(modules)}
    with _calls(names) as calls, torch.inference_mode():
        model.all_layers(*one_image(net))
    # a head reads the tokens of the block that is given the same tensor
    given = {id(tokens): block for block, (tokens, *_), _ in calls if block.startswith("block")}
    reads = {name: int(given[id(x)].removeprefix("block.")) for name, (x, *_), _ in calls}
    inside = {m: name for name, m in g[0].named_modules() if _is_leaf(m)}
    with _calls(inside) as layers, torch.inference_mode():
        model.all_layers(*one_image(net))
    inputs = next(inputs for name, inputs, _ in calls if name == "u.0")
    first = u[0]
    assert isinstance(first, UncertaintyHead)
    with _Operations() as operations, torch.inference_mode():
        first(*inputs)
    return {
        "parameters": sum(p.numel() for p in model.heads_parameters()),
        "gflops": gflops(net, model.all_layers),
        "heads": [
            {
                "uncertainty": {"layer": reads[f"u.{i}"], "parameters": parameters(u[i])},
                "output": {"layer": reads[f"g.{i}"], "parameters": parameters(g[i])},
            }
            for i in range(len(u))
        ],
        "output_head": [_stage(g[0], *call) for call in layers],
        "uncertainty_head": {
            "timestep_aware": first.timestep_aware,
            "inputs": [list(tensor.shape) for tensor in inputs],
            "linear": [first.linear.in_features, first.linear.out_features],
            "operations": operations.seen,
        },
    }


def _is_stage(net: UViT, name: str) -> bool:
    """Whether a module is drawn as one part of the network: a block, or another module that the network calls."""
    module = net.get_submodule(name)
    inside_list = name.rpartition(".")[0] in ("in_blocks", "out_blocks")
    return bool(name) and ("." not in name or inside_list) and not isinstance(module, nn.ModuleList)


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


@contextmanager
def _calls(names: dict[nn.Module, str]) -> Iterator[list[tuple[str, tuple, Tensor]]]:
    """Collects every call of the named modules, in order: (name, tensors given, tensor returned)."""
    calls: list[tuple[str, tuple, Tensor]] = []
    handles: list[RemovableHandle] = []

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls.append((names[module], tuple(i for i in inputs if isinstance(i, Tensor)), output))

    try:
        handles += [module.register_forward_hook(note) for module in names]
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _stage(parent: nn.Module, name: str, inputs: tuple, output: Tensor) -> dict[str, Any]:
    module = parent.get_submodule(name)
    return {
        "name": name,
        "kind": type(module).__name__,
        "in": [list(tensor.shape) for tensor in inputs],
        "out": list(output.shape),
        "parameters": parameters(module),
    }


class _Operations(TorchDispatchMode):
    """Collects the tensor operations that run in its block, except views, as [name, shape of the output]."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.seen.append([function._schema.name.split("::")[1], list(output.shape)])
        return output
