"""The latent codec: the KL autoencoder of latent diffusion and Stable Diffusion, loaded from its weights.

The network is diffusers' AutoencoderKL. Its weights come from the official U-ViT's single file (keys as in
latent-diffusion), from a folder that diffusers or `duodiff.training.autoencoder` saved, or from the hub; all
work without a network once the files are on the machine. Diffusion runs on scale * z, where z is a sample of
the posterior that `encode` describes by its moments.
"""

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from duodiff.running.download import require
from duodiff.running.files import read_json, sha256

A = TypeVar("A", np.ndarray, Tensor)

KLNet = Any
"""diffusers' AutoencoderKL: its methods come from mixins that a type checker does not see."""

SCALE = 0.18215
"""The factor of Stable Diffusion's latents; multiplied by it they have about unit variance."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The file of weights as diffusers names it, in a folder and on the hub."""

_COMPVIS = {  # parts of a key: diffusers' name and latent-diffusion's
    "mid_block.attentions.0": "mid.attn_1",
    "down_blocks": "down",
    "resnets": "block",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_EARLY = {  # and the name in early versions of diffusers, which published folders still have
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}
_PAGE = (
    "https://github.com/baofff/U-ViT (autoencoder_kl.pth), or as a folder at"
    " https://huggingface.co/stabilityai/sd-vae-ft-ema"
)

# Keys of a saved config.json. diffusers builds the network by the first ones.
_BUILT = {
    *("in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block"),
    *("down_block_types", "up_block_types", "act_fn", "norm_num_groups", "mid_block_add_attention"),
    *("use_quant_conv", "use_post_quant_conv", "scaling_factor"),
}
# Sizes of tiles, which are not used; and float32 in place of float16, which is always used.
_NOT_NEEDED = {"sample_size", "force_upcast"}
# diffusers' pipelines move and scale latents by these too. Here only the values that change nothing are accepted.
_NEUTRAL = {"shift_factor": 0, "latents_mean": 0, "latents_std": 1}

log = logging.getLogger("duodiff")


class Autoencoder:
    """Images to the moments of their latents, and latents to images.

    `net` is an AutoencoderKL in evaluation mode, `scale` what latents are multiplied by, `batch` the
    number of images that are computed together, `source` a JSON description of its weights. `channels`
    are those of a latent, `reduction` is the number of pixels per pixel of a latent, each way.
    """

    def __init__(self, net: KLNet, scale: float, batch: int, source: dict, device: str = "cpu"):
        self.net, self.scale, self.batch = net.to(device), scale, batch
        self.source, self.device = source, device
        self.channels: int = net.config.latent_channels
        self.reduction = 2 ** (len(net.config.block_out_channels) - 1)

    def latent_shape(self, image: Sequence[int]) -> tuple[int, int, int]:
        """C, h, w of the latent of an image of the shape `image`. Raises ValueError if it has none."""
        channels, height, width = image
        accepted, f = self.net.config.in_channels, self.reduction
        if channels != accepted or height % f or width % f:
            raise ValueError(
                f"images: found {list(image)}; accepted: [{accepted}, H, W], H and W"
                f" multiples of {f} (the autoencoder's; see channels and size of the dataset)"
            )
        return self.channels, height // f, width // f

    def image_shape(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """K, H, W of the image of a latent of the shape `latent`."""
        _, height, width = latent
        return self.net.config.in_channels, height * self.reduction, width * self.reduction

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Moments float32 [B, 2C, h, w] of images uint8 [B, K, H, W]: mean, then log-variance in [-30, 20].

        Raises ValueError for images of another dtype or shape.
        """
        self.latent_shape(images.shape[1:])
        if images.dtype != torch.uint8:
            raise ValueError(f"images: found {images.dtype}; accepted: torch.uint8")
        pixels = images.to(self.device).float() / 127.5 - 1
        mean, log_variance = self.net.encode(pixels).latent_dist.parameters.chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(-30, 20)], dim=1)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images float32 [B, K, H, W], about [-1, 1] but unclipped, of scaled latents [B, C, h, w].

        They are computed `batch` at a time, the last part filled up: every kernel sees one shape, so an
        image is the same whatever B, and memory does not grow with it. Raises ValueError for another
        number of channels.
        """
        if latents.shape[1] != self.channels:
            raise ValueError(
                f"latents: found {list(latents.shape)}; accepted: [B, {self.channels}, h, w]"
            )
        parts = (latents.to(self.device).float() / self.scale).split(self.batch)
        return torch.cat([self._decoded(part) for part in parts])

    def _decoded(self, latents: Tensor) -> Tensor:
        """Images of at most `batch` unscaled latents."""
        count = len(latents)
        filled = F.pad(latents, (0, 0) * 3 + (0, self.batch - count))
        return self.net.decode(filled).sample[:count]


def sample_moments(moments: A, eps: A, scale: float) -> A:
    """Latents float32 [B, C, h, w]: scale (mean + exp(log-variance / 2) eps), in arrays or in tensors.

    moments: [B, 2C, h, w] as `Autoencoder.encode` gives them, of any float type; eps: float32
    [B, C, h, w], standard normal.
    """
    # in float32, since the standard deviations of Stable Diffusion's autoencoder are too small for float16
    channels = moments.shape[1] // 2
    if isinstance(moments, Tensor):
        moments = moments.float()
        return scale * (moments[:, :channels] + torch.exp(0.5 * moments[:, channels:]) * eps)
    moments = moments.astype(np.float32)
    return scale * (moments[:, :channels] + np.exp(0.5 * moments[:, channels:]) * eps)


def load(autoencoder: dict, data: Path, device: str = "cpu") -> Autoencoder:
    """The autoencoder that `autoencoder`, a section of the configuration, names; on `device`.

    Its `path`, below the folder `data`, is a latent-diffusion checkpoint of the `architecture`, or a folder
    that diffusers saved. Or its `hub` is the id of a model on the hub, and `revision` the commit. `sha256`
    is that of the file of weights, `batch` the number of images to compute together. `scale`, what latents
    are multiplied by, is by default the folder's own, and Stable Diffusion's for a checkpoint. Raises
    OSError for what is missing, ValueError for what is not as expected.
    """
    file, digest = weights_file(autoencoder, data)
    weights = _read(file)
    if _in_folder(autoencoder, data):
        config = saved_config(file.with_name("config.json"), autoencoder)
        early = any(key.endswith(".query.weight") for key in weights)
        name_in_file = partial(_replaced, parts=_EARLY if early else {})
    else:
        weights = _without_the_rest(weights)
        config = network_config(autoencoder["architecture"], _in_channels(weights))
        config["scaling_factor"] = autoencoder.get("scale", SCALE)
        name_in_file = partial(compvis_name, levels=len(config["block_out_channels"]))
    source = {key: autoencoder[key] for key in ("path", "hub", "revision") if key in autoencoder}
    source["weights_sha256"] = digest
    net = _network(config, weights, name_in_file, file)
    return Autoencoder(net, config["scaling_factor"], autoencoder["batch"], source, device)


def weights_file(autoencoder: dict, data: Path) -> tuple[Path, str]:
    """The file of weights that `autoencoder` names, verified, and its sha256; raises as `load` does.

    A model on the hub is downloaded into the hub's own cache if it is not there.
    """
    on_hub = "hub" in autoencoder
    path = _from_hub(autoencoder) if on_hub else require(data / autoencoder["path"], _PAGE)
    file = require(path / WEIGHTS, _PAGE) if path.is_dir() else path
    digest = sha256(file)
    # a commit pins the weights, and what the pipeline has trained itself is what it has trained
    pinned = on_hub or "train" in autoencoder
    _verify(file, digest, autoencoder.get("sha256"), pinned)
    return file, digest


def _in_folder(autoencoder: dict, data: Path) -> bool:
    """Whether the weights lie in a folder that diffusers saved, not in a single file."""
    return "hub" in autoencoder or (data / autoencoder["path"]).is_dir()


def compvis_name(name: str, levels: int) -> str:
    """Latent-diffusion's key for diffusers' key `name`, in an autoencoder of `levels` resolutions.

    Latent-diffusion numbers the decoder's levels from the finest, diffusers from the coarsest.
    """
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    return _replaced(name, _COMPVIS)


def _replaced(name: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name


def _from_hub(autoencoder: dict) -> Path:
    """Folder of the hub's model, from the hub's own cache on this machine or downloaded into it."""
    from huggingface_hub import hf_hub_download  # slow to import, and seldom needed

    hub, revision = autoencoder["hub"], autoencoder["revision"]
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            f"autoencoder.revision: found {revision!r}; accepted: a commit (40 hexadecimal digits)"
        )
    try:
        hf_hub_download(hub, "config.json", revision=revision)
        return Path(hf_hub_download(hub, WEIGHTS, revision=revision)).parent
    except OSError as error:
        raise OSError(
            f"autoencoder.hub: {hub} at {revision} is not on this machine and cannot be downloaded"
            f" ({type(error).__name__}); run `hf download {hub} --revision {revision}` where there is"
            " a network, or name a folder that holds its files as autoencoder.path"
        ) from error


def _verify(file: Path, found: str, expected: str | None, pinned: bool) -> None:
    if expected is None and not pinned:
        log.warning("autoencoder.sha256: not given; %s is unverified, it has %s", file, found)
    if expected not in (None, found):
        raise ValueError(f"autoencoder.sha256: {file} has {found}, expected {expected}")


def _read(file: Path) -> dict:
    """What a file of weights holds. Raises ValueError if it is not tensors; code in a pickle never runs."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises any of them for a damaged file
        raise ValueError(f"{file} is not a file of tensors alone, or is damaged") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: found {type(found).__name__}; accepted: a dict of tensors")
    return found


def _without_the_rest(checkpoint: dict) -> dict:
    """The autoencoder's weights in a latent-diffusion checkpoint of it, or of a diffusion model with it."""
    found, prefix = checkpoint.get("state_dict", checkpoint), "first_stage_model."
    if any(key.startswith(prefix) for key in found):
        found = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    return {key: value for key, value in found.items() if not key.startswith("loss.")}


def network_config(architecture: dict, in_channels: int) -> dict:
    """AutoencoderKL's configuration for that section of the configuration and images of `in_channels`."""
    levels = len(architecture["block_out_channels"])
    return {
        **architecture,
        "in_channels": in_channels,
        "out_channels": in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _in_channels(weights: dict) -> int:
    """The channels of the images that latent-diffusion's `weights` take; RGB's where they do not say."""
    first = weights.get("encoder.conv_in.weight")
    return first.shape[1] if isinstance(first, Tensor) and first.ndim == 4 else 3


def saved_config(file: Path, autoencoder: dict) -> dict:
    """The configuration that diffusers saved in `file`, a config.json.

    Raises ValueError if it is not the section's, or if one of its keys means what is not computed here.
    """
    config = {"scaling_factor": SCALE} | read_json(require(file, _PAGE))
    _check_keys(config, file)
    own = config["scaling_factor"]
    if (scale := autoencoder.get("scale", own)) != own:
        raise ValueError(f"autoencoder.scale: found {scale}; {file} has scaling_factor {own}")
    for key, value in autoencoder.get("architecture", {}).items():
        if config.get(key, value) != value:
            raise ValueError(
                f"autoencoder.architecture.{key}: found {value}; {file} has {config[key]}"
            )
    return config


def _check_keys(config: dict, file: Path) -> None:
    """Raises ValueError for a key that diffusers applies and this module does not, and for one that is unknown."""
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise ValueError(f"{file}: found _class_name {kind}; accepted: AutoencoderKL")
    for key in config:
        if not key.startswith("_") and key not in _BUILT | _NOT_NEEDED | _NEUTRAL.keys():
            raise ValueError(f"{file}: found {key}; accepted: the keys of AutoencoderKL")
    for key, neutral in _NEUTRAL.items():
        found = config.get(key)
        if found is not None and np.any(np.asarray(found) != neutral):
            raise ValueError(f"{file}: found {key} {found}; accepted: none, or {neutral}")
    scale = config["scaling_factor"]
    if type(scale) not in (int, float) or not 0 < scale < np.inf:
        raise ValueError(f"{file}: found scaling_factor {scale}; accepted: a number above 0")
    ends = config.get("in_channels", 3), config.get("out_channels", 3)
    if ends[0] != ends[1]:
        raise ValueError(
            f"{file}: found in_channels {ends[0]} and out_channels {ends[1]}; accepted: equal ones"
        )


def _network(config: dict, weights: dict, name_in_file: Callable[[str], str], file: Path) -> KLNet:
    """AutoencoderKL with `weights`. Raises ValueError with the first three differences if they do not fit."""
    from diffusers import AutoencoderKL  # ten seconds, which only latents are to cost

    with torch.device("meta"):  # no initialisation: faster, and leaves torch's generator alone
        net = AutoencoderKL.from_config(config)
    left, fitting, differences = dict(weights), {}, []
    for name, parameter in net.state_dict().items():
        key, expected = name_in_file(name), parameter.shape
        if key not in left:
            differences.append(f"{key}: missing")
            continue
        tensor = left.pop(key)
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{file}: {key}: found {type(tensor).__name__}; accepted: a tensor")
        if len(expected) == 2 and tensor.shape[2:] == (1, 1):  # attention by 1x1 convolutions
            tensor = tensor[:, :, 0, 0]
        if tensor.shape != expected:
            differences.append(f"{key}: found {list(tensor.shape)}, expected {list(expected)}")
        fitting[name] = tensor.float().contiguous()
    differences += [f"{key}: unexpected" for key in left]
    if differences:
        first = "; ".join(differences[:3])
        count = f"({len(differences)} differences in all)"
        raise ValueError(f"{file} does not fit the autoencoder's architecture: {first} {count}")
    net.load_state_dict(fitting, assign=True)
    return net.eval().requires_grad_(False)
