"""The networks, the trainings and the cells of the grid that a complete configuration asks for (no torch)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T
from duodiff.settings import Setting

ROLES = ("full", "shallow", "heads")
"""The models of an experiment: the full and the shallow backbone, and AdaDiff's heads on the full backbone."""

SCHEMA = Path(__file__).parents[2] / "config" / "schema.yaml"
"""The schema of the configuration."""


@cache
def samplers() -> dict[str, dict]:
    """The schemas of the samplers that a grid may have, by name, in the order of figures.

    `title` is a sampler's name in figures. The first of `examples` has the options of a sampler that a grid lacks.
    """
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    return schema["$defs"]["experiment"]["properties"]["grid"]["properties"]


def selected(config: dict) -> list[str]:
    """Names of the experiments to run: all, or those that `only` lists (a list, or a text with commas)."""
    only = config.get("only", list(config["experiments"]))
    return only.replace(",", " ").split() if isinstance(only, str) else only


def has_heads(experiment: dict) -> bool:
    """Whether the experiment needs AdaDiff's heads: whether its grid has a theta."""
    return any(grid["theta"] for grid in experiment["grid"].values())


def owner(config: dict, experiment: str, role: str) -> str:
    """The experiment that trains the model in `role` of `experiment` (see the key `reuse`)."""
    while other := config["experiments"][experiment]["reuse"].get(role):
        experiment = other
    return experiment


@dataclass(frozen=True)
class GridPoint:
    """One cell of an experiment's grid, as its path spells it. `sampler` is the sampler's folder (`step_grids`)."""

    sampler: str
    setting: Setting
    seed: int

    @property
    def path(self) -> str:
        """Folder below the experiment's samples."""
        return f"{self.sampler}/{self.setting.folder}/{self.setting}/seed{self.seed}"


def grids(experiment: dict) -> dict[str, dict]:
    """The grid of each sampler of an experiment, in one order of the samplers whatever the configuration's."""
    return {name: experiment["grid"][name] for name in samplers() if name in experiment["grid"]}


def step_grids(experiment: dict) -> dict[str, dict]:
    """As `grids`, by the folder of a sampler's samples, with a grid more for each number of `fewer_steps`.

    "ddpm" has the sampler's own number of steps, "ddpm/steps=20" has 20. No cell of fewer steps is sampled again with
    further seeds, or exits early.
    """
    found = {}
    for name, grid in grids(experiment).items():
        found[name] = grid
        none = {"theta": [], "spread": {"seeds": [], "t_s": [], "theta": []}}
        for fewer in grid["fewer_steps"]:
            found[f"{name}/steps={fewer['steps']}"] = grid | fewer | none
    return found


def grid_settings(grid: dict) -> list[Setting]:
    """The settings of one sampler's t_s and theta lists."""
    return [Setting.of(key, value) for key in ("t_s", "theta") for value in grid[key]]


SEEDS_OF_A_TRAINING = 1000
"""Sampling seeds that belong to one training."""


def sampling_seed(seed: int, train_seed: int) -> int:
    """The seed of noise and labels that a configured `seed` becomes in a training: the same in training 0.

    Two trainings share no noise. So their results are independent of each other.
    """
    return seed + SEEDS_OF_A_TRAINING * train_seed


def grid_points(experiment: dict, train_seed: int = 0) -> list[GridPoint]:
    """Every cell of one training of an experiment: all settings at the sampling seed, the spread's at its seeds."""
    points = []
    for sampler, grid in step_grids(experiment).items():
        seeds = {experiment["sampling"]["seed"]: grid}
        seeds |= dict.fromkeys(grid["spread"]["seeds"], grid["spread"])
        for seed, lists in seeds.items():
            own = sampling_seed(seed, train_seed)
            points += [GridPoint(sampler, setting, own) for setting in grid_settings(lists)]
    return points


def sampler_options(experiment: dict, sampler: str) -> dict:
    """The options of a sampler, by its folder: name, steps, and eta and guidance if there are. No lists of settings."""
    grid = step_grids(experiment)[sampler]
    options = grid | {"guidance": experiment["sampling"]["guidance"] or None}
    name, wanted = sampler.partition("/")[0], ("steps", "eta", "guidance")
    return {"name": name} | {k: options[k] for k in wanted if options.get(k) is not None}


def backbone_architecture(experiment: dict, role: str) -> dict:
    """The keywords of UViT's constructor for the backbone in `role`, "full" or "shallow"."""
    depth = {"full": experiment["backbone"]["depth"], "shallow": experiment["shallow_depth"]}
    return experiment["backbone"] | {"depth": depth[role]}


def network_keywords(experiment: dict) -> dict[str, dict]:
    """The keywords of the networks' constructors, by network: "full", "shallow", and "adadiff" if there is a theta."""
    keywords = {role: backbone_architecture(experiment, role) for role in ("full", "shallow")}
    if has_heads(experiment):
        aware = PROTOCOLS[experiment["protocol"]].timestep_aware_uncertainty
        keywords["adadiff"] = {"timestep_aware": aware}
    return keywords


def training_keywords(experiment: dict) -> dict[str, dict]:
    """An experiment's hyperparameters of training, as in the paper's Table 4, by the networks that they belong to."""
    shared = ("schedule", "time_input", "prediction", "train_seeds")
    keywords = {"all": {"timesteps": T} | {key: experiment[key] for key in shared}}
    keywords["full"] = {"weights": "published" if "pretrained" in experiment else "trained"}
    keywords["backbones"] = experiment["backbone_training"]
    if has_heads(experiment):
        keywords["heads"] = experiment["heads_training"]
    return keywords
