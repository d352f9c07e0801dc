"""Feature spaces of the metrics: what a metric's name stands for, and where its weights come from (no torch)."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """A published file of weights: its name, address, sha256, and the environment variable that names a copy."""

    file: str
    url: str
    sha256: str
    variable: str


@dataclass(frozen=True)
class Space:
    """A feature space: its dimension, and the published weights it needs (None: a classifier of the dataset)."""

    features: int
    weights: str | None


WEIGHTS = {
    "inception": Weights(
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "DUODIFF_INCEPTION",
    ),
    "dinov2": Weights(
        "dinov2_vitl14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        "DUODIFF_DINOV2",
    ),
}
"""Published weights by the name that `extractors` in the configuration uses."""

_PUBLISHED = {
    "fid": Space(2048, "inception"),
    "fd_inception64": Space(64, "inception"),
    "fd_dinov2": Space(1024, "dinov2"),
}
_CLASSIFIER = Space(64, None)


def space(metric: str) -> Space:
    """The feature space of a metric: Inception's pool (fid), its first pool of 64 features (for few images),
    DINOv2 ViT-L/14's class token, or for any other fd_ name a classifier of the dataset, shipped or trained here.
    """
    return _PUBLISHED.get(metric, _CLASSIFIER)


SHIPPED = Path(__file__).parents[1] / "config/classifiers"
"""The folder of the classifiers that are shipped: the weights of a metric, and a description beside them."""


def shipped_classifiers() -> list[str]:
    """The metrics whose classifier is shipped, by name. A configuration without `metric.classifier` uses it."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def images_to_extrapolate(metric: str) -> int:
    """The fewest images whose distance is extrapolated in 1/n: ten a feature. Nearer to one a feature the bias is
    not linear in 1/n, and a line overshoots with R^2 still near 1 (tests/unit/metrics/test_metrics.py).
    """
    return 10 * space(metric).features


def weights_path(name: str, data: Path, extractors: dict) -> Path:
    """Where the weights `name` are, or are to be downloaded to: the path that the configuration's `extractors`
    names (below `data`), else the environment variable's, else `data`/weights.
    """
    known = WEIGHTS[name]
    if name in extractors:
        return data / extractors[name]
    return Path(os.environ.get(known.variable, data / "weights" / known.file))
