import inspect
import json
import logging
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file

from duodiff import autoencoder as codec
from duodiff.data import latents
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore, LatentStore, to_unit_range, write_store
from duodiff.running import job
from duodiff.running.files import read_json, sha256, write_json
from duodiff.study.config import SCHEMA
from duodiff.training.autoencoder import loss, train_autoencoder
from unit.image_files import STAND_INS

TINY = {
    "latent_channels": 5,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
SECTION = {"sha256": None, "flips": False, "batch": 3}
COMMIT = "0123456789abcdef" * 2 + "01234567"
RNG = np.random.default_rng(0)


class LatentDiffusion:
    """What latent-diffusion's autoencoder of the architecture TINY computes, and `weights` by its keys.

    A weight is drawn when it is first used.
    """

    def __init__(self):
        self.weights, self.generator = {}, torch.Generator().manual_seed(0)

    def weight(self, name, *shape, at=0.0, spread=0.1):
        drawn = at + spread * torch.randn(shape, generator=self.generator)
        return self.weights.setdefault(name, drawn)

    def conv(self, name, x, channels, size=3, **options):
        spread = (x.shape[1] * size**2) ** -0.5
        weight = self.weight(f"{name}.weight", channels, x.shape[1], size, size, spread=spread)
        return F.conv2d(x, weight, self.weight(f"{name}.bias", channels), **options)

    def norm(self, name, x):
        weight = self.weight(f"{name}.weight", x.shape[1], at=1.0)
        return F.group_norm(x, 4, weight, self.weight(f"{name}.bias", x.shape[1]), 1e-6)

    def block(self, name, x, channels):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), channels, padding=1)
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), channels, padding=1)
        if x.shape[1] != channels:
            x = self.conv(f"{name}.nin_shortcut", x, channels, 1)
        return x + h

    def middle(self, name, x):
        x = self.block(f"{name}.block_1", x, 16)
        h = self.norm(f"{name}.attn_1.norm", x)
        q, k, v = (self.conv(f"{name}.attn_1.{n}", h, 16, 1).flatten(2) for n in "qkv")
        attention = torch.softmax(q.mT @ k / 16**0.5, dim=-1)
        h = (v @ attention.mT).view_as(x)
        return self.block(f"{name}.block_2", x + self.conv(f"{name}.attn_1.proj_out", h, 16, 1), 16)

    def end(self, name, x, channels):
        h = F.silu(self.norm(f"{name}.norm_out", x))
        return self.conv(f"{name}.conv_out", h, channels, padding=1)

    def encode(self, pixels):
        x = self.conv("encoder.conv_in", pixels, 8, padding=1)
        x = self.block("encoder.down.0.block.0", x, 8)
        x = self.conv("encoder.down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), 8, stride=2)
        x = self.block("encoder.down.1.block.0", x, 16)
        return self.conv(
            "quant_conv", self.end("encoder", self.middle("encoder.mid", x), 10), 10, 1
        )

    def decode(self, z):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z, 5, 1), 16, padding=1)
        x = self.middle("decoder.mid", x)
        for i in (0, 1):
            x = self.block(f"decoder.up.1.block.{i}", x, 16)
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = self.conv("decoder.up.1.upsample.conv", x, 16, padding=1)
        for i in (0, 1):
            x = self.block(f"decoder.up.0.block.{i}", x, 8)
        return self.end("decoder", x, 3)


IMAGES = torch.from_numpy(RNG.integers(0, 256, (3, 3, 10, 14)).astype(np.uint8))
LATENTS = torch.from_numpy(RNG.standard_normal((3, 5, 5, 7)).astype(np.float32))


@pytest.fixture(scope="module")
def published():
    """latent-diffusion's autoencoder, the moments it gives for IMAGES and the images for LATENTS."""
    model = LatentDiffusion()
    return model, model.encode(IMAGES / 127.5 - 1), model.decode(LATENTS / 0.5)


