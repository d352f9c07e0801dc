"""The plan of SwitchBench, which was fixed before its run: what is made, and what decides (no torch)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from duodiff.identity import ROOT
from duodiff.running.files import read_text

SHIPPED = ROOT / "bench/switchbench"
"""The folder of the benchmark that comes with the repository."""

DECIDING = "fresh"
"""The set of trainings that the endpoints are decided on."""

STATISTICS = ("within", "overall", "regret")


@dataclass(frozen=True)
class Endpoint:
    """A statistic of a score, or of a score minus that of another, and the bound that its mean is to lie above."""

    name: str
    statistic: str
    sampler: str
    space: str
    score: str
    above: float
    minus: str | None = None


@dataclass(frozen=True)
class Plan:
    """The plan. Its fields are the keys of plan.yaml, which explains them."""

    experiment: str
    conventions: dict[str, str]
    steps: int
    samplers: dict[str, dict]
    images: int
    batch: int
    sample_seeds: list[int]
    displacement_seed: int
    spaces: list[str]
    trainings: dict[str, list[int]]
    primary: Endpoint
    secondary: list[Endpoint]
    tolerance: float

    @property
    def options(self) -> dict[str, dict]:
        """The options of each sampler, by name, as `samplers.steps_of` takes them."""
        return {n: {"name": n, "steps": self.steps, **of} for n, of in self.samplers.items()}


def read(folder: Path = SHIPPED) -> Plan:
    """The plan in `folder`/plan.yaml. Raises ValueError for a key or a value that it cannot have."""
    path = folder / "plan.yaml"
    content = yaml.safe_load(read_text(path))
    _require_keys(path, content, Plan)
    every = [content["primary"], *content["secondary"]]
    for endpoint in every:
        _require_keys(path, {"minus": None, **endpoint}, Endpoint)
        accepted: Mapping[str, Any] = {
            "statistic": STATISTICS,
            "sampler": list(content["samplers"]),
            "space": content["spaces"],
        }
        for key, values in accepted.items():
            if endpoint[key] not in values:
                raise ValueError(
                    f"{path}: {endpoint['name']}: {key}: found {endpoint[key]!r}; accepted: {', '.join(values)}"
                )
    primary, *secondary = (Endpoint(**endpoint) for endpoint in every)
    return Plan(**content | {"primary": primary, "secondary": secondary})


def _require_keys(path: Path, found: Mapping, of: type) -> None:
    wanted = {field.name for field in fields(of)}
    if found.keys() != wanted:
        wrong = ", ".join(sorted(found.keys() ^ wanted))
        raise ValueError(f"{path}: missing or unknown: {wrong}; accepted: {', '.join(wanted)}")
