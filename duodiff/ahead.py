"""AdaDiff on a GPU: the host queues all blocks of a call, and does not wait in them to know who left.

The rule is that of `early_exit`: every uncertainty is computed on the device, before its block, for every image that
has not left. Who left is known on the device alone. Three things follow from this.

- Tokens of all layers are kept until the end of a call. Then each image's output head reads the tokens that the image
  left with, all heads in one product.
- The host chooses the batch of each block before it knows the exits: by the exits of the calls before. Images that left
  stay in a batch where a smaller one would not pay.
- Images that a batch had no room for are computed late, from their tokens. To know of them, the host waits for the last
  batch that shrank, when the whole call is queued. Where no image left lately nothing shrinks, and it does not wait.
"""

import copy
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duodiff.compiled import COMPILE, allow_graphs
from duodiff.early_exit import AdaDiff, exit_layers
from duodiff.fast import FastUViT
from duodiff.uvit import UViT, add

PARTS = 8
"""A batch has so many sizes: multiples of this part of it. Few sizes are few compiled graphs."""

REMEMBERED = 4
"""Calls whose exits are the guess: a batch has room for the most images that any of them kept there."""

# Estimates: a GPU's products of matrices over its copies, both per second; what the small kernels of a shrinking batch
# take, of a block's time
_OPERATIONS_A_BYTE = 128
_SHRINKING = 1 / 16


Given = tuple[Tensor, Tensor, Tensor | None]
"""x, t and y of a call."""


class Ahead:
    """`AdaDiff.forward` for the calls of one trajectory on a GPU, without gradients.

    Equal exits, and outputs equal up to the last bits. `forget` begins another trajectory: the batches of a call follow
    from the calls of its own trajectory alone, so an image does not depend on what was sampled before.

    `blocks_computed` is the mean number of blocks that the last call computed for an image, with those of images that
    had left. `copying` is the time to copy an image's tokens, of a block's time.
    """

    def __init__(self, model: AdaDiff, parts: "Parts | None" = None):
        self.model, self.parts, self.blocks_computed = model, parts or Parts(model), 0.0
        net = model.uvit
        copied = 2 * self.parts.dtype.itemsize  # bytes of a number, read and written
        operations = 24 * net.embed_dim + 4 * net.pos_embed.shape[1]  # of a block, for a number
        self.copying = copied * _OPERATIONS_A_BYTE / operations
        self.forget()

    def forget(self) -> None:
        """Begins another trajectory."""
        self._batch = 0
        self._asked: deque[_Told] = deque()
        self._kept: deque[list[int]] = deque(maxlen=REMEMBERED)

    @torch.no_grad()
    def __call__(
        self, x: Tensor, t: Tensor, y: Tensor | None, theta: float
    ) -> tuple[Tensor, Tensor]:
        """Noise [B, C, H, W] and exit layer int64 [B]."""
        sizes = self._sizes(len(x))
        with self.parts.computing(x.device):
            call = self._begin((x, t, y), theta)
            everyone = call.group(torch.arange(len(x), device=x.device), offset=0, since=0)
            self._run(call, everyone, sizes)
            output, exits = self._finish(call)
            if self._run_late(call):
                output, exits = self._finish(call)
        self._remember(call, exits)
        return output.to(x.dtype), exits

    def _sizes(self, batch: int) -> Sequence[int]:
        """How many images each block of the next call computes.

        The last call is left out, but for the second of a trajectory: the device still works on it.
        """
        if batch != self._batch:
            self.forget()
            self._batch = batch
        while len(self._asked) > 1 or (self._asked and not self._kept):
            self._kept.append(self._asked.popleft().read())
        if not self._kept:
            return [batch] * self.model.uvit.depth
        most = [max(counts) for counts in zip(*self._kept, strict=True)]
        return cheapest_sizes(tuple(room(n, batch) for n in most), batch, self.copying)

    def _begin(self, given: Given, theta: float) -> "_Call":
        """The call with the tokens before the first block, and their uncertainties."""
        depth, batch, device = self.model.uvit.depth, len(given[0]), given[0].device
        _, length, dim = self.model.uvit.pos_embed.shape
        layers = torch.empty(depth + 1, batch, length, dim, dtype=self.parts.dtype, device=device)
        slots = self.parts.slots(layers)
        time_emb, first = self.parts.embed(given, slots[0])
        u = first.new_full((depth, batch), float("inf"))
        u[0] = first
        at = torch.empty(depth + 1, batch, dtype=torch.long, device=device)
        return _Call(theta, layers, u, at, time_emb, slots=slots)

    def _run(self, call: "_Call", group: "_Group", sizes: Sequence[int]) -> None:
        """The blocks of a group of images, and the uncertainties after them."""
        depth = self.model.uvit.depth
        for i in range(max(group.since - 1, 0), depth):
            if sizes[i] < len(group.rows):
                group = call.shrink(group, i, sizes[i], last=sizes[i] == sizes[-1])
                if not sizes[i]:
                    return
            skip = [call.tokens(depth - i, group)] if i > depth // 2 else []
            given = (call.tokens(i, group), group.times, *skip)
            u = self.parts.block(i, given, call.out(i, group))
            if u is not None:
                call.u[i + 1].index_copy_(0, group.rows, u)
            call.computed += len(group.rows)

    def _run_late(self, call: "_Call") -> bool:
        """The images that no batch had room for, without shrinking. Whether there are such images."""
        counts = call.told.read() if call.told else []
        for count, late in zip(counts, call.late, strict=True):
            if count:
                rows = late.rows[: room(count, call.u.shape[1])]
                sizes = [len(rows)] * self.model.uvit.depth
                self._run(call, call.group(rows, late.offset, late.since), sizes)
        return any(counts)

    def _finish(self, call: "_Call") -> tuple[Tensor, Tensor]:
        """Output and exit layer of each image."""
        exits = exit_layers(call.u, call.theta)
        batch = len(exits)
        chosen = exits * batch + call.at.gather(0, exits[None])[0]
        tokens = call.layers.flatten(0, 1).index_select(0, chosen)
        return self.parts.decode(tokens, exits), exits

    def _remember(self, call: "_Call", exits: Tensor) -> None:
        """Counts NaNs, and how many images each block would have needed. Tells the host of these later."""
        layers = torch.arange(len(call.u), device=exits.device)[:, None]
        self.model.nan_count += (call.u.isnan() & (layers <= exits)).sum()
        self._asked.append(_Told((exits > layers).sum(1)))
        self.blocks_computed = call.computed / len(exits)


