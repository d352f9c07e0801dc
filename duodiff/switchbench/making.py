"""The files of SwitchBench, made from the networks of a training."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from duodiff.identity import code_digest, digest
from duodiff.metrics.flops import gflops
from duodiff.running import provenance
from duodiff.running.files import read_json, sha256, write_csv, write_json
from duodiff.running.memory import keep_freed_memory
from duodiff.running.parts import Parts
from duodiff.running.pool import mapped
from duodiff.samplers import Step, steps_of
from duodiff.sampling.models import Models
from duodiff.schedules import timesteps
from duodiff.study.grid import sampling_seed
from duodiff.switchbench.masks import masks, switched
from duodiff.switchbench.measuring import Rulers, displacements, distances, exit_change, losses
from duodiff.switchbench.plan import Plan
from duodiff.switchbench.tables import rounded
from duodiff.training.backbone import noisers
from duodiff.training.batches import Noiser

_ROLES = ("full", "shallow", "heads")
_PROTOCOL = "corrected"
_DECIDING = (
    "experiment",
    "steps",
    "samplers",
    "images",
    "batch",
    "sample_seeds",
    "displacement_seed",
)


def make_training(trained: Path, data: Path, plan: Plan, out: Path) -> dict[str, Any]:
    """The manifest of the files of one training in the folder `out`. They are made unless they are there.

    `trained` is the folder of the networks, results/<experiment>/train<seed>; `data` is the manifest of the packed
    images. A run that was stopped is continued after its last compute batch.
    """
    files = {role: trained / role / "manifest.json" for role in _ROLES}
    models = Models(
        plan.conventions,
        _PROTOCOL,
        full=files["full"],
        shallow=files["shallow"],
        heads=files["heads"],
    )
    content: dict[str, Any] = {key: getattr(plan, key) for key in _DECIDING}
    content |= plan.conventions | {
        "train_seed": int(trained.name.removeprefix("train")),
        "dimension": math.prod(models.shape),
        "operations": {r: round(1e9 * gflops(models.backbone(r).net)) for r in ("full", "shallow")},
        "checkpoint_sha256": models.sha256(_ROLES),
    }
    code = code_digest(make_training, [plan.conventions, _PROTOCOL, *plan.samplers])
    identity = digest([content, code, torch.__version__])
    path = out / "manifest.json"
    if path.exists() and read_json(path)["identity"] == identity:
        return read_json(path)
    parts = Parts(path, {"identity": identity})
    _, _, held_out = noisers(data, models.full, models.schedule.name, models.device)
    tables = _tables(models, held_out, plan, content["train_seed"])
    tables |= _distances(models, Rulers(data), plan, content["train_seed"], parts)
    for name, table in tables.items():
        write_csv(out / name, rounded(table))
    content |= {
        "identity": identity,
        "exits": exit_change(models, held_out, plan.batch, content["train_seed"]),
        "sha256": {name: sha256(out / name) for name in tables},
        "made": provenance.made(
            code, models.device, libraries=["torch-fidelity"], of=models.made(_ROLES)
        ),
    }
    write_json(path, content)
    parts.clear()
    return content


def _steps(models: Models, plan: Plan) -> dict[str, list[Step]]:
    """The steps of each sampler of the plan, by name."""
    return {n: steps_of(models.schedule, of, models.protocol) for n, of in plan.options.items()}


def _tables(models: Models, held_out: Noiser, plan: Plan, seed: int) -> dict[str, pd.DataFrame]:
    """What choosers need, by file: the losses at each step, and the displacements under each sampler."""
    own = sampling_seed(plan.displacement_seed, seed)
    moved = {
        n: displacements(models, of, plan.batch, own) for n, of in _steps(models, plan).items()
    }
    return {
        "losses.csv": losses(models, held_out, timesteps(plan.steps).tolist(), plan.batch, seed),
        **{f"displacements_{name}.csv": table for name, table in moved.items()},
    }


def _distances(
    models: Models, rulers: Rulers, plan: Plan, seed: int, parts: Parts
) -> dict[str, pd.DataFrame]:
    """The distances of every mask, and of the shallow network alone, by file: one a sampler and sampling seed."""
    wanted = [*masks(plan.steps), switched(plan.steps, plan.steps)]
    return {
        f"{name}_{k}.csv": distances(
            models,
            steps,
            wanted,
            rulers,
            parts,
            name=f"{name}_{k}",
            images=plan.images,
            batch=plan.batch,
            seed=sampling_seed(k, seed),
        )
        for name, steps in _steps(models, plan).items()
        for k in plan.sample_seeds
    }


# --- all trainings


def make_all(trained: Sequence[Path], plan: Plan, out: Path, processes: int) -> None:
    """Makes the files of trainings in `out`, one folder each, by so many processes; see `make_training`.

    `trained` are folders results/<experiment>/train<seed> of runs of the workflow. Raises ValueError for a training
    that is not the plan's.
    """
    planned = [f"train{seed}" for seeds in plan.trainings.values() for seed in seeds]
    if unknown := [str(folder) for folder in trained if folder.name not in planned]:
        raise ValueError(f"trained: found {', '.join(unknown)}; accepted: {', '.join(planned)}")
    make = partial(_make, plan=plan, out=out)
    with tqdm(total=len(trained), desc="switchbench", unit="training", disable=None) as bar:
        for _ in mapped(make, trained, min(processes, len(trained)), chunk=1):
            bar.update()


def _make(trained: Path, plan: Plan, out: Path) -> None:
    keep_freed_memory()
    data = trained.parents[1] / f"data/{plan.experiment}/manifest.json"
    make_training(trained, data, plan, out / trained.name)
