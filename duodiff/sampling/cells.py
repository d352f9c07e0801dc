"""A cell of the grid: a setting of a method under one sampler, made runnable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duodiff import samplers
from duodiff.backbones import (
    Autoguided,
    Backbone,
    EarlyExit,
    FixedExit,
    Guided,
    SwitchSchedule,
    duodiff,
    one_call_late,
    single,
)
from duodiff.protocol import Protocol
from duodiff.samplers import Step
from duodiff.sampling.models import Models
from duodiff.settings import NamedSchedule, Setting
from duodiff.uvit import Denoiser


@dataclass
class Cell:
    """Which backbone runs at which t, the sampler's steps, and what a manifest says of them.

    `parameters` are t_s, theta and its setting, or those of a named schedule. `roles` are those of the checkpoints that
    the cell uses. `early_exit` is AdaDiff's, else None.
    """

    method: str
    parameters: dict[str, Any]
    schedule: SwitchSchedule
    steps: list[Step]
    roles: tuple[str, ...]
    protocol: Protocol
    early_exit: EarlyExit | None = None


def build_cell(models: Models, sampler: Mapping[str, Any], setting: Setting) -> Cell:
    """The cell of a setting under a configured sampler, in the protocol of the models.

    `sampler` holds name and steps, and where they apply eta and the guidance scale. A named schedule may visit
    timesteps of its own.
    """
    named = setting.named_schedule if setting.is_schedule else None
    visited = {"timesteps": named.timesteps} if named else {}
    steps = samplers.steps_of(models.schedule, {**sampler, **visited}, models.protocol)
    early_exit: EarlyExit | None = None
    if setting.exits_early:
        early_exit = models.early_exit(models.threshold(setting))
        schedule = single(early_exit)
        depth = models.full.net.depth
        parameters = {"theta": early_exit.theta, "setting": setting.spelled, "depth": depth}
    elif named:
        schedule = _named(models, sampler, named)
        parameters = named.parameters
    else:
        schedule = _switch(models, sampler, setting, steps)
        parameters = {"t_s": setting.t_s}
    options = {key: sampler[key] for key in ("eta", "guidance") if sampler.get(key) is not None}
    return Cell(
        method=setting.method,
        parameters=parameters | options,
        schedule=schedule,
        steps=steps,
        roles=setting.networks,
        protocol=models.protocol,
        early_exit=early_exit,
    )


def _switch(
    models: Models, sampler: Mapping[str, Any], setting: Setting, steps: list[Step]
) -> SwitchSchedule:
    """DuoDiff's switch schedule, its backbones guided if the sampler is."""
    t_s = setting.t_s
    if models.protocol.ddim_switch_one_call_late and sampler["name"] == "ddim":
        t_s = one_call_late(t_s, [step.t for step in steps])
    backbones = [_backbone(models, sampler, role) for role in setting.networks]
    return duodiff(backbones[0], backbones[-1], t_s)  # one backbone alone stands for both


def _backbone(models: Models, sampler: Mapping[str, Any], role: str) -> Backbone:
    """The backbone in a role, guided if the sampler is."""
    backbone = models.backbone(role)
    scale = sampler.get("guidance")
    return Guided(backbone, scale, models.num_classes - 1) if scale else backbone


def _named(models: Models, sampler: Mapping[str, Any], named: NamedSchedule) -> SwitchSchedule:
    """The switch schedule of a named schedule. Each of its networks is one object, however many intervals it has."""
    networks = dict.fromkeys(network for network, _, _ in named.intervals)
    made = {name: _network(models, sampler, named, name) for name in networks}
    return SwitchSchedule([(made[network], low, high) for network, low, high in named.intervals])


def _network(
    models: Models, sampler: Mapping[str, Any], named: NamedSchedule, name: str
) -> Backbone:
    """A network of a named schedule: a checkpoint's, an exit, or one guided by another.

    Raises ValueError for the last two under a sampler that guides by the class.
    """
    definition = named.networks.get(name)
    if definition is None:
        return _backbone(models, sampler, name)
    if sampler.get("guidance"):
        raise ValueError(
            f"guidance: found {sampler['guidance']} with the network {name}, an exit or a guided one; accepted: 0"
        )
    if "exit" in definition:
        return models.fixed_exit(definition["exit"])
    network, by = (_network(models, sampler, named, definition[key]) for key in ("network", "by"))
    return Autoguided(network, by, definition["weight"])


def blocks(backbone: Backbone) -> int:
    """The blocks that an image runs in a call of a backbone that runs as many for each.

    Guidance by the class counts them once. Raises TypeError for an early exit.
    """
    if isinstance(backbone, FixedExit):
        return backbone.layer
    if isinstance(backbone, Autoguided):
        return blocks(backbone.network) + blocks(backbone.by)
    return denoiser(backbone).net.depth


def denoiser(backbone: Backbone) -> Denoiser:
    """The network behind a backbone, guided or not. Raises TypeError for an early exit."""
    network = backbone.backbone if isinstance(backbone, Guided) else backbone
    if not isinstance(network, Denoiser):
        raise TypeError(
            f"backbone: found {type(network).__name__}; accepted: a denoiser, or one that is guided"
        )
    return network
