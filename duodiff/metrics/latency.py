"""Times of methods, measured in turns in one process, and the resources that they need."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duodiff import samplers
from duodiff.autoencoder import Autoencoder
from duodiff.backbones import Backbone, single
from duodiff.identity import code_digest
from duodiff.metrics import rounds
from duodiff.metrics.flops import gflops, parameters
from duodiff.metrics.pieces import Pieces
from duodiff.metrics.resources import (
    energy_meter,
    load_seconds,
    peak_bytes,
    resident,
    synchronise,
    trajectory_gflops,
)
from duodiff.metrics.rounds import Estimate, Timed, Turn
from duodiff.records import Record
from duodiff.running import provenance
from duodiff.sampling.cells import Cell, build_cell
from duodiff.sampling.generation import sample_batch
from duodiff.sampling.models import Models
from duodiff.schedules import T
from duodiff.settings import FULL, Schedules, Setting

Key = tuple[str, Setting | str]
"""What is timed: a sampler's name, and a setting, a name of `_MECHANISMS` or `_DECODE`."""

_DECODE = "decode"
_MECHANISMS = {"all_heads": True, "none_exit": False}
"""AdaDiff without exits, by name: whether the exit is simulated, with every head computed."""

_SHALLOW = Setting("t_s", str(T))


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
    compiled: bool = False,
    schedules: Schedules | None = None,
) -> list[Record]:
    """The speed of every setting in `grid` ([[sampler, [settings]], ...]), and the resources it needs.

    `paths` are the files of `Models` by role, `schedules` the named ones. `repeats` is the least number of rounds
    (`duodiff.metrics.rounds`). In a round every cell runs a short piece of its trajectory (`duodiff.metrics.pieces`),
    in turns with its baseline: the full backbone under the same sampler. Records of a cell:

    - `speedup`: the baseline's wall time over the cell's
    - `seconds_per_image`: the baseline's seconds over the speed-up. So two cells' seconds compare as their speed-ups,
      although the machine may have been faster for one
    - `speedup_processor` and `processor_seconds_per_image`: the same by processor time, on a CPU
    - `joules_per_image`, of one trajectory, where a GPU's can be read. `_needs` has the rest.

    AdaDiff is measured with the batch that shrinks. Where no image exits (`adadiff_none_exit`), that is the cost of its
    mechanism. The same network with all heads computed and no exit taken (`adadiff_all_heads`) is the start of the
    paper's interpolated time (Appendix A.5). The times include the noise of
    the steps. They do not include writing files or decoding latents: decoding by the `autoencoder` is measured in the
    same rounds and recorded by itself.
    """
    torch.set_num_threads(threads)

    def load(roles: Iterable[str], compiled: bool = False) -> Models:
        chosen: dict[str, Any] = {role: paths[role] for role in roles}
        how: dict[str, Any] = {"device": device, "precision": precision, "compiled": compiled}
        return Models(conventions, protocol, **chosen, **how)

    models = load(paths)
    timed = load(paths, compiled) if compiled else models
    cells, timed_cells = (_cells(one, grid, schedules or Schedules()) for one in (models, timed))
    timings = _Timings(
        timed, timed_cells, Pieces(timed, batch, seed), repeats, autoencoder=autoencoder
    )
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
        exiting = timed_cells[sampler, setting].early_exit
        clocked = identity | {"compiled": compiled and (exiting is None or exiting.compiled)}
        records += timings.records((sampler, setting), clocked)
        records += _energy(timed, timed_cells[sampler, setting], clocked)
        records += _needs(models, cell, timings.ran.get((sampler, setting)), identity)
        records.append(_loading(loads[cell.roles], identity))
    records += _calls(models, {"train_seed": train_seed}, common)
    identity = {"n": batch, "seeds": seeds, **common}
    if autoencoder is not None:
        records.append(_decoding(autoencoder, timings.decoding(), identity))
    records += _simulated_against_shrinking(timed, timings, identity, autoencoder)
    for record in records:
        trained = models.made(record.checkpoint_sha256.keys() & models.manifests.keys())
        record.made = provenance.made_of(made, trained)
    return records


