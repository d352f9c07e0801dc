"""The operations, parameters, memory, load time and energy of a method."""

import time
import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from duodiff.backbones import Autoguided, Backbone, FixedExit, Guided
from duodiff.metrics.flops import exit_gflops, gflops
from duodiff.sampling.cells import Cell, denoiser
from duodiff.sampling.models import Models


def trajectory_gflops(models: Models, cell: Cell, ran: Tensor | None) -> float:
    """GFLOPs of all network calls for an image; the mean over the images of a run.

    `ran` [steps, batch] are the blocks that each image ran in each step of an early exit, which pays for these blocks,
    for the uncertainty heads up to its layer and for one output head. With all heads computed (Appendix A.5) every
    call pays for everything.
    """
    if cell.method == "adadiff_all_heads":
        return len(cell.steps) * gflops(models.full.net, models.adadiff.all_layers)
    if cell.method == "adadiff_none_exit":
        return len(cell.steps) * exit_gflops(models.adadiff)[-1]
    if cell.early_exit is not None:
        assert ran is not None
        by_layer = torch.tensor(exit_gflops(models.adadiff), dtype=torch.float64)
        return by_layer[ran.long()].sum(0).mean().item()
    backbones = [cell.schedule.at(step.t) for step in cell.steps]
    costs = {backbone: _call_gflops(backbone) for backbone in set(backbones)}
    return sum(costs[backbone] for backbone in backbones)


def _call_gflops(backbone: Backbone) -> float:
    if isinstance(backbone, FixedExit):
        return gflops(backbone.model.uvit, backbone.compute)
    if isinstance(backbone, Autoguided):
        return _call_gflops(backbone.network) + _call_gflops(backbone.by)
    # guidance by the class computes each image with and without its class
    images = 2 if isinstance(backbone, Guided) else 1
    return images * gflops(denoiser(backbone).net)


def resident(models: Models, roles: Iterable[str]) -> tuple[int, int]:
    """Parameters of the networks in `roles`, and the bytes of all their tensors. A shared tensor counts once."""
    networks = [models.adadiff if role == "heads" else models.backbone(role) for role in roles]
    parameters = {p for network in networks for p in network.parameters()}
    buffers = {b for network in networks for b in network.buffers()}
    bytes_ = sum(tensor.nbytes for tensor in parameters | buffers)
    return sum(p.numel() for p in parameters), bytes_


def load_seconds(load: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each of `repeats` calls of `load`, which loads networks onto the device and checks their hashes."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        load()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The largest number of bytes that tensors made during `run` hold at one time. Older tensors do not count."""
    if device == "cpu":
        with _Held() as held:
            run()
        return held.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


class _Held(TorchDispatchMode):
    """Counts the bytes of all storages that operations in its block return, until the storages are freed.

    Memory that an operation allocates and frees again is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._now = 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._known.update(_storages((args, kwargs)))  # a view of an older tensor is no new memory
        output = function(*args, **kwargs)
        for storage in _storages(output):
            if storage not in self._known:
                self._known.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())
        return output

    def _change(self, nbytes: int) -> None:
        self._now += nbytes
        self.peak = max(self.peak, self._now)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def synchronise(device: str) -> None:
    """Waits until the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def energy_meter(device: str) -> Callable[[], float] | None:
    """A function that reads the energy of a torch device's GPU: joules since its driver started.

    None without a GPU, without the package nvidia-ml-py, or if the GPU does not count energy (before Volta).
    """
    if device == "cpu":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
