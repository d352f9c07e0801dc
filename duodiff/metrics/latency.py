"""Wall time of methods measured side by side in one process."""

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
from duodiff.generation import Cell, Models, build_cell, sample_batch
from duodiff.metrics.flops import gflops, parameters
from duodiff.protocol import PROTOCOLS
from duodiff.records import Record, device_name


def interleaved_seconds(
    runs: dict[Hashable, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[Hashable, list[float]]:
    """Seconds of each (warmed-up) run, `repeats` times: every round runs all, in alternating order.

    Interleaving spreads the machine's slow moments over all runs, so their ratios hold where single
    times do not.
    """
    seconds = {name: [] for name in runs}
    rounds = [list(reversed(runs)) if i % 2 else list(runs) for i in range(repeats)]
    order = [name for one_round in rounds for name in one_round]
    for name in tqdm(order, desc="latency", unit="run", disable=None):
        _synchronise(device)
        start = time.perf_counter()
        runs[name]()
        _synchronise(device)
        seconds[name].append(time.perf_counter() - start)
    return seconds


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


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
) -> list[Record]:
    """Seconds per image of every setting in `grid` ([[sampler, [settings]], ...]), and the networks' cost.

    Beside the seconds stands the speed-up over the full backbone (t_s = 0), the median of the ratios
    within each round.

    AdaDiff is measured with the batch that shrinks; the same network with all heads computed and none
    taken (`adadiff_all_heads`) is what the paper's interpolated time starts from (Appendix A.5). Noise is
    in the time, writing files is not, nor is decoding latents: with an `autoencoder` that is measured in
    the same rounds and recorded by itself.
    """
    torch.set_num_threads(threads)
    models = Models(conventions, context["protocol"], **paths, device=device)
    cells = {}
    for sampler, settings in grid:
        for setting in settings:
            cells[sampler["name"], setting] = build_cell(
                models, sampler, setting, context["protocol"]
            )
        if any(setting.startswith("theta=") for setting in settings):
            cells[sampler["name"], "all_heads"] = _all_heads(models, sampler, context["protocol"])
    if PROTOCOLS[context["protocol"]].warm_up_timing:
        for cell in cells.values():  # every network and shape warm before the clock starts
            some = replace(cell, steps=cell.steps[:: max(1, len(cell.steps) // 5)])
            sample_batch(models, some, 0, batch, seed)
    runs = {key: partial(sample_batch, models, cell, 0, batch, seed) for key, cell in cells.items()}
    if autoencoder is not None:
        latents = noise.image_noise(seed, noise.INITIAL, 0, batch, models.shape).to(device)
        autoencoder.decode(latents)  # warm
        runs["decode"] = partial(autoencoder.decode, latents)
    seconds = interleaved_seconds(runs, repeats, device)

    common = {
        "experiment": context["experiment"],
        "protocol": context["protocol"],
        "device": device_name(device),
        "compute_batch": batch,
    }
    over = f"minimum and maximum of {repeats} interleaved rounds"
    seeds = {"train_seed": context["train_seed"], "sample_seed": seed}
    found = []
    for (sampler, setting), cell in cells.items():
        taken = np.array(seconds[sampler, setting])
        identity = {
            "n": batch,
            "method": cell.method,
            "parameters": cell.parameters,
            "sampler": sampler,
            "steps": next(s["steps"] for s, _ in grid if s["name"] == sampler),
            "checkpoint_sha256": models.sha256(cell.roles),
            "nfe": len(cell.steps),
            "seeds": seeds,
            "interval_covers": over,
            **common,
        }
        values = {
            ("seconds_per_image", "s"): taken / batch,
            # within a round the machine's drift cancels
            ("speedup", "1"): np.array(seconds[sampler, "t_s=0"]) / taken,
        }
        for (metric, unit), rounds in values.items():
            interval = [float(rounds.min()), float(rounds.max())]
            median = float(np.median(rounds))
            found.append(Record(metric, median, unit, interval=interval, **identity))
    for method, model in (("full", models.full), ("shallow", models.shallow)):
        cost = {"seeds": {"train_seed": context["train_seed"]}, "method": method, "n": 1, **common}
        cost["checkpoint_sha256"] = models.sha256([method])
        found.append(Record("gflops_per_call", gflops(model.net), unit="GFLOP", **cost))
        found.append(Record("parameters", parameters(model.net), unit="1", **cost))
    if autoencoder is not None:
        identity = {"n": batch, "seeds": seeds, "interval_covers": over, **common}
        found.append(_decoding(autoencoder, np.array(seconds["decode"]) / batch, identity))
    return found + _simulated_against_shrinking(models, cells, batch, seeds, common, autoencoder)


def _decoding(autoencoder: Autoencoder, rounds: np.ndarray, identity: dict) -> Record:
    """The record of `rounds` [repeats], seconds to decode an image, in the autoencoder's own batches."""
    return Record(
        "decode_seconds_per_image",
        float(np.median(rounds)),
        "s",
        method="decode",
        interval=[float(rounds.min()), float(rounds.max())],
        checkpoint_sha256={"autoencoder": autoencoder.source["weights_sha256"]},
        **identity | {"compute_batch": autoencoder.batch},
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
    cell = build_cell(models, sampler, "t_s=0", protocol)
    early_exit = models.early_exit(0.0, simulate=True)
    return replace(
        cell,
        method="adadiff_all_heads",
        parameters={},
        schedule=single(early_exit),
        roles=("full", "heads"),
        early_exit=early_exit,
    )