class _Timings:
    """The rounds of all cells and of decoding, what they give, and whole trajectories of AdaDiff.

    `x_0` and `ran` are the images of each of its cells, and the blocks that they ran.
    """

    def __init__(
        self,
        models: Models,
        cells: dict[Key, Cell],
        pieces: Pieces,
        least: int,
        *,
        autoencoder: Autoencoder | None,
    ):
        self.cells = cells
        self.x_0: dict[Key, torch.Tensor] = {}
        self.ran: dict[Key, torch.Tensor] = {}
        timed = self._timed(models, _compared(models, cells), pieces, least)
        if autoencoder is not None:
            sampler, _ = next(iter(self.cells))
            timed[sampler, _DECODE] = _timed_decoding(
                autoencoder, pieces, self.cells[sampler, FULL]
            )
        if models.protocol.warm_up_timing:
            for each in timed.values():  # every network and shape warm before the clock starts
                for turn in (*each.baseline(0), *each.piece(0)):
                    turn.run()
        seconds = rounds.measure(timed, least, partial(_clock, models.device))
        by_sampler: dict[str, dict[Key, Timed]] = {}
        for key, each in timed.items():
            by_sampler.setdefault(key[0], {})[key] = each
        self._clocks = range(min(rows.shape[-1] for rows in seconds.values()))
        self._speedups = [rounds.speedups(timed, seconds, least, clock) for clock in self._clocks]
        self._baselines = [
            {
                sampler: rounds.baseline_seconds(some, seconds, least, clock)
                for sampler, some in by_sampler.items()
            }
            for clock in self._clocks
        ]

    def _timed(
        self, models: Models, cells: Mapping[Key, Cell], pieces: Pieces, least: int
    ) -> dict[Key, Timed]:
        """The cells, each with its baseline; and AdaDiff's trajectories, sampled for that."""
        timed = {}
        for key, cell in cells.items():
            full = self.cells[key[0], FULL]
            if cell.method == "adadiff":
                piece, self.x_0[key], self.ran[key] = pieces.exiting(cell, least)
            else:
                piece = pieces.switching(cell)
            baseline = pieces.switching(full, len(piece(0)))
            timed[key] = Timed(piece, baseline, _shares(cell, key[0], len(full.steps)))
        return timed

    def records(self, key: Key, identity: Mapping[str, Any]) -> Iterator[Record]:
        """The speed-up of a cell and its seconds for an image, by each clock."""
        for clock in self._clocks:
            speedup, seconds = self._of(key, clock)
            resampled = None if clock else speedup.resampled
            name = "speedup_processor" if clock else "speedup"
            yield _timing(name, speedup, "1", resampled=resampled, **identity)
            name = "processor_seconds_per_image" if clock else "seconds_per_image"
            yield _timing(name, seconds, "s", **identity)

    def _of(self, key: Key, clock: int) -> tuple[Estimate, Estimate]:
        """The speed-up and the seconds of a cell by one clock; the full backbone's speed-up is 1."""
        baseline = self._baselines[clock][key[0]]
        if key[1] == FULL:
            ones = [1.0] * len(baseline.resampled)
            return replace(baseline, value=1.0, interval=[1.0, 1.0], resampled=ones), baseline
        speedup = self._speedups[clock][key]
        return speedup, rounds.seconds_of(baseline, speedup)

    def decoding(self) -> Estimate:
        """The seconds to decode an image."""
        key = next(key for key in self._speedups[0] if key[1] == _DECODE)
        _, seconds = self._of(key, 0)
        return seconds


def _clock(device: str) -> np.ndarray:
    """Seconds of wall time, once the device has done its work; on a CPU also of processor time."""
    if device == "cpu":
        return np.array([time.perf_counter(), time.process_time()])
    synchronise(device)
    return np.array([time.perf_counter()])


