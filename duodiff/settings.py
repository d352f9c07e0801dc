"""A setting of a method: DuoDiff at a switch time, AdaDiff at an exit threshold, or a named schedule (no torch).

A setting has one text, in paths, on command lines and in messages. Only this module spells or splits it.

- ``t_s=500`` is DuoDiff: the shallow backbone runs the first 500 timesteps of sampling, t = 999 to 500. ``t_s=0`` is
  the full backbone alone, ``t_s=1000`` the shallow one.
- ``theta=0.12`` is AdaDiff with the exit threshold 0.12.
- ``theta=q0.4`` is AdaDiff; its threshold is the 0.4 quantile of the uncertainties of held-out images.
- ``schedule=three`` is a schedule of the configuration, or one that was chosen, by its name. The name alone does not
  say which networks run: `Schedules` knows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from duodiff.running.files import read_json, sha256
from duodiff.schedules import T

PATTERN = r"t_s=\d+|theta=q?[0-9.e-]+|schedule=[A-Za-z0-9_]+"
"""A regular expression that the text of every setting fits."""

_ACCEPTED = {"t_s": f"0 to {T}", "theta": "0 to 1, or a quantile from q0 to q1"}

Interval = tuple[str, int, int]
"""A network, and the smallest and the largest t at which it runs."""


def gap(intervals: Iterable[Interval]) -> str:
    """What keeps intervals from covering every t from 0 to T - 1 once; empty where they do."""
    expected = T - 1
    for network, low, high in sorted(intervals, key=lambda one: -one[2]):
        if not 0 <= low <= high < T:
            return f"{network} runs from t = {low} to {high}; accepted: 0 to {T - 1}, the smaller t first"
        if high > expected:
            return f"t = {high} is covered twice{_ONCE}"
        if high < expected:
            return f"t = {expected} has no network{_ONCE}"
        expected = low - 1
    return f"t = {expected} has no network{_ONCE}" if expected >= 0 else ""


_ONCE = f"; accepted: every t from 0 to {T - 1} once"


def misplaced(visited: Sequence[int]) -> str:
    """What keeps timesteps from falling from T - 1 to 0; empty where nothing does."""
    falls = all(t > s for t, s in pairwise(visited))
    if falls and len(visited) > 1 and visited[0] == T - 1 and visited[-1] == 0:
        return ""
    return f"found {[*visited]}; accepted: timesteps that fall from {T - 1} to 0"


@dataclass(frozen=True)
class NamedSchedule:
    """Which network runs at which t, under a name.

    `timesteps` are those that sampling visits, from T - 1 down to 0; None: those of the sampler. `networks` says of
    what networks without a checkpoint are made: {"exit": 4}, the full backbone's first 4 blocks and AdaDiff's head 4,
    or {"network": "full", "by": "shallow", "weight": 0.5}, one guided by another. `prediction_sha256` is that of the
    file in which the schedule was chosen, if it was.
    """

    name: str
    intervals: tuple[Interval, ...]
    timesteps: tuple[int, ...] | None = None
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prediction_sha256: str | None = None

    @classmethod
    def of(cls, name: str, described: Mapping[str, Any]) -> "NamedSchedule":
        """The schedule that the keys of `described` are of, as a record has them. Raises ValueError for gaps."""
        intervals = tuple((str(n), int(low), int(high)) for n, low, high in described["intervals"])
        visited = described.get("timesteps")
        if problem := gap(intervals) or (visited is not None and misplaced(visited)):
            raise ValueError(f"schedule {name}: {problem}")
        used = [network for network, _, _ in intervals]
        return cls(
            name,
            intervals,
            timesteps=None if visited is None else tuple(map(int, visited)),
            networks=made_for(used, described.get("networks", {})),
            prediction_sha256=described.get("prediction_sha256"),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What a record says of it, without what does not apply."""
        said = {
            "schedule": self.name,
            "intervals": [list(interval) for interval in self.intervals],
            "timesteps": None if self.timesteps is None else list(self.timesteps),
            "networks": {name: dict(made) for name, made in self.networks.items()} or None,
            "prediction_sha256": self.prediction_sha256,
        }
        return {key: value for key, value in said.items() if value is not None}

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the checkpoints that its networks are made of."""
        return roles_of((network for network, _, _ in self.intervals), self.networks)


def made_for(
    networks: Iterable[str], made: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Those of `made`, networks without a checkpoint, that are among `networks` or that these are made of."""
    found = {name: made[name] for name in networks if name in made}
    parts = [one[key] for one in found.values() for key in ("network", "by") if key in one]
    return found | (made_for(parts, made) if parts else {})


