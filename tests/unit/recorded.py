"""A pretended `torch.cuda` on a CPU, whose graphs repeat what was captured: the same operations on the same tensors."""

from contextlib import contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    """Notes the operations inside the block with their tensors, and undoes what they wrote to others' memory."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        for tensor in given:
            memory = tensor.untyped_storage().data_ptr()
            self.before.setdefault(memory, (tensor, tensor.clone()))
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def undo(self) -> None:
        for tensor, value in self.before.values():
            tensor.copy_(value)


class Graph:
    """A captured graph. It may be replayed often; `all_of_them` are those that were made, in their order."""

    all_of_them: ClassVar[list["Graph"]] = []

    def __init__(self):
        self.replays, self.calls = 0, []
        Graph.all_of_them.append(self)

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextmanager
def capturing(graph: Graph, pool, stream):
    with _Recorder() as recorder:
        yield
    recorder.undo()
    graph.calls, graph.pool, graph.stream = recorder.calls, pool, stream


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        assert isinstance(other, Stream)


def pretend(monkeypatch) -> type[Graph]:
    """Has `torch.cuda` capture on a CPU. Returns the class of the graphs, which knows all that were made."""
    Graph.all_of_them = []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    return Graph
