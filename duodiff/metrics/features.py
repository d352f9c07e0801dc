"""Feature extractors registered with torch-fidelity, and features of packed images through it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

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

    `layers` are the extractor's names of the two: ("features", "logits") for "classifier", ("2048",
    "logits_unbiased") for torch-fidelity's "inception-v3-compat".
    """

    def __init__(
        self,
        name: str,
        weights: str | Path,
        layers: tuple[str, str] = (_LAYER, _LOGITS),
        device: str = "cpu",
    ):
        self.layers, self.cuda = layers, device != "cpu"
        self.model = create_feature_extractor(
            name, list(layers), cuda=self.cuda, feature_extractor_weights_path=str(weights)
        )

    def __call__(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, K] of uint8 images [N, C, H, W]."""
        found = get_featuresdict_from_dataset(
            _Images(images), self.model, 256, self.cuda, save_cpu_ram=True, verbose=False
        )
        return found[self.layers[0]], found[self.layers[1]]
