"""Published U-ViT weights, converted from the file they come in to a checkpoint of this project.

The official code loads its files as plain state dicts, under the names that `UViT` has.
"""

import logging
import re
from pathlib import Path

import torch
from torch import Tensor

from duodiff import checkpoints
from duodiff.identity import code_digest
from duodiff.running import provenance
from duodiff.running.files import sha256 as digest
from duodiff.uvit import UViT

log = logging.getLogger("duodiff")

_SHOWN = 3  # differences named in an error


def convert(
    checkpoint: Path,
    sha256: str | None,
    architecture: dict,
    conventions: dict,
    null_class: bool,
    *,
    out: Path,
) -> checkpoints.BackboneManifest:
    """Manifest of the checkpoint written at the manifest `out` from the published weights in `checkpoint`.

    `architecture` holds the keywords of UViT. All are checked against the weights but `num_heads`, which no shape of a
    weight depends on. `conventions` are the schedule, time_input and class_order the weights were trained with.
    Without `sha256` the file is not verified, and its hash is logged as the one to pin. Weights become float32.
    Raises ValueError if the sha256 is another, before the file is read. Raises ValueError if the file is not a state
    dict of this network. A file that needs code to be read is refused, and the code is not run.
    """
    found = digest(checkpoint)
    if sha256 not in (None, found):
        raise ValueError(f"{checkpoint}: found sha256 {found}, expected {sha256}")
    weights = _tensors(checkpoint)
    if sha256 is None:
        log.warning("%s is not verified; if you trust it, pin its sha256: %s", checkpoint, found)
    if different := _differences(weights, architecture):
        more = f"; ... ({len(different)} differences in all)" if len(different) > _SHOWN else ""
        raise ValueError(
            f"{checkpoint} does not fit backbone: {'; '.join(different[:_SHOWN])}{more}"
        )
    manifest = checkpoints.BackboneManifest(
        architecture=architecture,
        **conventions,
        prediction="noise",
        null_class=null_class,
        training=None,
        seed=None,
        dataset_sha256=None,
        source={"file": checkpoint.name, "sha256": found, "verified": sha256 is not None},
        made=provenance.made(code_digest(convert, conventions)),
    )
    floats = {name: value.float() for name, value in weights.items()}
    return checkpoints.save(out, floats, manifest)


def _tensors(checkpoint: Path) -> dict[str, Tensor]:
    """The state dict in a file, by name; raises ValueError if there is anything else in it."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint fails in many ways
        code = re.search(r"GLOBAL (\S+)", str(error))
        found = f"a file that needs the code of {code[1]}" if code else "a file that cannot be read"
        raise ValueError(
            f"{checkpoint}: found {found}, accepted: tensors alone; nothing in it was run"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{checkpoint}: found {_kind(content)}, accepted: a state dict")
    for name, value in content.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            raise ValueError(
                f"{checkpoint}: {name}: found {_kind(value)}, accepted: a tensor of real numbers"
            )
    return content


def _kind(value) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}".replace("torch.", "")
    return f"a value of type {type(value).__name__}"


def _differences(weights: dict[str, Tensor], architecture: dict) -> list[str]:
    """Names whose shapes differ from the network's, in its order; then those it does not have."""
    with torch.device("meta"):
        net = UViT(**architecture)
    expected = {name: list(value.shape) for name, value in net.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    return [
        f"{name}: found {found.get(name, 'none')}, expected {expected.get(name, 'none')}"
        for name in expected | found
        if found.get(name) != expected.get(name)
    ]
