"""Writes the embedded default's backbones with random weights, as FOLDER/depth7 and FOLDER/depth3.

python tests/bench/random_networks.py FOLDER
"""

import sys
from pathlib import Path

from duodiff.training import checkpoints
from duodiff.uvit import UViT

NETWORK = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 64, "num_heads": 4}
CONVENTIONS = {"schedule": "linear", "time_input": "t", "prediction": "noise", "class_order": None}


def main(folder: Path) -> None:
    for depth in (7, 3):
        architecture = NETWORK | {"depth": depth, "num_classes": 10}
        description = {"kind": "backbone", "architecture": architecture, "null_class": False}
        out = folder / f"depth{depth}/manifest.json"
        out.parent.mkdir()
        checkpoints.save(out, UViT(**architecture).state_dict(), description | CONVENTIONS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
