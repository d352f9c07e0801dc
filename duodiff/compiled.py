"""Backbones as compiled graphs.

OpenVINO compiles them for a CPU in float32, torch.compile for everything else. On a GPU it compiles the form that
`duodiff.fast` gives a U-ViT.
"""

import copy
import sys
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from duodiff.fast import FastUViT
from duodiff.uvit import UViT

WHOLE: dict[str, Any] = {"dynamic": False, "fullgraph": True}
"""Options of torch.compile: one graph of the whole network for each batch size."""

COMPILE = WHOLE | {"mode": "max-autotune-no-cudagraphs"}
"""The same on a GPU, whose kernels are tuned. `duodiff.graphs` captures them, a whole step at a time."""

_MOST_GRAPHS = 64
"""Graphs of one function in one process: for each network and size of batch. By itself torch.compile stops at 8."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The dtypes that a GPU stores the weights of compiled backbones in, by precision."""


def allow_graphs() -> None:
    """Lets torch.compile make as many graphs of a function as networks and sizes of batches need."""
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_GRAPHS)


def compile_forward(net: nn.Module, device: str, precision: str) -> None:
    """Replaces the forward pass of `net`, on its device already, by compiled graphs, one for each batch size.

    Code that calls the layers one by one, such as early exit, does not use the graphs. `precision` is "float32", or
    "bfloat16" where the caller computes under autocast; OpenVINO is not used for bfloat16, because it would round the
    time too. Raises ImportError if OpenVINO is needed and not installed.
    """
    if _by_openvino(device, precision):
        net.forward = OpenvinoGraphs(net)
    elif torch.device(device).type == "cuda":
        _compile_for_gpu(net, precision)
    else:
        net.compile(**WHOLE)


def _compile_for_gpu(net: Any, precision: str) -> None:
    """As `compile_forward`; a network of another class is compiled as it is."""
    if isinstance(net, UViT):
        vars(net)["forward"] = FastGraphs(net, precision)
    else:
        net.compile(**COMPILE)


def engine(device: str, precision: str) -> str:
    """The package that computes the graphs, with its version. Another version may differ in the last bits."""
    package = "openvino" if _by_openvino(device, precision) else "torch"
    return f"{package} {metadata.version(package)}"


def _by_openvino(device: str, precision: str) -> bool:
    return torch.device(device).type == "cpu" and precision == "float32"


class FastGraphs:
    """A U-ViT's forward pass by torch.compile, in the form of `FastUViT`, with a copy of the weights in `precision`."""

    def __init__(self, net: UViT, precision: str):
        with torch.inference_mode(False):  # inference tensors cannot be compiled
            self.fast = FastUViT(net, DTYPES[precision])
        allow_graphs()
        self.fast.compile(**COMPILE)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output, float32 like x [B, C, H, W]; t is [B], y is [B] or None."""
        with torch.autocast(x.device.type, enabled=False):  # the dtypes are chosen already
            return self.fast(x, t, y)


class OpenvinoGraphs:
    """A network's forward pass by OpenVINO in float32.

    The first batch of a size compiles a graph for that size. A graph runs on the number of threads that torch had at
    that moment, and holds its own copy of the weights.
    """

    def __init__(self, net: nn.Module):
        self.openvino = _import_openvino()
        self.net = copy.copy(
            net
        )  # `compile_forward` replaces the forward of `net`, not of this copy
        self.requests: dict[int, Any] = {}  # OpenVINO's, by batch size

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output, like x [B, C, H, W]; t is [B], y is [B] or None."""
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
            "ENABLE_CPU_PINNING": False,  # with pinning, several jobs would choose the same cores
        }
        return self.openvino.Core().compile_model(graph, "CPU", options).create_infer_request()


def _import_openvino():
    """Imports OpenVINO with its telemetry package blocked, so that nothing is reported over the network."""
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's way to block an import
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "compiled: found no package openvino, which computes compiled backbones on a CPU; accepted: install it"
            " (envs/requirements.in), or leave them eager"
        ) from error
    return openvino
