"""The paper's diagrams (Figures 3, 6 and 7), drawn from the networks' descriptions alone (metrics/architecture.py)."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from duodiff.plotting import style
from duodiff.schedules import T

_FILL = {
    "shallow": "#b7e4d6",
    "full": "#dadada",
    "embedding": "#ffffff",
    "output": "#f3d1e2",
    "uncertainty": "#fde2b8",
}
_SKIP = "#0072b2"
_LINE = "#444444"
_LINEAR = {"matmul", "mm", "mv", "bmm", "addmm", "add"}  # the operations a linear layer is made of

Point = tuple[float, float]
"""A place on a canvas: across, 0 to 10, and the row, 0 at the top and negative below."""


def duodiff(title: str, networks: dict) -> Figure:
    """Figure 3: DuoDiff over the timesteps, and its two backbones with their long skip connections."""
    depth = max(len(_blocks(networks[role])) for role in ("full", "shallow"))
    figure, axis = _canvas(width=7.0, rows=depth + 7.6)
    axis.set_title(f"{title}: DuoDiff", parse_math=False)
    ends = {"shallow": (0.2, 4.8), "full": (5.0, 9.8)}
    texts = {"shallow": "$t \\geq T - t_s$: shallow", "full": "$t < T - t_s$: full"}
    for role, (left, right) in ends.items():
        _box(axis, ((left + right) / 2, -1.4), right - left, texts[role], _FILL[role])
    _arrow(axis, (0.2, -0.5), (9.8, -0.5))
    axis.text(0.2, -0.35, f"noise, t = {T - 1}", ha="left", va="bottom")
    axis.text(4.9, -0.35, "switch", ha="center", va="bottom")
    axis.text(9.8, -0.35, "t = 0, image", ha="right", va="bottom")
    axis.plot([4.9, 4.9], [-0.4, -1.9], color="#d55e00", linewidth=2, linestyle="--")
    for role, (left, right) in ends.items():
        middle, network = (left + right) / 2, networks[role]
        _arrow(axis, (middle, -1.85), (middle, -2.55))
        last = _network(axis, (middle, -3.0), network, role)
        parameters = _millions(network["parameters"])
        cost = f"{parameters} parameters\n{_operations(network['gflops'])} a step"
        axis.text(middle, last - 0.6, cost, ha="center", va="top")
    return figure


def adadiff(title: str, networks: dict) -> Figure:
    """Figure 6: AdaDiff on the full backbone, uncertainty before each block and output heads; below, an output head.

    Long skip connections are left out, as in the paper.
    """
    full, added = networks["full"], networks["adadiff"]
    blocks = _blocks(full)
    figure, axis = _canvas(width=7.0, rows=2 * len(blocks) + len(added["output_head"]) + 4)
    axis.set_title(f"{title}: AdaDiff", parse_math=False)
    y = -0.6
    _box(axis, (4.6, y), 4.4, _embedding(full), _FILL["embedding"])
    read = {
        kind: {head[kind]["layer"]: i for i, head in enumerate(added["heads"])}
        for kind in ("uncertainty", "output")
    }
    first = y - 1
    for i in range(len(blocks)):
        _arrow(axis, (4.6, y - 0.4), (4.6, y - 1.6))
        tokens = y - 1
        if i in read["uncertainty"]:
            _arrow(axis, (4.6, tokens), (2.5, tokens))
            _box(axis, (1.4, tokens), 2.2, f"$u_{{{i}}} \\leq \\theta$ ?", _FILL["uncertainty"])
        if i in read["output"]:
            _arrow(axis, (4.6, tokens), (6.9, tokens))
            axis.text(5.8, tokens + 0.05, "if so", ha="center", va="bottom", fontsize="small")
            _box(axis, (7.7, tokens), 1.6, f"$g_{{{i}}}$", _FILL["output"])
            axis.plot([8.5, 9.3], [tokens, tokens], color=_LINE, linewidth=1)
        y -= 2
        _box(axis, (4.6, y), 2.6, f"block {i}", _FILL["full"])
    y = _chain(axis, (4.6, y), 4.4, _output_layers(full["stages"]), _FILL["output"])
    _arrow(axis, (4.6, y - 0.4), (4.6, y - 1.1))
    axis.text(4.6, y - 1.5, "$\\epsilon$", ha="center", va="center")
    axis.plot([9.3, 9.3], [first, y - 1.5], color=_LINE, linewidth=1)
    _arrow(axis, (9.3, y - 1.5), (4.9, y - 1.5))
    heads = f"Each head $g_i$: {_millions(added['heads'][0]['output']['parameters'])} parameters"
    layers = " → ".join(_output_layers(added["output_head"]))
    axis.text(0.2, y - 2.3, f"{heads}\n{layers}", ha="left", va="top")
    return figure


def uncertainty(title: str, networks: dict) -> Figure:
    """Figure 7: the layers of one uncertainty estimation module (Eq. 4)."""
    head = networks["adadiff"]["uncertainty_head"]
    tokens, time = (shape[1:] for shape in head["inputs"])
    given, returned = head["linear"]
    after = [(n, shape[1:]) for n, shape in head["operations"] if n not in _LINEAR]
    figure, axis = _canvas(
        width=6.2, rows=2 * (4 + len(after)) - 2 * (not head["timestep_aware"]) - 1.5
    )
    axis.set_title(f"{title}: uncertainty", parse_math=False)
    y = -0.6
    _box(axis, (3.0, y), 4.6, f"tokens: {_shape(tokens)}", _FILL["embedding"])
    if head["timestep_aware"]:
        _box(axis, (7.8, y), 4.2, f"time: {_shape(time)}", _FILL["embedding"])
        _arrow(axis, (7.8, y - 0.45), (6.2, y - 1.5))
        joined = f"concatenate: {tokens[0]} × {given}"
        _arrow(axis, (3.0, y - 0.45), (4.2, y - 1.5))
        y -= 2
        _box(axis, (5, y), 8.4, joined, _FILL["embedding"])
    layers = [f"linear, {given} → {returned}, on every token"]
    layers += [f"{name}: {_shape(shape) or 'one number'}" for name, shape in after]
    for text in layers:
        _arrow(axis, (5, y - 0.45), (5, y - 1.55))
        y -= 2
        _box(axis, (5, y), 8.4, text, _FILL["uncertainty"])
    _arrow(axis, (5, y - 0.45), (5, y - 1.3))
    exits = "$u_i$; exit before block $i$ if $u_i \\leq \\theta$"
    axis.text(5, y - 1.4, exits, ha="center", va="top")
    return figure


def _canvas(width: float, rows: float) -> tuple[Figure, Axes]:
    """A figure of `width` inches whose axis is 10 wide and `rows` high. The first row is at 0, the next below it."""
    style.apply()
    plt.rcParams["font.size"] = 11.5
    figure, axis = plt.subplots(figsize=(width, 0.34 * rows + 0.4))
    axis.set(xlim=(-0.1, 10.1), ylim=(-rows, 0.3))
    axis.axis("off")
    return figure, axis


def _box(axis: Axes, place: Point, width: float, text: str, color: str) -> None:
    """A box with a text, centred at `place`."""
    x, y = place
    corner = (x - width / 2 + 0.1, y - 0.3)
    patch = FancyBboxPatch(
        corner,
        width - 0.2,
        0.6,
        boxstyle="round,pad=0.1",
        facecolor=color,
        edgecolor=_LINE,
        linewidth=1,
        mutation_aspect=1,
    )
    axis.add_patch(patch)
    axis.text(x, y, text, ha="center", va="center")


def _arrow(axis: Axes, start: Point, end: Point, color: str = _LINE) -> None:
    arrow = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=arrow)


def _chain(axis: Axes, place: Point, width: float, texts: list[str], color: str) -> float:
    """Draws boxes below `place`, one a row, joined by arrows; returns the row of the last."""
    x, y = place
    for text in texts:
        _arrow(axis, (x, y - 0.4), (x, y - 0.6))
        y -= 1
        _box(axis, (x, y), width, text, color)
    return y


def _network(axis: Axes, place: Point, network: dict, role: str) -> float:
    """Draws a backbone down from `place`, its long skips at its right; returns the row of its last part."""
    x, y = place
    _box(axis, (x, y), 4.4, _embedding(network), _FILL["embedding"])
    blocks = _blocks(network)
    row = {name: y - 1 - i for i, name in enumerate(blocks)}
    names = [f"block {i}" for i in range(len(blocks))]
    y = _chain(axis, (x, y), 1.9, names, _FILL[role])
    skips = network["skips"]
    for i, (start, end) in enumerate(skips):  # the innermost first
        out = x + 1.3 + 1.1 * i / max(1, len(skips) - 1)
        line = [(x + 0.95, row[start]), (out, row[start]), (out, row[end])]
        axis.plot(*zip(*line, strict=True), color=_SKIP, linewidth=1.2)
        _arrow(axis, (out, row[end]), (x + 0.95, row[end]), _SKIP)
    return _chain(axis, (x, y), 4.4, _output_layers(network["stages"]), _FILL["output"])


def _blocks(network: dict) -> list[str]:
    return [stage["name"] for stage in network["stages"] if stage["kind"] == "Block"]


def _embedding(network: dict) -> str:
    """What comes before the first block: the embeddings, and the tokens they make."""
    first = next(stage for stage in network["stages"] if stage["kind"] == "Block")
    inputs = {"time_embed": "t", "label_emb": "y", "patch_embed": "x_t"}
    names = [inputs[stage["name"]] for stage in network["stages"] if stage["name"] in inputs]
    return f"${', '.join(names)}$ → {_shape(first['in'][0][1:])} tokens"


def _output_layers(stages: list[dict]) -> list[str]:
    """What comes after the last block, a text a layer, with the sizes it sees."""
    last = max((i for i, s in enumerate(stages) if s["kind"] == "Block"), default=-1)
    texts = []
    for stage in stages[last + 1 :]:
        size = _shape(stage["out"][1:])
        match stage["kind"]:
            case "Linear":
                texts.append(f"linear, {stage['in'][0][-1]} → {stage['out'][-1]}")
            case "Conv2d":
                texts.append(f"convolution → {size}")
            case "Identity":  # no convolution: the image as it is put together
                texts.append(f"image → {size}")
            case "LayerNorm":
                texts.append("layer norm")
            case other:
                texts.append(other)
    return texts


def _shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape))


def _millions(number: int) -> str:
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number:,}"


def _operations(gflops: float) -> str:
    return f"{gflops:.3g} GFLOPs" if gflops >= 0.1 else f"{1000 * gflops:.3g} MFLOPs"
