"""The two protocols: every departure of the released code from the paper is one named option here.

`corrected` (the default) does what the paper says; `paper` does what produced the published numbers,
as far as it is known. The protocol's name stands in every record, docs/protocols.md explains each
option with the evidence.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One value per departure; see the field comments for what each changes."""

    name: str
    # DDIM: a last step from t = 0 to x_0 (50 network calls for 50 points); without it, it stops at t = 0.
    ddim_final_step: bool
    # DDIM: the released code decides after the step, so it runs one shallow call more.
    ddim_switch_one_call_late: bool
    # Eq. 4: the uncertainty head sees the time embedding beside the tokens.
    timestep_aware_uncertainty: bool
    # Eq. 6 trains u only (u_hat is a target); attached, its gradient reaches the output heads too.
    detach_uncertainty_target: bool
    # Eq. 7's weight: "prediction" is 1 - u as a constant (trains the heads only), "target" is 1 - u_hat
    # with its gradient as in the released code, "literal" is 1 - u with its gradient.
    layer_loss_weight: str
    # Eq. 6: the mean over the batch; the released code sums over it.
    sum_uncertainty_loss_over_batch: bool


CORRECTED = Protocol(
    name="corrected",
    ddim_final_step=True,
    ddim_switch_one_call_late=False,
    timestep_aware_uncertainty=True,
    detach_uncertainty_target=True,
    layer_loss_weight="prediction",
    sum_uncertainty_loss_over_batch=False,
)

PAPER = Protocol(
    name="paper",
    ddim_final_step=False,
    ddim_switch_one_call_late=True,
    timestep_aware_uncertainty=False,
    detach_uncertainty_target=False,
    layer_loss_weight="target",
    sum_uncertainty_loss_over_batch=True,
)

PROTOCOLS = {protocol.name: protocol for protocol in (CORRECTED, PAPER)}
