"""Wall time of methods measured side by side in one process, and what else they need."""

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from duodiff import noise, samplers
from duodiff.autoencoder import Autoencoder
from duodiff.backbones import single
from duodiff.metrics.flops import gflops, parameters
from duodiff.metrics.resources import (
    energy_meter,
    load_seconds,
    peak_bytes,
    resident,
    synchronise,
    trajectory_gflops,
)
from duodiff.protocol import PROTOCOLS
from duodiff.records import Record, device_name
from duodiff.sampling.cells import Cell, build_cell, sample_batch
from duodiff.sampling.models import Models
from duodiff.settings import FULL, Setting


def interleaved(
    runs: dict[Hashable, Callable[[], object]], repeats: int, counters: Callable[[], list[float]]
) -> dict[Hashable, np.ndarray]:
    """How much each (warmed-up) run adds to the counters, [repeats, counters].

    Every round runs all, in alternating order: that spreads the machine's slow moments over all runs, so their ratios
    hold where single times do not.
    """
    found = {name: [] for name in runs}
    rounds = [list(reversed(runs)) if i % 2 else list(runs) for i in range(repeats)]
    order = [name for one_round in rounds for name in one_round]
    for name in tqdm(order, desc="latency", unit="run", disable=None):
        before = np.array(counters())
        runs[name]()
        found[name].append(np.array(counters()) - before)
    return {name: np.stack(rows) for name, rows in found.items()}


def _counters(device: str, meter: Callable[[], float] | None) -> list[float]:
    """Seconds, and joules where there is a meter."""
    synchronise(device)
    return [time.perf_counter()] + ([meter()] if meter else [])


def measure_cells(
    paths: dict[str, Path | None],
    conventions: dict,
    grid: list,
    batch: int,
    repeats: int,
    threads: int,
    seed: int,
    device: str,
    context: dict,
    autoencoder: Autoencoder | None = None,
    precision: str = "float32",
) -> list[Record]:
    """Seconds per image of every setting in `grid` ([[sampler, [settings]], ...]), and what each setting needs.

    Beside the seconds stands the speed-up over the full backbone (t_s = 0), the median of the ratios
    within each round, and the joules where a GPU's can be read; `_needs` has the rest.

    AdaDiff is measured with the batch that shrinks; the same network with all heads computed and none
    taken (`adadiff_all_heads`) is what the paper's interpolated time starts from (Appendix A.5). Noise is
    in the time, writing files is not, nor is decoding latents: with an `autoencoder` that is measured in
    the same rounds and recorded by itself.
    """
    torch.set_num_threads(threads)
    load = partial(Models, conventions, context["protocol"], device=device, precision=precision)
    models = load(**paths)
    cells = _cells(models, grid, context["protocol"])
    if PROTOCOLS[context["protocol"]].warm_up_timing:
        for cell in cells.values():  # every network and shape warm before the clock starts
            sample_batch(models, _few_steps(cell), 0, batch, seed)
    ran = {}  # blocks that images ran in, by cell: the same in every round

    def run(key):
        *_, ran[key] = sample_batch(models, cells[key], 0, batch, seed)

    runs = {key: partial(run, key) for key in cells}
    if autoencoder is not None:
        latents = noise.image_noise(seed, noise.INITIAL, 0, batch, models.shape).to(device)
        autoencoder.decode(latents)  # warm
        runs["decode"] = partial(autoencoder.decode, latents)
    meter = energy_meter(device)
    measured = interleaved(runs, repeats, partial(_counters, device, meter))
    seconds = {key: rounds[:, 0] for key, rounds in measured.items()}

    common = {
        "experiment": context["experiment"],
        "protocol": context["protocol"],
        "device": device_name(device),
        "compute_batch": batch,
        "dtype": precision,
    }
    over = f"minimum and maximum of {repeats} interleaved rounds"
    seeds = {"train_seed": context["train_seed"], "sample_seed": seed}
    found = []
    loads = {}
    for roles in {cell.roles for cell in cells.values()}:
        load_some = partial(load, **{role: paths[role] for role in roles})
        loads[roles] = np.array(load_seconds(load_some, repeats, device))
    for (sampler, setting), cell in cells.items():
        identity = {
            "n": batch,
            "method": cell.method,
            "parameters": cell.parameters,
            "sampler": sampler,
            "steps": next(s["steps"] for s, _ in grid if s["name"] == sampler),
            "checkpoint_sha256": models.sha256(cell.roles),
            "nfe": len(cell.steps),
            "seeds": seeds,
            **common,
        }
        taken = seconds[sampler, setting]
        values = {
            ("seconds_per_image", "s"): taken / batch,
            # within a round the machine's drift cancels
            ("speedup", "1"): seconds[sampler, FULL] / taken,
        }
        if meter:
            values["joules_per_image", "J"] = measured[sampler, setting][:, 1] / batch
        for (metric, unit), rounds in values.items():
            found.append(_of_rounds(metric, rounds, unit, interval_covers=over, **identity))
        found += _needs(models, cell, ran[sampler, setting], identity, device)
        of_loads = {"interval_covers": f"minimum and maximum of {repeats} loads"}
        found.append(_of_rounds("load_seconds", loads[cell.roles], "s", **identity | of_loads))
    for method, model in (("full", models.full), ("shallow", models.shallow)):
        cost = {"seeds": {"train_seed": context["train_seed"]}, "method": method, "n": 1, **common}
        cost["checkpoint_sha256"] = models.sha256([method])
        found.append(Record("gflops_per_call", gflops(model.net), unit="GFLOP", **cost))
        found.append(Record("parameters", parameters(model.net), unit="1", **cost))
    if autoencoder is not None:
        identity = {"n": batch, "seeds": seeds, "interval_covers": over, **common}
        found.append(_decoding(autoencoder, seconds["decode"] / batch, identity))
    return found + _simulated_against_shrinking(models, cells, batch, seeds, common, autoencoder)


