"""Weights of feature extractors: published ones, downloaded and verified, and the shipped classifier of a dataset."""

from pathlib import Path
from typing import Any

from duodiff.data.store import ImageStore
from duodiff.running.download import fetch, refuse_stand_in
from duodiff.running.files import atomic, read_json, sha256, write_json
from duodiff.spaces import WEIGHTS


def fetch_weights(name: str, path: Path, receipt: Path) -> dict:
    """The receipt (file, sha256) of the weights `name` (a key of WEIGHTS) at `path`, also written to `receipt`.

    The weights are downloaded if the file is absent. Raises ValueError if the file holds other weights or stands in for
    them (a web page, a git-lfs pointer), OSError if it is absent and there is no network.
    """
    known = WEIGHTS[name]
    if not path.exists():
        fetch(known.url, path, known.sha256)
    refuse_stand_in(path)
    digest = sha256(path)
    if digest != known.sha256:
        raise ValueError(
            f"extractors.{name}: {path} has sha256 {digest}, expected {known.sha256};"
            f" the metrics are defined for these weights only, which are at {known.url}"
        )
    content = {"file": path.name, "sha256": digest}
    write_json(receipt, content)
    return content


def take_classifier(weights: Path, description: Path, data: Path, out: Path) -> dict[str, Any]:
    """The description of the shipped classifier `weights`, which is copied to `out` for the packed images `data`.

    Raises ValueError if the weights are not those described, or if they were trained on other images than the training
    images of `data` (its manifest).
    """
    described, digest = read_json(description), sha256(weights)
    if digest != described["weights_sha256"]:
        raise ValueError(
            f"{weights}: found sha256 {digest}; accepted: {described['weights_sha256']}, as {description} says"
        )
    found = ImageStore(data).training_data
    for key, trained_on in described["data"].items():
        if found[key] != trained_on:
            raise ValueError(
                f"{data}: found {key} {found[key]}; accepted by the shipped classifier {weights.name}: {trained_on},"
                " of the images that it was trained on. For other images give metric.classifier steps and batch: a"
                " classifier is then trained on them"
            )
    with atomic(out) as temporary:
        temporary.write_bytes(weights.read_bytes())
    return described
