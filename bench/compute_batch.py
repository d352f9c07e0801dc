"""How much images depend on the compute batch: python bench/compute_batch.py results/digits/train0

The same images of a trained study's cells are computed in batches of 8 and of 32. Printed are the largest and the mean
difference of their pixels, in grey levels of 0 to 255.
"""

import argparse
from pathlib import Path

import numpy as np

from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import generate
from duodiff.sampling.models import Models
from duodiff.settings import Setting
from duodiff.study.folder import Study

IMAGES, BATCHES, SEED = 512, (8, 32), 0


def differences(study: Study, setting: Setting) -> np.ndarray:
    """Absolute differences of the pixels in grey levels, [n, C, H, W]."""
    models = Models(study.conventions, study.protocol, **study.models(setting))
    cell = build_cell(models, study.sampler("ddpm", None, None), setting)
    a, b = (
        generate(models, cell, 0, IMAGES, batch=batch, seed=SEED)[0].astype(int)
        for batch in BATCHES
    )
    return np.abs(a - b)


def main(folder: Path, settings: list[str]) -> None:
    for setting in settings:
        levels = differences(Study(folder), Setting.parse(setting))
        changed = np.count_nonzero(levels.reshape(len(levels), -1).any(1))
        print(
            f"{setting}: largest {levels.max()}, mean {levels.mean():.2g}, {changed} of {len(levels)} images differ"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", nargs="+", default=["t_s=0", "t_s=500", "theta=q0.4"])
    arguments = parser.parse_args()
    main(arguments.folder, arguments.settings)
