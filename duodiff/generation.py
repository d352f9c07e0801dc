"""One cell of the grid: a method at one setting, a sampler, a seed -> images (or a timing of them).

A setting is written as in the configuration and in the paths: ``t_s=500`` is DuoDiff (t_s = 0 the
full backbone, t_s = T the shallow one), ``theta=0.12`` is AdaDiff, ``theta=q0.4`` is AdaDiff at the
0.4 quantile of the uncertainties observed on held-out images.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from duodiff import samplers
from duodiff.backbones import EarlyExit, SwitchSchedule, duodiff, one_call_late, single
from duodiff.data.store import write_store
from duodiff.files import atomic, read_json, sha256
from duodiff.protocol import PROTOCOLS, Protocol
from duodiff.records import device_name
from duodiff.samplers import Step
from duodiff.schedules import T, noise_schedule
from duodiff.training.checkpoints import load_backbone
from duodiff.training.heads import load_adadiff

log = logging.getLogger("duodiff")


class Models:
    """The checkpoints a cell needs, by the paths of their manifests, and what they agree on.

    `full`, `shallow`, `heads` may each be None where no cell uses them; `quantiles` is the JSON file
    of the observed uncertainties. Raises ValueError if two checkpoints disagree on image shape,
    classes or noise schedule.
    """

    def __init__(
        self,
        full: Path | None = None,
        shallow: Path | None = None,
        heads: Path | None = None,
        quantiles: Path | None = None,
        device: str = "cpu",
    ):
        self.device, self.quantiles = device, quantiles
        self.manifests, self.full, self.shallow, self.adadiff = {}, None, None, None
        if full:
            self.full, self.manifests["full"] = load_backbone(full)
        if shallow:
            self.shallow, self.manifests["shallow"] = load_backbone(shallow)
        if heads:
            self.adadiff, self.manifests["heads"] = load_adadiff(
                self.full, self.manifests["full"], heads
            )
        for model in (self.full, self.shallow, self.adadiff):
            if model is not None:
                model.to(device).requires_grad_(False)
        net = self._agreed("architecture")
        self.shape = (net["in_chans"], net["img_size"], net["img_size"])
        self.num_classes = net["num_classes"]
        self.schedule = noise_schedule(self._agreed("schedule"))

    def _agreed(self, key: str):
        backbones = {k: v[key] for k, v in self.manifests.items() if k != "heads"}
        if key == "architecture":
            names = ("in_chans", "img_size", "num_classes")
            backbones = {k: {n: v[n] for n in names} for k, v in backbones.items()}
        first, *others = backbones.values()
        if any(other != first for other in others):
            raise ValueError(f"checkpoints disagree on {key}: {backbones}")
        return first

    def departures(self, schedule: str, time_input: str, protocol: str) -> list[str]:
        """Where the checkpoints disagree with the configured schedule, time convention and protocol.

        Raises ValueError if there is any and the protocol is not `paper`, which records it instead.
        """
        configured = {"schedule": schedule, "time_input": time_input, "protocol": protocol}
        found = [
            f"{role}: {key} is {manifest[key]}, configured {value}"
            for role, manifest in self.manifests.items()
            for key, value in configured.items()
            if manifest.get(key, value) != value
        ]
        if found and protocol != "paper":
            raise ValueError("checkpoints refused: " + "; ".join(found))
        return found

    def sha256(self, roles: Iterable[str]) -> dict[str, str]:
        """weights_sha256 of the checkpoints in `roles`."""
        return {role: self.manifests[role]["weights_sha256"] for role in roles}

    def early_exit(self, theta: float, simulate: bool = False) -> EarlyExit:
        """AdaDiff at threshold theta."""
        return EarlyExit(self.adadiff, theta, self.full.time_input, simulate)

    def threshold(self, setting: str) -> float:
        """The theta of an AdaDiff setting, quantiles resolved."""
        value = setting.removeprefix("theta=")
        if not value.startswith("q"):
            return float(value)
        observed = read_json(self.quantiles)
        return float(np.interp(float(value[1:]), observed["levels"], observed["values"]))


@dataclass
class Cell:
    """A setting made runnable: which backbone at which t, the sampler's steps, what to record.

    `roles` names the checkpoints it uses.
    """

    method: str
    parameters: dict
    schedule: SwitchSchedule
    steps: list[Step]
    roles: tuple[str, ...]
    early_exit: EarlyExit | None = None


def sampler_steps(models: Models, sampler: dict, protocol: Protocol) -> list[Step]:
    """The steps of a configured sampler: {name: ddpm, steps} or {name: ddim, steps, eta}."""
    if sampler["name"] == "ddpm":
        return samplers.ddpm(models.schedule, sampler["steps"])
    return samplers.ddim(
        models.schedule, sampler["steps"], sampler["eta"], final_step=protocol.ddim_final_step
    )


def build_cell(models: Models, sampler: dict, setting: str, protocol: str) -> Cell:
    """The cell of one setting under one sampler and protocol."""
    rules = PROTOCOLS[protocol]
    steps = sampler_steps(models, sampler, rules)
    extra = {"eta": sampler["eta"]} if "eta" in sampler else {}
    if setting.startswith("theta="):
        early_exit = models.early_exit(models.threshold(setting))
        parameters = {
            "theta": early_exit.theta,
            "setting": setting.removeprefix("theta="),
            "depth": models.full.net.depth,
        }
        roles = ("full", "heads")
        return Cell("adadiff", parameters | extra, single(early_exit), steps, roles, early_exit)
    t_s = int(setting.removeprefix("t_s="))
    used = t_s
    if rules.ddim_switch_one_call_late and sampler["name"] == "ddim":
        used = one_call_late(t_s, [step.t for step in steps])
    method = {0: "full", T: "shallow"}.get(t_s, "duodiff")
    roles = ("full", "shallow") if method == "duodiff" else (method,)
    schedule = duodiff(models.full, models.shallow, used)
    return Cell(method, {"t_s": t_s} | extra, schedule, steps, roles)


def compute_batches(start: int, stop: int, batch: int) -> Iterator[tuple[int, slice]]:
    """First global index of each compute batch that covers start..stop-1, and the part of it wanted.

    Batches are cut at multiples of `batch` whatever the range, so a shard computes each image in the
    same company as a single run does.
    """
    for first in range(start - start % batch, stop, batch):
        yield first, slice(max(start - first, 0), min(stop - first, batch))


def generate(
    models: Models, cell: Cell, start: int, stop: int, batch: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [n, C, H, W], labels int64 [n] (-1 without classes), blocks run int8 [steps, n].

    n = stop - start global image indices; the blocks an image ran in each step are AdaDiff's exit layer,
    or the depth of the backbone at work. Raises ValueError if an image is not finite.
    """
    images, labels, blocks = [], [], []
    total = (stop - start) * len(cell.steps)
    with tqdm(total=total, desc=cell.method, unit="img-step", disable=None, mininterval=1) as bar:
        for first, wanted in compute_batches(start, stop, batch):
            x, y = samplers.sample(
                cell.schedule,
                cell.steps,
                models.shape,
                first,
                batch,
                seed,
                models.num_classes,
                models.device,
                on_step=lambda t: bar.update(batch),
            )
            if not torch.isfinite(x).all():
                raise ValueError(f"images {first} to {first + batch - 1} are not finite")
            images.append(samplers.to_uint8(x[wanted]).cpu())
            labels.append(torch.full((batch,), -1)[wanted] if y is None else y[wanted].cpu())
            blocks.append(_blocks_run(cell, batch)[:, wanted])
    return (
        torch.cat(images).numpy(),
        torch.cat(labels).numpy(),
        torch.cat(blocks, dim=1).numpy(),
    )


