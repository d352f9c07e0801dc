"""A setting of a method: DuoDiff at a switch time, or AdaDiff at an exit threshold (no torch).

A setting has one text, in paths, on command lines and in messages. Only this module spells or splits it.

- ``t_s=500`` is DuoDiff: the shallow backbone runs the first 500 timesteps of sampling, t = 999 to 500. ``t_s=0`` is
  the full backbone alone, ``t_s=1000`` the shallow one.
- ``theta=0.12`` is AdaDiff with the exit threshold 0.12.
- ``theta=q0.4`` is AdaDiff; its threshold is the 0.4 quantile of the uncertainties of held-out images.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from duodiff.schedules import T

PATTERN = r"t_s=\d+|theta=q?[0-9.e-]+"
"""A regular expression that the text of every setting fits."""

_ACCEPTED = {"t_s": f"0 to {T}", "theta": "0 to 1, or a quantile from q0 to q1"}


@dataclass(frozen=True)
class Setting:
    """One setting. `parse` and `of` make it and check it.

    `parameter` is "t_s" or "theta". `spelled` is its value as configuration and paths spell it ("500", "0.12", "q0.4").
    """

    parameter: str
    spelled: str

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """The setting whose text is `text`, such as "t_s=500". Raises ValueError for another text."""
        if re.fullmatch(PATTERN, text) is None:
            raise ValueError(f"setting: found {text!r}; accepted: t_s=500, theta=0.12, theta=q0.4")
        return cls.of(*text.split("="))

    @classmethod
    def of(cls, parameter: str, value: int | float | str) -> "Setting":
        """The setting with this value of "t_s" or "theta". Raises ValueError, naming the values accepted."""
        setting = cls(parameter, str(value))
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
        if "t_s" in parameters:
            return cls.of("t_s", parameters["t_s"])
        return cls.of("theta", parameters["setting"])

    def __str__(self) -> str:
        return f"{self.parameter}={self.spelled}"

    @property
    def folder(self) -> str:
        """The folder of its cells: adadiff, or duodiff (a backbone alone is a DuoDiff too)."""
        return "adadiff" if self.exits_early else "duodiff"

    @property
    def method(self) -> str:
        """Its method's name in records and tables: full, shallow, duodiff or adadiff."""
        if self.exits_early:
            return "adadiff"
        return {0: "full", T: "shallow"}.get(self.t_s, "duodiff")

    @property
    def networks(self) -> tuple[str, ...]:
        """The roles of its checkpoints, in this order: full, shallow, heads."""
        used = {"adadiff": ("full", "heads"), "duodiff": ("full", "shallow")}
        return used.get(self.method, (self.method,))

    @property
    def exits_early(self) -> bool:
        """Whether it is a setting of AdaDiff, whose batch shrinks as images exit."""
        return self.parameter == "theta"

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
        """Its value as a number: t_s, theta, or the level of the quantile."""
        return float(self.spelled.removeprefix("q"))


FULL = Setting("t_s", "0")
"""The full backbone alone. Every comparison is against it."""
