"""The paper's claims, in its order: each sentence, its statistic and its limit. Change a claim here (no torch).

docs/claims.md explains the statistics and the limits.
"""

from dataclasses import dataclass

from duodiff.analysis.claims import cases, profiles, quality, times


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, where it stands there, and its test: `measure` gives the cases of the `statistic`.

    `holds` is a side and a limit, as "> trend". The limit is a number where the sentence itself sets it, else a key
    of the configuration's `claims`.
    """

    id: str
    where: str
    sentence: str
    statistic: str
    unit: str
    holds: str
    measure: cases.Measure


_KEPT = "distance over the full backbone's, minus 1, at every t_s up to 500"
_SPEED = "speed-up over the full backbone, at every t_s between 0 and 1000"

CLAIMS = [
    Claim(
        id="early_exits_first",
        where="Section 3, Figure 1",
        sentence="AdaDiff exits early only at the start of sampling, for large t;"
        " the remaining steps use the full network.",
        statistic="share of all early exits that lie above the change of the best two-level step",
        unit="share",
        holds="> early_exit_share",
        measure=profiles.exits("early_exits_at_large_t"),
    ),
    Claim(
        id="step_like",
        where="Section 3, Figure 1",
        sentence="Exit layers over t resemble a step function.",
        statistic="R2 of the best two-level step minus R2 of a ramp, on the mean exit layer over t",
        unit="R2",
        holds="> step_over_ramp",
        measure=profiles.exits("exit_step_over_ramp"),
    ),
    Claim(
        id="sudden_switch",
        where="Abstract; Section 3, Figure 1",
        sentence="The switch from early exits to the full network is sudden.",
        statistic="timesteps in which the mean exit layer goes from 10 to 90% of its range (a ramp over all t: 800)",
        unit="timesteps",
        holds="< switch_width",
        measure=profiles.exits("exit_width"),
    ),
    Claim(
        id="few_blocks",
        where="Section 3",
        sentence="During the initial steps most samples exit before layer 3.",
        statistic="share of network calls above the change that exit before layer 3",
        unit="share",
        holds="> few_blocks_share",
        measure=profiles.exits("few_blocks_at_large_t"),
    ),
    Claim(
        id="exits_vary_little",
        where="Section 3, Figure 1",
        sentence="Exits vary very little between samples.",
        statistic="standard deviation of the exit layer between samples, mean over t, over the depth",
        unit="share of depth",
        holds="< exit_spread",
        measure=profiles.exits("exit_spread", share_of_depth=True),
    ),
    Claim(
        id="easier_at_large_t",
        where="Section 3, Figure 2",
        sentence="Denoising is easier for large t.",
        statistic="full backbone's held-out loss, mean over t from 500 over mean over t below 500",
        unit="ratio",
        holds="< 1",
        measure=profiles.losses("full_loss_large_over_small_t"),
    ),
    Claim(
        id="losses_agree",
        where="Section 3",
        sentence="For large t a shallow backbone is as good as the full one: their losses agree.",
        statistic="shallow over full held-out loss, geometric mean over t from 500",
        unit="ratio",
        holds="< loss_agreement",
        measure=profiles.losses("loss_ratio_large_t"),
    ),
    Claim(
        id="losses_part_relative",
        where="Section 3",
        sentence="For small t the losses part, relative to the loss.",
        statistic="shallow over full held-out loss, geometric mean over t below 500 over that from 500",
        unit="ratio",
        holds="> 1",
        measure=profiles.losses("loss_ratio_small_over_large_t"),
    ),
    Claim(
        id="losses_part_absolute",
        where="Section 3",
        sentence="For small t the losses part, in the loss itself (Eq. 2).",
        statistic="shallow minus full held-out loss, mean over t below 500 minus that from 500",
        unit="squared error",
        holds="> 0",
        measure=profiles.losses("loss_excess_small_minus_large_t"),
    ),
    Claim(
        id="faster_than_base",
        where="Section 4, Figure 4",
        sentence="DuoDiff is faster than the full backbone.",
        statistic=_SPEED,
        unit="ratio",
        holds="> 1",
        measure=cases.under_ddpm(times.speedups),
    ),
    Claim(
        id="heads_cost",
        where="Section 4",
        sentence="AdaDiff pays for its exit mechanism.",
        statistic="time with all heads computed and none taken, over the full backbone's",
        unit="ratio",
        holds="> 1",
        measure=times.heads_cost,
    ),
    Claim(
        id="faster_than_adadiff",
        where="Abstract; Section 4, Figure 4",
        sentence="DuoDiff is faster than AdaDiff at the same quality.",
        statistic="time of the fastest t_s that keeps AdaDiff's distance (within quality_margin),"
        " over AdaDiff's, at every theta",
        unit="ratio",
        holds="< 1",
        measure=quality.time_at_equal_distance,
    ),
    Claim(
        id="best_quality",
        where="Abstract; Section 4",
        sentence="DuoDiff's best distance is below AdaDiff's best, whatever their times.",
        statistic="lowest distance over t_s between 0 and 1000, minus the lowest over theta",
        unit="distance",
        holds="< 0",
        measure=cases.under_ddpm(quality.best_distance),
    ),
    Claim(
        id="lower_at_equal_time",
        where="Section 4, Figure 4",
        sentence="At equal time DuoDiff has the lower distance (AdaDiff's time measured).",
        statistic="DuoDiff's distance at AdaDiff's time minus AdaDiff's, at every theta",
        unit="distance",
        holds="< 0",
        measure=quality.at_measured_time,
    ),
    Claim(
        id="lower_at_equal_interpolated_time",
        where="Section 4, Figure 4",
        sentence="At equal time DuoDiff has the lower distance (AdaDiff's time interpolated, as in the paper).",
        statistic="DuoDiff's distance at AdaDiff's time minus AdaDiff's, at every theta",
        unit="distance",
        holds="< 0",
        measure=quality.at_interpolated_time,
    ),
    Claim(
        id="forty_percent",
        where="Section 4",
        sentence="At AdaDiff's shortest time DuoDiff's distance is about 40% lower"
        " (in the paper: ImageNet 256x256 in 7 s).",
        statistic="1 minus DuoDiff's distance over AdaDiff's, at the shortest of AdaDiff's times that DuoDiff reaches",
        unit="share",
        holds="> improvement",
        measure=quality.improvement,
    ),
    Claim(
        id="slower_decline",
        where="Section 4",
        sentence="Quality falls more slowly with the time saved along t_s than along theta.",
        statistic="distance lost per 10% of time saved, in % of the full backbone's: along t_s minus along theta",
        unit="% per 10%",
        holds="< 0",
        measure=quality.decline_per_time,
    ),
    Claim(
        id="quality_kept",
        where="Section 5",
        sentence="DuoDiff saves time while image quality is maintained.",
        statistic=_KEPT,
        unit="share",
        holds="< quality_margin",
        measure=cases.under_ddpm(quality.kept),
    ),
    Claim(
        id="ddim_faster",
        where="Section 4, Table 1",
        sentence="DuoDiff composes with DDIM: sampling is faster.",
        statistic=_SPEED + ", under DDIM",
        unit="ratio",
        holds="> 1",
        measure=cases.under_ddim(times.speedups),
    ),
    Claim(
        id="ddim_quality_kept",
        where="Section 4, Table 1",
        sentence="DuoDiff composes with DDIM: without a significant impact on quality.",
        statistic=_KEPT + ", under DDIM",
        unit="share",
        holds="< quality_margin",
        measure=cases.under_ddim(quality.kept),
    ),
    Claim(
        id="latent_faster",
        where="Section 4",
        sentence="DuoDiff composes with latent diffusion: sampling is faster.",
        statistic=_SPEED + ", decoding not counted",
        unit="ratio",
        holds="> 1",
        measure=cases.in_latent_space(times.speedups),
    ),
    Claim(
        id="latent_quality_kept",
        where="Section 4",
        sentence="DuoDiff composes with latent diffusion: quality is maintained.",
        statistic=_KEPT,
        unit="share",
        holds="< quality_margin",
        measure=cases.in_latent_space(quality.kept),
    ),
    Claim(
        id="quality_declines",
        where="Section 4",
        sentence="As t_s or theta grows, quality degrades.",
        statistic="rank correlation of the distance with t_s and with theta",
        unit="rank correlation",
        holds="> trend",
        measure=quality.trend("distance", 1),
    ),
    Claim(
        id="time_declines",
        where="Section 4",
        sentence="As t_s or theta grows, time decreases.",
        statistic="minus the rank correlation of the time with t_s and with theta",
        unit="rank correlation",
        holds="> trend",
        measure=quality.trend("seconds", -1),
    ),
    Claim(
        id="speedup_formula",
        where="Section 3 (by construction)",
        sentence="Speed-ups follow 1 / (1 - (t_s/1000)(1 - c)), c the shallow backbone's share of the full one's cost.",
        statistic="measured over computed speed-up, how far from 1, at every t_s"
        " (c by FLOPs; published rows: by blocks)",
        unit="share",
        holds="< speedup_deviation",
        measure=cases.under_ddpm(times.formula),
    ),
    Claim(
        id="shrinking_batch_is_slower",
        where="Appendix A.5",
        sentence="AdaDiff's interpolated time underestimates what a shrinking batch takes.",
        statistic="measured over interpolated time, at every theta",
        unit="ratio",
        holds="> 1",
        measure=times.underestimated,
    ),
]
