"""The configuration: validation with readable errors, and the cells of the grid it spans (no torch)."""

import copy
import difflib
import math
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml

from duodiff.conflicts import conflicts, has_heads
from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T

ROLES = ("full", "shallow", "heads")
"""The models of an experiment: the two backbones, and AdaDiff's heads on the full one."""

SCHEMA = Path(__file__).parents[1] / "config" / "schema.yaml"


# YAML has numbers that JSON has not: nan and inf pass every comparison, and 2600.0 is no number of steps.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        ),
    }
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, what was found, what is accepted."""


def complete(config: dict) -> dict:
    """The configuration with every key left out at the default of config/schema.yaml. Raises ConfigError.

    It is checked against the schema and the rules between keys first; every problem is listed.
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    errors = sorted(
        _Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.absolute_path))
    )
    problems = [_explain(error) for error in errors]
    filled = config
    if not problems:
        filled = _with_defaults(copy.deepcopy(config), schema, schema["$defs"])
        problems = list(conflicts(filled))
    if problems:
        raise ConfigError("invalid configuration\n  " + "\n  ".join(problems))
    return filled


def _with_defaults(value, schema: dict, defs: dict):
    """`value` (changed in place) with the defaults of its schema's properties, at every level."""
    if "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    if not isinstance(value, dict):
        return value
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for key, property_schema in properties.items():
        if key not in value and "default" in property_schema:
            value[key] = copy.deepcopy(property_schema["default"])
    for key, item in value.items():
        inner = properties.get(key, others if isinstance(others, dict) else {})
        value[key] = _with_defaults(item, inner, defs)
    return value


def owner(config: dict, experiment: str, role: str) -> str:
    """The experiment whose training makes the model in `role` of `experiment` (see `reuse`)."""
    while other := config["experiments"][experiment]["reuse"].get(role):
        experiment = other
    return experiment


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
    hint = (
        " (YAML reads this number as a text: write 1.0e-3, not 1e-3)" if _is_number(error) else ""
    )
    return f"{where}: found {error.instance!r}; accepted: {accepted}{hint}"


def _is_number(error: jsonschema.ValidationError) -> bool:
    """Whether a number was wanted, and a text that is one was found."""
    if not isinstance(error.instance, str) or error.validator != "type":
        return False
    try:
        return math.isfinite(float(error.instance))
    except ValueError:
        return False


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
    """What a sampler itself is told: its name, steps, eta and any guidance, without the grid's lists."""
    options = experiment["grid"][sampler] | {"guidance": experiment["sampling"]["guidance"] or None}
    wanted = ("steps", "eta", "guidance")
    return {"name": sampler} | {k: options[k] for k in wanted if options.get(k) is not None}


def backbone_architecture(experiment: dict, role: str) -> dict:
    """The UViT constructor's keywords for the "full" or the "shallow" backbone."""
    depth = {"full": experiment["backbone"]["depth"], "shallow": experiment["shallow_depth"]}
    return experiment["backbone"] | {"depth": depth[role]}


def networks(experiment: dict) -> dict[str, dict]:
    """Constructors' keywords of an experiment's networks, by role: "full", "shallow", "adadiff" if it has a theta."""
    found = {role: backbone_architecture(experiment, role) for role in ("full", "shallow")}
    if has_heads(experiment):
        aware = PROTOCOLS[experiment["protocol"]].timestep_aware_uncertainty
        found["adadiff"] = {"timestep_aware": aware}
    return found


def training(experiment: dict) -> dict[str, dict]:
    """An experiment's training hyperparameters as the paper's Table 4 has them, by what they are of."""
    everything = ("schedule", "time_input", "prediction", "train_seeds")
    found = {"all": {"timesteps": T} | {key: experiment[key] for key in everything}}
    found["full"] = {"weights": "published" if "pretrained" in experiment else "trained"}
    found["backbones"] = experiment["backbone_training"]
    return found | ({"heads": experiment["heads_training"]} if has_heads(experiment) else {})


def published_experiments(path: Path) -> dict[str, dict]:
    """The paper's experiments in the configuration file `path`, by the paper's name of their dataset.

    The first under the corrected protocol that stands beside a published dataset.
    """
    found = {}
    for experiment in read(path)["experiments"].values():
        if experiment["paper_dataset"] and experiment["protocol"] == "corrected":
            found.setdefault(experiment["paper_dataset"], experiment)
    return found


def read(path: Path) -> dict:
    """The configuration file `path`, checked and completed. Raises ValueError, also where it is no YAML."""
    try:
        refuse_repeated_keys(path)
        return complete(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error


def refuse_repeated_keys(path: Path) -> None:
    """Raises ConfigError where a mapping of the YAML file `path` has a key twice: the last alone would count."""
    problems, seen = [], set()
    pending = [yaml.compose(path.read_text(), Loader=yaml.SafeLoader)]
    while pending:
        node = pending.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode | None):
            continue
        seen.add(id(node))  # an anchor's node comes once more for each of its aliases
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
            continue
        lines = {}
        for key, value in node.value:
            lines.setdefault(str(key.value), []).append(str(key.start_mark.line + 1))
            pending.append(value)
        problems += [
            f"{path}: {key} is given on lines {' and '.join(found)}"
            for key, found in lines.items()
            if len(found) > 1
        ]
    if problems:
        raise ConfigError("invalid configuration\n  " + "\n  ".join(problems))


assert T == 1000  # the schema's bounds on t_s and steps say so too
