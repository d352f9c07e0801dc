"""Held-out losses and uncertainties over t."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.tiny_study import USED

from duodiff.metrics.denoising import write_profile
from duodiff.metrics.losses import read_losses
from duodiff.running.files import read_json
from duodiff.sampling.models import Models


def profiled(data, models: Models, folder: Path, **options) -> dict[str, Path]:
    """The files of a profile of three timesteps."""
    names = {
        "losses": "losses.csv",
        "errors": "losses.npz",
        "quantiles": "quantiles.json",
        "out": "records.json",
    }
    files = {key: folder / name for key, name in names.items()}
    how = {"n_timesteps": 3, "batch": 64, "seed": 0, "experiment": "digits"}
    write_profile(data, models, **how, **options, **files)
    return files


def test_uncertainties_are_profiled_in_the_precision_they_are_used_in(paths, data, tmp_path):
    values = []
    for precision in ("float32", "bfloat16"):
        models = Models(USED, "corrected", **paths, precision=precision)
        files = profiled(data, models, tmp_path / precision)
        assert {r["dtype"] for r in read_json(files["out"])} == {precision}
        values.append(np.array(read_json(files["quantiles"])["values"]))
    assert 0 < np.abs(values[0] - values[1]).max() < 0.01


def test_the_errors_of_each_image_are_kept_of_further_networks_and_timesteps_too(
    paths, data, tmp_path
):
    models = Models(USED, "corrected", **paths)
    files = profiled(data, models, tmp_path, also=[700, 3], networks={"early": {"exit": 2}})
    losses, table = read_losses(files["errors"]), pd.read_csv(files["losses"])
    assert losses.networks == ("full", "shallow", "early")
    assert losses.about["networks"] == {
        "full": {"depth": 5},
        "shallow": {"depth": 3},
        "early": {"exit": 2},
    }
    assert losses.about["architecture"]["depth"] == 5
    assert losses.t.tolist() == [999, 700, 499, 3, 0]
    assert losses.images == 360
    assert losses.dimension == 64
    assert sorted(set(table["t"])) == [0, 499, 999]  # the table and the records are of the profile
    at_profiled = losses.errors[:, [0, 2, 4]].mean(-1) / losses.dimension
    wanted = [
        table[table["network"] == "full"],
        table[table["network"] == "shallow"],
        table[table["layer"] == 2],
    ]
    for means, rows in zip(at_profiled, wanted, strict=True):
        np.testing.assert_allclose(means, rows["mse"], rtol=1e-5)
    assert not losses.disagreements[0].any()
    assert (losses.disagreements[1:] > 0).all()


@pytest.mark.parametrize("heads", [True, False])
def test_errors_are_of_the_noise_whatever_is_predicted(paths, data, tmp_path, heads):
    """eps is c output + d x_t: of a network whose output stands for x_0, errors in the noise are c times larger."""
    used = paths if heads else {role: paths[role] for role in ("full", "shallow")}
    models, same = Models(USED, "corrected", **used), Models(USED, "corrected", **used)
    for backbone in (same.full, same.shallow):
        backbone.prediction = "x_0"
    of_noise = read_losses(profiled(data, models, tmp_path / "noise")["errors"])
    of_image = read_losses(profiled(data, same, tmp_path / "image")["errors"])
    ab = models.schedule.alphas_cumprod[of_noise.t]
    expected = of_noise.disagreements[1] * (ab / (1 - ab))[:, None]
    np.testing.assert_allclose(of_image.disagreements[1], expected, rtol=1e-4)
