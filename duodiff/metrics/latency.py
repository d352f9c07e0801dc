"""Wall time of methods, measured side by side in one process, and the resources that they need."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from duodiff import noise, samplers
from duodiff.autoencoder import Autoencoder
from duodiff.backbones import single
from duodiff.identity import code_digest
from duodiff.metrics.flops import gflops, parameters
from duodiff.metrics.resources import (
    energy_meter,
    load_seconds,
    peak_bytes,
    resident,
    synchronise,
    trajectory_gflops,
)
from duodiff.records import Record
from duodiff.running import provenance
from duodiff.sampling.cells import Cell, build_cell
from duodiff.sampling.generation import sample_batch
from duodiff.sampling.models import Models
from duodiff.settings import FULL, Setting

Name = TypeVar("Name", bound=Hashable)

Key = tuple[str, Setting | str]
"""A measured cell: its sampler's name, and its setting or `_ALL_HEADS`."""

_ALL_HEADS = "all_heads"
_DECODE = ("", "decode")  # decoding is measured in the rounds of the cells


def interleaved(
    runs: Mapping[Name, Callable[[], object]], repeats: int, counters: Callable[[], list[float]]
) -> dict[Name, np.ndarray]:
    """How much each (warmed-up) run adds to the counters, [repeats, counters].

    Every round runs all, in alternating order. So a slow moment of the machine hits all runs alike: their ratios hold
    where single times do not.
    """
    added: dict[Name, list[np.ndarray]] = {name: [] for name in runs}
    rounds = [list(reversed(list(runs))) if i % 2 else list(runs) for i in range(repeats)]
    order = [name for one_round in rounds for name in one_round]
    for name in tqdm(order, desc="latency", unit="run", disable=None):
        before = np.array(counters())
        runs[name]()
        added[name].append(np.array(counters()) - before)
    return {name: np.stack(rows) for name, rows in added.items()}


def _counters(device: str, meter: Callable[[], float] | None) -> list[float]:
    """Seconds, and joules where there is a meter."""
    synchronise(device)
    return [time.perf_counter()] + ([meter()] if meter else [])


