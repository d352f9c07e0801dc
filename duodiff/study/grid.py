"""What a complete configuration asks of an experiment: networks, trainings, the cells of its grid (no torch)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T
from duodiff.settings import Setting

ROLES = ("full", "shallow", "heads")
"""The models of an experiment: the two backbones, and AdaDiff's heads on the full one."""

SCHEMA = Path(__file__).parents[2] / "config" / "schema.yaml"
"""The schema of the configuration."""


@cache
def samplers() -> dict[str, dict]:
    """The samplers a grid may have, in the order of figures: their schemas, by name.

    `title` is what figures call a sampler, the first of `examples` its options where nothing else gives them.
    """
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    return schema["$defs"]["experiment"]["properties"]["grid"]["properties"]


def selected(config: dict) -> list[str]:
    """Names of the experiments to run: those of `only` (a list, or text separated by commas), or all."""
    only = config.get("only", list(config["experiments"]))
    return only.replace(",", " ").split() if isinstance(only, str) else only


def has_heads(experiment: dict) -> bool:
    """Whether the grid has an AdaDiff cell, so that heads are needed."""
    return any(grid["theta"] for grid in experiment["grid"].values())


def owner(config: dict, experiment: str, role: str) -> str:
    """The experiment whose training makes the model in `role` of `experiment` (see `reuse`)."""
    while other := config["experiments"][experiment]["reuse"].get(role):
        experiment = other
    return experiment


@dataclass(frozen=True)
class GridPoint:
    """One cell of an experiment's grid, as its path spells it."""

    sampler: str
    setting: Setting
    seed: int

    @property
    def path(self) -> str:
        """Folder below the experiment's samples."""
        return f"{self.sampler}/{self.setting.folder}/{self.setting}/seed{self.seed}"


def grid_settings(grid: dict) -> list[Setting]:
    """The settings of one sampler's t_s and theta lists."""
    return [Setting.of(key, value) for key in ("t_s", "theta") for value in grid[key]]


def grid_points(experiment: dict) -> list[GridPoint]:
    """Every cell of an experiment: all settings at the first sampling seed, some at the spread's seeds."""
    points = []
    for sampler, grid in experiment["grid"].items():
        seeds = {experiment["sampling"]["seed"]: grid}
        seeds |= dict.fromkeys(grid["spread"]["seeds"], grid["spread"])
        for seed, lists in seeds.items():
            points += [GridPoint(sampler, setting, seed) for setting in grid_settings(lists)]
    return points


def sampler_options(experiment: dict, sampler: str) -> dict:
    """What a sampler itself is told: its name, steps, eta and any guidance, without the grid's lists."""
    options = experiment["grid"][sampler] | {"guidance": experiment["sampling"]["guidance"] or None}
    wanted = ("steps", "eta", "guidance")
    return {"name": sampler} | {k: options[k] for k in wanted if options.get(k) is not None}


def backbone_architecture(experiment: dict, role: str) -> dict:
    """The UViT constructor's keywords for the "full" or the "shallow" backbone."""
    depth = {"full": experiment["backbone"]["depth"], "shallow": experiment["shallow_depth"]}
    return experiment["backbone"] | {"depth": depth[role]}


def network_keywords(experiment: dict) -> dict[str, dict]:
    """Constructors' keywords of an experiment's networks, by role: "full", "shallow", "adadiff" if it has a theta."""
    found = {role: backbone_architecture(experiment, role) for role in ("full", "shallow")}
    if has_heads(experiment):
        aware = PROTOCOLS[experiment["protocol"]].timestep_aware_uncertainty
        found["adadiff"] = {"timestep_aware": aware}
    return found


def training_keywords(experiment: dict) -> dict[str, dict]:
    """An experiment's training hyperparameters as the paper's Table 4 has them, by what they are of."""
    everything = ("schedule", "time_input", "prediction", "train_seeds")
    found = {"all": {"timesteps": T} | {key: experiment[key] for key in everything}}
    found["full"] = {"weights": "published" if "pretrained" in experiment else "trained"}
    found["backbones"] = experiment["backbone_training"]
    return found | ({"heads": experiment["heads_training"]} if has_heads(experiment) else {})
