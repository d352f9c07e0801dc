"""Kills trainings at random moments and starts them again: python killed_training.py FOLDER KILLS SEED.

Every second kill waits until a state is being written. Prints JSON. `undisturbed` and `killed` are hashes of outputs:
of an undisturbed training, and of every killed training. `kills` is the number of kills, `while_writing` the number of
kills that left half a state.
The trainings are forks of this process, so torch is imported only once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from duodiff.data.pack import pack
from duodiff.running.files import sha256
from duodiff.training import state
from duodiff.training.backbone import train_backbone

NET = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 10,
}
CONVENTIONS = {"schedule": "linear", "time_input": "t", "prediction": "noise"}
TRAINING = {
    "steps": 120,
    "batch": 8,
    "lr": 1e-3,
    "lr_schedule": "cosine",
    "betas": [0.9, 0.99],
    "weight_decay": 0.01,
    "warmup_steps": 5,
    "grad_clip": 1.0,
    "ema": 0.9,
    "precision": "float32",
    "flips": False,
    "label_dropout": 0,
    "init": "official",
}
LONGEST_S = 0.4  # from the start of a process to its end


def train(data: Path, out: Path) -> None:
    train_backbone(data, NET, CONVENTIONS, False, TRAINING, seed=0, device="cpu", out=out)


def forked(data: Path, out: Path) -> int:
    """The id of a new process that trains and saves a state after every step."""
    if (child := os.fork()) > 0:
        return child
    state.EVERY_S, state.SHARE = 0, float("inf")
    code = 1
    try:
        train(data, out)
        code = 0
    finally:
        os._exit(code)


def writing(folder: Path) -> bool:
    """Whether a half-written state is there."""
    return any(folder.glob(".resume/*/.step-*"))


def wait_for_writing(child: int, folder: Path) -> None:
    """Waits until the process writes a state or has ended."""
    while not writing(folder):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return


def hashes(out: Path) -> list[str]:
    names = ("model.safetensors", "curve.csv", "manifest.json")
    return [sha256(out.parent / name) for name in names]


def main(folder: Path, wanted: int, seed: int) -> None:
    torch.set_num_threads(1)
    data, moments = folder / "data/manifest.json", random.Random(seed)
    pack({"source": "digits", "held_out": 360}, folder, 1, data)
    train(data, folder / "undisturbed/full/manifest.json")
    result = {"undisturbed": hashes(folder / "undisturbed/full/manifest.json"), "killed": []}
    kills, while_writing = 0, 0
    while kills < wanted:
        out = folder / f"killed{len(result['killed'])}/full/manifest.json"
        while True:
            child = forked(data, out)
            if kills < wanted:
                time.sleep(moments.uniform(0, LONGEST_S))
                if kills % 2:
                    wait_for_writing(child, out.parents[1])
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            kills += 1
            while_writing += writing(out.parents[1])
        result["killed"].append(hashes(out))
    print(json.dumps(result | {"kills": kills, "while_writing": while_writing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
