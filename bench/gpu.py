"""Speed on an NVIDIA GPU beside what it must show: `make bench-gpu`. It is meant for three minutes.

    python bench/gpu.py [CASE ...] [--out FOLDER] [--device cpu --tiny]

Networks have random weights, batch 128 and bfloat16. They are compiled as `sampling.compiled` compiles them, and as
a training is, but where a case says eager. The yardstick is the product of two 8192 x 8192 matrices of random normals
in bfloat16. In each round the product runs for 0.2 s, and then each call of the case for 0.1 s or more.

FOLDER (results/bench_gpu) gets records.jsonl, a line for each case, and bench_gpu.md, a table. A case is not measured
again where the same code has been measured on the same device with the same libraries. `--tiny` runs all of it with
tiny networks, on a CPU, too. The exit status is 2 without a CUDA device, and 1 if a case fails.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

try:
    import torch
except ModuleNotFoundError as error:
    print(
        f"make bench-gpu: found no package {error.name} for {sys.executable}; accepted: PYTHON=python of an"
        " environment with the requirements of pyproject.toml",
        file=sys.stderr,
    )
    sys.exit(2)

import speed  # noqa: E402
from torch import Tensor  # noqa: E402

from duodiff import checkpoints  # noqa: E402
from duodiff.early_exit import AdaDiff  # noqa: E402
from duodiff.operations import network  # noqa: E402
from duodiff.running import compiling  # noqa: E402
from duodiff.running.files import write_text  # noqa: E402
from duodiff.running.provenance import commit, device_name, library_versions  # noqa: E402
from duodiff.sampling.cells import build_cell  # noqa: E402
from duodiff.sampling.generation import sample_batch  # noqa: E402
from duodiff.sampling.models import Models  # noqa: E402
from duodiff.schedules import shallow_calls, visited  # noqa: E402
from duodiff.settings import Setting  # noqa: E402
from duodiff.training.backbone import denoising_loss  # noqa: E402
from duodiff.uvit import Denoiser, UViT, timestep_embedding  # noqa: E402

SHALLOW = 3
SWITCHES = (300, 400, 500)
IMAGES = {"S/2": "3x32x32", "S/4": "3x64x64", "L/2": "4x32x32"}
"""The networks whose sampling loops are measured, with the shapes of their images or latents."""


def _wanted() -> dict[str, tuple[str, float, float | None]]:
    """What each row is to show: at least (>=) or at most (<=) this floor, and this aim where there is one."""
    rows: dict[str, tuple[str, float, float | None]] = {}
    shares = {"L/2": (0.65, 0.75), "M/4": (0.55, 0.65), "S/2": (0.50, 0.58), "S/4": (0.50, 0.58)}
    for name, (floor, aim) in shares.items():
        rows[f"{name} full, share of the product's rate"] = (">=", floor, aim)
        rows[f"{name} shallow, its share over full's"] = (">=", 0.9, None)
    for name, shape in IMAGES.items():
        for role in ("full", "shallow"):
            rows[f"loop of {name} {role} ({shape}), over its network"] = ("<=", 1.02, None)
    for name in ("S/2", "L/2"):
        for t_s in SWITCHES:
            rows[f"DuoDiff {name} t_s={t_s}, speed-up over its networks'"] = (">=", 0.97, None)
    for kind in ("", ", eager"):
        rows[f"early exit S/2{kind}, none exits, over the network"] = ("<=", 1.05, 1.02)
        for mean in speed.MEAN_EXITS:
            rows[f"early exit S/2{kind}, mean exit {mean}, over its ideal"] = ("<=", 1.15, None)
    return rows | {"training S/2, share of the product's rate": (">=", 0.40, 0.45)}


WANTED = _wanted()


@dataclass
class Measured:
    """What a case has measured: each row's value in every round, and each call's seconds in every round."""

    rows: dict[str, list[float]]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


class Bench:
    """The sizes of a run, and the networks that its cases share; `folder` is for checkpoints of random weights."""

    def __init__(self, device: str, tiny: bool, folder: Path):
        self.device, self.folder, self.compiled = device, folder, device == "cuda"
        small = {"img_size": 4, "patch_size": 2, "embed_dim": 16, "depth": 5, "num_heads": 2}
        self.architectures = {
            name: {"qkv_bias": False, "num_classes": -1, "conv": True, "mlp_time_embed": False}
            | {"mlp_ratio": 4, **options}
            | (small if tiny else {})
            for name, options in speed.PAPER.items()
        }
        self.batch, self.steps, self.rounds = (8, 10, 2) if tiny else (128, 50, 7)
        self.product_size, self.turn_s = (64, 0.0) if tiny else (8192, 0.1)
        self.models = cache(self._models)
        self._written = cache(self._write)

    def _models(self, name: str, compiled: bool) -> Models:
        conventions = {"schedule": "linear", "time_input": "t"}
        options = {"device": self.device, "precision": "bfloat16", "compiled": compiled}
        with torch.inference_mode(False):  # inference tensors cannot be compiled
            return Models(conventions, "corrected", **self._written(name), **options)

    def _write(self, name: str) -> dict[str, Path]:
        """Checkpoints of random weights: full, shallow and AdaDiff's heads (`scripted_heads`), by role."""
        torch.manual_seed(0)
        architecture = self.architectures[name]
        paths = {
            role: self.folder / name.replace("/", "_") / role / "manifest.json"
            for role in ("full", "shallow", "heads")
        }
        made = {"schedule": "linear", "time_input": "t", "class_order": None}
        unknown = {"training": {}, "seed": 0, "dataset_sha256": ""}
        shared = made | unknown
        for role, depth in (("shallow", SHALLOW), ("full", architecture["depth"])):
            options = architecture | {"depth": depth}
            manifest = checkpoints.BackboneManifest(
                options, prediction="noise", null_class=False, **shared
            )
            net = UViT(**options)
            saved = checkpoints.save(paths[role], net.state_dict(), manifest)
        heads = checkpoints.HeadsManifest(
            saved.weights_sha256, True, "corrected", departures=[], **shared
        )
        weights = scripted_heads(AdaDiff(net)).state_dict()
        weights = {k: v for k, v in weights.items() if not k.startswith("uvit.")}
        checkpoints.save(paths["heads"], weights, heads)
        return paths

    def operations(self, name: str, role: str) -> float:
        """Operations of one call on a batch."""
        return self.batch * self.cost(name, role).forward

    def cost(self, name: str, role: str):
        """The closed form of a network's operations, for one image."""
        shallow = {"depth": SHALLOW} if role == "shallow" else {}
        return network(self.architectures[name] | shallow)

    def product(self) -> Callable[[], Tensor]:
        """The yardstick."""
        return speed.product(self.product_size, device=self.device, dtype=torch.bfloat16)

    def rate(self, seconds: float) -> float:
        """Operations a second of the product."""
        return 2 * self.product_size**3 / seconds

    def share(self, operations: float, seconds: float, product_s: float) -> float:
        """The rate of operations that took these seconds, over the product's."""
        return operations / seconds / self.rate(product_s)

    def wait(self) -> None:
        """Returns when the device has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def turns(self, calls: dict[str, Callable]) -> dict[str, list[float]]:
        """Seconds of each call and of the product in every round, by name.

        In a round each runs for `turn_s` seconds or more without waiting in between, the product for twice as long.
        """
        calls = {"product": self.product(), **calls}
        repeats = {}
        for name, call in calls.items():
            self.seconds(call, 2)  # compiles, captures, warms up
            wanted = self.turn_s * (2 if name == "product" else 1)
            repeats[name] = max(1, math.ceil(wanted / self.seconds(call, 1)))
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.rounds):
            for name, call in calls.items():
                taken[name].append(self.seconds(call, repeats[name]))
        return taken

    def seconds(self, call: Callable, times: int) -> float:
        """Seconds of one of `times` calls in a row."""
        self.wait()
        begun = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return (time.perf_counter() - begun) / times

    def calls(self, models: Models) -> dict[str, Callable]:
        """One call of the full and of the shallow network, on a batch."""
        x, t, y = speed.inputs(models.full.net, self.batch)
        return {role: partial(models.backbone(role), x, t, y) for role in ("full", "shallow")}

    def loop(self, models: Models, t_s: int) -> Callable:
        """The sampling of a batch by DDPM with this switch."""
        cell = build_cell(
            models, {"name": "ddpm", "steps": self.steps}, Setting.parse(f"t_s={t_s}")
        )
        return partial(sample_batch, models, cell, 0, self.batch, 0)


def each(function: Callable[..., float], *lists: list[float]) -> list[float]:
    """The function of the values of each round."""
    return [function(*values) for values in zip(*lists, strict=True)]


# --- the cases


@torch.inference_mode()
def share(bench: Bench, name: str) -> Measured:
    """The rates of an architecture's two networks over the product's."""
    began = time.perf_counter()
    calls = bench.calls(bench.models(name, bench.compiled))
    for call in calls.values():
        call()
    bench.wait()
    made_s = time.perf_counter() - began
    taken = bench.turns(calls)
    of = {
        role: each(
            partial(bench.share, bench.operations(name, role)), taken[role], taken["product"]
        )
        for role in calls
    }
    rows = {
        f"{name} full, share of the product's rate": of["full"],
        f"{name} shallow, share of the product's rate": of["shallow"],
        f"{name} shallow, its share over full's": each(
            lambda s, f: s / f, of["shallow"], of["full"]
        ),
    }
    return Measured(rows, taken, {"seconds until both networks have run once": made_s})


@torch.inference_mode()
def loop(bench: Bench, name: str) -> Measured:
    """A step of the sampling loop, noise included, over a call of its network."""
    models = bench.models(name, bench.compiled)
    loops = {f"loop {role}": bench.loop(models, t) for role, t in (("full", 0), ("shallow", 1000))}
    taken = bench.turns(bench.calls(models) | loops)
    rows = {
        f"loop of {name} {role} ({IMAGES[name]}), over its network": each(
            lambda whole, call: whole / bench.steps / call, taken[f"loop {role}"], taken[role]
        )
        for role in ("full", "shallow")
    }
    return Measured(rows, taken)


@torch.inference_mode()
def switch(bench: Bench, name: str) -> Measured:
    """DuoDiff's speed-up over the one that the times of its two networks give."""
    models = bench.models(name, bench.compiled)
    loops = {f"t_s={t_s}": bench.loop(models, t_s) for t_s in (0, *SWITCHES)}
    taken = bench.turns(bench.calls(models) | loops)
    rows = {}
    for t_s in SWITCHES:
        part = shallow_calls(visited(bench.steps), t_s) / bench.steps
        rows[f"DuoDiff {name} t_s={t_s}, speed-up over its networks'"] = each(
            lambda whole, cut, full, shallow, p=part: whole / cut * (1 - p + p * shallow / full),
            *(taken[key] for key in ("t_s=0", f"t_s={t_s}", "full", "shallow")),
        )
    return Measured(rows, taken)