def _compared(models: Models, cells: Mapping[Key, Cell]) -> dict[Key, Cell]:
    """The cells to time beside the full backbone: all others, or itself under a sampler without others.

    Each network of a schedule is among them, alone on every step, although it may be no cell.
    """
    compared = {key: cell for key, cell in cells.items() if key[1] != FULL}
    for name in dict.fromkeys(sampler for sampler, _ in cells):
        own = [cell for (of, _), cell in compared.items() if of == name]
        if not own:
            compared[name, FULL] = cells[name, FULL]
        full = cells[name, FULL]
        for cell in own:
            for network, backbone in _networks(cell).items():
                key = (name, _alone(network))
                if network != "full" and key not in compared:
                    method = "shallow" if network == "shallow" else f"{network}_alone"
                    compared[key] = replace(full, method=method, schedule=single(backbone))
    return compared


def _networks(cell: Cell) -> dict[str, Backbone]:
    """The networks that run in a cell of DuoDiff or of a named schedule, by name; none of another cell."""
    if "intervals" in cell.parameters:
        listed = [(name, low) for name, low, _ in cell.parameters["intervals"]]
        ran = {cell.schedule.at(step.t) for step in cell.steps}
        found = {name: cell.schedule.at(low) for name, low in listed}
        return {name: backbone for name, backbone in found.items() if backbone in ran}
    if cell.method != "duodiff":
        return {}
    return {"full": cell.schedule.at(0), "shallow": cell.schedule.at(T - 1)}


def _alone(network: str) -> Setting | str:
    """What times a network that runs alone."""
    return {"full": FULL, "shallow": _SHALLOW}.get(network, f"network {network}")


def _shares(cell: Cell, sampler: str, steps: int) -> dict[Key, float]:
    """The calls of each network of a schedule over the baseline's `steps`, by the cell that runs the network alone."""
    ran = [cell.schedule.at(step.t) for step in cell.steps]
    return {
        (sampler, _alone(name)): sum(one is backbone for one in ran) / steps
        for name, backbone in _networks(cell).items()
    }


def _timing(metric: str, estimate: Estimate, unit: str, **identity: Any) -> Record:
    """The record of a value measured in rounds."""
    return Record(
        metric,
        estimate.value,
        unit,
        interval=estimate.interval,
        interval_covers=rounds.COVERS,
        rounds=estimate.rounds,
        disturbed=estimate.disturbed,
        **identity,
    )


def _timed_decoding(autoencoder: Autoencoder, pieces: Pieces, full: Cell) -> Timed:
    """Decoding of one of the autoencoder's batches, beside a step of the full backbone."""
    latents = pieces.x[: autoencoder.batch]
    turn = Turn(partial(autoencoder.decode, latents), 1 / len(latents), lambda: None)
    return Timed(lambda i: [turn], pieces.switching(full, turns=1))


def _energy(models: Models, cell: Cell, identity: Mapping[str, Any]) -> list[Record]:
    """The joules of one trajectory, in a record if there is a meter. It is read too seldom for a short piece."""
    meter = energy_meter(models.device)
    if meter is None:
        return []
    synchronise(models.device)
    before = meter()
    sample_batch(models, cell, 0, identity["n"], identity["seeds"]["sample_seed"])
    synchronise(models.device)
    joules = (meter() - before) / identity["n"]
    return [Record("joules_per_image", joules, "J", **identity)]


def _loading(seconds: np.ndarray, identity: Mapping[str, Any]) -> Record:
    """The record of a cell's load time: the median of `seconds` [loads], and their range as its interval."""
    return Record(
        "load_seconds",
        float(np.median(seconds)),
        "s",
        interval=[float(seconds.min()), float(seconds.max())],
        interval_covers=f"minimum and maximum of {len(seconds)} loads",
        **identity,
    )


