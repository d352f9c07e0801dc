"""What an experiment's networks are, read off the module objects as they run: a diagram cannot drift from the code.

Networks are built on torch's meta device: shapes and costs are exact, and nothing is computed or stored.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from duodiff.early_exit import AdaDiff
from duodiff.metrics.flops import gflops, one_image, parameters
from duodiff.uvit import UViT


def describe(networks: dict[str, dict]) -> dict:
    """Description of the networks of one experiment, by role, from their constructors' keywords (`config.networks`).

    A backbone has its `architecture` (those keywords), `parameters`, `gflops` (an image and step), `tokens`,
    `stages` (its parts in the order they run, with the shapes they saw), `block` (the layers inside its last
    block) and `skips` (long skip connections, [from, to]); for "adadiff" see `describe_adadiff`.
    """
    found = {}
    with torch.device("meta"):
        for role in ("full", "shallow"):
            found[role] = {"architecture": networks[role]} | _backbone(UViT(**networks[role]))
        if "adadiff" in networks:
            model = AdaDiff(UViT(**networks["full"]), **networks["adadiff"])
            found["adadiff"] = describe_adadiff(model)
    return found


def _backbone(net: UViT) -> dict:
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


def describe_adadiff(model: AdaDiff) -> dict:
    """What AdaDiff adds to a U-ViT: `parameters` of its heads, `gflops` with all heads computed, and the heads.

    `heads` has one entry for each of the network's layers with a head: the `layer` whose tokens each kind of
    head reads (layer i is what block i is given) and its parameters. `output_head` and `uncertainty_head` are the
    layers inside the first of each: modules with the shapes they saw; for the uncertainty, whose linear layer
    is split in two products, `linear` is [in, out] and `operations` are the arithmetic it runs.
    """
    net, u, g = model.uvit, model.uncertainty_heads, model.output_heads
    blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]
    kinds = (("u", u), ("g", g), ("block", blocks))
    names = {m: f"{kind}.{i}" for kind, modules in kinds for i, m in enumerate(modules)}
    with _calls(names) as calls, torch.inference_mode():
        model.all_layers(*one_image(net))
    # the block that is given the very tokens a head reads
    given = {id(tokens): block for block, (tokens, *_), _ in calls if block.startswith("block")}
    reads = {name: int(given[id(x)].removeprefix("block.")) for name, (x, *_), _ in calls}
    inside = {m: name for name, m in g[0].named_modules() if _is_leaf(m)}
    with _calls(inside) as layers, torch.inference_mode():
        model.all_layers(*one_image(net))
    inputs = next(inputs for name, inputs, _ in calls if name == "u.0")
    with _Operations() as operations, torch.inference_mode():
        u[0](*inputs)
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
            "timestep_aware": u[0].timestep_aware,
            "inputs": [list(tensor.shape) for tensor in inputs],
            "linear": [u[0].linear.in_features, u[0].linear.out_features],
            "operations": operations.found,
        },
    }


def _is_stage(net: UViT, name: str) -> bool:
    """Whether a module is drawn as one part of the network: a block, or what else the network itself calls."""
    module = net.get_submodule(name)
    inside_list = name.rpartition(".")[0] in ("in_blocks", "out_blocks")
    return bool(name) and ("." not in name or inside_list) and not isinstance(module, nn.ModuleList)


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


@contextmanager
def _calls(names: dict[nn.Module, str]) -> Iterator[list[tuple[str, tuple, Tensor]]]:
    """Every call of the named modules in the block, in order: (name, tensors given, tensor returned)."""
    calls, handles = [], []

    def note(module, inputs, output):
        calls.append((names[module], tuple(i for i in inputs if isinstance(i, Tensor)), output))

    try:
        handles += [module.register_forward_hook(note) for module in names]
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _stage(parent: nn.Module, name: str, inputs: tuple, output: Tensor) -> dict:
    module = parent.get_submodule(name)
    return {
        "name": name,
        "kind": type(module).__name__,
        "in": [list(tensor.shape) for tensor in inputs],
        "out": list(output.shape),
        "parameters": parameters(module),
    }


class _Operations(TorchDispatchMode):
    """Collects the tensor operations run in its block, without those that only view: name and shape returned."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.found.append([function._schema.name.split("::")[1], list(output.shape)])
        return output
