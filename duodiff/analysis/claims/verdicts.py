"""The paper's claims against our records and against its own published tables (no torch).

A claim is one sentence with the statistic that tests it. Measured on one source (a study of ours, or a
published dataset) it has one case or several (one a threshold theta, say), each held against the same limit: a
case holds where its whole interval lies beyond the limit on the claimed side, or its value where it has no
interval. The sentence holds where every tested case does; the row shows the case furthest from holding.
docs/claims.md explains statistics and limits.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from duodiff.analysis.claims import cases as measure
from duodiff.analysis.claims.sources import Case, Source

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, where it stands there, and its test: `cases` measures what `holds` beyond a limit.

    The limit is a number where the sentence itself sets it, else a key of the configuration's `claims`.
    """

    id: str
    where: str
    sentence: str
    statistic: str
    unit: str
    holds: str
    cases: measure.Cases

    def limit(self, limits: dict) -> float:
        """The limit as a number."""
        name = self.holds.split()[1]
        return float(limits.get(name, name))

    def margin(self, case: Case, limits: dict) -> float:
        """How far the whole of the case's interval (its value without one) lies beyond the limit; above 0 it holds."""
        low, high = case.interval or (case.value, case.value)
        above = self.holds.startswith(">")
        return low - self.limit(limits) if above else self.limit(limits) - high

    def contradicts(self, case: Case, limits: dict) -> bool:
        """Whether no part of the case's interval lies beyond the limit."""
        low, high = case.interval or (case.value, case.value)
        limit = self.limit(limits)
        return high <= limit if self.holds.startswith(">") else low >= limit


# --- the claims, in the order of the paper

_STATISTIC_KEPT = "distance over the full backbone's, minus 1, at every t_s up to 500"
_STATISTIC_SPEED = "speed-up over the full backbone, at every t_s between 0 and 1000"