def roles_of(networks: Iterable[str], made: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The roles of the checkpoints that `networks` are made of: full, shallow and heads first.

    `made` are the networks without a checkpoint, as `NamedSchedule` has them.
    """
    found: set[str] = set()
    for name in networks:
        definition = made.get(name)
        if definition is None:
            found.add(name)
        elif "exit" in definition:
            found |= {"full", "heads"}
        else:
            found |= set(roles_of([definition["network"], definition["by"]], made))
    first = [role for role in ("full", "shallow", "heads") if role in found]
    return (*first, *sorted(found - {*first}))


@dataclass(frozen=True)
class Setting:
    """One setting. `parse` and `of` make it and check it.

    `parameter` is "t_s", "theta" or "schedule". `spelled` is its value as configuration and paths spell it ("500",
    "0.12", "q0.4", "three"). `named` is the schedule of this name, None until it is known (`Schedules.setting`).
    """

    parameter: str
    spelled: str
    named: NamedSchedule | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """The setting whose text is `text`, such as "t_s=500". Raises ValueError for another text."""
        if re.fullmatch(PATTERN, text) is None:
            accepted = "t_s=500, theta=0.12, theta=q0.4, schedule=NAME"
            raise ValueError(f"setting: found {text!r}; accepted: {accepted}")
        return cls.of(*text.split("="))

    @classmethod
    def of(cls, parameter: str, value: int | float | str) -> "Setting":
        """The setting with this value of t_s, theta or schedule. Raises ValueError, naming the values accepted."""
        setting = cls(parameter, str(value))
        if setting.is_schedule:
            return setting
        try:
            most = 1 if setting.exits_early else T
            valid = 0 <= setting.number <= most and (setting.exits_early or setting.t_s >= 0)
        except ValueError:  # no number, or a t_s that is not whole
            valid = False
        if not valid:
            accepted = _ACCEPTED[parameter]
            raise ValueError(f"{parameter}: found {value}; accepted: {accepted}")
        return setting

    @classmethod
    def of_record(cls, parameters: dict) -> "Setting":
        """The setting that the `parameters` of a record or of a sample store's manifest describe."""
        if "schedule" in parameters:
            return cls.of_schedule(NamedSchedule.of(parameters["schedule"], parameters))
        if "t_s" in parameters:
            return cls.of("t_s", parameters["t_s"])
        return cls.of("theta", parameters["setting"])

    @classmethod
    def of_schedule(cls, named: NamedSchedule) -> "Setting":
        """The setting that a named schedule is."""
        return cls("schedule", named.name, named)

    def __str__(self) -> str:
        return f"{self.parameter}={self.spelled}"

    @property
    def folder(self) -> str:
        """The folder of its cells: adadiff, schedule, or duodiff (a backbone alone is a DuoDiff too)."""
        return {"theta": "adadiff", "schedule": "schedule"}.get(self.parameter, "duodiff")

    @property
    def method(self) -> str:
        """Its method's name in records and tables: full, shallow, duodiff, adadiff or schedule."""
        if self.parameter != "t_s":
            return self.folder
        return {0: "full", T: "shallow"}.get(self.t_s, "duodiff")

    @property
    def networks(self) -> tuple[str, ...]:
        """The roles of its checkpoints: full, shallow and heads first, in this order.

        Raises ValueError for the name of a schedule alone.
        """
        if self.is_schedule:
            return self.named_schedule.roles
        used = {"adadiff": ("full", "heads"), "duodiff": ("full", "shallow")}
        return used.get(self.method, (self.method,))

    @property
    def exits_early(self) -> bool:
        """Whether it is a setting of AdaDiff, whose batch shrinks as images exit."""
        return self.parameter == "theta"

    @property
    def is_schedule(self) -> bool:
        """Whether it is a schedule by its name."""
        return self.parameter == "schedule"

    @property
    def named_schedule(self) -> NamedSchedule:
        """Its named schedule. Raises ValueError where there is the name alone."""
        if self.named is None:
            raise ValueError(f"{self}: found its name alone; accepted: with its intervals")
        return self.named

    @property
    def is_quantile(self) -> bool:
        """Whether its theta is a quantile of the uncertainties of held-out images."""
        return self.exits_early and self.spelled.startswith("q")

    @property
    def t_s(self) -> int:
        """The number of timesteps, of T, that the shallow backbone runs first. Only for a setting of DuoDiff."""
        return int(self.spelled)

    @cached_property
    def number(self) -> float:
        """Its value as a number: t_s, theta, or the level of the quantile. Not for a named schedule."""
        return float(self.spelled.removeprefix("q"))

    @property
    def order(self) -> tuple[float, str]:
        """The key that sorts the settings of one method: by number, or by name."""
        return (0.0, self.spelled) if self.is_schedule else (self.number, "")


def text_of(parameters: Mapping[str, Any]) -> str:
    """The text of the setting that a record's `parameters` describe; empty where they describe none."""
    described = parameters.keys() & {"t_s", "setting", "schedule"}
    return str(Setting.of_record(dict(parameters))) if described else ""


@dataclass(frozen=True)
class Schedules:
    """The schedules of an experiment, by name.

    `configured` holds the keys `intervals`, `timesteps` and `networks` of each, as `NamedSchedule` has them. One
    without intervals was chosen: the file `chosen` has its intervals and timesteps, by sampler and name.
    """

    configured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: Path | None = None

    def setting(self, text: str, sampler: str) -> Setting:
        """The setting whose text is `text`, under the sampler of this name; a named schedule with its intervals.

        Raises ValueError for an unknown schedule, and for one that was chosen if the file does not have it.
        """
        setting = Setting.parse(text)
        if not setting.is_schedule:
            return setting
        name = setting.spelled
        if name not in self.configured:
            known = ", ".join(self.configured) or "none is known"
            raise ValueError(f"schedule: found {name!r}; accepted: {known}")
        described = dict(self.configured[name])
        if "intervals" not in described:
            described |= self._chosen(sampler, name)
        return replace(setting, named=NamedSchedule.of(name, described))

    def _chosen(self, sampler: str, name: str) -> dict[str, Any]:
        if self.chosen is None:
            raise ValueError(
                f"schedule {name}: found no intervals, nor a file in which it was chosen"
            )
        found = read_json(self.chosen).get(sampler, {}).get(name)
        if found is None:
            raise ValueError(f"{self.chosen}: found no schedule {name} for {sampler}")
        return {key: found[key] for key in ("intervals", "timesteps")} | {
            "prediction_sha256": sha256(self.chosen)
        }


FULL = Setting("t_s", "0")
"""The full backbone alone. Every comparison is against it."""
