"""Many small images as one picture (no torch)."""

from pathlib import Path

import numpy as np
from PIL import Image

from duodiff.running.files import atomic

_SIDE = 64  # pixels an image is enlarged to, so that small ones can be seen
_GAP = 2


def pixels_last(images: np.ndarray) -> np.ndarray:
    """The images [N, 1 or 3, H, W] as [N, H, W, 3], uint8. Grey images get three equal channels."""
    colour = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images
    return np.ascontiguousarray(colour.transpose(0, 2, 3, 1))


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """One picture, uint8 [H, W, 3], of the images, uint8 [N, 1 or 3, h, w], row by row. Places left over are white.

    Images of less than 64 pixels are enlarged by a whole factor, pixel by pixel.
    """
    tiles = pixels_last(images)
    factor = max(1, _SIDE // tiles.shape[1])
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, _ = tiles.shape
    height, width = height + _GAP, width + _GAP
    picture = np.full((-(-count // columns) * height, columns * width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * height, i % columns * width
        picture[y : y + height - _GAP, x : x + width - _GAP] = tile
    return picture[:-_GAP, :-_GAP]


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Writes a picture, uint8 [H, W, 3], atomically."""
    with atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, format="png")