CLAIMS = [
    Claim(
        "early_exits_first",
        "Section 3, Figure 1",
        "AdaDiff exits early only at the start of sampling, for large t; the remaining steps use the full network.",
        "share of all early exits that lie above the change of the best two-level step",
        "share",
        "> early_exit_share",
        measure.exits("early_exits_at_large_t"),
    ),
    Claim(
        "step_like",
        "Section 3, Figure 1",
        "Exit layers over t resemble a step function.",
        "R2 of the best two-level step minus R2 of a ramp, on the mean exit layer over t",
        "R2",
        "> step_over_ramp",
        measure.exits("exit_step_over_ramp"),
    ),
    Claim(
        "sudden_switch",
        "Abstract; Section 3, Figure 1",
        "The switch from early exits to the full network is sudden.",
        "timesteps in which the mean exit layer goes from 10 to 90% of its range (a ramp over all t: 800)",
        "timesteps",
        "< switch_width",
        measure.exits("exit_width"),
    ),
    Claim(
        "few_blocks",
        "Section 3",
        "During the initial steps most samples exit before layer 3.",
        "share of network calls above the change that exit before layer 3",
        "share",
        "> few_blocks_share",
        measure.exits("few_blocks_at_large_t"),
    ),
    Claim(
        "exits_vary_little",
        "Section 3, Figure 1",
        "Exits vary very little between samples.",
        "standard deviation of the exit layer between samples, mean over t, over the depth",
        "share of depth",
        "< exit_spread",
        measure.exits("exit_spread", share_of_depth=True),
    ),
    Claim(
        "easier_at_large_t",
        "Section 3, Figure 2",
        "Denoising is easier for large t.",
        "full backbone's held-out loss, mean over t from 500 over mean over t below 500",
        "ratio",
        "< 1",
        measure.losses("full_loss_large_over_small_t"),
    ),
    Claim(
        "losses_agree",
        "Section 3",
        "For large t a shallow backbone is as good as the full one: their losses agree.",
        "shallow over full held-out loss, geometric mean over t from 500",
        "ratio",
        "< loss_agreement",
        measure.losses("loss_ratio_large_t"),
    ),
    Claim(
        "losses_part_relative",
        "Section 3",
        "For small t the losses part, relative to the loss.",
        "shallow over full held-out loss, geometric mean over t below 500 over that from 500",
        "ratio",
        "> 1",
        measure.losses("loss_ratio_small_over_large_t"),
    ),
    Claim(
        "losses_part_absolute",
        "Section 3",
        "For small t the losses part, in the loss itself (Eq. 2).",
        "shallow minus full held-out loss, mean over t below 500 minus that from 500",
        "squared error",
        "> 0",
        measure.losses("loss_excess_small_minus_large_t"),
    ),
    Claim(
        "faster_than_base",
        "Section 4, Figure 4",
        "DuoDiff is faster than the full backbone.",
        _STATISTIC_SPEED,
        "ratio",
        "> 1",
        measure.faster_than_base,
    ),
    Claim(
        "heads_cost",
        "Section 4",
        "AdaDiff pays for its exit mechanism.",
        "time with all heads computed and none taken, over the full backbone's",
        "ratio",
        "> 1",
        measure.heads_cost,
    ),
    Claim(
        "faster_than_adadiff",
        "Abstract; Section 4, Figure 4",
        "DuoDiff is faster than AdaDiff at the same quality.",
        "time of the fastest t_s that keeps AdaDiff's distance (within quality_margin), over AdaDiff's, at every theta",
        "ratio",
        "< 1",
        measure.faster_than_adadiff,
    ),
    Claim(
        "best_quality",
        "Abstract; Section 4",
        "DuoDiff's best distance is below AdaDiff's best, whatever their times.",
        "lowest distance over t_s between 0 and 1000, minus the lowest over theta",
        "distance",
        "< 0",
        measure.best_quality,
    ),
    Claim(
        "lower_at_equal_time",
        "Section 4, Figure 4",
        "At equal time DuoDiff has the lower distance (AdaDiff's time measured).",
        "DuoDiff's distance at AdaDiff's time minus AdaDiff's, at every theta",
        "distance",
        "< 0",
        measure.at_measured_time,
    ),
    Claim(
        "lower_at_equal_interpolated_time",
        "Section 4, Figure 4",
        "At equal time DuoDiff has the lower distance (AdaDiff's time interpolated, as in the paper).",
        "DuoDiff's distance at AdaDiff's time minus AdaDiff's, at every theta",
        "distance",
        "< 0",
        measure.at_interpolated_time,
    ),
    Claim(
        "forty_percent",
        "Section 4",
        "At AdaDiff's shortest time DuoDiff's distance is about 40% lower (in the paper: ImageNet 256x256 in 7 s).",
        "1 minus DuoDiff's distance over AdaDiff's, at the shortest of AdaDiff's times that DuoDiff reaches",
        "share",
        "> improvement",
        measure.improvement,
    ),
    Claim(
        "slower_decline",
        "Section 4",
        "Quality falls more slowly with the time saved along t_s than along theta.",
        "distance lost per 10% of time saved, in % of the full backbone's: along t_s minus along theta",
        "% per 10%",
        "< 0",
        measure.quality_per_time,
    ),
    Claim(
        "quality_kept",
        "Section 5",
        "DuoDiff saves time while image quality is maintained.",
        _STATISTIC_KEPT,
        "share",
        "< quality_margin",
        measure.quality_kept,
    ),
    Claim(
        "ddim_faster",
        "Section 4, Table 1",
        "DuoDiff composes with DDIM: sampling is faster.",
        _STATISTIC_SPEED + ", under DDIM",
        "ratio",
        "> 1",
        measure.ddim(measure.speedups),
    ),
    Claim(
        "ddim_quality_kept",
        "Section 4, Table 1",
        "DuoDiff composes with DDIM: without a significant impact on quality.",
        _STATISTIC_KEPT + ", under DDIM",
        "share",
        "< quality_margin",
        measure.ddim(measure.kept),
    ),
    Claim(
        "latent_faster",
        "Section 4",
        "DuoDiff composes with latent diffusion: sampling is faster.",
        _STATISTIC_SPEED + ", decoding not counted",
        "ratio",
        "> 1",
        measure.latent(measure.speedups),
    ),
    Claim(
        "latent_quality_kept",
        "Section 4",
        "DuoDiff composes with latent diffusion: quality is maintained.",
        _STATISTIC_KEPT,
        "share",
        "< quality_margin",
        measure.latent(measure.kept),
    ),
    Claim(
        "quality_declines",
        "Section 4",
        "As t_s or theta grows, quality degrades.",
        "rank correlation of the distance with t_s and with theta",
        "rank correlation",
        "> trend",
        measure.trend("distance", 1),
    ),
    Claim(
        "time_declines",
        "Section 4",
        "As t_s or theta grows, time decreases.",
        "minus the rank correlation of the time with t_s and with theta",
        "rank correlation",
        "> trend",
        measure.trend("seconds", -1),
    ),
    Claim(
        "speedup_formula",
        "Section 3 (by construction)",
        "Speed-ups follow 1 / (1 - (t_s/1000)(1 - c)), c the shallow backbone's share of the full one's cost.",
        "measured over computed speed-up, how far from 1, at every t_s (c by FLOPs; published rows: by blocks)",
        "share",
        "< speedup_deviation",
        measure.formula,
    ),
    Claim(
        "shrinking_batch_is_slower",
        "Appendix A.5",
        "AdaDiff's interpolated time underestimates what a shrinking batch takes.",
        "measured over interpolated time, at every theta",
        "ratio",
        "> 1",
        measure.underestimated,
    ),
]


