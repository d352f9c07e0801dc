"""SwitchBench with made numbers: trainings in memory, or as the files that `make switchbench` would write."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.running.files import sha256, write_csv, write_json
from duodiff.schedules import timesteps
from duodiff.switchbench.data import Training
from duodiff.switchbench.masks import masks, switched
from duodiff.switchbench.plan import SHIPPED
from duodiff.switchbench.scores import chooser

SPACES = ("fd_digits", "fd_pixels")
SAMPLERS = ("ddpm", "ddim")
MANIFEST = {
    "schedule": "linear",
    "dimension": 4,
    "sample_seeds": [0, 1],
    "made": {"device": "made up"},
    "exits": {"theta": 0.1, "change": 397.0},
}


def training(seed=0, steps=10, images=5) -> Training:
    """A training with random losses, the shallow network's larger; `measured` adds distances."""
    rng = np.random.default_rng(seed)
    t = timesteps(steps)
    full = rng.uniform(0.1, 0.2, (steps, images)) * (1 - t / 1000 + 0.01)[:, None]
    moved = rng.normal(size=(steps, 3))
    return Training(
        seed=seed,
        masks=masks(steps),
        t=t,
        full=full,
        shallow=full * rng.uniform(1.1, 2, (steps, 1)),
        between=full * rng.uniform(0.1, 1, (steps, 1)),
        displacements=dict.fromkeys(SAMPLERS, moved @ moved.T),
        measured={},
        manifest=MANIFEST | {"train_seed": seed},
    )


def measured(one: Training, distance, ends=(10.0, 20.0)) -> Training:
    """The training with the distances that `distance(sampler, sample_seed, space)` gives, float64 [masks]."""
    n = len(one.t)
    for sampler in SAMPLERS:
        for k in one.sample_seeds:
            columns = {s: np.append(distance(sampler, k, s), ends[1]) for s in SPACES}
            table = pd.DataFrame({"mask": [*one.masks, switched(n, n)], **columns})
            table = table.set_index("mask")
            table.loc[switched(n, 0)] = ends[0]
            one.measured[sampler, k] = table
    return one


def by_score(one: Training, name="A*", noise=0.0) -> Training:
    """The training with a score as its distances, from 10 to 20, and noise of its own for each seed and space."""
    rng = np.random.default_rng(one.seed)

    def distance(sampler, k, space):
        score = chooser(name)(one, sampler)
        scaled = 10 + 10 * (score - score[0]) / (score[-1] - score[0])
        return scaled + noise * rng.standard_normal(len(score))

    return measured(one, distance)


def write(one: Training, folder: Path) -> None:
    """The files of a training in `folder`, beside those of others, and the shipped plan."""
    folder.mkdir(exist_ok=True)
    shutil.copy(SHIPPED / "plan.yaml", folder)
    losses = [
        {"t": t, "image": i, "full": a, "shallow": b, "between": c}
        for t, *rows in zip(one.t, one.full, one.shallow, one.between, strict=True)
        for i, (a, b, c) in enumerate(zip(*rows, strict=True))
    ]
    files = {"losses.csv": pd.DataFrame(losses)}
    for sampler, gram in one.displacements.items():
        rows = [
            {"i": a, "j": b, "product": gram[i, j]}
            for i, a in enumerate(one.t)
            for j, b in enumerate(one.t)
        ]
        files[f"displacements_{sampler}.csv"] = pd.DataFrame(rows)
    files |= {f"{s}_{k}.csv": table.reset_index() for (s, k), table in one.measured.items()}
    own = folder / f"train{one.seed}"
    for name, table in files.items():
        write_csv(own / name, table)
    hashes = {name: sha256(own / name) for name in files}
    write_json(own / "manifest.json", one.manifest | {"sha256": hashes})