def _blocks_run(cell: Cell, batch: int) -> torch.Tensor:
    """Blocks each image of the last compute batch ran in each step, int8 [steps, batch]."""
    if cell.early_exit is None:
        depths = torch.tensor([cell.schedule.at(step.t).net.depth for step in cell.steps])
        return depths[:, None].expand(-1, batch).to(torch.int8)
    exits = torch.stack(cell.early_exit.exits)
    cell.early_exit.exits.clear()
    return exits.to(torch.int8).cpu()


def write_samples(
    out: Path,
    paths: dict[str, Path | None],
    sampler: dict,
    setting: str,
    images: int,
    batch: int,
    seed: int,
    device: str,
    context: dict,
) -> dict:
    """Manifest of one cell's sample store, written to `out`, with blocks_run.npy beside it.

    `paths` are the arguments of `Models`; `context` (experiment, protocol, train_seed, and the
    configured schedule and time_input) goes into the manifest, which holds everything a record says of
    its samples.
    """
    models = Models(**paths, device=device)
    departures = models.departures(context["schedule"], context["time_input"], context["protocol"])
    cell = build_cell(models, sampler, setting, context["protocol"])
    pixels, labels, blocks = generate(models, cell, 0, images, batch, seed)
    description = {
        **context,
        "num_classes": models.num_classes,
        "method": cell.method,
        "parameters": cell.parameters,
        "sampler": sampler,
        "nfe": len(cell.steps),
        "timesteps": [step.t for step in cell.steps],
        "indices": [0, images],
        "seed": seed,
        "dtype": "float32",
        "compute_batch": batch,
        "device": device_name(device),
        "checkpoint_sha256": models.sha256(cell.roles),
        "departures": departures,
    }
    with atomic(Path(out).parent / "blocks_run.npy") as file:
        np.save(file, blocks)
    description["blocks_run_sha256"] = sha256(Path(out).parent / "blocks_run.npy")
    if cell.early_exit is not None:
        description["nan_uncertainties"] = nans = int(models.adadiff.nan_count)
        if nans:
            log.warning("%s: %d uncertainties were NaN and did not exit", setting, nans)
    return write_store(out, pixels, labels, description)