@pytest.fixture
def tiny(published, tmp_path) -> dict:
    """The configuration's section for a checkpoint of it at tmp_path / "ae.pth"."""
    torch.save(published[0].weights, tmp_path / "ae.pth")
    digest = sha256(tmp_path / "ae.pth")
    return SECTION | {"path": "ae.pth", "sha256": digest, "scale": 0.5, "architecture": TINY}


@pytest.fixture
def folder(tiny, tmp_path):
    """The same autoencoder in a folder as diffusers saves it, tmp_path / "saved"."""
    codec.load(tiny, tmp_path).net.save_pretrained(tmp_path / "saved")
    config = read_json(tmp_path / "saved/config.json")
    write_json(tmp_path / "saved/config.json", config | {"scaling_factor": 0.5})
    return tmp_path / "saved"


def assert_computes(model, published):
    torch.testing.assert_close(model.encode(IMAGES), published[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.decode(LATENTS), published[2], atol=1e-4, rtol=1e-4)


# --- loading


def in_a_diffusion_model(weights: dict) -> dict:
    others = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
    return {"state_dict": others | {f"first_stage_model.{k}": v for k, v in weights.items()}}


def with_its_loss(weights: dict) -> dict:
    return {"state_dict": weights | {"loss.logvar": torch.zeros(())}, "epoch": 3}


@pytest.mark.parametrize("wrapped", [dict, in_a_diffusion_model, with_its_loss])
def test_a_published_checkpoint_computes_what_latent_diffusion_does(wrapped, published, tmp_path):
    torch.save(wrapped(published[0].weights), tmp_path / "ae.pth")
    section = SECTION | {"path": "ae.pth", "scale": 0.5, "architecture": TINY}
    assert_computes(codec.load(section, tmp_path), published)


def test_the_default_architecture_and_scale_are_stable_diffusions():
    from diffusers import AutoencoderKL

    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["$defs"]["dataset"]["properties"][
        "autoencoder"
    ]
    architecture = schema["properties"]["architecture"]["default"]
    with torch.device("meta"):
        net = AutoencoderKL.from_config(codec.network_config(architecture, 3))
    assert sum(p.numel() for p in net.parameters()) == 83_653_863
    model = codec.Autoencoder(net, codec.SCALE, 8, {}, "meta")
    assert model.latent_shape((3, 256, 256)) == (4, 32, 32)
    assert (model.scale, net.config.scaling_factor) == (0.18215, 0.18215)


def test_a_folder_saved_by_diffusers_computes_the_same_bit_for_bit(tiny, folder, tmp_path):
    a = codec.load(tiny, tmp_path)
    b = codec.load(SECTION | {"path": "saved", "architecture": TINY}, tmp_path)
    assert b.scale == 0.5
    assert torch.equal(a.encode(IMAGES), b.encode(IMAGES))
    assert torch.equal(a.decode(LATENTS), b.decode(LATENTS))


def test_a_folder_with_the_names_of_early_diffusers_is_read(folder, published, tmp_path):
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(folder / codec.WEIGHTS)
    for new, old in early.items():
        weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in weights
    save_file(weights, folder / codec.WEIGHTS)
    assert_computes(codec.load(SECTION | {"path": "saved"}, tmp_path), published)


def test_loading_leaves_the_generator_alone_and_says_where_the_weights_are_from(tiny, tmp_path):
    before = torch.get_rng_state()
    model = codec.load(tiny, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.source == {"path": "ae.pth", "weights_sha256": tiny["sha256"]}
    assert not model.net.training
    assert not any(p.requires_grad for p in model.net.parameters())


def test_unverified_weights_are_named_with_the_hash_to_pin(tiny, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "duodiff"):
        codec.load(tiny, tmp_path)
        assert not caplog.records
        codec.load(tiny | {"sha256": None}, tmp_path)
    assert f"ae.pth is unverified, it has {tiny['sha256']}" in caplog.text


# --- refusals


def test_missing_and_other_files_are_refused(tiny, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no.pth is missing; put it there.*baofff/U-ViT"):
        codec.load(tiny | {"path": "no.pth"}, tmp_path)
    with pytest.raises(ValueError, match=f"ae.pth has {tiny['sha256']}, expected {'0' * 64}"):
        codec.load(tiny | {"sha256": "0" * 64}, tmp_path)
    (folder / codec.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"saved/{codec.WEIGHTS} is missing"):
        codec.load(SECTION | {"path": "saved"}, tmp_path)


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_first_three_differences(
    published, tmp_path
):
    weights = {key: value for key, value in published[0].weights.items() if ".up.1." not in key}
    weights["encoder.conv_in.bias"] = torch.zeros(9)
    weights["decoder.up.0.attn.0.q.bias"] = torch.zeros(3)
    del weights["encoder.down.1.block.0.nin_shortcut.weight"]
    torch.save(weights, tmp_path / "ae.pth")
    with pytest.raises(ValueError, match=r"ae.pth does not fit") as refused:
        codec.load(SECTION | {"path": "ae.pth", "architecture": TINY}, tmp_path)
    assert str(refused.value).partition("architecture: ")[2] == (
        "encoder.conv_in.bias: found [9], expected [8];"
        " encoder.down.1.block.0.nin_shortcut.weight: missing;"
        " decoder.up.1.block.0.norm1.weight: missing (21 differences in all)"
    )
    torch.save(published[0].weights | {"extra.bias": torch.zeros(1)}, tmp_path / "ae.pth")
    with pytest.raises(ValueError, match=r"architecture: extra.bias: unexpected \(1 difference"):
        codec.load(SECTION | {"path": "ae.pth", "architecture": TINY}, tmp_path)


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in a checkpoint was run')",)


def test_what_is_not_tensors_is_refused_and_code_is_not_run(published, tmp_path):
    torch.save(published[0].weights | {"code": Malicious()}, tmp_path / "code.pth")
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "code.pth").read_bytes()[:-100])
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    refusals = {
        "code.pth": " is not a file of tensors alone",
        "page.pth": ": found an HTML page in place of the file",
        "cut.pth": " is not a file of tensors alone",
        "cut.safetensors": " is not a file of tensors alone",
    }
    for name, refusal in refusals.items():
        with pytest.raises(ValueError, match=name + refusal):
            codec.load(SECTION | {"path": name, "architecture": TINY}, tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth: found list; accepted: a dict of tensors"):
        codec.load(SECTION | {"path": "list.pth", "architecture": TINY}, tmp_path)
    torch.save(published[0].weights | {"quant_conv.bias": "no"}, tmp_path / "text.pth")
    with pytest.raises(ValueError, match=r"quant_conv.bias: found str; accepted: a tensor"):
        codec.load(SECTION | {"path": "text.pth", "architecture": TINY}, tmp_path)


def test_a_folder_that_is_not_what_the_section_says_is_refused(folder, tmp_path):
    section = SECTION | {"path": "saved"}
    with pytest.raises(
        ValueError, match=r"autoencoder.scale: found 0.18215; .*json has scaling_factor 0.5"
    ):
        codec.load(section | {"scale": 0.18215}, tmp_path)
    other = {"architecture": TINY | {"latent_channels": 4}}
    with pytest.raises(ValueError, match=r"architecture.latent_channels: found 4; .*json has 5"):
        codec.load(section | other, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift_factor": 0.1}, "found shift_factor 0.1; accepted: none, or 0"),
        ({"latents_mean": [0, 0.5]}, "found latents_mean [0, 0.5]; accepted: none, or 0"),
        ({"latents_std": [1, 2.0]}, "found latents_std [1, 2.0]; accepted: none, or 1"),
        ({"_class_name": "AutoencoderTiny"}, "found _class_name AutoencoderTiny; accepted: Auto"),
        ({"scaling_factor": None}, "found scaling_factor None; accepted: a number above 0"),
        ({"scaling_factor": 0}, "found scaling_factor 0; accepted: a number above 0"),
        ({"out_channels": 6}, "found in_channels 3 and out_channels 6; accepted: equal ones"),
        ({"scale_shift": 2}, "found scale_shift; accepted: the keys of AutoencoderKL"),
    ],
)
def test_what_a_saved_configuration_means_and_is_not_computed_is_refused(
    folder, fetch, tmp_path, changes, message
):
    """By the first job already, which only looks for the files."""
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | changes)
    with pytest.raises(ValueError, match=re.escape(f"config.json: {message}")):
        codec.load(SECTION | {"path": "saved"}, tmp_path)
    status, said = fetch(SECTION | {"path": "saved"})
    assert status == 1
    assert message in said


