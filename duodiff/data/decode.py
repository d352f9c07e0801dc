"""Decodes images. One policy covers every format, mode and defect, and the conversions of each image are named."""

import io
import re
import struct
import warnings
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, features
from PIL.ImageFile import ImageFile

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
_ORIENTATION, _PHOTOMETRIC = 0x0112, 0x0106  # tags of EXIF and TIFF
_TURNS = {  # what makes the image of each orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP = re.compile(";1[26]")  # raw modes of more than 8 bits
_SPREAD = {
    "L;2": 85,
    "L;4": 17,
}  # Pillow multiplies pixels of 2 and 4 bits so that they span 0 to 255
_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")

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


def decode_member(image: Member, transform: Transform) -> Decoded:
    """An image of a folder or archive, decoded. One that raises Damaged is skipped as corrupt."""
    try:
        return decode(image.read(), transform)
    except Damaged:
        return Decoded(None, skipped="corrupt")


def decode(data: bytes, transform: Transform) -> Decoded:
    """The pixels of one encoded image.

    Converted are grey, palette, CMYK, YCbCr and 16-bit modes (the high byte is kept, or for a PPM the nearest value)
    and the EXIF orientation. Of an animation the first frame is taken. A transparent image is laid on white: without
    this, the colours stored under transparent pixels would show. Colour profiles and texts are ignored.

    An image is skipped for one of these reasons:

    - `corrupt`: Pillow cannot decode it, or it is truncated.
    - `bomb`: it has more pixels than Pillow's limit.
    - `unsupported`: its mode has no fixed range, or it is HEIC.
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
    opened, raw = _loaded(data)
    converted = ["animated"] if getattr(opened, "is_animated", False) else []
    image, orientation = _with_bytes(opened, raw), _orientation(opened)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
        converted.append("orientation")
    if image.mode not in _MODES:
        raise _Skip("unsupported")
    if _DEEP.search(raw):
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


def _loaded(data: bytes) -> tuple[ImageFile, str]:
    """The first frame with its pixels; and the raw mode of its samples in the file, such as "RGB;16B"."""
    try:
        return _load(data)
    except Exception:
        if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
            raise _Skip("unsupported") from None  # HEIC, under whatever name
        if not data.startswith(_PNG):
            raise
    return _load(_without_text(data))


def _load(data: bytes) -> tuple[ImageFile, str]:
    opened = Image.open(io.BytesIO(data), formats=tuple(_FORMATS))
    raw = _raw_mode(opened)
    opened.load()
    return opened, raw


def _raw_mode(opened: ImageFile) -> str:
    """The raw mode of an image that is not loaded yet. Pillow drops the low byte of 16-bit colours by itself.

    Only the raw mode tells that there was one.
    """
    if not opened.tile:
        return ""
    codec, _, _, arguments = opened.tile[0]
    if codec.startswith("ppm") and isinstance(arguments, tuple):
        mode, largest = arguments
        return f"{mode};16" if largest > 255 else mode
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _without_text(png: bytes) -> bytes:
    """A PNG without its texts and colour profile: Pillow refuses the image where one is damaged or over a megabyte."""
    parts, start = [_PNG], len(_PNG)
    while start + 8 <= len(png):
        length, kind = struct.unpack_from(">L4s", png, start)
        end = start + 12 + length  # the checksum is part of it
        if kind in _NEEDED_CHUNKS:
            parts.append(png[start:end])
        start = end
    return b"".join(parts)


def _with_bytes(opened: ImageFile, raw: str) -> Image.Image:
    """The image with 8 bits a sample, and likewise the value that a PNG declares to be transparent."""
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM"):
        return _high_bytes(opened, raw)
    transparent = opened.info.get("transparency")
    if isinstance(transparent, int) and raw in _SPREAD:
        opened.info["transparency"] = transparent * _SPREAD[raw]
    if isinstance(transparent, tuple) and _DEEP.search(raw):
        opened.info["transparency"] = tuple(value >> 8 for value in transparent)
    return opened


def _high_bytes(opened: ImageFile, raw: str) -> Image.Image:
    """A grey image of 12 or 16 bits as L, or as LA if one of its values is transparent."""
    samples = np.asarray(opened)
    high = (samples >> (4 if raw == "I;12" else 8)).astype(np.uint8)
    if getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # of a TIFF: 0 is white
        high = 255 - high
    image = Image.fromarray(high)
    if (transparent := opened.info.get("transparency")) is not None:
        image.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return image


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
