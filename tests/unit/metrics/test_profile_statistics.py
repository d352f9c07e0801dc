"""Statistics of exit and loss profiles that can be worked out by hand."""

import numpy as np
import pytest

from duodiff.data.store import write_store
from duodiff.metrics.bootstrap import RESAMPLES, percentiles, resampled_means
from duodiff.metrics.denoising import loss_statistics
from duodiff.metrics.exits import exit_records, exit_statistics, step_fit
from duodiff.schedules import timestep_weights, timesteps

# --- statistics of exit profiles


def statistics(t, exits, depth=7) -> dict[str, np.ndarray]:
    found = exit_statistics(np.asarray(t), np.asarray(exits), depth)
    assert all(values.shape == (1 + RESAMPLES,) for values in found.values())
    return {name: values for (name, _), values in found.items()}


def first(found: dict[str, np.ndarray], name: str) -> float:
    return found[name][0]


def test_a_step_is_a_step_and_a_ramp_scores_three_quarters_against_it():
    t = timesteps(1000)
    found = statistics(t, np.repeat(np.where(t >= 500, 2, 7)[:, None], 4, axis=1))
    assert first(found, "exit_step_r2") == pytest.approx(1)
    assert first(found, "exit_ramp_r2") == pytest.approx(0.75, abs=1e-5)
    assert first(found, "exit_change") == 499.5
    assert first(found, "exit_rise") == pytest.approx(5)
    assert first(found, "exit_width") == pytest.approx(0.8)
    assert first(found, "early_exits_at_large_t") == pytest.approx(1)
    assert first(found, "few_blocks_at_large_t") == pytest.approx(1)
    assert first(found, "exit_spread") == pytest.approx(0)


def test_a_ramp_is_a_ramp_and_a_step_scores_three_quarters_against_it():
    t = timesteps(1000)
    found = statistics(t, np.repeat((999 - t)[:, None], 2, axis=1), depth=999)
    assert first(found, "exit_ramp_r2") == pytest.approx(1)
    assert first(found, "exit_step_r2") == pytest.approx(0.75, abs=1e-5)
    assert first(found, "exit_step_over_ramp") == pytest.approx(-0.25, abs=1e-5)
    assert first(found, "exit_width") == pytest.approx(0.8 * 999)
    assert first(found, "exit_width_from") == pytest.approx(0.9 * 999)


def test_exits_that_come_last_are_a_step_all_the_same_but_not_early_at_large_t():
    t = timesteps(50)
    found = statistics(t, np.repeat(np.where(t >= 300, 7, 1)[:, None], 3, axis=1))
    assert first(found, "exit_step_r2") == pytest.approx(1)
    assert first(found, "exit_rise") == pytest.approx(-6)
    assert first(found, "exit_width") == pytest.approx(0.8 * (305 - 285))
    assert first(found, "early_exits_at_large_t") == 0
    assert first(found, "few_blocks_at_large_t") == 0


def test_exits_before_and_after_the_change_by_hand():
    # one sample of four still exits at layer 4 at the last timestep; of the first, three of four before layer 3
    exits = [[2, 2, 2, 5], [2, 2, 2, 2], [7, 7, 7, 7], [7, 7, 7, 4]]
    found = statistics([999, 666, 333, 0], exits)
    weights = [167, 333, 333, 167]  # 999.5 - 832.5, 832.5 - 499.5, ...
    assert timestep_weights(np.array([999, 666, 333, 0])).tolist() == weights
    assert first(found, "exit_change") == 499.5
    early = [167 * 1, 333 * 1, 0, 167 / 4]
    assert first(found, "early_exits_at_large_t") == pytest.approx(500 / sum(early))
    assert first(found, "few_blocks_at_large_t") == pytest.approx((167 * 0.75 + 333) / 500)
    # standard deviations between the samples: of (2, 2, 2, 5), 0, 0, of (7, 7, 7, 4)
    assert first(found, "exit_spread") == pytest.approx(2 * 0.167 * (27 / 16) ** 0.5)
    low, high = percentiles(found["exit_spread"])
    assert low < first(found, "exit_spread") < high


