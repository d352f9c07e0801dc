"""The measurements of `make bench`: a table, results/bench/bench.md, and the same numbers as JSON beside it.

    python bench/bench.py [--images cifar10-train-jpeg.zip]

`--images` is a zip of at least 50,000 images. Without it, 50,000 noise JPEGs of 32 x 32 pixels are made. Each
measurement is a process of its own, and every round runs all of them. The table has the median and the range of the
rounds. The JSON also has the rates that `python -m duodiff cost --bench` reads.
"""

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from tqdm import tqdm

from duodiff.autoencoder import network_config
from duodiff.choice.choose import CHOICES
from duodiff.data.store import write_store
from duodiff.running import receipts
from duodiff.running.files import write_json, write_text
from duodiff.running.provenance import cpu_name
from duodiff.settings import Setting
from duodiff.study import config
from duodiff.study.grid import grid_points, roles, sampler_options

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results/bench"
SIZES = (10_000, 50_000)
WORKERS = (1, 2)
ENCODED = (1_000, 4_000)
WATCHED = 50_000
SMALL_AUTOENCODER = {
    "latent_channels": 4,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
STUDY = "results/digits/train0"  # of the embedded default
GROWTH = (512, 2048, 8192)
ROUNDS = 3
_ONE_THREAD = ("env", "OMP_NUM_THREADS=1", sys.executable)
_SAMPLING_S = 0.02


def main() -> None:
    """Measures everything and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a zip of at least 50,000 images")
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        rows = [*speed(), *sampling(Path(folder)), *choosing()]
        rows += [*packing(Path(folder), images), *encoding(Path(folder)), *planning()]
        rows += watching(Path(folder))
    machine = f"{cpu_name()}, {psutil.cpu_count()} cores"
    content = {"machine": machine, "rounds": ROUNDS, "rows": rows, "rates": rates(machine)}
    write_json(OUT / "bench.json", content)
    write_text(OUT / "bench.md", table(rows, machine))
    print((OUT / "bench.md").read_text(encoding="utf-8"))


def speed() -> list[dict]:
    """Sampling, early exit and training (bench/speed.py); three of the cases also beside a plain eager loop."""
    cases = ["utilisation", "breakdown", "small", "batches", "training"]
    cases += ["switch", "early_exit", "loop", "noise"] + ["gpu"] * (
        shutil.which("nvidia-smi") is not None
    )
    compared = {"utilisation", "small", "training"}
    names = [n for case in cases for n in (case, f"{case} plain") if n == case or case in compared]
    measured = {name: [] for name in names}
    for _ in tqdm(range(ROUNDS), desc="speed", disable=None):
        for name in names:
            measured[name].append(_case(name))
    rows = []
    for name, rounds in measured.items():
        case, _, plain = name.partition(" ")
        label = case.replace("_", " ") + (", plain eager" if plain else "")
        for key in rounds[0]:
            rows.append(_row(f"{label}: {key}", _unit(key), [r[key] for r in rounds], None))
            same = key.removesuffix(", compiled")
            baseline = measured.get(f"{case} plain", [])
            if baseline and not plain and same in baseline[0]:
                ratios = [r[key] / p[same] for r, p in zip(rounds, baseline, strict=True)]
                rows.append(_row(f"{label}: {key}, over plain eager", "1", ratios, None))
    return rows


def sampling(folder: Path) -> list[dict]:
    """sample_images on the embedded default, on one thread, with the start of Python included.

    All cells of the grid are measured beside a plain eager loop. Then time and memory are measured for a growing
    number of images. The default's networks are trained first unless they are there.
    """
    chosen = config.read(ROOT / "config/config.yaml")["experiments"]["digits"]
    needed = [f"{STUDY}/{role}/manifest.json" for role in roles(chosen)]
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all", "--"]
    subprocess.run([*command, *needed, f"{STUDY}/profile/quantiles.json"], cwd=ROOT, check=True)
    # a cell takes equally long for every seed: it is measured once, and counted as often as there are seeds
    points = [point for point in grid_points(chosen) if not point.setting.is_schedule]
    cells = Counter((point.sampler, point.setting) for point in points)
    commands, images, batch = {}, chosen["sampling"]["images"], chosen["sampling"]["batch"]
    for sampler, setting in cells:
        options = json.dumps(sampler_options(chosen, sampler))
        commands["now", sampler, setting] = _sample(folder, options, setting, images, batch)
        plain = [STUDY, options, str(setting), str(images), str(folder / "plain.npy")]
        script = str(ROOT / "bench/plain_sampling.py")
        commands["plain", sampler, setting] = [*_ONE_THREAD, script, *plain]
    measured = _rounds(commands, memory=False)
    every = list(cells.elements())
    rows = _grid_rows("", images, measured, every)
    rows += _grid_rows("DuoDiff's ", images, measured, [c for c in every if not c[1].exits_early])
    rows += _grid_rows("AdaDiff's ", images, measured, [c for c in every if c[1].exits_early])
    ten_steps = json.dumps({"name": "ddpm", "steps": 10})
    grown = {
        f"sample {n} images in 10 steps, t_s=500, one thread": (
            n,
            _sample(folder, ten_steps, Setting.parse("t_s=500"), n, batch),
        )
        for n in GROWTH
    }
    return rows + _throughput(grown, "s")


def choosing() -> list[dict]:
    """The choice of a schedule from the default's profile, with the start of Python included."""
    command = [sys.executable, "-m", "duodiff", "choose", STUDY, "--budget", "0.7", "--by"]
    named = {f"duodiff choose --by {by}": [*command, by] for by in CHOICES}
    return [
        _row(name, "s", [seconds for seconds, _ in rounds], None)
        for name, rounds in _rounds(named, memory=False).items()
    ]


def _grid_rows(whose: str, images: int, measured: dict, cells: list[tuple]) -> list[dict]:
    """Images per second of some cells of the grid together: now, plain eager, and the ratio."""
    name = f"{whose}{len(cells)} cells of the default grid, {images} images each, one thread"
    n = len(cells) * images
    now, plain = (
        [sum(measured[engine, *cell][i][0] for cell in cells) for i in range(ROUNDS)]
        for engine in ("now", "plain")
    )
    return [
        _row(name, "images/s", [n / seconds for seconds in now], n),
        _row(f"{name}, plain eager", "images/s", [n / seconds for seconds in plain], n),
        _row(f"{name}, over plain eager", "1", [p / o for o, p in zip(now, plain, strict=True)], n),
    ]


def _sample(folder: Path, sampler: str, setting: Setting, images: int, batch: int) -> list[str]:
    conventions = {"schedule": "linear", "time_input": "t", "class_order": None}
    script = str(ROOT / "workflow_scripts/sample_images.py")
    options = ["--experiment", "digits", "--protocol", "corrected"]
    options += ["--conventions", json.dumps(conventions), "--sampler", sampler]
    options += ["--setting", str(setting), "--images", str(images), "--batch", str(batch)]
    options += ["--train-seed", "0", "--seed", "0", "--device", "cpu"]
    for role in ("full", "shallow", "heads"):
        options += [f"--{role}", f"{STUDY}/{role}/manifest.json"]
    options += ["--quantiles", f"{STUDY}/profile/quantiles.json"]
    out = str(folder / f"cells/{setting}-{images}/manifest.json")
    return [*_ONE_THREAD, script, *options, "--out", out]


def rates(machine: str) -> dict:
    """This machine's rates on the paper's networks, and the seconds that a process takes to start."""
    measured, start = _case("rates"), [sys.executable, "-c", "import duodiff.sampling.samples"]
    kinds = {
        kind: {n.split()[1]: r for n, r in measured.items() if n.startswith(kind)}
        for kind in ("sampling", "training")
    }
    return {
        "device": machine,
        "dtype": "float32",
        "sampling_flops_per_s": kinds["sampling"],
        "training_flops_per_s": kinds["training"],
        "startup_s": statistics.median(s for s, _ in _rounds({"start": start})["start"]),
    }


def _case(name: str) -> dict[str, float]:
    """The measurements of one case of bench/speed.py."""
    command = [sys.executable, str(ROOT / "bench/speed.py"), *name.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"exit status {done.returncode}: {' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _unit(key: str) -> str:
    units = {"flops_per_s": "FLOP/s", "steps_per_s": "steps/s"}
    return "images/s" if "blocks" in key else units.get(key, "1")


def packing(folder: Path, images: Path | None) -> list[dict]:
    """pack_dataset on 10,000 and 50,000 images: throughput, and the peak memory of all its processes together."""
    for n in SIZES:
        _zip(folder / f"{n}.zip", n, images)
    of = "made JPEGs of 32x32" if images is None else f"JPEGs of {images.name}"
    runs = {
        f"pack {n} {of}, {workers} worker{'s' * (workers > 1)}": (n, _pack(folder, n, workers))
        for n in SIZES
        for workers in WORKERS
    }
    return _throughput(runs)


def encoding(folder: Path) -> list[dict]:
    """encode_latents on 1,000 and 4,000 noise images of 32x32, with a small autoencoder of random weights."""
    from diffusers import AutoencoderKL  # slow to import

    network = network_config(SMALL_AUTOENCODER, in_channels=3)
    AutoencoderKL.from_config(network).save_pretrained(folder / "autoencoder")
    runs = {f"encode {n} images of 32x32": (n, _encode(folder, n)) for n in ENCODED}
    return _throughput(runs)


def planning() -> list[dict]:
    """The dry run of the whole paper's configuration."""
    name = "snakemake --configfile config/paper.yaml --dry-run"
    measured = _rounds({name: [*f"{sys.executable} -m {name}".split(), "--quiet"]})[name]
    return [_row(name, "s", [seconds for seconds, _ in measured], None)]


def watching(folder: Path) -> list[dict]:
    """What planning spends on a folder of 50,000 images from outside: it compares sizes and times with the receipt."""
    images, receipt = folder / "watched", folder / "receipt.json"
    for i in range(WATCHED):
        path = images / f"{i % 100:02d}/{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(i.to_bytes(4, "big"))
    found = receipts.fingerprint(images)
    write_json(receipt, dict.fromkeys(receipts.KEYS, "") | {"watched": {"images": found}})
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(2):  # the jobs that look for them and that pack them
            assert receipts.check_outside(receipt, {"images": images}, "") == []
        times.append(time.perf_counter() - start)
    return [_row(f"compare {WATCHED} watched files", "s", times, None)]


def _pack(folder: Path, n: int, workers: int) -> list[str]:
    section = {"source": "images", "path": f"{n}.zip", "crop": "square", "size": 32}
    section |= {"filter": "box", "channels": 3, "held_out": 1000}
    script = str(ROOT / "workflow_scripts/pack_dataset.py")
    out = str(folder / f"packed_{n}_{workers}/manifest.json")
    options = ["--dataset", json.dumps(section), "--data", str(folder), "--out", out]
    return [sys.executable, script, *options, "--workers", str(workers)]


def _encode(folder: Path, n: int) -> list[str]:
    """The command that encodes a store of `n` noise images. The store is written first."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), np.uint8)
    store = folder / f"images_{n}/manifest.json"
    write_store(store, pixels, np.full(n, -1), {})
    section = {"path": "autoencoder", "sha256": None, "flips": False, "batch": 32}
    script = str(ROOT / "workflow_scripts/encode_latents.py")
    options = ["--images", str(store), "--autoencoder", json.dumps(section), "--data", str(folder)]
    options += ["--device", "cpu", "--shard", "0", "--shards", "1"]
    return [sys.executable, script, *options, "--out", str(folder / f"encoded_{n}/0-of-1.json")]


def _zip(path: Path, n: int, images: Path | None) -> None:
    """A zip of `n` images: the first ones of the zip `images`, or noise."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        if images is None:
            for i in tqdm(range(n), desc="make images", disable=None):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "jpeg")
                archive.writestr(f"{i % 10}/{i:05d}.jpg", buffer.getvalue())
            return
        with zipfile.ZipFile(images) as source:
            names = [name for name in source.namelist() if name.endswith((".jpg", ".png"))]
            if len(names) < n:
                sys.exit(f"--images: found {len(names)} images in {images}; accepted: {n} or more")
            for name in tqdm(names[:n], desc="copy images", disable=None):
                archive.writestr(name, source.read(name))


def _throughput(runs: dict[str, tuple[int, list[str]]], unit: str = "images/s") -> list[dict]:
    """Images per second (or seconds) and peak memory of every command in `runs`: {name: (images, command)}."""
    measured = _rounds({name: command for name, (_, command) in runs.items()})
    rows = []
    for name, (n, _) in runs.items():
        seconds, peaks = zip(*measured[name], strict=True)
        speeds = seconds if unit == "s" else [n / s for s in seconds]
        rows.append(_row(name, unit, speeds, n))
        rows.append(_row(name, "peak MB", [p / 1e6 for p in peaks], n))
    return rows


def _rounds(
    commands: dict[Hashable, list[str]], memory: bool = True
) -> dict[Hashable, list[tuple[float, int]]]:
    """(seconds, peak bytes) of every command, ROUNDS times, in turns. Without `memory` the bytes are 0.

    Reading a process's memory slows its system calls down, above all those that give memory back. Time that must be
    exact is therefore measured without `memory`.
    """
    measured = {name: [] for name in commands}
    for _ in tqdm(range(ROUNDS), desc="rounds", disable=None):
        for name, command in commands.items():
            measured[name].append(_measured(command, memory))
    return measured


def _measured(command: list[str], memory: bool) -> tuple[float, int]:
    """Wall seconds of a command, and the peak memory (PSS) of its process and its children together."""
    start, peak = time.perf_counter(), 0
    process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while memory and process.poll() is None:
        peak = max(peak, _memory(process))
        time.sleep(_SAMPLING_S)
    process.wait()
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"exit status {process.returncode}: {' '.join(command)}")
    return seconds, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


def _row(name: str, unit: str, values: list[float], n: int | None) -> dict:
    middle = statistics.median(values)
    return {
        "what": name,
        "n": n,
        "unit": unit,
        "median": middle,
        "range": [min(values), max(values)],
    }


def table(rows: list[dict], machine: str) -> str:
    """The rows as Markdown."""
    lines = [
        f"Measured on: {machine}. Median and range of {ROUNDS} rounds.",
        "",
        "| what | unit | median | range |",
        "|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["range"]
        numbers = f"{row['median']:,.4g} | {low:,.4g} to {high:,.4g}"
        lines.append(f"| {row['what']} | {row['unit']} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