def _cells(models: Models, grid: list, protocol: str) -> dict[tuple[str, Setting | str], Cell]:
    """Every setting by (sampler, setting), and "all_heads" under each sampler that has AdaDiff."""
    found = {}
    for sampler, spelled in grid:
        settings = [Setting.parse(text) for text in spelled]
        for setting in settings:
            found[sampler["name"], setting] = build_cell(models, sampler, setting, protocol)
        if any(setting.exits_early for setting in settings):
            found[sampler["name"], "all_heads"] = _all_heads(models, sampler, protocol)
    return found


def _few_steps(cell: Cell) -> Cell:
    """The cell with some five of its steps, the first and the last among them: every network runs."""
    steps = cell.steps[:: max(1, len(cell.steps) // 5)]
    return replace(cell, steps=steps if steps[-1] == cell.steps[-1] else [*steps, cell.steps[-1]])


def _of_rounds(metric: str, rounds: np.ndarray, unit: str, **identity) -> Record:
    """The record of a value measured `rounds` [repeats] times: their median, and their range as its interval."""
    interval = [float(rounds.min()), float(rounds.max())]
    return Record(metric, float(np.median(rounds)), unit, interval=interval, **identity)


def _needs(
    models: Models, cell: Cell, ran: torch.Tensor, identity: dict, device: str
) -> list[Record]:
    """Records of what a cell's sampling needs: operations, and memory for its networks and what they compute.

    `ran` are the blocks that images ran in the measured run (see `trajectory_gflops`), whose mean a call's operations
    are. `resident_parameters` are those of all networks at hand, DuoDiff's two among them. `peak_memory_mb` is the
    bytes of these and the most that torch allocates beside them while it samples, seen in some five steps of the
    trajectory.
    """
    operations = trajectory_gflops(models, cell, ran)
    count, weights = resident(models, cell.roles)
    few, seed = _few_steps(cell), identity["seeds"]["sample_seed"]
    peak = peak_bytes(partial(sample_batch, models, few, 0, identity["n"], seed), device)
    values = {
        ("gflops_per_trajectory", "GFLOP"): operations,
        ("mean_gflops_per_call", "GFLOP"): operations / len(cell.steps),
        ("resident_parameters", "1"): count,
        ("peak_memory_mb", "MB"): (weights + peak) / 1e6,
    }
    return [Record(metric, value, unit, **identity) for (metric, unit), value in values.items()]


def _decoding(autoencoder: Autoencoder, rounds: np.ndarray, identity: dict) -> Record:
    """The record of `rounds` [repeats], seconds to decode an image, in the autoencoder's own batches."""
    return _of_rounds(
        "decode_seconds_per_image",
        rounds,
        "s",
        method="decode",
        checkpoint_sha256={"autoencoder": autoencoder.source["weights_sha256"]},
        **identity | {"compute_batch": autoencoder.batch, "dtype": "float32"},
    )


def _simulated_against_shrinking(
    models: Models,
    cells: dict,
    batch: int,
    seeds: dict,
    common: dict,
    autoencoder: Autoencoder | None,
) -> list[Record]:
    """How a whole DDPM trajectory with the shrinking batch differs from the simulated exit (A.5).

    For the middle theta: the share of exits that differ, and of images within one grey level.
    """
    found = [c for (s, _), c in cells.items() if s == "ddpm" and c.method == "adadiff"]
    if not found:
        return []
    cell = sorted(found, key=lambda c: c.early_exit.theta)[len(found) // 2]
    early_exit = models.early_exit(cell.early_exit.theta, simulate=True)
    simulated = replace(cell, schedule=single(early_exit), early_exit=early_exit)
    (x_1, _, exits_1), (x_2, _, exits_2) = (
        sample_batch(models, c, 0, batch, seeds["sample_seed"]) for c in (cell, simulated)
    )
    if autoencoder is not None:
        x_1, x_2 = autoencoder.decode(x_1), autoencoder.decode(x_2)
    difference = (samplers.to_uint8(x_1).int() - samplers.to_uint8(x_2).int()).abs()
    values = {
        "exits_flipped": (exits_1 != exits_2).double().mean(),
        "images_within_one_level": (difference <= 1).flatten(1).all(1).double().mean(),
    }
    return [
        Record(
            name,
            float(value),
            "1",
            batch,
            method="adadiff_simulated_against_shrinking",
            parameters=cell.parameters,
            sampler="ddpm",
            nfe=len(cell.steps),
            seeds=seeds,
            checkpoint_sha256=models.sha256(cell.roles),
            **common,
        )
        for name, value in values.items()
    ]


def _all_heads(models: Models, sampler: dict, protocol: str) -> Cell:
    cell = build_cell(models, sampler, FULL, protocol)
    early_exit = models.early_exit(0.0, simulate=True)
    return replace(
        cell,
        method="adadiff_all_heads",
        parameters={},
        schedule=single(early_exit),
        roles=("full", "heads"),
        early_exit=early_exit,
    )
