"""Feature extractors registered with torch-fidelity, and features of packed images through it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from duodiff.files import sha256
from duodiff.metrics import classifier

_LAYER, _LOGITS = "features", "logits"


class ClassifierExtractor(FeatureExtractorBase):
    """The pipeline's own classifier as a torch-fidelity extractor, for uint8 images [B, C, H, W]."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__(name, features_list)
        self.classifier = classifier.load(feature_extractor_weights_path)

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

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.classifier(images.float() / 127.5 - 1)
        named = {_LAYER: features.double(), _LOGITS: logits.double()}
        return tuple(named[name] for name in self.features_list)


register_feature_extractor("classifier", ClassifierExtractor)


class _Images(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return torch.from_numpy(np.array(self.images[i]))


class Extractor:
    """Features and logits of uint8 images by a registered torch-fidelity extractor.

    `metric` is "fid" for Inception-v3 (2015-12-05), anything else for the pipeline's classifier; `weights`
    is the file of its weights. Inception's are loaded without running code, and `name` says which file it was.
    """

    def __init__(self, metric: str, weights: str | Path, device: str = "cpu"):
        name, self.layers = "classifier", (_LAYER, _LOGITS)
        if metric == "fid":
            name, self.layers = "inception-v3-compat", ("2048", "logits_unbiased")
            # torch-fidelity itself would run what the file says: refused here first
            torch.load(weights, weights_only=True, map_location="cpu")
        self.name, self.cuda = f"{name} {sha256(weights)[:12]}", device != "cpu"
        self.model = create_feature_extractor(
            name, list(self.layers), cuda=self.cuda, feature_extractor_weights_path=str(weights)
        )

    def __call__(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features float64 [N, D] and logits [N, K] of uint8 images [N, C, H, W]."""
        found = get_featuresdict_from_dataset(
            _Images(images), self.model, 256, self.cuda, save_cpu_ram=True, verbose=False
        )
        return found[self.layers[0]].double(), found[self.layers[1]]
