"""The two protocols: every departure of the released code from the paper is one named option here.

`corrected` (the default) does what the paper says; `paper` does what produced the published numbers,
as far as it is known. The protocol's name stands in every record, docs/protocols.md explains each
option with the evidence.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One value per departure; the text below each field says what it changes."""

    name: str
    """`corrected` or `paper`."""

    ddim_final_step: bool
    """DDIM takes a last step from t = 0 to x_0 (50 network calls for 50 points) instead of stopping at t = 0."""

    ddim_switch_one_call_late: bool
    """DDIM's switch is decided after the step, so one shallow call more is made."""

    ddim_one_step_variance: bool
    """DDIM's noise at eta > 0 is sigma^2 z with sigma^2 = eta beta_tilde_t of the unrespaced chain, not sigma z."""

    ddim_noise_into_0: bool
    """DDIM's step that lands on t = 0 adds noise at eta > 0, as the others do."""

    class_order: str
    """Ids of ImageNet's classes: by synset as the official weights, or "alphabetical" by English name."""

    labels_from_1: bool
    """Labels are drawn at random from 1..num_classes-1 (never class 0, but the null class where there is one)
    instead of balanced over all classes. The released code drew 1..1000 for ImageNet-64 too, where 1000 is out of
    range and it could not run: 1..999 here."""

    checkpoint_conventions: bool
    """A checkpoint is used with the noise schedule and time convention it was trained with, or refused; without
    this, with the configured ones, whatever it was trained with (recorded as a departure)."""

    round_pixels: bool
    """Images are rounded to uint8 instead of truncated."""

    sampling_precision: str | None
    """The dtype that networks sample, are profiled and are timed in; None is the configured `sampling.precision`."""

    warm_up_timing: bool
    """Every network and shape runs once before the clock starts."""

    copy_output_heads: bool
    """AdaDiff's output heads start as copies of the backbone's own output layers, not from PyTorch's default."""

    timestep_aware_uncertainty: bool
    """Eq. 4: the uncertainty head sees the time embedding beside the tokens."""

    detach_uncertainty_target: bool
    """Eq. 6 trains u only (u_hat is a target); attached, its gradient reaches the output heads too."""

    layer_loss_weight: str
    """Eq. 7's weight: "prediction" is 1 - u as a constant (trains the heads only), "target" is 1 - u_hat with its
    gradient as in the released code, "literal" is 1 - u with its gradient."""

    sum_uncertainty_loss_over_batch: bool
    """Eq. 6 is summed over the batch instead of averaged."""


CORRECTED = Protocol(
    name="corrected",
    ddim_final_step=True,
    ddim_switch_one_call_late=False,
    ddim_one_step_variance=False,
    ddim_noise_into_0=True,
    class_order="synset",
    labels_from_1=False,
    checkpoint_conventions=True,
    round_pixels=True,
    sampling_precision=None,
    warm_up_timing=True,
    copy_output_heads=True,
    timestep_aware_uncertainty=True,
    detach_uncertainty_target=True,
    layer_loss_weight="prediction",
    sum_uncertainty_loss_over_batch=False,
)

PAPER = Protocol(
    name="paper",
    ddim_final_step=False,
    ddim_switch_one_call_late=True,
    ddim_one_step_variance=True,
    ddim_noise_into_0=False,
    class_order="alphabetical",
    labels_from_1=True,
    checkpoint_conventions=False,
    round_pixels=False,
    sampling_precision="float32",
    warm_up_timing=False,
    copy_output_heads=False,
    timestep_aware_uncertainty=False,
    detach_uncertainty_target=False,
    layer_loss_weight="target",
    sum_uncertainty_loss_over_batch=True,
)

PROTOCOLS = {protocol.name: protocol for protocol in (CORRECTED, PAPER)}
