"""Feature extractors that are registered with torch-fidelity, and the features of packed images."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor

from duodiff.data.rows import unit_range
from duodiff.metrics import classifier
from duodiff.running.files import sha256
from duodiff.spaces import space
from duodiff.transfer import sent

_LAYER, _LOGITS = "features", "logits"
_BATCH = 64


class _Extractor(FeatureExtractorBase):
    """The methods that torch-fidelity calls. `_LAYER` is the name of the features, `_LOGITS` that of the logits."""

    @staticmethod
    def get_provided_features_list():
        return _LAYER, _LOGITS

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return _LOGITS if metric == "isc" else _LAYER

    @staticmethod
    def can_be_compiled():
        return False

    @staticmethod
    def get_dummy_input_for_compile():
        return None


class ClassifierExtractor(_Extractor):
    """The project's own classifier as a torch-fidelity extractor, for uint8 images [B, C, H, W]."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__(name, features_list)
        self.classifier = classifier.load(feature_extractor_weights_path)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.classifier(unit_range(images))
        named = {_LAYER: features.double(), _LOGITS: logits.double()}
        return tuple(named[name] for name in self.features_list)


class DinoV2Extractor(_Extractor):
    """DINOv2's class token as a torch-fidelity extractor, for uint8 images [B, 3, H, W], from a local file.

    torch-fidelity's own extractor would download code and run it. Images are resized to 224 pixels (bicubic,
    antialiased), as for FD-DINOv2 in Stein et al. 2023.
    """

    _SIZE, _PATCH, _TRAINED = 224, 14, 37
    _ARCHITECTURE = "vit_large_patch14_dinov2"

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        import timm  # takes seconds; no other extractor needs it

        super().__init__(name, features_list)
        weights = torch.load(feature_extractor_weights_path, map_location="cpu", weights_only=True)
        weights.pop("mask_token")  # used in training only
        weights["pos_embed"] = self._positions(weights["pos_embed"])
        self.model = timm.create_model(self._ARCHITECTURE, img_size=self._SIZE, num_classes=0)
        self.model.load_state_dict(weights)
        self.requires_grad_(False)
        self.eval()
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # ImageNet's
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def _positions(self, trained: Tensor) -> Tensor:
        """Position embeddings [1, 1 + 37 x 37, D] interpolated to [1, 1 + 16 x 16, D], as in the official code."""
        side, n = self._SIZE // self._PATCH, self._TRAINED
        grid = trained[:, 1:].reshape(1, n, n, -1).permute(0, 3, 1, 2)
        # the 0.1 is the official code's; the interpolation uses the scale, so it changes the result
        grid = F.interpolate(grid, scale_factor=(side + 0.1) / n, mode="bicubic")
        return torch.cat([trained[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = images.float() / 255
        size = (self._SIZE, self._SIZE)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        return (self.model((pixels - self.mean) / self.std).double(),)


register_feature_extractor("classifier", ClassifierExtractor)
register_feature_extractor("dinov2-vit-l-14-local", DinoV2Extractor)


class Extractor:
    """Features and logits of uint8 images in the feature space of `metric` (`duodiff.spaces.space`).

    `weights` is the file of the weights; no code in the file is run. `name` names the extractor and the file,
    `transform` the steps from an image to the network's input. Together they identify the features.
    `libraries` are the packages that compute them beside torch.
    """

    def __init__(self, metric: str, weights: str | Path, device: str = "cpu"):
        match space(metric).weights:
            case "inception":
                # torch-fidelity would run code in the file; this refuses a file with code
                torch.load(weights, weights_only=True, map_location="cpu")
                name, self.layers = "inception-v3-compat", ["2048", "logits_unbiased"]
                self.layers = ["64"] if metric == "fd_inception64" else self.layers
                self.transform = "bilinear to 299 as TensorFlow 1, to [-1, 1]"
            case "dinov2":
                name, self.layers = "dinov2-vit-l-14-local", [_LAYER]
                self.transform = "antialiased bicubic to 224, ImageNet mean and standard deviation"
            case _:
                name, self.layers = "classifier", [_LAYER, _LOGITS]
                self.transform = "to [-1, 1]"
        self.libraries = ["torch-fidelity"] + ["timm"] * (name.startswith("dinov2"))
        self.metric = metric
        self.features, self.colour = space(metric).features, name != "classifier"
        self.device = device
        torch.backends.cudnn.allow_tf32 = False  # so that a GPU computes the features of a CPU
        self.name = f"{name} {self.layers[0]} {sha256(weights)[:12]}"
        model = create_feature_extractor(
            name, self.layers, cuda=False, feature_extractor_weights_path=str(weights)
        )
        self.model = model.to(device)

    def __call__(self, images: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Features float64 [N, D] of uint8 images [N, C, H, W]; logits [N, K], or None if the space has none.

        They lie on the device. Raises ValueError if a feature is not finite.
        """
        features, *logits = self.layers_of(images)
        if not torch.isfinite(features).all():
            raise ValueError(f"features of {self.name} are not finite")
        return features.double(), logits[0] if logits else None

    @torch.no_grad()
    def layers_of(self, images: np.ndarray) -> list[Tensor]:
        """What the network gives for the images, by layer, [N, D] on the device. Nothing here waits for the device."""
        batches = []
        for first in range(0, len(images), _BATCH):
            batch = sent(images[first : first + _BATCH], self.device)
            if self.colour and batch.shape[1] == 1:
                batch = batch.repeat(1, 3, 1, 1)
            batches.append(self.model.convert_features_tuple_to_dict(self.model(batch)))
        return [torch.cat([batch[layer] for batch in batches]) for layer in self.layers]
