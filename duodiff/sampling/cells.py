"""A cell of the grid: a setting of a method under one sampler, made runnable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duodiff import samplers
from duodiff.backbones import (
    Backbone,
    EarlyExit,
    Guided,
    SwitchSchedule,
    duodiff,
    one_call_late,
    single,
)
from duodiff.protocol import Protocol
from duodiff.samplers import Step
from duodiff.sampling.models import Models
from duodiff.settings import Setting
from duodiff.uvit import Denoiser


@dataclass
class Cell:
    """Which backbone runs at which t, the sampler's steps, and what a manifest says of them.

    `parameters` are t_s, or theta and its setting. `roles` are those of the checkpoints that the cell uses.
    `early_exit` is None for DuoDiff.
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

    `sampler` holds name and steps, and where they apply eta and the guidance scale.
    """
    steps = samplers.steps_of(models.schedule, sampler, models.protocol)
    early_exit: EarlyExit | None = None
    if setting.exits_early:
        early_exit = models.early_exit(models.threshold(setting))
        schedule = single(early_exit)
        depth = models.full.net.depth
        parameters = {"theta": early_exit.theta, "setting": setting.spelled, "depth": depth}
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
    backbones: list[Backbone] = [models.backbone(role) for role in setting.networks]
    if scale := sampler.get("guidance"):
        null_class = models.num_classes - 1
        backbones = [Guided(backbone, scale, null_class) for backbone in backbones]
    return duodiff(backbones[0], backbones[-1], t_s)  # one backbone alone stands for both


def denoiser(backbone: Backbone) -> Denoiser:
    """The network behind a backbone, guided or not. Raises TypeError for an early exit."""
    network = backbone.backbone if isinstance(backbone, Guided) else backbone
    if not isinstance(network, Denoiser):
        raise TypeError(
            f"backbone: found {type(network).__name__}; accepted: a denoiser, or one that is guided"
        )
    return network