@pytest.mark.parametrize(
    "changes",
    [
        {"shift_factor": 0.0, "latents_mean": [0.0, 0], "latents_std": [1, 1.0]},
        {"shift_factor": None, "latents_mean": None, "latents_std": None},
        {"force_upcast": False, "sample_size": 512, "_name_or_path": "elsewhere"},
    ],
)
def test_what_changes_nothing_is_accepted(folder, published, tmp_path, changes):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | changes)
    assert_computes(codec.load(SECTION | {"path": "saved"}, tmp_path), published)


@pytest.mark.parametrize(
    ("key", "module"),
    [("use_quant_conv", "quant_conv"), ("use_post_quant_conv", "post_quant_conv")],
)
def test_a_folder_without_a_convolution_of_the_latents_is_read_as_it_is(
    folder, published, tmp_path, key, module
):
    """Its weights are those of an autoencoder whose convolution changes nothing."""
    weights = load_file(folder / codec.WEIGHTS)
    channels = len(weights[f"{module}.bias"])
    identity = torch.eye(channels)[..., None, None]
    nothing = {f"{module}.weight": identity, f"{module}.bias": torch.zeros(channels)}
    save_file(weights | nothing, folder / codec.WEIGHTS)
    kept = codec.load(SECTION | {"path": "saved"}, tmp_path)
    expected = kept.encode(IMAGES), kept.decode(LATENTS)
    save_file({k: v for k, v in weights.items() if k not in nothing}, folder / codec.WEIGHTS)
    with pytest.raises(ValueError, match=rf"{module}.weight: missing; .*\(2 differences"):
        codec.load(SECTION | {"path": "saved"}, tmp_path)
    write_json(folder / "config.json", read_json(folder / "config.json") | {key: False})
    without = codec.load(SECTION | {"path": "saved"}, tmp_path)
    torch.testing.assert_close(without.encode(IMAGES), expected[0])
    torch.testing.assert_close(without.decode(LATENTS), expected[1])