def test_a_profile_without_variation_has_no_step():
    found = statistics(timesteps(50), np.full((50, 8), 7))
    assert set(found) == {"exit_range", "exit_spread"}
    assert not np.concatenate(list(found.values())).any()


def test_the_step_is_the_best_of_all_with_unequal_weights():
    rng = np.random.default_rng(1)
    profile, weights = rng.normal(size=11), rng.uniform(0.5, 2, 11)
    weights /= weights.sum()
    total = np.sum(weights * (profile - weights @ profile) ** 2)
    scores = []
    for change in range(1, 11):
        parts = [slice(0, change), slice(change, 11)]
        means = [np.average(profile[p], weights=weights[p]) for p in parts]
        left = sum(
            weights[p] @ (profile[p] - mean) ** 2 for p, mean in zip(parts, means, strict=True)
        )
        scores.append((1 - left / total, change, means[1] - means[0]))
    found = step_fit(profile[None], weights)
    assert [values[0] for values in found] == pytest.approx(max(scores))


def test_timesteps_weigh_by_those_they_stand_for():
    assert timestep_weights(timesteps(1000)).tolist() == [1] * 1000
    for n in (2, 3, 50, 333):
        assert timestep_weights(timesteps(n)).sum() == pytest.approx(1000)
    assert len(set(timestep_weights(timesteps(50))[1:-1])) > 1  # truncation spaces them unevenly


def test_resamples_are_of_the_same_images_for_every_array():
    values = np.random.default_rng(0).normal(size=(3, 40))
    means = resampled_means(values)
    np.testing.assert_allclose(means[0], values.mean(1))
    np.testing.assert_allclose(resampled_means(2 * values + 1), 2 * means + 1)
    expected = values.std(1) / 40**0.5
    np.testing.assert_allclose(means[1:].std(0), expected, rtol=0.2)


def test_records_of_exits_name_the_cell(tmp_path):
    exits = np.repeat(np.where(timesteps(10) >= 500, 1, 5)[:, None], 6, axis=1).astype(np.int16)
    manifest = {
        "experiment": "digits",
        "protocol": "corrected",
        "method": "adadiff",
        "parameters": {"theta": 0.2, "setting": "q0.4", "depth": 5},
        "sampler": {"name": "ddpm", "steps": 10},
        "nfe": 10,
        "train_seed": 0,
        "seed": 3,
        "dtype": "float32",
        "compiled": False,
        "compute_batch": 6,
        "checkpoint_sha256": {"full": "a", "heads": "b"},
        "timesteps": timesteps(10).tolist(),
    }
    images = np.zeros((6, 1, 2, 2), np.uint8)
    write_store(tmp_path / "manifest.json", images, np.zeros(6, np.int64), manifest)
    np.save(tmp_path / "blocks_run.npy", exits)
    found = {record.metric: record for record in exit_records([tmp_path / "manifest.json"])}
    step = found["exit_step_r2"]
    assert (step.n, step.experiment, step.sampler) == (6, "digits", "ddpm")
    assert step.seeds == {"train_seed": 0, "sample_seed": 3}
    assert "bootstrap" in step.interval_covers
    assert [step.value, *step.interval] == pytest.approx([1, 1, 1])


# --- statistics of losses


def test_losses_by_hand():
    t = timesteps(1000)
    full = np.where(t >= 500, 0.1, 0.4)[:, None] * np.ones(5)
    shallow = np.where(t >= 500, 0.11, 0.6)[:, None] * np.ones(5)
    found = {name: values[0] for name, values in loss_statistics(t, full, shallow).items()}
    assert found == pytest.approx(
        {
            "full_loss_large_over_small_t": 0.25,
            "loss_ratio_large_t": 1.1,
            "loss_ratio_small_t": 1.5,
            "loss_ratio_small_over_large_t": 1.5 / 1.1,
            "loss_excess_large_t": 0.01,
            "loss_excess_small_t": 0.2,
            "loss_excess_small_minus_large_t": 0.19,
        }
    )
