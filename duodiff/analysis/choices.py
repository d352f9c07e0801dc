"""The schedules that a study's budgets ask for, what is predicted of them, and how they are told (no torch)."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from duodiff import records
from duodiff.choice.choose import Chosen, Scored, Wanted, choose
from duodiff.choice.gap import switch_gaps
from duodiff.choice.gram import GRAM, GramScored
from duodiff.choice.scores import SCORES
from duodiff.identity import code_digest
from duodiff.metrics.bootstrap import RESAMPLES, percentiles
from duodiff.metrics.grams import Gram, read_gram
from duodiff.metrics.losses import Losses, read_losses
from duodiff.operations import network
from duodiff.protocol import PROTOCOLS
from duodiff.running import provenance
from duodiff.running.files import read_json
from duodiff.schedules import shallow_calls, timesteps
from duodiff.study.grid import samplers

LOSSES, DISPLACEMENTS = "losses.npz", "displacements.npz"
"""The files of a study's profile that schedules are chosen by: of samplers with noise, and of those without."""

GAPS_AT = (150, 200, 300, 400, 500)
"""The t_s whose single switch is compared with the best choice: those of the paper's tables, and between."""

CHOSEN = ("ddpm", "ddim")
"""The samplers for which schedules can be chosen; ddim without noise (eta 0)."""


def costs(losses: Losses) -> dict[str, float]:
    """The operations of a call of each of the profiled networks."""
    architecture = losses.about["architecture"]
    full = network(architecture)
    return {
        name: full.fixed_exit(made["exit"])
        if "exit" in made
        else network(architecture | {"depth": made["depth"]}).forward
        for name, made in losses.about["networks"].items()
    }


class Profile:
    """What a study's folder of profiles says of every schedule."""

    def __init__(self, losses: Path, displacements: Path | None):
        self.losses, self.displacements = read_losses(losses), displacements
        self.costs = costs(self.losses)

    def scored(self, sampler: Mapping[str, Any], score: str = SCORES[0]) -> Scored | GramScored:
        """The score of every schedule under a configured sampler. Raises ValueError for a sampler without one.

        `score` is one of `SCORES`, or `GRAM` under DDIM.
        """
        _require_scored(sampler)
        scores = [*SCORES, GRAM] if sampler["name"] == "ddim" else [*SCORES]
        if score not in scores:
            raise ValueError(f"score: found {score!r}; accepted: {', '.join(scores)}")
        if score == GRAM:
            return GramScored(self._gram(sampler), self.costs)
        return Scored(self.losses, timesteps(sampler["steps"]), self.costs, score)

    def half(self, sampler: Mapping[str, Any], first: int) -> Scored | GramScored:
        """The score of the full and the shallow backbone on every second image, from the `first` on.

        Under DDIM it is that of the displacements, as the claim `ddim_one_switch` says.
        """
        images = slice(first, None, 2)
        if sampler["name"] == "ddpm":
            losses = self.losses.only("full", "shallow").of(images)
            return Scored(losses, timesteps(sampler["steps"]), self.costs)
        return GramScored(self._gram(sampler).only("shallow").of(images), self.costs)

    def _gram(self, sampler: Mapping[str, Any]) -> Gram:
        if self.displacements is None:
            raise ValueError(f"displacements: found no file; the score {GRAM} needs one")
        gram = read_gram(self.displacements)
        if dict(sampler) != dict(gram.sampler):
            raise ValueError(
                f"sampler: found {dict(sampler)}; accepted: {gram.sampler}, that of {self.displacements}"
            )
        return gram


def _require_scored(sampler: Mapping[str, Any]) -> None:
    if sampler["name"] not in CHOSEN or sampler.get("eta"):
        raise ValueError(f"sampler: found {dict(sampler)}; accepted: ddpm, or ddim with eta 0")


def of_study(folder: Path) -> Profile:
    """The profile of a study's folder. Raises FileNotFoundError if there is none, ValueError for another folder."""
    if not re.fullmatch(r"train\d+", folder.resolve().name):
        raise ValueError(f"folder: found {folder}; accepted: results/<experiment>/train<seed>")
    return Profile(folder / "profile" / LOSSES, folder / "profile" / DISPLACEMENTS)


def sampled_by(folder: Path, name: str) -> dict[str, Any] | None:
    """The options of the sampler `name` in the samples of a study's folder; None where it has none."""
    found = sorted(folder.glob(f"samples/{name}/*/*/seed*/manifest.json"))
    return {"name": name} | read_json(found[0])["sampler"] if found else None


def sampler_of(folder: Path, name: str, steps: int | None) -> dict[str, Any]:
    """The options of a sampler: those of the study's samples, or else the schema's example, with other `steps`."""
    options = sampled_by(folder, name) or {"name": name} | samplers()[name]["examples"][0]
    return options | ({} if steps is None else {"steps": steps})