def test_every_key_of_diffusers_autoencoder_is_known():
    from diffusers import AutoencoderKL

    parameters = set(inspect.signature(AutoencoderKL.__init__).parameters) - {"self"}
    assert codec._BUILT | codec._NOT_NEEDED | codec._NEUTRAL.keys() == parameters


# --- the hub, of which tests know only its cache on this machine


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_the_hub_without_network_is_an_error_that_says_what_to_do(hub, tmp_path):
    section = SECTION | {"hub": "someone/vae", "revision": COMMIT}
    with pytest.raises(OSError, match=f"run `hf download someone/vae --revision {COMMIT}` where"):
        codec.load(section, tmp_path)
    with pytest.raises(ValueError, match=r"autoencoder.revision: found 'main'; accepted: a commit"):
        codec.load(section | {"revision": "main"}, tmp_path)


def test_the_hub_works_without_network_once_its_files_are_here(hub, folder, published, tmp_path):
    snapshot = hub / "models--someone--vae" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    model = codec.load(SECTION | {"hub": "someone/vae", "revision": COMMIT}, tmp_path)
    assert_computes(model, published)
    assert model.source["revision"] == COMMIT


# --- encoding and decoding


def test_shapes_of_moments_and_images_and_refusals_of_others(tiny, tmp_path):
    model = codec.load(tiny, tmp_path)
    moments = model.encode(IMAGES)
    assert (moments.shape, moments.dtype) == ((3, 10, 5, 7), torch.float32)
    images = model.decode(LATENTS)
    assert (images.shape, images.dtype) == ((3, 3, 10, 14), torch.float32)
    torch.testing.assert_close(model.decode(LATENTS[1:2]), images[1:2])
    for wrong in (IMAGES[:, :1], IMAGES[..., :-1]):
        with pytest.raises(ValueError, match=r"accepted: \[3, H, W\], H and W multiples of 2"):
            model.encode(wrong)
    with pytest.raises(ValueError, match=r"images: found torch.float32; accepted: torch.uint8"):
        model.encode(IMAGES.float())
    with pytest.raises(ValueError, match=r"found \[3, 10, 5, 7\]; accepted: \[B, 5, h, w\]"):
        model.decode(moments)


