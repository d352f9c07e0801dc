"""Decodes images. One policy covers every format, mode and defect, and the conversions of each image are named."""

import io
import warnings
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps, features

from duodiff.data.archives import Damaged, Member

# Pillow decodes these formats itself; for some others it runs another program. Not every Pillow is built with AVIF.
_AVIF = {"AVIF": (".avif",)} if features.check("avif") else {}
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    **_AVIF,
}
EXTENSIONS = tuple(extension for names in _FORMATS.values() for extension in names)
"""The extensions of the files that are decoded."""

UNSUPPORTED = (
    *(".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".psd", ".tga"),
    *(".pfm", ".exr", ".hdr", ".dds", ".svg"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Extensions of pictures that are not decoded; `.avif` is here for a Pillow without it."""

FILTERS = {
    name: Image.Resampling[name.upper()] for name in ("box", "bilinear", "bicubic", "lanczos")
}
"""Pillow's filters by their names in the configuration."""

# The name of a mode's conversion (None: nothing to convert). Other modes have no fixed range to scale from.
_MODES = {
    "RGB": None,
    "RGBA": None,
    "L": "grey",
    "LA": "grey",
    "1": "grey",
    "P": "palette",
    "PA": "palette",
    "CMYK": "cmyk",
    "YCbCr": "ycbcr",
}
_ORIENTATION = 0x0112  # the EXIF tag; 2 to 8 are mirrored or turned

# Left, top and side, in pixels, of the crops of CelebA's aligned 178x218 images. The first is the paper's, the second
# the official U-ViT's, around x = 89, y = 121.
_CELEBA_CROPS = {"center_178": (0, 20, 178), "celeba_128": (25, 57, 128)}
_CELEBA_SIZE = (178, 218)


class _Skip(Exception):
    """An image that is left out, for the reason given."""


class Decoded(NamedTuple):
    """One image: `pixels` uint8 [C, S, S] and the conversions they took; or no pixels, and why it was skipped."""

    pixels: np.ndarray | None
    converted: tuple[str, ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class Transform:
    """A crop, then a resize to `size` pixels each way.

    `crop` is `square` (the largest centred one), `center_178` or `celeba_128`. `filter` is one of `FILTERS`; they
    antialias. `channels` is 3 (RGB) or 1 (grey). Raises ValueError for other values.
    """

    crop: str
    size: int
    filter: str
    channels: int = 3

    def __post_init__(self):
        accepted = {
            "crop": ("square", *_CELEBA_CROPS),
            "filter": tuple(FILTERS),
            "channels": (1, 3),
        }
        for key, values in accepted.items():
            if getattr(self, key) not in values:
                listed = ", ".join(map(str, values))
                raise ValueError(f"dataset.{key}: found {getattr(self, key)!r}; accepted: {listed}")
        if self.size < 1:
            raise ValueError(f"dataset.size: found {self.size}; accepted: 1 or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of the pixels."""
        return self.channels, self.size, self.size

    def describe(self) -> dict:
        """Its entry in a manifest. Pillow's version is part of it: filters and decoders decide the last bits."""
        return {**asdict(self), "transparency": "on white", "pillow": PIL.__version__}


def decode_all(images: list[Member], transform: Transform) -> list[Decoded]:
    """All `images`, decoded, in their order. An image that raises Damaged is skipped as corrupt."""
    decoded = []
    for image in images:
        try:
            decoded.append(decode(image.read(), transform))
        except Damaged:
            decoded.append(Decoded(None, skipped="corrupt"))
    return decoded


def decode(data: bytes, transform: Transform) -> Decoded:
    """The pixels of one encoded image.

    Converted are grey, palette, CMYK, YCbCr and 16-bit modes (the high byte is kept) and the EXIF orientation. Of an
    animation the first frame is taken. A transparent image is laid on white: without this, the colours stored under
    transparent pixels would show. Colour profiles are ignored.

    An image is skipped for one of these reasons:

    - `corrupt`: Pillow cannot decode it, or it is truncated.
    - `bomb`: it has more pixels than Pillow's limit.
    - `unsupported`: its mode has no fixed range.
    - `tiny`: it is smaller than `size` after the crop. No image is enlarged.
    - `not 178x218`: CelebA's crops need this size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; the pixels are good
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image, converted = _plain(data, "RGB" if transform.channels == 3 else "L")
        pixels = np.asarray(_resized(image, transform))
    except _Skip as reason:
        return Decoded(None, skipped=str(reason))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Decoded(None, skipped="bomb")
    except MemoryError:
        raise
    except Exception:  # Pillow's decoders may raise any kind
        return Decoded(None, skipped="corrupt")
    pixels = pixels.reshape(transform.size, transform.size, transform.channels)
    return Decoded(np.ascontiguousarray(pixels.transpose(2, 0, 1)), tuple(converted))


def _plain(data: bytes, mode: str) -> tuple[Image.Image, list[str]]:
    """The first frame, upright and opaque, in `mode` (RGB or L); and the conversions it took."""
    opened = Image.open(io.BytesIO(data), formats=tuple(_FORMATS))
    converted = ["animated"] if getattr(opened, "is_animated", False) else []
    # Pillow drops the low byte of 16-bit colours by itself. Only the file's raw mode tells that they had one.
    deep = any(";16" in str(tile[3]) for tile in opened.tile)
    opened.load()
    image: Image.Image = opened
    if _orientation(image) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        converted.append("orientation")
    if image.mode.startswith("I;16"):
        image, deep = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), True
    if image.mode not in _MODES:
        raise _Skip("unsupported")
    if deep:
        converted.append("16-bit")
    kind = _MODES[image.mode]
    if mode == "L" and kind != "grey":
        converted.append("colour")
    if kind is not None and not (mode == "L" and kind == "grey"):
        converted.append(kind)
    if image.has_transparency_data:
        converted.append("transparency")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode), converted


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable metadata around good pixels
        return 1


def _resized(image: Image.Image, transform: Transform) -> Image.Image:
    if transform.crop == "square":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
    else:
        if image.size != _CELEBA_SIZE:
            raise _Skip("not 178x218")
        left, top, side = _CELEBA_CROPS[transform.crop]
    if side < transform.size:
        raise _Skip("tiny")
    image = image.crop((left, top, left + side, top + side))
    return image.resize((transform.size, transform.size), FILTERS[transform.filter])
