"""Exit layers over timesteps (Figure 1), from stored samples."""

from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.data.store import ImageStore


def exit_profiles(samples: list[Path]) -> pd.DataFrame:
    """Mean, standard deviation, minimum and maximum exit layer per timestep of AdaDiff's sample stores.

    One row per store and timestep; `depth` is the exit layer of the full network, `n` the samples.
    """
    tables = []
    for path in samples:
        manifest = ImageStore(path).manifest
        exits = np.load(Path(path).parent / "blocks_run.npy")  # [steps, n]
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