def test_latents_are_decoded_in_batches_of_one_size_whatever_their_number(
    tiny, tmp_path, monkeypatch
):
    model = codec.load(tiny | {"batch": 2}, tmp_path)
    decode, sizes = model.net.decode, []

    def counted(z):
        sizes.append(len(z))
        return decode(z)

    monkeypatch.setattr(model.net, "decode", counted)
    images = model.decode(LATENTS)
    assert sizes == [2, 2]
    assert torch.equal(model.decode(LATENTS[:2]), images[:2])
    assert torch.equal(model.decode(LATENTS[2:]), images[2:])


def test_the_log_variance_is_clamped_and_the_mean_is_not(published, tmp_path):
    bias = torch.full((10,), 99.0)
    bias[5] = -99.0
    torch.save(published[0].weights | {"quant_conv.bias": bias}, tmp_path / "ae.pth")
    mean, log_variance = (
        codec.load(SECTION | {"path": "ae.pth", "architecture": TINY}, tmp_path)
        .encode(IMAGES)
        .chunk(2, 1)
    )
    assert mean.min() > 50
    assert (log_variance[:, 0] == -30).all()
    assert (log_variance[:, 1:] == 20).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_latents_are_drawn_from_the_moments_in_float32(dtype):
    moments = np.concatenate([np.full((2, 1, 3, 5), 7), np.full((2, 1, 3, 5), -30)], 1).astype(
        dtype
    )
    moments[:, 0, 0] = 0
    eps = RNG.standard_normal((2, 1, 3, 5)).astype(np.float32)
    found = codec.sample_moments(moments, eps, 0.25)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :, 1:], 1.75, rtol=1e-6)
    np.testing.assert_allclose(found[:, :, 0], 0.25 * np.exp(-15) * eps[:, :, 0], rtol=1e-6)
    tensors = codec.sample_moments(torch.from_numpy(moments), torch.from_numpy(eps), 0.25)
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-6)


# --- stores


@pytest.fixture
def images(tmp_path):
    """Manifest of a store of 7 images [3, 6, 10]."""
    pixels = RNG.integers(0, 256, (7, 3, 6, 10)).astype(np.uint8)
    labels = np.array([2, 0, 1, 1, 2, 0, 1])
    description = {
        "source": "images",
        "num_classes": 3,
        "class_names": ["a", "b", "c"],
        "splits": {"train": [0, 5], "held_out": [5, 7]},
    }
    write_store(tmp_path / "images/manifest.json", pixels, labels, description)
    return tmp_path / "images/manifest.json"