def measure_cells(
    paths: Mapping[str, Path | None],
    conventions: Mapping[str, Any],
    grid: Sequence[tuple[dict[str, Any], list[str]]],
    *,
    batch: int,
    repeats: int,
    threads: int,
    seed: int,
    device: str,
    experiment: str,
    protocol: str,
    train_seed: int,
    autoencoder: Autoencoder | None = None,
    precision: str = "float32",
) -> list[Record]:
    """Seconds per image of every setting in `grid` ([[sampler, [settings]], ...]), and the resources it needs.

    `paths` are the files of `Models` by role. Beside the seconds stand the speed-up over the full backbone (t_s = 0),
    as the median of the ratios within each round, and the joules where a GPU's can be read. `_needs` has the rest.

    AdaDiff is measured with the batch that shrinks. The same network with all heads computed and no exit taken
    (`adadiff_all_heads`) is the start of the paper's interpolated time (Appendix A.5). The time includes noise. It
    does not include writing files or decoding latents: decoding by the `autoencoder` is measured in the same rounds
    and recorded by itself.
    """
    torch.set_num_threads(threads)

    def load(roles: Iterable[str]) -> Models:
        chosen: dict[str, Any] = {role: paths[role] for role in roles}
        return Models(conventions, protocol, **chosen, device=device, precision=precision)

    models = load(paths)
    cells = _cells(models, grid)
    measured, ran = _rounds(
        models, cells, batch=batch, repeats=repeats, seed=seed, autoencoder=autoencoder
    )
    seconds = {key: counted[:, 0] for key, counted in measured.items()}
    loads: dict[tuple[str, ...], np.ndarray] = {}
    for roles in {cell.roles for cell in cells.values()}:
        loads[roles] = np.array(load_seconds(partial(load, roles), repeats, device))

    common = {
        "experiment": experiment,
        "protocol": protocol,
        "compute_batch": batch,
        "dtype": precision,
    }
    code = code_digest(measure_cells, [conventions, protocol, grid])
    libraries = ["diffusers"] if autoencoder else []
    made = provenance.made(code, device, libraries=libraries)
    over = f"minimum and maximum of {repeats} interleaved rounds"
    seeds = {"train_seed": train_seed, "sample_seed": seed}
    records: list[Record] = []
    for (sampler, setting), cell in cells.items():
        identity: dict[str, Any] = {
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
        if (counted := measured[sampler, setting]).shape[1] > 1:
            values["joules_per_image", "J"] = counted[:, 1] / batch
        for (metric, unit), rounds in values.items():
            records.append(_of_rounds(metric, rounds, unit, interval_covers=over, **identity))
        records += _needs(models, cell, ran[sampler, setting], identity)
        of_loads = {"interval_covers": f"minimum and maximum of {repeats} loads"}
        records.append(_of_rounds("load_seconds", loads[cell.roles], "s", **identity | of_loads))
    records += _calls(models, {"train_seed": train_seed}, common)
    if autoencoder is not None:
        identity = {"n": batch, "seeds": seeds, "interval_covers": over, **common}
        records.append(_decoding(autoencoder, seconds[_DECODE] / batch, identity))
    identity = {"n": batch, "seeds": seeds, **common}
    records += _simulated_against_shrinking(models, cells, identity, autoencoder)
    for record in records:
        trained = models.made(record.checkpoint_sha256.keys() & models.manifests.keys())
        record.made = provenance.made_of(made, trained)
    return records


def _rounds(
    models: Models,
    cells: Mapping[Key, Cell],
    *,
    batch: int,
    repeats: int,
    seed: int,
    autoencoder: Autoencoder | None,
) -> tuple[dict[Key, np.ndarray], dict[Key, torch.Tensor]]:
    """What each cell's batch and `_DECODE` take in every round, and the blocks that the images of each cell ran.

    They take seconds, and joules if there is a meter: [repeats, counters]. The blocks are the same in every round.
    """
    if models.protocol.warm_up_timing:
        for cell in cells.values():  # every network and shape warm before the clock starts
            sample_batch(models, _few_steps(cell), 0, batch, seed)
    ran: dict[Key, torch.Tensor] = {}

    def run(key: Key) -> None:
        *_, ran[key] = sample_batch(models, cells[key], 0, batch, seed)

    runs: dict[Key, Callable[[], object]] = {key: partial(run, key) for key in cells}
    if autoencoder is not None:
        shape, device = models.shape, models.device
        latents = noise.image_noise(seed, noise.INITIAL, 0, batch, shape, device=device)
        autoencoder.decode(latents)  # warm
        runs[_DECODE] = partial(autoencoder.decode, latents)
    counters = partial(_counters, models.device, energy_meter(models.device))
    return interleaved(runs, repeats, counters), ran


def _cells(models: Models, grid: Sequence[tuple[dict[str, Any], list[str]]]) -> dict[Key, Cell]:
    """The cells of every setting, and of all heads under each sampler that has AdaDiff."""
    cells: dict[Key, Cell] = {}
    for sampler, spelled in grid:
        settings = [Setting.parse(text) for text in spelled]
        for setting in settings:
            cells[sampler["name"], setting] = build_cell(models, sampler, setting)
        if any(setting.exits_early for setting in settings):
            cells[sampler["name"], _ALL_HEADS] = _all_heads(models, sampler)
    return cells


def _few_steps(cell: Cell) -> Cell:
    """The cell with some five of its steps, the first and the last among them: every network runs."""
    steps = cell.steps[:: max(1, len(cell.steps) // 5)]
    return replace(cell, steps=steps if steps[-1] == cell.steps[-1] else [*steps, cell.steps[-1]])


def _of_rounds(metric: str, rounds: np.ndarray, unit: str, **identity: Any) -> Record:
    """The record of a value measured in each of `rounds` [repeats]: the median, and the range as its interval."""
    interval = [float(rounds.min()), float(rounds.max())]
    return Record(metric, float(np.median(rounds)), unit, interval=interval, **identity)


def _needs(
    models: Models, cell: Cell, ran: torch.Tensor, identity: Mapping[str, Any]
) -> list[Record]:
    """Records of the operations and the memory that a cell's sampling needs.

    - `gflops_per_trajectory`: see `trajectory_gflops`, whose `ran` are the blocks that images ran in the measured run.
    - `mean_gflops_per_call`: the same, divided by the number of network calls.
    - `resident_parameters`: of all networks that stay in memory; for DuoDiff of both backbones.
    - `peak_memory_mb`: the bytes of these networks, and the most that torch allocates beside them in some five steps
      of the trajectory.
    """
    operations = trajectory_gflops(models, cell, ran)
    count, weights = resident(models, cell.roles)
    few, seed = _few_steps(cell), identity["seeds"]["sample_seed"]
    peak = peak_bytes(lambda: sample_batch(models, few, 0, identity["n"], seed), models.device)
    values = {
        ("gflops_per_trajectory", "GFLOP"): operations,
        ("mean_gflops_per_call", "GFLOP"): operations / len(cell.steps),
        ("resident_parameters", "1"): count,
        ("peak_memory_mb", "MB"): (weights + peak) / 1e6,
    }
    return [Record(metric, value, unit, **identity) for (metric, unit), value in values.items()]


def _calls(models: Models, seeds: dict[str, int], common: Mapping[str, Any]) -> list[Record]:
    """Records of one call of each backbone: its operations for one image, and its parameters."""
    records = []
    for role in ("full", "shallow"):
        net = models.backbone(role).net
        identity = {"seeds": seeds, "method": role, "n": 1, **common}
        identity["checkpoint_sha256"] = models.sha256([role])
        records.append(Record("gflops_per_call", gflops(net), unit="GFLOP", **identity))
        records.append(Record("parameters", parameters(net), unit="1", **identity))
    return records


def _decoding(autoencoder: Autoencoder, rounds: np.ndarray, identity: Mapping[str, Any]) -> Record:
    """The record of `rounds` [repeats]: seconds to decode an image, in the autoencoder's own batches."""
    own = {
        "method": "decode",
        "checkpoint_sha256": {"autoencoder": autoencoder.source["weights_sha256"]},
        "compute_batch": autoencoder.batch,
        "dtype": "float32",
    }
    return _of_rounds("decode_seconds_per_image", rounds, "s", **{**identity, **own})


def _simulated_against_shrinking(
    models: Models,
    cells: Mapping[Key, Cell],
    identity: Mapping[str, Any],
    autoencoder: Autoencoder | None,
) -> list[Record]:
    """How a whole DDPM trajectory with the shrinking batch differs from one with the simulated exit (Appendix A.5).

    At the middle theta: the share of exits that differ, and the share of images that agree within one grey level.
    """
    exiting = [
        (cell.early_exit.theta, cell)
        for (sampler, _), cell in cells.items()
        if sampler == "ddpm" and cell.method == "adadiff" and cell.early_exit is not None
    ]
    if not exiting:
        return []
    theta, cell = sorted(exiting, key=lambda pair: pair[0])[len(exiting) // 2]
    early_exit = models.early_exit(theta, simulate=True)
    simulated = replace(cell, schedule=single(early_exit), early_exit=early_exit)
    (x_1, _, exits_1), (x_2, _, exits_2) = (
        sample_batch(models, c, 0, identity["n"], identity["seeds"]["sample_seed"])
        for c in (cell, simulated)
    )
    if autoencoder is not None:
        x_1, x_2 = autoencoder.decode(x_1), autoencoder.decode(x_2)
    difference = (samplers.to_uint8(x_1).int() - samplers.to_uint8(x_2).int()).abs()
    shares = {
        "exits_flipped": (exits_1 != exits_2).double().mean(),
        "images_within_one_level": (difference <= 1).flatten(1).all(1).double().mean(),
    }
    return [
        Record(
            metric,
            float(share),
            "1",
            method="adadiff_simulated_against_shrinking",
            parameters=cell.parameters,
            sampler="ddpm",
            nfe=len(cell.steps),
            checkpoint_sha256=models.sha256(cell.roles),
            **identity,
        )
        for metric, share in shares.items()
    ]


def _all_heads(models: Models, sampler: Mapping[str, Any]) -> Cell:
    """AdaDiff with every head computed and no exit."""
    cell = build_cell(models, sampler, FULL)
    early_exit = models.early_exit(0.0, simulate=True)
    return replace(
        cell,
        method="adadiff_all_heads",
        parameters={},
        schedule=single(early_exit),
        roles=("full", "heads"),
        early_exit=early_exit,
    )
