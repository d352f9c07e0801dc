"""Backbones as compiled graphs: by OpenVINO in float32 on a CPU, else by torch.compile (on a GPU as CUDA graphs)."""

import copy
import sys
from importlib import metadata

import torch
from torch import Tensor, nn

COMPILE = {"mode": "reduce-overhead", "dynamic": False, "fullgraph": True}
"""How torch.compile takes a network: whole, for one size of batch, on a GPU as a CUDA graph."""


def compile_forward(net: nn.Module, device: str, precision: str) -> None:
    """Has calls of `net` computed by a graph of it, one for each size of batch.

    What uses the network's layers one by one, as early exit does, is left as it is. `precision` is "float32" or, by an
    autocast of the caller's, "bfloat16"; in that OpenVINO would round the time, too. Raises ImportError where OpenVINO
    is needed and missing.
    """
    if _by_openvino(device, precision):
        net.forward = OpenvinoGraphs(net)
    else:
        net.compile(**COMPILE)


def engine(device: str, precision: str) -> str:
    """What computes the graphs there, with its version: another may give other last bits."""
    package = "openvino" if _by_openvino(device, precision) else "torch"
    return f"{package} {metadata.version(package)}"


def _by_openvino(device: str, precision: str) -> bool:
    return torch.device(device).type == "cpu" and precision == "float32"


class OpenvinoGraphs:
    """A network's forward pass by OpenVINO in float32, on as many threads as torch has when a graph is made.

    Each graph, made when a batch of its size first comes, keeps a copy of the weights, arranged for its products.
    """

    def __init__(self, net: nn.Module):
        self.openvino = _import_openvino()
        self.net = copy.copy(net)  # whose forward stays its own
        self.requests = {}

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the network gives for x [B, C, H, W], t [B] and y [B] or None."""
        given = (x, t) if y is None else (x, t, y)
        if len(x) not in self.requests:
            self.requests[len(x)] = self._request(given)
        request = self.requests[len(x)]
        return torch.from_numpy(request.infer([v.numpy() for v in given], share_inputs=True)[0])

    def _request(self, given: tuple[Tensor, ...]):
        with torch.inference_mode(False), torch.no_grad():
            like = tuple(torch.zeros_like(v) for v in given)
            graph = self.openvino.convert_model(torch.export.export(self.net, like))
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # jobs beside each other would choose the same cores
        }
        return self.openvino.Core().compile_model(graph, "CPU", options).create_infer_request()


def _import_openvino():
    """OpenVINO, which tells its makers of each use by another package: that one is not let in."""
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "compiled: found no package openvino, which computes compiled backbones on a CPU; accepted: install it"
            " (envs/requirements.in), or leave them eager"
        ) from error
    return openvino