def chosen(profile: Profile, samplers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `chosen.json` holds: the schedules of the budgets, by sampler and name.

    `samplers` has, by name, the `options` of a sampler, and its `budgets` by name.
    """
    found: dict[str, Any] = {}
    for name, sampler in samplers.items():
        found[name] = {}
        scored = profile.scored(sampler["options"])
        for budget, wanted in sampler["budgets"].items():
            try:
                found[name][budget] = choose(scored, Wanted(**wanted)).as_json()
            except ValueError as error:
                raise ValueError(f"budgets.{budget} under {name}: {error}") from error
    return found


def _common(work: Callable, about: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that records of a profile share; `about` is one of the profile's records."""
    kept = ("experiment", "protocol", "seeds", "dtype", "compute_batch", "checkpoint_sha256")
    made = provenance.made(code_digest(work), of=about["made"].get("of", {}))
    return {key: about[key] for key in kept} | {"made": made}


def prediction_records(
    found: Mapping[str, Any],
    samplers: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    sha256: str,
) -> list[records.Record]:
    """The `predicted_share` of each chosen schedule that has one.

    `found` is what `chosen` gave, `sha256` that of its file; `samplers` and `about` as in `gap_records`.
    """
    common, written = _common(prediction_records, about), []
    for name, schedules in found.items():
        for schedule, one in schedules.items():
            if one["predicted_share"] is None:
                continue
            said = {"schedule": schedule, "intervals": one["intervals"], "score": one["score"]}
            said |= {"timesteps": one["timesteps"]} if one["timesteps"] else {}
            written.append(
                records.Record(
                    "predicted_share",
                    one["predicted_share"],
                    "share",
                    n=one["held_out"],
                    method="schedule",
                    parameters=said | {"prediction_sha256": sha256},
                    sampler=name,
                    steps=samplers[name]["options"]["steps"],
                    interval=one["interval"],
                    interval_covers=f"95%: {RESAMPLES} bootstrap resamples of the images",
                    **common,
                )
            )
    return written


def gap_records(
    profile: Profile, samplers: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> list[records.Record]:
    """The `switch_gap` of each sampler that can be scored, at each of `GAPS_AT`.

    `samplers` as in `chosen`; `about` is a record of the same profile.
    """
    common = _common(gap_records, about) | {"interval_covers": _COVERS}
    found = []
    for name, sampler in samplers.items():
        one, other = (profile.half(sampler["options"], first) for first in (0, 1))
        late = name == "ddim" and PROTOCOLS[about["protocol"]].ddim_switch_one_call_late
        calls = [shallow_calls(one.t, t_s, late) for t_s in GAPS_AT]
        gaps = switch_gaps(one, other, calls)
        if gaps is None:
            continue
        steps = {"sampler": name, "steps": sampler["options"]["steps"], "nfe": len(one.t)}
        found += [
            records.Record(
                "switch_gap",
                float(values[0]),
                "share",
                n=one.images + other.images,
                method="duodiff",
                parameters={"t_s": t_s},
                interval=percentiles(values),
                **steps,
                **common,
            )
            for t_s, values in zip(GAPS_AT, gaps.T, strict=True)
        ]
    return found


_COVERS = f"95%: {RESAMPLES} bootstrap resamples of the images; the assignments held"


def told(
    choice: Chosen, profile: Profile, t: np.ndarray, sampler: Mapping[str, Any], folder: Path
) -> tuple[str, str]:
    """A chosen schedule as a configuration file that runs it, with comments; and one line about it.

    `t` are the sampler's own timesteps.
    """
    visited, name = choice.timesteps or t.tolist(), sampler["name"]
    ran = [n for one in visited for n, low, high in choice.intervals if low <= one <= high]
    calls = ", ".join(f"{ran.count(n)} by {n}" for n in dict.fromkeys(ran))
    line = f"{choice.operations:.3f} of the full backbone's operations"
    predicted = (
        "nothing is predicted: the full backbone is not certainly better than the shallow one"
    )
    if choice.predicted_share is not None and choice.interval is not None:
        low, high = choice.interval
        what = "trajectories" if choice.score == GRAM else "held-out images"
        line += f", predicted share {choice.predicted_share:.4f}"
        predicted = (
            f"predicted: {choice.predicted_share:.4f} of what the shallow backbone loses, 95% {low:.4f} to {high:.4f}"
            f" (score {choice.score}, {choice.images} {what})"
        )
    options = ", ".join(f"{key} {value}" for key, value in sampler.items() if key != "name")
    comments = [
        f"{folder}, {name}: {options}",
        f"cost: {choice.operations:.4f} of the full backbone's operations on {len(t)} steps;"
        f" {len(ran)} calls, {calls}",
        predicted,
        "to run it, with these lines in chosen.yaml after the run's own file:",
        "snakemake --configfile config/config.yaml chosen.yaml --cores all",
    ]
    known = sampled_by(folder, name)
    if known is None:
        comments.append(
            f"nothing is sampled here by {name}: the run's own file needs a grid.{name}"
        )
    own = choice.timesteps is None and dict(sampler) == known
    lines = _lines(choice, profile, None if own else visited, folder, name)
    text = yaml.safe_dump(lines, sort_keys=False, default_flow_style=None, width=110)
    return "".join(f"# {comment}\n" for comment in comments) + text, line


def _lines(
    choice: Chosen, profile: Profile, visited: list[int] | None, folder: Path, sampler: str
) -> dict[str, Any]:
    """The configuration that adds a schedule to a study. `visited` are its timesteps, None for the sampler's own.

    A list in a later file replaces the one before, so the schedules that the study has sampled are listed again.
    """
    schedule: dict[str, Any] = {
        "intervals": [{"network": n, "t": [low, high]} for n, low, high in choice.intervals]
    }
    if visited is not None:
        schedule["timesteps"] = visited
    made = profile.losses.about["networks"]
    used = dict.fromkeys(network for network, _, _ in choice.intervals)
    further = {n: made[n] for n in used if n not in ("full", "shallow")}
    cells = sorted(folder.glob(f"samples/{sampler}/schedule/schedule=*/"))
    names = dict.fromkeys([*(cell.name.removeprefix("schedule=") for cell in cells), _NAME])
    changes: dict[str, Any] = {"networks": further} if further else {}
    changes |= {"schedules": {_NAME: schedule}, "grid": {sampler: {"schedules": [*names]}}}
    return {"experiments": {folder.resolve().parent.name: changes}}


_NAME = "chosen"
"""The name of the schedule that `told` adds."""
