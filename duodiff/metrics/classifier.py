"""A small convolutional classifier. Its features are the feature space of datasets that are too unlike ImageNet."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from duodiff import noise
from duodiff.data.rows import Rows, unit_range
from duodiff.running.files import atomic
from duodiff.spaces import space
from duodiff.transfer import moved, sent

_FEATURES = space("fd_").features
_EVALUATION_BATCH = 1024


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
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    steps: int,
    batch: int,
    seed: int,
    device: str = "cpu",
) -> SmallClassifier:
    """A classifier trained on uint8 images [N, C, H, W] and labels [N], on the device.

    By Adam with a cosine decay, on images that are each shifted by up to one pixel. A step does not wait for the
    device. Raises ValueError for fewer than two classes.
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
    model = SmallClassifier(channels, size, num_classes).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pictures = Rows(images, device)
    classes = Rows(labels, device, beside=pictures)
    for step in tqdm(range(steps), desc="classifier", unit="step", disable=None, mininterval=1):
        x, y = drawn(pictures, classes, seed, step, batch)
        F.cross_entropy(model(x)[1], y).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def drawn(images: Rows, labels: Rows, seed: int, step: int, batch: int) -> tuple[Tensor, Tensor]:
    """The images of a step, float32 [batch, C, H, W] in [-1, 1], and their labels: functions of (seed, step, row)."""
    where = images.index_device
    bits = noise.integers(seed, noise.CLASSIFIER, 0, batch, number=step, device=where)
    index = noise.below(bits[:, 0], len(images))
    dy, dx = moved(noise.below(bits[:, 1:3], 3), images.device).unbind(1)
    return unit_range(shifted(images(index), dy, dx)), labels(index)


def shifted(images: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Images [B, C, H, W] cut from their black frame of one pixel, each from its row dy and column dx (int64 [B]).

    So dy = dx = 1 leaves an image as it is.
    """
    *_, height, width = images.shape
    cuts = F.pad(images, (1, 1, 1, 1)).unfold(2, height, 1).unfold(3, width, 1)
    return cuts[torch.arange(len(images), device=images.device), :, dy, dx]


@torch.inference_mode()
def accuracy(model: SmallClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of uint8 images [N, C, H, W] assigned to their label, computed on the model's device."""
    device = model.logits.weight.device
    right = torch.zeros((), dtype=torch.int64, device=device)
    for first in range(0, len(images), _EVALUATION_BATCH):
        part = slice(first, first + _EVALUATION_BATCH)
        assigned = model(unit_range(sent(images[part], device)))[1].argmax(1)
        right += (assigned == sent(labels[part], device)).sum()
    return right.item() / len(images)


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