def _cells(
    models: Models, grid: Sequence[tuple[dict[str, Any], list[str]]], schedules: Schedules
) -> dict[Key, Cell]:
    """The cells of every setting, and of `_MECHANISMS` under each sampler that has AdaDiff."""
    cells: dict[Key, Cell] = {}
    for sampler, spelled in grid:
        settings = [schedules.setting(text, sampler["name"]) for text in spelled]
        for setting in settings:
            cells[sampler["name"], setting] = build_cell(models, sampler, setting)
        if any(setting.exits_early for setting in settings):
            for name in _MECHANISMS:
                cells[sampler["name"], name] = _mechanism(models, sampler, name)
    return cells


def _few_steps(cell: Cell) -> Cell:
    """The cell with some five of its steps, the last and the first of each network among them: every network runs."""
    every, last = max(1, len(cell.steps) // 5), len(cell.steps) - 1
    ran = [id(cell.schedule.at(step.t)) for step in cell.steps]
    first = {ran.index(network) for network in ran}
    chosen = [i for i in range(len(ran)) if i % every == 0 or i == last or i in first]
    return replace(cell, steps=[cell.steps[i] for i in chosen])


def _needs(
    models: Models, cell: Cell, ran: torch.Tensor | None, identity: Mapping[str, Any]
) -> list[Record]:
    """Records of the operations and the memory that a cell's sampling needs.

    - `gflops_per_trajectory`: see `trajectory_gflops`, which needs the blocks `ran` of AdaDiff.
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
    for role in models.backbones:
        net = models.backbone(role).net
        identity = {"seeds": seeds, "method": role, "n": 1, **common}
        identity["checkpoint_sha256"] = models.sha256([role])
        records.append(Record("gflops_per_call", gflops(net), unit="GFLOP", **identity))
        records.append(Record("parameters", parameters(net), unit="1", **identity))
    return records


def _decoding(autoencoder: Autoencoder, seconds: Estimate, identity: Mapping[str, Any]) -> Record:
    """The record of the seconds to decode an image, in the autoencoder's own batches."""
    own = {
        "method": "decode",
        "checkpoint_sha256": {"autoencoder": autoencoder.source["weights_sha256"]},
        "compute_batch": autoencoder.batch,
        "dtype": "float32",
    }
    return _timing("decode_seconds_per_image", seconds, "s", **{**identity, **own})


def _simulated_against_shrinking(
    models: Models,
    timings: _Timings,
    identity: Mapping[str, Any],
    autoencoder: Autoencoder | None,
) -> list[Record]:
    """How a whole DDPM trajectory with the shrinking batch differs from one with the simulated exit (Appendix A.5).

    At the middle theta: the share of exits that differ, and the share of images that agree within one grey level.
    """
    exiting = [key for key in timings.ran if key[0] == "ddpm"]
    if not exiting:
        return []
    by_theta = sorted(exiting, key=lambda key: timings.cells[key].parameters["theta"])
    key = by_theta[len(exiting) // 2]
    cell = timings.cells[key]
    early_exit = models.early_exit(cell.parameters["theta"], simulate=True)
    simulated = replace(cell, schedule=single(early_exit), early_exit=early_exit)
    seed = identity["seeds"]["sample_seed"]
    x_1, exits_1 = timings.x_0[key], timings.ran[key]
    x_2, _, exits_2 = sample_batch(models, simulated, 0, identity["n"], seed)
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


def _mechanism(models: Models, sampler: Mapping[str, Any], name: str) -> Cell:
    """AdaDiff at theta = 0, which no image's uncertainty is below: `name` of `_MECHANISMS`."""
    cell = build_cell(models, sampler, FULL)
    early_exit = models.early_exit(0.0, simulate=_MECHANISMS[name])
    return replace(
        cell,
        method=f"adadiff_{name}",
        parameters={},
        schedule=single(early_exit),
        roles=("full", "heads"),
        early_exit=early_exit,
    )