def time_of(exit_layer: Tensor, depth: int) -> Tensor:
    """The t at which an image exits at this layer by `scripted_heads`; one at layer `depth` never exits."""
    return exit_layer * (999 // depth)


def scripted_heads(model: AdaDiff) -> AdaDiff:
    """AdaDiff whose uncertainties are near 0 or near 1, as t says: `time_of`.

    The last sine of the time embedding grows with t. Each head compares it with a limit. So each image of a batch has
    its own exit, whatever the networks' weights are, and the heads compute what they always compute.
    """
    depth, dim = model.uvit.depth, model.uvit.embed_dim
    limits = timestep_embedding(time_of(torch.arange(depth) + 0.5, depth), dim)[:, -1]
    steepness = 4096.0
    with torch.no_grad():
        for head, limit in zip(model.uncertainty_heads, limits, strict=True):
            head.linear.weight[0, -1] = steepness
            head.linear.bias.copy_(-steepness * limit)
    return model


def exits_around(mean: float, depth: int, batch: int) -> Tensor:
    """Exit layers of a batch, int64 [batch], of this mean: up to 1.5 layers to each side, within the network."""
    spread = 1.5 if mean + 1 <= depth else 0.5  # these keep the mean
    return (mean + torch.linspace(-spread, spread, batch)).round().long().clamp(0, depth)


@torch.inference_mode()
def early_exit(bench: Bench, name: str, kind: str = "") -> Measured:
    """AdaDiff over the network where no image exits, and over its ideal time at the mean exits of the paper's Table 2.

    The ideal time is the network's, times the operations that the images need over those of the network.
    """
    models = bench.models(name, bench.compiled and not kind)
    cost, depth = bench.cost(name, "full"), models.full.net.depth
    x, _, y = speed.inputs(models.full.net, bench.batch)
    exits = {"none exits": torch.full((bench.batch,), depth)}
    exits |= {
        f"mean exit {m}": exits_around(m * depth / 13, depth, bench.batch) for m in speed.MEAN_EXITS
    }
    calls = {"network": bench.calls(models)["full"]}
    for what, layers in exits.items():
        calls[what] = _exiting(models, x, time_of(layers, depth).to(x.device), y, layers)
    taken = bench.turns(calls)
    rows = {}
    for what, layers in exits.items():
        needed = statistics.fmean(map(cost.exiting, layers.tolist())) / cost.forward
        ideal, over = (1.0, "the network") if what == "none exits" else (needed, "its ideal")
        rows[f"early exit {name}{kind}, {what}, over {over}"] = each(
            lambda own, plain, i=ideal: own / plain / i, taken[what], taken["network"]
        )
    return Measured(rows, taken)


def _exiting(models: Models, x: Tensor, t: Tensor, y: Tensor | None, layers: Tensor) -> Callable:
    """A call of AdaDiff in which the images leave at `layers`. Raises ValueError if they do not."""
    backbone = models.early_exit(0.5)
    for _ in range(3):
        backbone(x, t, y)
        if not torch.equal(found := backbone.exits.pop().cpu(), layers):
            raise ValueError(f"exits: found {found.tolist()}; wanted {layers.tolist()}")

    def call() -> None:
        backbone(x, t, y)
        backbone.exits.clear()

    return call


KERNELS = {
    "attention": ("flash", "fmha", "sdpa", "attention"),
    "products": ("gemm", "cutlass", "nvjet", "triton_tem", "mm"),
}
"""Parts of the names of kernels, by what they compute. An earlier kind goes first."""


def kind_of(kernel: str) -> str:
    """What a kernel computes by its name, or on a CPU an operation: attention, products of matrices, or the rest.

    Inductor's kernels carry the names of all operations near them. Of these, its templates alone are products.
    """
    name = kernel.lower()
    if name.startswith("triton_") and not name.startswith("triton_tem"):
        return "the rest"
    return next((k for k, parts in KERNELS.items() if any(p in name for p in parts)), "the rest")


@torch.inference_mode()
def breakdown(bench: Bench, name: str) -> Measured:
    """Where the time of the full network's kernels goes, and the rate of its products over the large product's."""
    models = bench.models(name, bench.compiled)
    call, net = bench.calls(models)["full"], models.full.net
    taken = bench.turns({"full": call})
    attention = 4 * net.depth * net.pos_embed.shape[1] ** 2 * net.embed_dim  # q k^T and (..) v
    operations = bench.operations(name, "full") - bench.batch * attention
    rows: dict[str, list[float]] = {}
    for product_s in taken["product"]:
        spent = kernel_seconds(bench, call)
        found = {f"{kind}: share of the kernels' time": s for kind, s in spent.items()}
        found = {what: s / sum(spent.values()) for what, s in found.items()}
        if "products" in spent:
            rate = bench.share(operations, spent["products"], product_s)
            found["products: their rate over the product's"] = rate
        for what, value in found.items():
            rows.setdefault(f"{name} full, {what}", []).append(value)
    return Measured(rows, taken)


def kernel_seconds(bench: Bench, call: Callable) -> dict[str, float]:
    """Seconds of a call's kernels by kind, as torch's profiler sees them; on a CPU those of operations."""
    on_gpu = bench.device == "cuda"
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(
        activities=[activities.CUDA if on_gpu else activities.CPU]
    ) as profile:
        call()
        bench.wait()
    spent: dict[str, float] = {}
    for event in profile.key_averages():
        us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if us > 0:
            kind = kind_of(event.key)
            spent[kind] = spent.get(kind, 0.0) + us / 1e6
    return spent


def training(bench: Bench, name: str) -> Measured:
    """The rate of a training step over the product's: three times the operations of a forward pass."""
    torch.manual_seed(0)
    product, taken = bench.product(), {"product": [], "training step": []}
    for _ in range(bench.rounds if bench.device == "cpu" else 3):
        model = Denoiser(UViT(**bench.architectures[name]).train()).to(bench.device)
        bench.seconds(product, 2)
        repeats = max(1, math.ceil(2 * bench.turn_s / bench.seconds(product, 1)))
        taken["product"].append(bench.seconds(product, repeats))
        taken["training step"].append(
            speed.seconds_a_step(
                model,
                list(model.parameters()),
                compiling.faster(denoising_loss, bench.device, "bfloat16"),
                speed.noiser_of(model.net),
                bench.batch,
            )
        )
    rows = {
        f"training {name}, share of the product's rate": each(
            partial(bench.share, 3 * bench.operations(name, "full")),
            taken["training step"],
            taken["product"],
        )
    }
    return Measured(rows, taken)


CASES: dict[str, Callable[[Bench], Measured]] = {
    **{f"share {name}": partial(share, name=name) for name in ("S/2", "S/4", "M/4", "L/2")},
    **{f"loop {name}": partial(loop, name=name) for name in IMAGES},
    **{f"switch {name}": partial(switch, name=name) for name in ("S/2", "L/2")},
    "early exit S/2": partial(early_exit, name="S/2"),
    "early exit S/2, eager": partial(early_exit, name="S/2", kind=", eager"),
    **{f"breakdown {name}": partial(breakdown, name=name) for name in ("S/2", "L/2")},
    "training S/2": partial(training, name="S/2"),
}


# --- records


def maker(device: str) -> dict:
    """What a record says of its making; a case is measured once for each of it, whatever the commit."""
    files = [*(ROOT / "duodiff").rglob("*.py"), *(ROOT / "bench").glob("*.py")]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files)))
    libraries = library_versions(("torch", "numpy", "triton"))
    return {
        "device": device_name(device),
        "code": code.hexdigest()[:16],
        "libraries": libraries | {"cuda": torch.version.cuda},
    }


