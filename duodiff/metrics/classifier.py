"""A small convolutional classifier. Its features are the feature space of datasets that are too unlike ImageNet."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from duodiff.data.store import to_unit_range
from duodiff.running.files import atomic
from duodiff.spaces import space

_FEATURES = space("fd_").features


class SmallClassifier(nn.Module):
    """Classifies small images [B, C, H, W] in [-1, 1]. The features are its 64 activations before the logits.

    Batch normalisation keeps all features on one scale, so that a few large ones do not dominate a distance.
    """

    def __init__(self, in_chans: int, img_size: int, num_classes: int):
        super().__init__()
        self.convs = nn.Sequential(
            *_conv(in_chans, 32), *_conv(32, 64), nn.MaxPool2d(2), *_conv(64, 64), nn.Flatten()
        )
        self.features = nn.Linear(64 * (img_size // 2) ** 2, _FEATURES)
        self.logits = nn.Linear(_FEATURES, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 64] and logits [B, num_classes]."""
        features = self.features(self.convs(x))
        return features, self.logits(F.relu(features))


def _conv(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU()


def train_classifier(
    images: np.ndarray, labels: np.ndarray, num_classes: int, *, steps: int, batch: int, seed: int
) -> SmallClassifier:
    """A classifier trained on uint8 images [N, C, H, W] and labels [N].

    By Adam with a cosine decay, on images shifted by up to one pixel. Raises ValueError for fewer than two classes.
    """
    if num_classes < 2:
        found = "none" if num_classes < 1 else "1"
        raise ValueError(
            "metric: its features come from a classifier, which needs a dataset of 2 or more classes;"
            f" found {found} (the manifest of the packed images says why); accepted: fid,"
            " fd_dinov2 or fd_inception64"
        )
    torch.manual_seed(seed)
    _, channels, size, _ = images.shape
    model = SmallClassifier(channels, size, num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])  # with black
    y_all = torch.tensor(labels)
    for _ in tqdm(range(steps), desc="classifier", unit="step", disable=None, mininterval=1):
        index = torch.randint(len(padded), (batch,))
        dy, dx = torch.randint(3, (2,)).tolist()
        shifted = padded[index.numpy(), :, dy : dy + size, dx : dx + size]
        x = torch.from_numpy(to_unit_range(shifted))
        F.cross_entropy(model(x)[1], y_all[index]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: SmallClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of uint8 images [N, C, H, W] assigned to their label."""
    logits = model(torch.from_numpy(to_unit_range(images)))[1]
    return (logits.argmax(1) == torch.tensor(labels)).float().mean().item()


def save(path: str | Path, model: SmallClassifier) -> None:
    """Writes the classifier's weights as safetensors, rounded to float16: a classifier that is shipped is a small file.

    `load` computes with the rounded weights in float32.
    """
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(weights, temporary)


def load(path: str | Path) -> SmallClassifier:
    """A classifier in evaluation mode, its sizes read off its weights."""
    weights = load_file(path)
    size = 2 * int((weights["features.weight"].shape[1] // 64) ** 0.5)
    in_chans, num_classes = weights["convs.0.weight"].shape[1], len(weights["logits.bias"])
    model = SmallClassifier(in_chans, size, num_classes)
    model.load_state_dict(weights)
    return model.eval()
