"""A setting of a method: DuoDiff at a switch time, or AdaDiff at an exit threshold (no torch).

Nothing else spells or splits the text of a setting. It is written alike in paths, on command lines and in messages:
``t_s=500`` is DuoDiff, with the full backbone at ``t_s=0`` and the shallow one at ``t_s=1000``; ``theta=0.12`` is
AdaDiff; ``theta=q0.4`` is AdaDiff at the 0.4 quantile of the uncertainties seen on held-out images.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from duodiff.schedules import T

PATTERN = r"t_s=\d+|theta=q?[0-9.e-]+"
"""A regular expression that every setting's text fits."""

_ACCEPTED = {"t_s": f"0 to {T}", "theta": "0 to 1, or a quantile from q0 to q1"}


@dataclass(frozen=True)
class Setting:
    """One setting, made by `parse` or `of`, which check it.

    `parameter` is "t_s" or "theta", `spelled` its value as the configuration spells it ("500", "0.12", "q0.4"), so
    that a path has the same text as the configuration.
    """

    parameter: str
    spelled: str

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """The setting whose text is `text`, such as "t_s=500". Raises ValueError for what is none."""
        if re.fullmatch(PATTERN, text) is None:
            raise ValueError(f"setting: found {text!r}; accepted: t_s=500, theta=0.12, theta=q0.4")
        return cls.of(*text.split("="))

    @classmethod
    def of(cls, parameter: str, value: int | float | str) -> "Setting":
        """The setting with this value of "t_s" or "theta". Raises ValueError naming the values accepted."""
        setting = cls(parameter, str(value))
        try:
            most = 1 if setting.exits_early else T
            valid = 0 <= setting.number <= most and (setting.exits_early or setting.t_s >= 0)
        except ValueError:  # no number, or a t_s that is no whole one
            valid = False
        if not valid:
            accepted = _ACCEPTED[parameter]
            raise ValueError(f"{parameter}: found {value}; accepted: {accepted}")
        return setting

    @classmethod
    def of_record(cls, parameters: dict) -> "Setting":
        """The setting that `parameters` of a record or of a sample store's manifest describe."""
        if "t_s" in parameters:
            return cls.of("t_s", parameters["t_s"])
        return cls.of("theta", parameters["setting"])

    def __str__(self) -> str:
        return f"{self.parameter}={self.spelled}"

    @property
    def folder(self) -> str:
        """The folder of its cells: duodiff (also for the full and the shallow backbone alone) or adadiff."""
        return "adadiff" if self.exits_early else "duodiff"

    @property
    def method(self) -> str:
        """What records and tables call its method: full, shallow, duodiff or adadiff."""
        if self.exits_early:
            return "adadiff"
        return {0: "full", T: "shallow"}.get(self.t_s, "duodiff")

    @property
    def networks(self) -> tuple[str, ...]:
        """The roles of the checkpoints that it runs, in the order of the roles: full, shallow, heads."""
        used = {"adadiff": ("full", "heads"), "duodiff": ("full", "shallow")}
        return used.get(self.method, (self.method,))

    @property
    def exits_early(self) -> bool:
        """Whether it is AdaDiff's, whose batch shrinks."""
        return self.parameter == "theta"

    @property
    def is_quantile(self) -> bool:
        """Whether its theta is given as a quantile of observed uncertainties."""
        return self.exits_early and self.spelled.startswith("q")

    @property
    def t_s(self) -> int:
        """Timesteps that the shallow backbone runs, of T; of a setting of DuoDiff."""
        return int(self.spelled)

    @cached_property
    def number(self) -> float:
        """Its value as a number: t_s, theta, or the level of a quantile."""
        return float(self.spelled.removeprefix("q"))


FULL = Setting("t_s", "0")
"""The full backbone alone, which every comparison is against."""