def room(count: int, batch: int) -> int:
    """The smallest of a batch's sizes that holds `count` images."""
    part = -(-batch // PARTS)
    return min(batch, -(-count // part) * part)


@lru_cache
def cheapest_sizes(needed: tuple[int, ...], batch: int, copying: float) -> tuple[int, ...]:
    """The images that each block computes, so that a call takes least; they never rise, and hold `needed`.

    The unit is a block's time for an image. A batch that shrinks copies the tokens of those that stay. Later, blocks in
    the second half copy their rows of the tokens that they skip to.
    """
    sizes = sorted({room(part, batch) for part in range(batch + 1)})
    least: dict[int, tuple[float, tuple[int, ...]]] = dict.fromkeys(sizes, (0.0, ()))
    for i in reversed(range(len(needed))):
        skips = copying if i > len(needed) // 2 else 0.0

        def cost(before: int, size: int, skips: float = skips) -> float:
            shrinks = size < before
            copied = skips * size * (size < batch) + copying * size * shrinks
            return size + copied + _SHRINKING * batch * shrinks

        least = {
            before: min(
                (cost(before, size) + least[size][0], (size, *least[size][1]))
                for size in sizes
                if needed[i] <= size <= before
            )
            for before in sizes
            if before >= needed[i]
        }
    return least[batch][1]


class _Group(NamedTuple):
    """Images that are computed together: their rows in the call's batch and their time embeddings.

    From layer `since` on, their tokens lie one after the other, from the row `offset` of a layer.
    """

    rows: Tensor
    times: Tensor
    offset: int
    since: int


class _Late(NamedTuple):
    """Images for which a shrinking batch had no room, those that had not left first; else as in `_Group`."""

    rows: Tensor
    offset: int
    since: int


@dataclass
class _Call:
    """What one call has computed.

    - `layers` [N + 1, B, L, D]: tokens before each block and after the last; `slots` are the same, a layer each
    - `u` [N, B]: uncertainties, infinite where they were not computed
    - `at` int64 [N + 1, B]: the row in which a layer has the tokens of an image
    - `late`: the images for which each shrinking batch had no room; `missed`, `told`: how many of these had not left
    - `computed`: blocks times images
    """

    theta: float
    layers: Tensor
    u: Tensor
    at: Tensor
    time_emb: Tensor
    slots: list[Tensor]
    late: list[_Late] = field(default_factory=list)
    missed: list[Tensor] = field(default_factory=list)
    told: "_Told | None" = None
    computed: int = 0

    def group(self, rows: Tensor, offset: int, since: int) -> _Group:
        """Images that are computed together from the layer `since` on."""
        self.at[since:, rows] = offset + torch.arange(len(rows), device=rows.device)
        return _Group(rows, self.time_emb.index_select(0, rows), offset, since)

    def tokens(self, layer: int, group: _Group) -> Tensor:
        """The group's tokens in a layer, in its order."""
        if layer >= group.since:
            return self.slots[layer][group.offset : group.offset + len(group.rows)]
        return self.slots[layer].index_select(0, self.at[layer].index_select(0, group.rows))

    def out(self, block: int, group: _Group) -> Tensor:
        """Where the group's tokens after a block go."""
        return self.slots[block + 1][group.offset : group.offset + len(group.rows)]

    def shrink(self, group: _Group, layer: int, size: int, last: bool) -> _Group:
        """`size` images of the group, those that have not left first; the others may be computed late.

        After the last time, the host is told how many there are in each of `late`.
        """
        u = self.u[: layer + 1].index_select(1, group.rows)
        left = exit_layers(u, self.theta) <= layer
        rows = group.rows.index_select(0, left.int().argsort(stable=True))
        self.late.append(_Late(rows[size:], group.offset + size, layer + 1))
        self.missed.append(((~left).sum() - size).clamp(min=0))
        if last:
            self.told = _Told(torch.stack(self.missed))
        return self.group(rows[:size], group.offset, layer + 1)


class Parts:
    """The parts of AdaDiff that a call runs, for tokens whose memory is given. They compute as AdaDiff does."""

    def __init__(self, model: AdaDiff):
        self.net, self.heads = model.uvit, model.uncertainty_heads
        self.ends = [*model.output_heads, model.uvit]
        self.blocks = [*self.net.in_blocks, self.net.mid_block, *self.net.out_blocks]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of tokens in memory."""
        return self.net.pos_embed.dtype

    def computing(self, device: torch.device) -> AbstractContextManager:
        """The block in which the parts run."""
        return nullcontext()

    def slots(self, layers: Tensor) -> list[Tensor]:
        """The layers [N + 1, B, L, D], one by one, in the same memory."""
        return [*layers]

    def embed(self, given: Given, out: Tensor) -> tuple[Tensor, Tensor]:
        """The time embedding and the first uncertainty of given x, t, y; the tokens go to `out`."""
        x, t, y = given
        time_emb = self.net.embed_time(t)
        out.copy_(self.net.embed(x, time_emb, y))
        return time_emb, self.heads[0](out, time_emb)

    def block(self, i: int, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        """Block i of given tokens, time embeddings and, in the second half, skip. Its tokens go to `out`.

        Their uncertainty is returned. There is none after the last block. It is `Block.forward`, but for the memory
        of its last sum.
        """
        (x, times, *skip), block = given, self.blocks[i]
        if block.skip_linear is not None:
            x = block.skip_linear(torch.cat([x, *skip], dim=-1))
        x = add(block.attn(block.norm1(x)), x)
        torch.add(block.mlp(block.norm2(x)), x, out=out)
        return self.heads[i + 1](out, times) if i + 1 < len(self.heads) else None

    @cached_property
    def weights(self) -> list[Tensor]:
        """Of all output heads, and as the last the backbone's own, by layer: each [N + 1, ...]."""
        norms, linears = [end.norm for end in self.ends], [end.decoder_pred for end in self.ends]
        found = [
            [norm.weight for norm in norms],
            [norm.bias for norm in norms],
            [linear.weight.T for linear in linears],
            [linear.bias for linear in linears],
        ]
        if self.net.conv:
            convs = [end.final_layer for end in self.ends]
            found += [[conv.weight.flatten(1) for conv in convs], [conv.bias for conv in convs]]
        return [torch.stack(each) for each in found]

    def decode(self, tokens: Tensor, exits: Tensor) -> Tensor:
        """The output of each image [B, C, H, W] by the head of its exit layer."""
        return _decode(self.net, self.weights, tokens, exits)


class CompiledParts(Parts):
    """The parts compiled, as `FastUViT` has them, with weights in `dtype`.

    Three graphs serve all blocks and sizes of a batch: of a block without a skip, of one with it, and of the last.
    """

    def __init__(self, model: AdaDiff, dtype: torch.dtype):
        super().__init__(model)
        with torch.inference_mode(False):  # inference tensors cannot be compiled
            net = copy.copy(model.uvit)
            vars(net).pop("forward", None)  # its graphs, which hold a copy of the weights
            self.fast = FastUViT(net, dtype)
            self.heads = copy.deepcopy(model.uncertainty_heads).to(dtype)
        net = self.fast.net
        self.fast_blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]
        of_skips = zip(self.fast.of_tokens, self.fast.of_skip, strict=True)
        self.halves: list[tuple[Tensor, ...]] = [()] * (net.depth // 2 + 1) + [*of_skips]
        allow_graphs()
        self._embed = torch.compile(_embed_fast, **COMPILE)
        self._decode = torch.compile(_decode, **COMPILE)
        self._block = torch.compile(_block_fast, **COMPILE | {"dynamic": True})

    @property
    def dtype(self) -> torch.dtype:
        return self.fast.dtype

    def computing(self, device: torch.device) -> AbstractContextManager:
        return torch.autocast(device.type, enabled=False)  # the dtypes are chosen already

    def slots(self, layers: Tensor) -> list[Tensor]:
        # of one tensor's parts a graph would assume that to write one changes the others
        return [torch.from_dlpack(layer) for layer in layers]

    def embed(self, given: Given, out: Tensor) -> tuple[Tensor, Tensor]:
        return self._embed(self.fast, self.net, self.heads[0], given, out)

    def block(self, i: int, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        head = self.heads[i + 1] if i + 1 < len(self.heads) else None
        run = (self.fast, self.fast_blocks[i], self.halves[i], head)
        return self._block(run, given, out)

    @cached_property
    def weights(self) -> list[Tensor]:
        return [each.to(self.dtype) for each in super().weights]

    def decode(self, tokens: Tensor, exits: Tensor) -> Tensor:
        return self._decode(self.net, self.weights, tokens, exits)


def _embed_fast(
    fast: FastUViT, net: UViT, head: nn.Module, given: Given, out: Tensor
) -> tuple[Tensor, Tensor]:
    x, t, y = given
    out.copy_(fast.embed(x, t, y).view_as(out))
    time_emb = net.embed_time(t).to(out.dtype)
    return time_emb, head(out, time_emb).float()


def _block_fast(run: tuple, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
    (fast, block, halves, head), (x, times, *skip) = run, given
    tokens = x.flatten(0, 1)
    if halves:
        tokens = torch.addmm(block.skip_linear.bias, tokens, halves[0].t())
        tokens = torch.addmm(tokens, skip[0].flatten(0, 1), halves[1].t())
    out.copy_(fast.run(block, tokens, len(x)).view_as(out))
    return None if head is None else head(out, times).float()


def _decode(net: UViT, weights: list[Tensor], tokens: Tensor, exits: Tensor) -> Tensor:
    """What `OutputHead` gives for each image, whose head is that of its exit layer."""
    scale, shift, linear, bias, *conv = (each.index_select(0, exits) for each in weights)
    x = F.layer_norm(tokens, tokens.shape[-1:], eps=net.norm.eps)
    x = torch.addcmul(shift[:, None], x, scale[:, None])
    image = net.unpatchify(torch.baddbmm(bias[:, None], x, linear))
    if not conv:
        return image
    # a convolution as a product, since each image has its own
    windows = F.unfold(image, 3, padding=1)
    return torch.baddbmm(conv[1][..., None], conv[0], windows).reshape(image.shape)


class _Told:
    """Integers of a device on their way to the host, over pinned memory."""

    def __init__(self, numbers: Tensor):
        self.numbers = numbers.to("cpu", non_blocking=True)
        self.event = torch.cuda.Event() if numbers.is_cuda else None
        if self.event is not None:
            self.event.record()

    def read(self) -> list[int]:
        """The integers, when the device has come to them."""
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()
