"""The configuration: read, checked with readable errors, and completed with defaults (no torch)."""

import copy
import datetime
import difflib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import jsonschema
import yaml

from duodiff.running.files import read_text
from duodiff.schedules import T
from duodiff.study.decided import Undecided, settle, undecided, used_experiments
from duodiff.study.families import FAMILIES, Contents
from duodiff.study.grid import SCHEMA
from duodiff.study.rules import conflicts

# YAML has numbers that JSON does not have. nan and inf would pass every comparison. 2600.0 is no number of steps.
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
    """A configuration that cannot be run. The message names the key, the value found and the values accepted."""


Count = Callable[[str, dict, Path], Contents]
"""Counts the images of a dataset, by its name and entry, below the data folder."""


def complete(config: dict, count: Count | None = None) -> dict:
    """The configuration with the defaults of config/schema.yaml and the values that datasets decide.

    It is checked against the schema and the rules between keys. With `count` it is also checked against the user's own
    images, and what they decide is filled in. Raises ConfigError, which lists every problem.
    """
    _refuse([*_keys_that_are_no_text(config)])
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    errors = sorted(
        _Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.absolute_path))
    )
    _refuse([_explain(error) for error in errors])
    filled = _with_defaults(_unshared(config), schema, schema["$defs"])
    settle(filled, {})
    _refuse(list(conflicts(filled, {})))
    if count is not None:
        _look_at_images(filled, count)
    return filled


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("invalid configuration\n  " + "\n  ".join(problems))


def _keys_that_are_no_text(value, where: str = "") -> Iterator[str]:
    """A line for each key below `where`, the name of an experiment say, that YAML reads as something else."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{where or '(top level)'}: found {_shown(key)}; write it in quotes"
            yield from _keys_that_are_no_text(item, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _keys_that_are_no_text(item, f"{where}.{i}")


def _shown(value) -> str:
    """A value that YAML does not read as a text, and what it reads it as."""
    match value:
        case bool():
            return f"{str(value).lower()} (true or false, which YAML reads in yes, no, on and off)"
        case int() | float():
            return f"{value} (a number)"
        case datetime.date():
            return f"{value} (a date)"
        case None:
            return "null (nothing)"
    return repr(value)


def _look_at_images(config: dict, count: Count) -> None:
    """Counts the user's own images, fills in what they decide, and checks what is asked of them.

    Only the images that selected experiments use are counted. Files may be missing where they decide nothing.
    """
    waiting = [*undecided(config)]
    needed = {key.dataset for key in waiting}
    used = {config["experiments"][name]["dataset"] for name in used_experiments(config)}
    counted, problems = {}, []
    for name in sorted(used):
        dataset = config["datasets"][name]
        if not FAMILIES[dataset["source"]].counted:
            continue
        try:
            counted[name] = count(name, dataset, Path(config["data"]))
        except (OSError, ValueError) as error:
            if name in needed or not isinstance(error, FileNotFoundError):
                problems.append(f"datasets.{name}.path: {error}")
    _refuse(problems)
    settle(config, counted)
    if problems := [*conflicts(config, counted)]:
        _refuse([*_said(config, counted, waiting), *problems])


def _said(config: dict, counted: dict[str, Contents], waiting: list[Undecided]) -> Iterator[str]:
    """What was counted, and the numbers that shares of it are: a line each."""
    for name, found in counted.items():
        split, classes = found.split, "none" if found.classes < 0 else found.classes
        test = "" if split.test is None else f" and {split.test} to hold out"
        yield f"datasets.{name}: {split.images} images{test}; class folders: {classes}"
    for key in waiting:
        if key.dataset in counted and key.value is not None:
            number = config
            for part in key.key.split("."):
                number = number[part]
            yield f"{key.key}: {key.value} is {number}"


def _unshared(value):
    """A copy in which no two places share an object, as a YAML anchor and its aliases do."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _with_defaults(value, schema: dict, defs: dict):
    """`value` with the defaults of its schema at every level. It is changed in place."""
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


def _explain(error: jsonschema.ValidationError) -> str:
    schema = cast(dict, error.schema)
    where = ".".join(map(str, error.absolute_path)) or "(top level)"
    if error.validator == "additionalProperties":
        known = list(schema.get("properties", {}))
        unknown = [key for key in cast(dict, error.instance) if key not in known]
        hints = []
        for key in unknown:
            near = difflib.get_close_matches(str(key), known, n=1)
            hints.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return f"{where}: unknown key {', '.join(hints)}; accepted: {', '.join(known)}"
    if error.validator == "required":
        return f"{where}: {error.message}"
    accepted = schema.get("description") or f"{error.validator}: {error.validator_value}"
    if _lacks_quotes(error):
        return f"{where}: found {_shown(error.instance)}; accepted: {accepted}; write it in quotes"
    hint = (
        " (YAML reads this number as a text: write 1.0e-3, not 1e-3)" if _is_number(error) else ""
    )
    return f"{where}: found {error.instance!r}; accepted: {accepted}{hint}"


def _lacks_quotes(error: jsonschema.ValidationError) -> bool:
    """Whether a number, a truth value or a date was found where a text is accepted."""
    texts = error.validator == "type" and "string" in str(error.validator_value)
    return texts and isinstance(error.instance, bool | int | float | datetime.date)


def _is_number(error: jsonschema.ValidationError) -> bool:
    """Whether a text was found where a number is accepted, and the text spells a number."""
    if not isinstance(error.instance, str) or error.validator != "type":
        return False
    try:
        return math.isfinite(float(error.instance))
    except ValueError:
        return False


def published_experiments(path: Path) -> dict[str, dict]:
    """The paper's experiments in the configuration file `path`, by the paper's name of their dataset.

    If several name the same dataset, the first under the corrected protocol is taken.
    """
    published: dict[str, dict] = {}
    for experiment in read(path)["experiments"].values():
        if experiment["paper_dataset"] and experiment["protocol"] == "corrected":
            published.setdefault(experiment["paper_dataset"], experiment)
    return published


def read(path: Path, count: Count | None = None) -> dict:
    """The configuration file `path`, as `complete` returns it. Raises ValueError, also for a file that is no YAML."""
    try:
        refuse_wrong_keys(path)
        return complete(yaml.safe_load(read_text(path)), count)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error


def refuse_wrong_keys(path: Path) -> None:
    """Raises ConfigError for keys of the YAML file `path` that would not count as they are written, with their lines.

    Of a key that a mapping has twice only the last one would count. A key that is no text, such as 64 or no, would not
    be found by its name.
    """
    problems, seen = [], set()
    pending = [yaml.compose(read_text(path), Loader=yaml.SafeLoader)]
    while pending:
        node = pending.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode | None):
            continue
        seen.add(id(node))  # the node of an anchor comes again with each alias
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
            continue
        lines: dict[str, list[str]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            lines.setdefault(str(key.value), []).append(str(line))
            pending.append(value)
            if kind := _KINDS.get(key.tag.rpartition(":")[2]):
                problems.append(
                    f"{path}, line {line}: found {key.value} ({kind}); write it in quotes"
                )
        problems += [
            f"{path}: {key} is given on lines {' and '.join(numbers)}"
            for key, numbers in lines.items()
            if len(numbers) > 1
        ]
    _refuse(problems)


_KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
}
"""What a key is to YAML, by the ends of its tags, that is no text."""

assert T == 1000  # as the bounds on t_s and steps in the schema
