"""Studies that several tests of the unit layer sample from, trained once."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from duodiff.autoencoder import load as load_autoencoder
from duodiff.data.latents import encode_shard, gather
from duodiff.data.pack import pack
from duodiff.data.store import write_store
from duodiff.running.files import write_json
from duodiff.training.heads import train_heads
from unit.tiny_study import BACKBONE_TRAINING, TRAINING, USED, train


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Figures of a test are closed after it: pyplot keeps those that are not, and warns of too many."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def paths(tmp_path_factory) -> dict:
    """A study's checkpoints, barely trained, and quantiles 0..1 of an imagined uncertainty in [0.2, 0.6]."""
    folder = tmp_path_factory.mktemp("study")
    data = folder / "data/manifest.json"
    pack({"source": "digits", "held_out": 360}, folder, 1, data)
    found = {role: folder / role / "manifest.json" for role in ("full", "shallow", "heads")}
    for role, depth in (("full", 5), ("shallow", 3)):
        train(data, {"depth": depth}, found[role])
    train_heads(
        data, found["full"], USED, TRAINING, "corrected", seed=0, device="cpu", out=found["heads"]
    )
    found["quantiles"] = folder / "quantiles.json"
    write_json(found["quantiles"], {"levels": [0.0, 1.0], "values": [0.2, 0.6]})
    return found


@pytest.fixture(scope="session")
def data(paths):
    return paths["full"].parents[1] / "data/manifest.json"


@pytest.fixture(scope="session")
def latent(tmp_path_factory):
    """A study in the latent space of a tiny autoencoder of random weights: its folder, paths and codec."""
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("latent")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "codec")
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8), np.arange(12) % 10
    splits = {"train": [0, 8], "held_out": [8, 12]}
    description = {"num_classes": 10, "splits": splits, "class_names": list("abcdefghij")}
    data = folder / "data/manifest.json"
    write_store(data, pixels, labels, description)
    section = {"path": "codec", "sha256": None, "flips": True, "batch": 3}
    latents, shard = folder / "latents/manifest.json", folder / "latents/0-of-1.json"
    encode_shard(data, section, folder, "cpu", shard, shard=0, shards=1)
    gather(data, [shard], latents)
    changes = {"img_size": 4, "patch_size": 2, "in_chans": 4}
    paths = {role: folder / role / "manifest.json" for role in ("full", "shallow", "heads")}
    for role, depth in (("full", 5), ("shallow", 3)):
        options = BACKBONE_TRAINING | {"flips": True}
        train(latents, changes | {"depth": depth}, paths[role], options)
    train_heads(
        latents,
        paths["full"],
        USED,
        TRAINING,
        "corrected",
        seed=0,
        device="cpu",
        out=paths["heads"],
    )
    return folder, paths, load_autoencoder(section, folder)


@pytest.fixture
def another_user(tmp_path):
    """A function that calls a function as a user who may do no more than files allow, and returns its answer as text.

    The answer is the value that is returned, or the error that is raised. Only root can become another user; without
    root the calls are those of the user who runs the tests.
    """
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o055)

    def call(function) -> str:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch has threads
            child = os.fork()
        if child == 0:
            try:
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setgid(54321)
                    os.setuid(54321)
                answer = str(function())
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(writing, answer.encode())
            os._exit(0)
        os.close(writing)
        with open(reading, encoding="utf-8") as told:
            answer = told.read()
        os.waitpid(child, 0)
        return answer

    return call


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request, monkeypatch) -> str:
    """A CPU, and a GPU whose convolutions do not round to TF32, as its matrix products do not by default."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return request.param