# --- verdicts


def claims_table(sources: list[Source], limits: dict) -> pd.DataFrame:
    """One row a claim and source, in the order of CLAIMS: the deciding case and the verdict.

    A claim that does not hold is `contradicted` by a case that lies wholly on the other side of the limit; without
    one it is undecided. `held`: how many of the tested cases hold; `cases`: all of them, as text. `limits` is
    the configuration's `claims`.
    """
    rows = [_row(claim, source, limits) for claim in CLAIMS for source in sources]
    return pd.DataFrame(rows)


def verdict_counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims hold, do not, are undecided among the latter, and are not tested, one row a source of
    `claims_table`.
    """
    marks = {name: table["verdict"] == name for name in (HOLDS, FAILS, UNTESTED)}
    marks |= {"undecided": marks[FAILS] & (table["contradicted"] == "no")}
    return pd.DataFrame(marks).groupby(table["source"], sort=False).sum()


def _row(claim: Claim, source: Source, limits: dict) -> dict:
    row = {
        "claim": claim.id,
        "where": claim.where,
        "sentence": claim.sentence,
        "statistic": claim.statistic,
        "unit": claim.unit,
        "threshold": f"{claim.holds[0]} {claim.limit(limits):g}",
        "source": source.title,
        "rests_on": source.rests_on,
        "verdict": UNTESTED,
        **dict.fromkeys(("contradicted", "case", "held", "cases", "note", "covers"), ""),
        **dict.fromkeys(("value", "low", "high", "n"), np.nan),
    }
    try:
        cases = claim.cases(source, limits)
    except measure.NotTested as reason:
        return row | {"note": str(reason)}
    tested = [case for case in cases if case.value is not None]
    if not tested:
        return row | {"note": "; ".join(dict.fromkeys(case.note for case in cases))}
    margins = [claim.margin(case, limits) for case in tested]
    deciding = tested[int(np.argmin(margins))]
    low, high = deciding.interval or (np.nan, np.nan)
    undecided = "the interval includes the limit" if low <= claim.limit(limits) <= high else ""
    told = [_told(claim, case, limits) for case in cases]
    return row | {
        "case": deciding.name,
        "value": deciding.value,
        "low": low,
        "high": high,
        "covers": deciding.covers or "",
        "verdict": HOLDS if min(margins) > 0 else FAILS,
        "contradicted": "yes" if any(claim.contradicts(c, limits) for c in tested) else "no",
        "held": f"{sum(margin > 0 for margin in margins)} of {len(tested)}",
        "cases": " | ".join(told) if len(told) > 1 else "",
        "note": "; ".join(filter(None, [deciding.note, undecided])),
        "n": deciding.n,
    }


def _told(claim: Claim, case: Case, limits: dict) -> str:
    if case.value is None:
        return f"{case.name}: {UNTESTED} ({case.note})"
    verdict = HOLDS if claim.margin(case, limits) > 0 else FAILS
    return f"{case.name}: {number(case.value)}{interval_text(case.interval)} {verdict}"


def number(value: float) -> str:
    """Three significant digits, without exponents where they can be avoided."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """ " [low, high]", or nothing."""
    return "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"
