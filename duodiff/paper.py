"""The paper's facts about its experiments, in one place (no torch).

The paper's measured numbers are in report/paper/*.csv, the settings of its experiments in config/paper.yaml.
"""

from dataclasses import dataclass

PAPER_IMAGES = 5120
"""Generated images of each published distance; as many training images are the reference (Appendix B)."""

SHALLOW_BLOCKS = 3
"""Blocks of the shallow backbone. Most early exits are "usually lower than 3" (Section 3)."""

LARGEST_T_S = 500
"""The largest switch time in Tables 1 and 2."""


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
