"""Held-out losses and uncertainties over t."""

import numpy as np
from unit.tiny_study import USED

from duodiff.metrics.denoising import write_profile
from duodiff.running.files import read_json
from duodiff.sampling.models import Models


def test_uncertainties_are_profiled_in_the_precision_they_are_used_in(paths, data, tmp_path):
    values = []
    for precision in ("float32", "bfloat16"):
        names = {"losses": "losses.csv", "quantiles": "quantiles.json", "out": "records.json"}
        files = {key: tmp_path / precision / name for key, name in names.items()}
        models = Models(USED, "corrected", **paths, precision=precision)
        how = {"n_timesteps": 3, "batch": 64, "seed": 0, "experiment": "digits"}
        write_profile(data, models, **how, **files)
        assert {r["dtype"] for r in read_json(files["out"])} == {precision}
        values.append(np.array(read_json(files["quantiles"])["values"]))
    assert 0 < np.abs(values[0] - values[1]).max() < 0.01
