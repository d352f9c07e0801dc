"""The scale of a study beside the paper's: toy, reduced, or the paper's (no torch)."""

from functools import cache
from pathlib import Path

import yaml

_PAPER = Path(__file__).parents[2] / "config" / "paper.yaml"


def scale(experiment: dict) -> str:
    """ "toy" on none of the paper's datasets; "the paper's" where networks, training and images are; else "reduced".

    The full network has to be the paper's, and the images, and the images trained on, at least as many.
    """
    if experiment["paper_dataset"] is None:
        return "toy"
    paper = _paper()[experiment["paper_dataset"]]
    same = all(experiment["backbone"].get(key) == value for key, value in paper["backbone"].items())
    enough = experiment["sampling"]["images"] >= paper["sampling"]["images"]
    trained = [_trained_on(one["backbone_training"]) for one in (experiment, paper)]
    return "the paper's" if same and enough and trained[0] >= trained[1] else "reduced"


def _trained_on(training: dict) -> int:
    return training["steps"] * training["batch"]


@cache
def _paper() -> dict:
    return yaml.safe_load(_PAPER.read_text(encoding="utf-8"))["experiments"]
