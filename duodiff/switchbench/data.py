"""SwitchBench, read from its files: for each training all masks, their distances, and what choosers may look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from duodiff.running.files import read_json, sha256
from duodiff.switchbench.masks import masks, shallow_steps, switched
from duodiff.switchbench.plan import SHIPPED, Plan, read


@dataclass(frozen=True)
class Training:
    """One training of the two networks. Arrays over masks are in the order of `masks`, those over steps in that of `t`.

    `full`, `shallow` and `between` are float64 [steps, images]: for each held-out image the squared error of each
    network's eps, and that of the shallow network's against the full one's, summed over the values of the image.
    `displacements` are by sampler, float64 [steps, steps]: the mean product of what replacing the full network by the
    shallow one at one step, and at another, moves an image by. `manifest` says what the networks and files are.
    """

    seed: int
    masks: list[str]
    t: np.ndarray
    full: np.ndarray
    shallow: np.ndarray
    between: np.ndarray
    displacements: dict[str, np.ndarray]
    measured: dict[tuple[str, int], pd.DataFrame]
    manifest: dict[str, Any]

    @cached_property
    def runs(self) -> np.ndarray:
        """Whether the shallow network makes each step, bool [masks, steps]."""
        return shallow_steps(self.masks)

    @property
    def cost(self) -> np.ndarray:
        """The number of shallow calls of each mask, int64 [masks]: masks of one number cost the same."""
        return self.runs.sum(1)

    @property
    def sample_seeds(self) -> list[int]:
        """The two sampling seeds, before the training adds its own."""
        return self.manifest["sample_seeds"]

    def distance(self, sampler: str, sample_seed: int, space: str) -> np.ndarray:
        """The distance of each mask, float64 [masks], of one of `sample_seeds`."""
        return self._distances(sampler, sample_seed, space)[self.masks].to_numpy()

    def ends(self, sampler: str, sample_seed: int, space: str) -> tuple[float, float]:
        """The distances of the full and of the shallow network alone."""
        found = self._distances(sampler, sample_seed, space)
        n = len(self.t)
        return float(found[switched(n, 0)]), float(found[switched(n, n)])

    def _distances(self, sampler: str, sample_seed: int, space: str) -> pd.Series:
        return self.measured[sampler, sample_seed][space]


def load(folder: Path = SHIPPED, trainings: Sequence[int] | None = None) -> list[Training]:
    """The trainings of the benchmark in `folder`, by default all of its plan that are there.

    Raises FileNotFoundError for a training that is asked for and is not there, and ValueError for a file that is not
    the one that its manifest describes.
    """
    plan = read(folder)
    wanted = trainings or [
        seed
        for seeds in plan.trainings.values()
        for seed in seeds
        if (folder / f"train{seed}").exists()
    ]
    return [_training(folder / f"train{seed}", plan) for seed in wanted]


def _training(folder: Path, plan: Plan) -> Training:
    if not (folder / "manifest.json").exists():
        raise FileNotFoundError(f"{folder}: found no manifest.json; make switchbench makes it")
    manifest = read_json(folder / "manifest.json")
    tables = {name: _table(folder / name, hashed) for name, hashed in manifest["sha256"].items()}
    by_t = tables["losses.csv"].pivot(index="t", columns="image").sort_index(ascending=False)
    t = by_t.index.to_numpy()
    return Training(
        seed=manifest["train_seed"],
        masks=masks(len(t)),
        t=t,
        **{name: by_t[name].to_numpy() for name in ("full", "shallow", "between")},
        displacements={s: _matrix(tables[f"displacements_{s}.csv"], t) for s in plan.samplers},
        measured={
            (sampler, k): tables[f"{sampler}_{k}.csv"].set_index("mask")
            for sampler in plan.samplers
            for k in plan.sample_seeds
        },
        manifest=manifest,
    )


def _table(path: Path, hashed: str) -> pd.DataFrame:
    if sha256(path) != hashed:
        raise ValueError(
            f"{path}: its sha256 is not the one in manifest.json; make switchbench makes it anew"
        )
    return pd.read_csv(path)


def _matrix(products: pd.DataFrame, t: np.ndarray) -> np.ndarray:
    return products.pivot(index="i", columns="j", values="product").loc[t, t].to_numpy()