def encode(images, section, data, manifest, shards=1) -> dict:
    """Manifest of the latents of the store `images`, encoded in so many shards."""
    paths = [manifest.parent / f"shards/{shard}-of-{shards}.json" for shard in range(shards)]
    for shard, path in enumerate(paths):
        latents.encode_shard(images, section, data, "cpu", path, shard=shard, shards=shards)
    return latents.gather(images, paths, manifest)


@pytest.mark.parametrize("flips", [False, True])
def test_a_store_of_latents_is_the_direct_encoding_of_its_images(flips, tiny, images, tmp_path):
    path = tmp_path / "latents/manifest.json"
    manifest = encode(images, tiny | {"flips": flips}, tmp_path, path)
    store, source, model = LatentStore(path), ImageStore(images), codec.load(tiny, tmp_path)
    assert store.moments.shape == (7, 1 + flips, 10, 3, 5)
    assert store.moments.dtype == np.float16
    pixels = torch.from_numpy(np.array(source.images))
    for first in (0, 3, 6):
        views = [pixels, pixels.flip(-1)][: 1 + flips]
        for i, view in enumerate(views):
            expected = model.encode(view[first : first + 3]).half().numpy()
            assert np.array_equal(store.moments[first : first + 3, i], expected)
    assert np.array_equal(store.labels, source.labels)
    assert (store.shape, store.num_classes, store.scale, len(store)) == ((5, 3, 5), 3, 0.5, 7)
    moments, labels = store.split("held_out")
    assert np.array_equal(moments, store.moments[5:])
    assert labels.tolist() == [0, 1]
    assert manifest == read_json(path)
    for name in ("moments", "labels"):
        assert manifest[f"{name}_sha256"] == sha256(path.parent / f"{name}.npy")
    assert manifest["images_sha256"] == source.manifest["images_sha256"]
    assert manifest["autoencoder"]["weights_sha256"] == tiny["sha256"]
    assert (manifest["count"], manifest["shape"], manifest["flips"]) == (7, [5, 3, 5], flips)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "labels.npy",
        "manifest.json",
        "moments.npy",
        "shards",
    ]


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_the_store_does_not_depend_on_the_number_of_shards(shards, tiny, images, tmp_path):
    section = tiny | {
        "flips": True,
        "batch": 2,
    }  # four batches, so that of five shards one is empty
    whole = encode(images, section, tmp_path, tmp_path / "whole/manifest.json")
    parts = encode(images, section, tmp_path, tmp_path / "parts/manifest.json", shards)
    assert parts == whole
    for name in ("moments.npy", "labels.npy", "manifest.json"):
        one, several = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert one.read_bytes() == several.read_bytes()


