"""Exit layers over timesteps (Figure 1), from stored samples: a table, and how step-like they are (no torch)."""

from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.data.store import ImageStore
from duodiff.identity import code_digest
from duodiff.metrics.bootstrap import COVERS, percentiles, resampled_means
from duodiff.paper import SHALLOW_BLOCKS
from duodiff.records import Record, of_samples
from duodiff.running import provenance
from duodiff.schedules import timestep_weights


def exit_profiles(samples: list[Path]) -> pd.DataFrame:
    """Mean, standard deviation, minimum and maximum exit layer per timestep of AdaDiff's sample stores.

    One row per store and timestep; `depth` is the exit layer of the full network, `n` the samples.
    """
    tables = []
    for path in samples:
        manifest, exits = _opened(path)
        tables.append(
            pd.DataFrame(
                {
                    "experiment": manifest["experiment"],
                    "sampler": manifest["sampler"]["name"],
                    "setting": manifest["parameters"]["setting"],
                    "theta": manifest["parameters"]["theta"],
                    "train_seed": manifest["train_seed"],
                    "sample_seed": manifest["seed"],
                    "depth": manifest["parameters"]["depth"],
                    "n": exits.shape[1],
                    "t": manifest["timesteps"],
                    "mean": exits.mean(axis=1),
                    "std": exits.std(axis=1),
                    "min": exits.min(axis=1),
                    "max": exits.max(axis=1),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def exit_records(samples: list[Path]) -> list[Record]:
    """The `exit_statistics` of each of AdaDiff's sample stores, with bootstrap intervals."""
    records = []
    code = code_digest(exit_records)
    for path in samples:
        manifest, exits = _opened(path)
        identity = of_samples(manifest) | {
            "n": exits.shape[1],
            "experiment": manifest["experiment"],
            "protocol": manifest["protocol"],
            "interval_covers": COVERS,
            "made": provenance.made(code, of={"samples": manifest.get("made", {})}),
        }
        t, depth = np.array(manifest["timesteps"]), manifest["parameters"]["depth"]
        records += [
            Record(metric, float(values[0]), unit, interval=percentiles(values), **identity)
            for (metric, unit), values in exit_statistics(t, exits, depth).items()
        ]
    return records


def _opened(path: Path) -> tuple[dict, np.ndarray]:
    """A sample store's manifest and exit layers [steps, n]."""
    return ImageStore(path).manifest, np.load(Path(path).parent / "blocks_run.npy")


def exit_statistics(
    t: np.ndarray, exits: np.ndarray, depth: int
) -> dict[tuple[str, str], np.ndarray]:
    """Statistics of exit layers [K, N] at timesteps t [K] (descending), by name and unit.

    Each is float64 [1 + RESAMPLES]: of the images, then of resamples of the images. A timestep's weight is the number
    of timesteps that it stands for.
    - `exit_spread`: standard deviation between images, mean over t
    - `exit_range`: range of the mean profile; where it is 0, nothing follows
    - `exit_step_r2`, `exit_ramp_r2`: shares of the mean profile's variance over t that the best two-level step and the
      least-squares line in t explain; `exit_step_over_ramp`: their difference
    - `exit_change`: the t of the step; `exit_rise`: its level below that t minus its level above (negative: early
      exits come last)
    - `exit_width`, `exit_width_from`, `exit_width_to`: the span of t outside which the mean is within 10% of its range
      from its lowest or highest value
    - `early_exits_at_large_t`: share of early exits (exit layer < depth) above the change
    - `few_blocks_at_large_t`: share of calls above the change that exit before layer 3
    """
    weights = timestep_weights(t) / timestep_weights(t).sum()
    profiles = resampled_means(exits)
    variances = np.maximum(resampled_means(exits.astype(np.int64) ** 2) - profiles**2, 0)
    spans = np.ptp(profiles, axis=1)
    statistics = {
        ("exit_range", "blocks"): spans,
        ("exit_spread", "blocks"): variances**0.5 @ weights,
    }
    if not spans[0]:
        return statistics
    step, change, rise = step_fit(profiles, weights)
    ramp = ramp_fit(profiles, t, weights)
    ends = np.array([rise_ends(row, t) for row in profiles])
    before = (np.arange(len(t)) < change[:, None]) * weights  # t above the change
    early, few = resampled_means(exits < depth), resampled_means(exits < SHALLOW_BLOCKS)
    return statistics | {
        ("exit_step_r2", "1"): step,
        ("exit_ramp_r2", "1"): ramp,
        ("exit_step_over_ramp", "1"): step - ramp,
        ("exit_change", "t"): (t[change - 1] + t[change]) / 2,
        ("exit_rise", "blocks"): rise,
        ("exit_width", "timesteps"): np.abs(ends[:, 0] - ends[:, 1]),
        ("exit_width_from", "t"): ends[:, 0],
        ("exit_width_to", "t"): ends[:, 1],
        ("early_exits_at_large_t", "1"): _ratio((early * before).sum(1), early @ weights),
        ("few_blocks_at_large_t", "1"): _ratio((few * before).sum(1), before.sum(1)),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where both are 0."""
    return part / np.where(whole == 0, 1, whole)


def step_fit(
    profiles: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R2, change, rise) of the weighted least-squares step with two levels through each row of [R, K].

    The first `change` points lie on the first level; `rise` is the second minus the first. A flat row has R2 0.
    """
    profiles = profiles - (profiles @ weights)[:, None]
    left, sums = np.cumsum(weights)[:-1], np.cumsum(profiles * weights, axis=1)
    rises = -sums[:, :-1] / (1 - left) - sums[:, :-1] / left  # the weighted sum of a row is 0
    explained = left * (1 - left) * rises**2
    change, rows = explained.argmax(axis=1), np.arange(len(profiles))
    r2 = _ratio(explained[rows, change], profiles**2 @ weights)
    return r2, change + 1, rises[rows, change]


def ramp_fit(profiles: np.ndarray, t: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R2 [R] of the weighted least-squares line in t through each row of [R, K]; 0 for a flat row."""
    deviation = t - t @ weights
    profiles = profiles - (profiles @ weights)[:, None]
    covariance = (profiles * weights) @ deviation
    return _ratio(covariance**2, (profiles**2 @ weights) * (weights @ deviation**2))


def rise_ends(profile: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    """The t where a profile [K] leaves the lowest 10% of its range, and the t from which it stays in the highest 10%.

    Linear between points. A falling profile is read from its small t on. A flat profile has (t[0], t[0]).
    """
    low, span = profile.min(), np.ptp(profile)
    if span == 0:
        return float(t[0]), float(t[0])
    height, order = (profile - low) / span, np.arange(len(t))
    if profile[0] > profile[-1]:
        height, order = height[::-1], order[::-1]
    ordered = t[order]
    first, last = np.flatnonzero(height > 0.1)[0], np.flatnonzero(height < 0.9)[-1]
    return (
        _crossing(height, ordered, first - 1, 0.1) if first > 0 else float(ordered[0]),
        _crossing(height, ordered, last, 0.9) if last + 1 < len(t) else float(ordered[-1]),
    )


def _crossing(height: np.ndarray, t: np.ndarray, before: int, level: float) -> float:
    """The t between points `before` and `before` + 1 where the straight line meets `level`."""
    one, other = height[before], height[before + 1]
    return float(t[before] + (t[before + 1] - t[before]) * (level - one) / (other - one))