def record(case: str, bench: Bench, measured: Measured) -> dict:
    """The line of a case: medians, and the values of all rounds."""
    sizes = {"batch": bench.batch, "steps": bench.steps, "product": bench.product_size}
    return {
        "case": case,
        **maker(bench.device),
        **commit(),
        "command": " ".join(["python", "bench/gpu.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": sizes,
        "medians": {row: statistics.median(values) for row, values in measured.rows.items()},
        "product_tflops": [
            round(bench.rate(s) / 1e12, 1) for s in measured.seconds.get("product", [])
        ],
        "rounds": measured.rows,
        "seconds": measured.seconds,
        "notes": measured.notes,
    }


def read(path: Path) -> list[dict]:
    """The records of a file, none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def same(one: dict, made: dict) -> bool:
    """Whether a record was made by this code on this device with these libraries."""
    return all(one[key] == value for key, value in made.items())


def table(records: list[dict], made: dict) -> str:
    """Every row that is wanted and every other one that was measured, as Markdown."""
    values = {row: v for one in records for row, v in one["rounds"].items()}
    rates = [rate for one in records for rate in one["product_tflops"]]
    lines = [f"{made['device']}, torch {made['libraries'].get('torch')}, code {made['code']}."]
    if rates:
        lines[0] += (
            f" The product: {statistics.median(rates):.0f} TFLOP/s, {min(rates):.0f} to {max(rates):.0f}."
        )
    lines += ["", "| what | floor | aim | measured | rounds | |", "|---|--:|--:|--:|---|---|"]
    for row in dict.fromkeys([*WANTED, *values]):
        sign, floor, aim = WANTED.get(row, ("", None, None))
        found = values.get(row, [])
        middle = statistics.median(found) if found else None
        spread = f"{min(found):.3f} to {max(found):.3f}, n = {len(found)}" if found else ""
        cells = [row, *(f"{sign} {v:g}" if v is not None else "" for v in (floor, aim))]
        cells += [f"{middle:.3f}" if found else "", spread, verdict(middle, sign, floor, aim)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict(value: float | None, sign: str, floor: float | None, aim: float | None) -> str:
    """What a row has reached: aim, floor, or neither; open where nothing was measured."""
    if floor is None:
        return ""
    if value is None:
        return "open"
    reached = {">=": lambda v, limit: v >= limit, "<=": lambda v, limit: v <= limit}[sign]
    if aim is not None and reached(value, aim):
        return "aim reached"
    return "floor reached" if reached(value, floor) else "missed"


def main(arguments: list[str]) -> int:
    """Measures the cases that are not recorded yet; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all, or of: {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench_gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: a test of this file")
    given = parser.parse_args(arguments)
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"case: found {', '.join(sorted(unknown))}; accepted: {', '.join(CASES)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        found = f"torch {torch.__version__} of {sys.executable} sees no CUDA device"
        parser.exit(
            2, f"make bench-gpu: {found}; accepted: PYTHON= an interpreter whose torch sees one\n"
        )
    path, made, failed = given.out / "records.jsonl", maker(given.device), []
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.device, given.tiny, Path(folder))
        for case in given.cases or CASES:
            if any(one["case"] == case and same(one, made) for one in read(path)):
                print(f"{case}: recorded before", flush=True)
            elif not measure(case, bench, path):
                failed.append(case)
    text = table([one for one in read(path) if same(one, made)], made)
    write_text(given.out / "bench_gpu.md", text)
    print(text)
    return 1 if failed else 0


def measure(case: str, bench: Bench, path: Path) -> bool:
    """Adds a case's record to the file `path`; whether the case could be measured."""
    began = time.perf_counter()
    try:
        measured = CASES[case](bench)
    except Exception:
        traceback.print_exc()
        print(f"{case}: failed", flush=True)
        return False
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record(case, bench, measured)) + "\n")
    print(f"{case}: {time.perf_counter() - began:.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
