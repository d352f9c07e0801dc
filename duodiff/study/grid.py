"""The networks, the trainings and the cells of the grid that a complete configuration asks for (no torch)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from duodiff import operations
from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T, timesteps
from duodiff.settings import Setting, made_for, roles_of

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


def exits_early(experiment: dict) -> bool:
    """Whether the experiment samples with AdaDiff: whether its grid has a theta."""
    return any(grid["theta"] for grid in experiment["grid"].values())


def has_heads(experiment: dict) -> bool:
    """Whether the experiment needs AdaDiff's heads: for a theta, or for a network that is an exit."""
    exits = any("exit" in network for network in experiment["networks"].values())
    return exits or exits_early(experiment)


def backbones(experiment: dict) -> tuple[str, ...]:
    """The roles of an experiment's backbones: full, shallow, and the further networks that have a depth."""
    networks = experiment["networks"]
    return ("full", "shallow", *(name for name in networks if "depth" in networks[name]))


def roles(experiment: dict) -> tuple[str, ...]:
    """The roles of an experiment's checkpoints: full, shallow, AdaDiff's heads if needed, the further networks."""
    full, shallow, *further = backbones(experiment)
    return (full, shallow, *(["heads"] if has_heads(experiment) else []), *further)


def schedules(experiment: dict, names: Iterable[str]) -> dict[str, dict]:
    """The schedules of these names, as `settings.Schedules` takes them: those of budgets without intervals.

    A budget chooses among the networks that are not guided.
    """
    configured, networks = experiment["schedules"], experiment["networks"]
    found: dict[str, dict] = {}
    for name in names:
        if name in experiment["budgets"]:
            made = {k: v for k, v in networks.items() if "exit" in v}
            found[name] = {"networks": made} if made else {}
            continue
        intervals = [[one["network"], *one["t"]] for one in configured[name]["intervals"]]
        visited = {k: v for k, v in configured[name].items() if k == "timesteps"}
        without = {k: v for k, v in networks.items() if "depth" not in v}
        made = made_for((network for network, _, _ in intervals), without)
        found[name] = {"intervals": intervals} | visited | ({"networks": made} if made else {})
    return found


def setting_roles(experiment: dict, setting: Setting) -> tuple[str, ...]:
    """The roles of the checkpoints that a cell of this setting needs: for a budget all that it may choose from."""
    if not setting.is_schedule:
        return setting.networks
    (described,) = schedules(experiment, [setting.spelled]).values()
    made = experiment["networks"]
    used = [*backbones(experiment), *described.get("networks", {})]
    if "intervals" in described:
        used = [network for network, _, _ in described["intervals"]]
    return roles_of(used, {k: v for k, v in made.items() if "depth" not in v})


def budgeted(experiment: dict, settings: Iterable[Setting]) -> bool:
    """Whether one of these settings is a schedule that is chosen by a budget."""
    return any(s.is_schedule and s.spelled in experiment["budgets"] for s in settings)


def choosable(experiment: dict) -> dict[str, dict[str, int]]:
    """The further networks that a budget may choose: those that are not guided."""
    networks = experiment["networks"]
    return {name: networks[name] for name in networks if "by" not in networks[name]}


def scored_samplers(experiment: dict) -> dict[str, dict]:
    """The samplers whose schedules are compared without sampling, with their `options` and `budgets`.

    It is DDPM, and DDIM without noise if a budget is listed there: its displacements take many trajectories.
    """
    found = {}
    for name in ("ddpm", "ddim") if not experiment["sampling"]["guidance"] else ():
        grid = experiment["grid"].get(name, {"schedules": []})
        budgets = {b: experiment["budgets"].get(b) for b in grid["schedules"]}
        budgets = {b: wanted for b, wanted in budgets.items() if wanted}
        if name == "ddpm" or budgets:
            found[name] = {"options": sampler_options(experiment, name), "budgets": budgets}
    return found


def further_timesteps(experiment: dict) -> list[int]:
    """Timesteps to profile beside those of `profile`: the steps of DDPM if it has budgets and not many steps."""
    ddpm = scored_samplers(experiment).get("ddpm", {"budgets": {}})
    if not ddpm["budgets"] or (steps := ddpm["options"]["steps"]) > MOST_PROFILED:
        return []
    profiled = set(timesteps(experiment["profile"]["timesteps"]).tolist())
    return [t for t in timesteps(steps).tolist() if t not in profiled]


MOST_PROFILED = 100
"""Between the profiled timesteps of longer chains the losses are interpolated."""


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
    further seeds, exits early, or is a named schedule.
    """
    found = {}
    for name, grid in grids(experiment).items():
        found[name] = grid
        lists: dict[str, list] = {"theta": [], "schedules": []}
        none = lists | {"spread": lists | {"seeds": [], "t_s": []}}
        for fewer in grid["fewer_steps"]:
            found[f"{name}/steps={fewer['steps']}"] = grid | fewer | none
    return found


def grid_settings(grid: dict) -> list[Setting]:
    """The settings of one sampler's lists: t_s, theta and named schedules."""
    lists = {"t_s": "t_s", "theta": "theta", "schedule": "schedules"}
    return [Setting.of(key, value) for key, name in lists.items() for value in grid[name]]


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
    """The keywords of UViT's constructor for the backbone in `role`, one of `backbones`."""
    depth = {"full": experiment["backbone"]["depth"], "shallow": experiment["shallow_depth"]}
    if role not in depth:
        depth[role] = experiment["networks"][role]["depth"]
    return experiment["backbone"] | {"depth": depth[role]}


def call_operations(experiment: dict, name: str) -> float:
    """Operations of one call of a network, by its name, without guidance by the class."""
    definition = experiment["networks"].get(name, {})
    if "exit" in definition:
        return operations.network(experiment["backbone"]).fixed_exit(definition["exit"])
    if "by" in definition:
        return sum(call_operations(experiment, definition[key]) for key in ("network", "by"))
    return operations.network(backbone_architecture(experiment, name)).forward


def network_keywords(experiment: dict) -> dict[str, dict]:
    """The keywords of the networks' constructors: of each of `backbones`, and of "adadiff" if there are heads."""
    keywords = {role: backbone_architecture(experiment, role) for role in backbones(experiment)}
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
