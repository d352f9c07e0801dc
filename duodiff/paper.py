"""The paper's facts about its experiments, in one place (no torch).

The paper's measured numbers are in report/paper/*.csv, the settings of its experiments in config/paper.yaml.
"""

from dataclasses import dataclass

PAPER_IMAGES = 5120
"""Generated images of each published distance; as many training images are the reference (Appendix B)."""

SHALLOW_BLOCKS = 3
"""Blocks of the shallow backbone. Most early exits are "usually lower than 3" (Section 3)."""

SMALLEST_T_S, LARGEST_T_S = 150, 500
"""The range of the switch times in Tables 1 and 2, t_s = 0 left out."""

LEAST_COST = 0.55
"""The least cost of a setting in Table 2, over the full backbone's: 6.27 of 10.94 s is 0.57 (rounded down)."""

SEVEN_SECONDS = 0.64
"""The paper compares DuoDiff and AdaDiff at 7 s, where the full backbone takes 10.94 s (Section 4)."""


@dataclass(frozen=True)
class Dataset:
    """A dataset of the paper: its title in tables and figures, and its full U-ViT's name and blocks (Table 3).

    `latent` says whether the U-ViT works on latents.
    """

    title: str
    architecture: str
    blocks: int
    latent: bool = False


DATASETS = {
    "cifar10": Dataset("CIFAR-10", "S/2", 13),
    "celeba64": Dataset("CelebA 64x64", "S/4", 13),
    "imagenet64": Dataset("ImageNet 64x64", "M/4", 17),
    "imagenet256": Dataset("ImageNet 256x256", "L/2", 21, latent=True),
}
"""The paper's datasets, by the name that the published tables and `paper_dataset` in the configuration use."""

PAPER_TITLES = {name: dataset.title for name, dataset in DATASETS.items()}
"""The titles of the paper's datasets in tables and figures."""