def test_shards_cover_the_images_once_and_are_cut_between_batches():
    for count, batch, shards in ((7, 2, 3), (64, 8, 3), (5, 8, 2), (100, 7, 4)):
        ranges = [latents.shard_range(count, batch, shard, shards) for shard in range(shards)]
        assert [first for first, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == count
        assert all(first % batch == 0 or first == count for first, _ in ranges)


def test_shards_that_do_not_belong_together_are_refused(tiny, images, tmp_path):
    folder = tmp_path / "latents"
    encode(images, tiny, tmp_path, folder / "manifest.json", shards=2)
    encode(images, tiny | {"flips": True}, tmp_path, tmp_path / "other/manifest.json", shards=2)
    first, last = (folder / f"shards/{shard}-of-2.json" for shard in (0, 1))
    for wrong in ([first], [last, first], [first, first]):
        with pytest.raises(ValueError, match=r"shards: found images .*; accepted: all from 0 to 7"):
            latents.gather(images, wrong, folder / "manifest.json")
    mixed = [first, tmp_path / "other/shards/1-of-2.json"]
    with pytest.raises(ValueError, match="shards: they were not encoded alike"):
        latents.gather(images, mixed, folder / "manifest.json")
    manifest = read_json(images)
    write_json(images, manifest | {"images_sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"shards: they are not of the images of .*manifest.json"):
        latents.gather(images, [first, last], folder / "manifest.json")


def test_an_interrupted_shard_is_continued_and_that_of_other_images_is_not(
    tiny, images, tmp_path, monkeypatch
):
    section = tiny | {"batch": 2}
    whole = latents.encode_shard(
        images, section, tmp_path, "cpu", tmp_path / "whole.json", shard=0, shards=1
    )
    encode_images, left = codec.Autoencoder.encode, 2

    def failing(model, pixels):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return encode_images(model, pixels)

    monkeypatch.setattr(codec.Autoencoder, "encode", failing)
    path = tmp_path / "shards/0-of-1.json"
    with pytest.raises(KeyboardInterrupt):
        latents.encode_shard(images, section, tmp_path, "cpu", path, shard=0, shards=1)
    (partial,) = path.parent.iterdir()
    partial.write_bytes(partial.read_bytes() + b"half a batch")
    left = 2  # of the four batches, two are there
    assert latents.encode_shard(images, section, tmp_path, "cpu", path, shard=0, shards=1) == whole
    assert path.with_suffix(".npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    partial.write_bytes(b"of an earlier run")
    left = 3
    with pytest.raises(KeyboardInterrupt):
        latents.encode_shard(
            images, section | {"batch": 1}, tmp_path, "cpu", path, shard=0, shards=1
        )
    assert not partial.exists()


def test_images_and_moments_that_do_not_fit_are_refused(tiny, images, published, tmp_path):
    write_store(
        tmp_path / "odd/manifest.json", np.zeros((1, 3, 5, 4), np.uint8), np.zeros(1, np.int64), {}
    )
    path = tmp_path / "shards/1-of-2.json"
    with pytest.raises(ValueError, match=r"images: found \[3, 5, 4\]; accepted: \[3, H, W\]"):
        latents.encode_shard(
            tmp_path / "odd/manifest.json", tiny, tmp_path, "cpu", path, shard=1, shards=2
        )
    torch.save(
        published[0].weights | {"quant_conv.bias": torch.full((10,), 1e5)}, tmp_path / "x.pth"
    )
    section = tiny | {"path": "x.pth", "sha256": None}
    with pytest.raises(ValueError, match="moments of images from 3 on are not finite in float16"):
        latents.encode_shard(images, section, tmp_path, "cpu", path, shard=1, shards=2)
    assert not path.exists()


# --- training


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Manifest of the digits at 8x8."""
    manifest = tmp_path_factory.mktemp("digits") / "manifest.json"
    pack({"source": "digits", "held_out": 360}, manifest.parent, 1, manifest)
    return manifest


SMALL = TINY | {"latent_channels": 2}
TRAINING = {"steps": 60, "batch": 16, "lr": 5e-3, "kl_weight": 1e-4}


@pytest.mark.slow
def test_training_lowers_the_held_out_error_and_measures_the_scale(digits, tmp_path):
    untrained, trained = (
        train_autoencoder(digits, SMALL, TRAINING | changes, "cpu", tmp_path / name / "config.json")
        for name, changes in (("untrained", {"steps": 1, "lr": 1e-9}), ("trained", {}))
    )
    assert trained["rms"] < 0.6 * untrained["rms"]
    # as a job is told of it: without a scale or a hash, which training determines
    section = SECTION | {"train": TRAINING, "path": "trained", "architecture": SMALL, "batch": 64}
    model = codec.load(section, tmp_path)
    assert (
        model.scale
        == trained["scale"]
        == read_json(tmp_path / "trained/config.json")["scaling_factor"]
    )
    images, _ = ImageStore(digits).split("train")
    moments = model.encode(torch.from_numpy(np.array(images)))
    z = codec.sample_moments(moments, torch.randn(len(images), 2, 4, 4), model.scale)
    assert z.std().item() == pytest.approx(1, abs=0.01)
    held_out, _ = ImageStore(digits).split("held_out")
    mean = model.encode(torch.from_numpy(np.array(held_out)))[:, :2]
    error = model.decode(model.scale * mean).numpy() - to_unit_range(held_out)
    assert np.sqrt((error**2).mean()) == pytest.approx(trained["rms"], rel=1e-4)


def test_training_is_a_function_of_its_arguments(digits, tmp_path):
    for name, changes in (("a", {}), ("b", {}), ("c", {"kl_weight": 1e-2})):
        training = TRAINING | {"steps": 3} | changes
        train_autoencoder(digits, SMALL, training, "cpu", tmp_path / name / "config.json")
    for file in ("config.json", codec.WEIGHTS):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", codec.WEIGHTS]


def test_the_loss_is_latent_diffusions_without_its_perceptual_and_adversarial_terms(tiny, tmp_path):
    net = codec.load(tiny, tmp_path).net
    x = IMAGES / 127.5 - 1
    with torch.no_grad():
        mean, log_variance = codec.Autoencoder(net, 1, 3, {}).encode(IMAGES).chunk(2, dim=1)
        eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
        found = loss(net, x, 0.25, eps)
        z = mean + (0.5 * log_variance).exp() * eps
        error = (net.decode(z).sample - x).abs().sum(dim=(1, 2, 3))
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3))
    expected = (error + 0.25 * divergence).mean() / (3 * 10 * 14)
    torch.testing.assert_close(found, expected)


def test_images_that_do_not_fit_the_architecture_are_refused(images, tmp_path):
    deeper = TINY | {"block_out_channels": [8, 16, 16]}
    with pytest.raises(ValueError, match=r"images: found \[3, 6, 10\]; .*multiples of 4"):
        train_autoencoder(images, deeper, TRAINING, "cpu", tmp_path / "ae/config.json")


# --- as a job


@pytest.fixture
def fetch(tmp_path, hub, monkeypatch, capsys):
    """Runs the script of rule fetch_autoencoder: its exit status, and what it says on stderr."""
    script = Path(__file__).parents[2] / "workflow_scripts/fetch_autoencoder.py"

    def run(section: dict) -> tuple[int, str]:
        arguments = {"autoencoder": json.dumps(section), "data": tmp_path, "out": tmp_path / "out"}
        options = [str(part) for key, value in arguments.items() for part in (f"--{key}", value)]
        monkeypatch.setattr(job.log, "handlers", [])
        monkeypatch.setattr("sys.argv", [str(script), *options])
        status = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err

    return run


def test_fetching_writes_a_receipt_or_says_what_is_wrong_and_stops(tiny, fetch, tmp_path):
    assert fetch(tiny)[0] == 0
    assert read_json(tmp_path / "out") == {"file": "ae.pth", "sha256": tiny["sha256"]}
    (tmp_path / "out").unlink()
    problems = {
        "no.pth is missing; put it there yourself": tiny | {"path": "no.pth"},
        f"ae.pth has {tiny['sha256']}, expected {'0' * 64}": tiny | {"sha256": "0" * 64},
        f"run `hf download a/b --revision {COMMIT}`": SECTION | {"hub": "a/b", "revision": COMMIT},
    }
    for message, section in problems.items():
        status, said = fetch(section)
        assert status == 1
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("found", STAND_INS)
@pytest.mark.parametrize("name", ["config.json", codec.WEIGHTS, "ae.pth"])
def test_fetching_names_what_stands_in_for_a_file(tiny, folder, fetch, name, found):
    section = tiny if name == "ae.pth" else SECTION | {"path": folder.name}
    path = folder.parent / name if name == "ae.pth" else folder / name
    assert path.exists()
    assert fetch(section)[0] == 0
    path.write_bytes(STAND_INS[found])
    status, said = fetch(section)
    assert status == 1
    assert f"{path}: found {found} in place of the file" in said
