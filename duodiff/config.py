"""The configuration: validation with readable errors, and the cells of the grid it spans (no torch)."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml

from duodiff.schedules import T

FEATURES = 64
"""Features of the pipeline's classifier; a Frechet distance needs more images than features."""

SCHEMA = Path(__file__).parents[1] / "config" / "schema.yaml"


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, what was found, what is accepted."""


def validate(config: dict) -> None:
    """Checks `config` against config/schema.yaml and its cross-field rules. Raises ConfigError."""
    schema = yaml.safe_load(SCHEMA.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda e: list(map(str, e.absolute_path)))
    problems = [_explain(error) for error in errors]
    if not problems:
        for name, experiment in config["experiments"].items():
            problems += [f"experiments.{name}.{problem}" for problem in _conflicts(experiment)]
    if problems:
        raise ConfigError("invalid configuration\n  " + "\n  ".join(problems))


def _explain(error: jsonschema.ValidationError) -> str:
    where = ".".join(map(str, error.absolute_path)) or "(top level)"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        hints = []
        for key in unknown:
            near = difflib.get_close_matches(str(key), known, n=1)
            hints.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return f"{where}: unknown key {', '.join(hints)}; accepted: {', '.join(known)}"
    if error.validator == "required":
        return f"{where}: {error.message}"
    accepted = error.schema.get("description") or f"{error.validator}: {error.validator_value}"
    return f"{where}: found {error.instance!r}; accepted: {accepted}"


def _conflicts(experiment: dict) -> Iterator[str]:
    """Rules between keys that a schema cannot express."""
    net = experiment["backbone"]
    for divisor, whole in (("patch_size", "img_size"), ("num_heads", "embed_dim")):
        if net[whole] % net[divisor]:
            yield f"backbone.{divisor}: found {net[divisor]}; it must divide {whole} {net[whole]}"
    for key, depth in (
        ("backbone.depth", net["depth"]),
        ("shallow_depth", experiment["shallow_depth"]),
    ):
        if depth % 2 == 0:
            yield f"{key}: found {depth}; accepted: an odd number of blocks"
    if experiment["shallow_depth"] >= net["depth"]:
        yield (
            f"shallow_depth: found {experiment['shallow_depth']};"
            f" accepted: fewer blocks than backbone.depth {net['depth']}"
        )
    yield from _grid_conflicts(experiment)
    for key, found in (
        ("sampling.images", experiment["sampling"]["images"]),
        ("dataset.held_out", experiment["dataset"]["held_out"]),
    ):
        if found <= FEATURES:
            yield f"{key}: found {found}; accepted: more than the {FEATURES} features of the metric"


def _grid_conflicts(experiment: dict) -> Iterator[str]:
    for sampler, grid in experiment["grid"].items():
        if 0 not in grid["t_s"]:
            yield f"grid.{sampler}.t_s: 0 is missing; every comparison is against the full backbone"
        if grid.get("eta", 0) > 0 and experiment["protocol"] == "paper":
            yield (
                f"grid.{sampler}.eta: found {grid['eta']}; accepted: 0 under protocol paper"
                " (the released code's variance rule for eta > 0 is not implemented)"
            )
        spread = grid["spread"]
        if experiment["sampling"]["seed"] in spread["seeds"]:
            yield (
                f"grid.{sampler}.spread.seeds: found {spread['seeds']};"
                f" accepted: seeds other than sampling.seed {experiment['sampling']['seed']}"
            )
        for key in ("t_s", "theta"):
            for value in set(spread[key]) - set(grid[key]):
                yield f"grid.{sampler}.spread.{key}: found {value!r}; accepted: values of grid.{sampler}.{key}"


@dataclass(frozen=True)
class GridPoint:
    """One cell of an experiment's grid, as its path spells it."""

    sampler: str
    method: str
    setting: str
    seed: int

    @property
    def path(self) -> str:
        """Folder below the experiment's samples."""
        return f"{self.sampler}/{self.method}/{self.setting}/seed{self.seed}"


def settings(grid: dict) -> list[tuple[str, str]]:
    """(method folder, setting) of one sampler's t_s and theta lists."""
    return [("duodiff", f"t_s={t_s}") for t_s in grid["t_s"]] + [
        ("adadiff", f"theta={theta}") for theta in grid["theta"]
    ]


def grid_points(experiment: dict) -> list[GridPoint]:
    """Every cell of an experiment: all settings at the first sampling seed, some at the spread's seeds."""
    points = []
    for sampler, grid in experiment["grid"].items():
        seeds = {experiment["sampling"]["seed"]: grid}
        seeds |= dict.fromkeys(grid["spread"]["seeds"], grid["spread"])
        for seed, lists in seeds.items():
            points += [GridPoint(sampler, *setting, seed) for setting in settings(lists)]
    return points


def sampler_options(experiment: dict, sampler: str) -> dict:
    """What a sampler itself is told: its name, steps and eta, without the grid's lists."""
    grid = experiment["grid"][sampler]
    return {"name": sampler} | {k: grid[k] for k in ("steps", "eta") if k in grid}


def backbone_architecture(experiment: dict, role: str) -> dict:
    """The UViT constructor's keywords for the "full" or the "shallow" backbone."""
    depth = {"full": experiment["backbone"]["depth"], "shallow": experiment["shallow_depth"]}
    return experiment["backbone"] | {"depth": depth[role]}


assert T == 1000  # the schema's bounds on t_s and steps say so too
