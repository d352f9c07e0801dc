"""Encoded images to pixels: every mode, format and defect."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from unit.image_files import (
    RNG,
    SIZE,
    encoded,
    noise,
    png,
)

from duodiff.data.decode import Transform, decode


def test_an_image_over_pillows_limit_is_skipped_as_a_bomb(monkeypatch):
    data = png(20)
    for limit in (399, 150):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode(data, Transform("square", 5, "box")).skipped == "bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert decode(data, Transform("square", 5, "box")).skipped is None


def test_modes_without_a_fixed_range_are_unsupported():
    data = encoded(Image.new("F", (SIZE, SIZE), 0.5), "TIFF")
    assert decode(data, Transform("square", SIZE, "box")).skipped == "unsupported"


def deep_png(colour_type: int, pixel: tuple[int, ...]) -> bytes:
    """A 16-bit PNG of one value, which Pillow reads but does not write (for colours)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * SIZE
    chunks = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * SIZE)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (SIZE, SIZE), colour)


def palette(**options) -> bytes:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return encoded(image, **options)


def animation(kind: str, **options) -> bytes:
    frames = [flat("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize(
    ("data", "colour", "converted"),
    [
        (encoded(flat("RGB", (10, 20, 30))), (10, 20, 30), ()),
        (encoded(flat("L", 77)), (77, 77, 77), ("grey",)),
        (encoded(flat("1", 1)), (255, 255, 255), ("grey",)),
        (palette(), (10, 20, 30), ("palette",)),
        (palette(transparency=1), (255, 255, 255), ("palette", "transparency")),
        (encoded(flat("CMYK", (0, 0, 0, 255)), "TIFF"), (0, 0, 0), ("cmyk",)),
        (
            encoded(flat("RGBA", (200, 0, 100, 51))),
            (244, 204, 224),
            ("transparency",),
        ),  # 0.2 opaque
        (encoded(flat("LA", (9, 0))), (255, 255, 255), ("grey", "transparency")),
        (deep_png(0, (0x4D99,)), (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (deep_png(2, (0x0A99, 0x1499, 0x1E00)), (10, 20, 30), ("16-bit",)),
        (animation("WEBP", lossless=True), (255, 0, 0), ("animated",)),
        (animation("GIF"), (255, 0, 0), ("animated", "palette")),
        (animation("TIFF"), (255, 0, 0), ("animated",)),
    ],
)
def test_each_mode_is_converted_and_counted(data, colour, converted):
    decoded = decode(data, Transform("square", SIZE, "box"))
    assert decoded.converted == converted
    assert decoded.pixels.shape == (3, SIZE, SIZE)
    np.testing.assert_array_equal(decoded.pixels[:, 2, 3], colour)


def test_a_cmyk_jpeg_has_the_colours_it_shows():
    data = encoded(flat("CMYK", (255, 0, 0, 0)), "JPEG", quality=100)
    decoded = decode(data, Transform("square", SIZE, "box"))
    assert decoded.converted == ("cmyk",)
    assert np.abs(decoded.pixels[:, 2, 3].astype(int) - (0, 255, 255)).max() <= 3


def test_an_avif_file_is_decoded_as_pillow_decodes_it():
    """Its first frame, and so under the name of another format: cameras and web pages call it `.jpg`."""
    data = animation("AVIF")
    decoded = decode(data, Transform("square", SIZE, "box"))
    assert decoded.converted == ("animated",)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(image))


def test_one_channel_is_grey():
    grey = Transform("square", SIZE, "box", channels=1)
    image = noise(mode="L")
    decoded = decode(encoded(image), grey)
    assert decoded.converted == ()
    assert np.array_equal(decoded.pixels, np.asarray(image)[None])
    colour = decode(encoded(flat("RGB", (255, 0, 0))), grey)
    assert colour.converted == ("colour",)
    assert colour.pixels[0, 0, 0] == 76  # 0.299 red


def test_the_exif_orientation_is_applied():
    image, exif = noise(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    decoded = decode(encoded(image, exif=exif), Transform("square", SIZE, "box"))
    assert decoded.converted == ("orientation",)
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.rot90(np.asarray(image), -1))


def test_unreadable_metadata_does_not_cost_the_image():
    image = noise()
    decoded = decode(encoded(image, exif=b"Exif\0\0nonsense"), Transform("square", SIZE, "box"))
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize("size", [(11, 6), (6, 11)])
def test_the_square_crop_is_central_and_the_filter_pillows(size):
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3)).astype(np.uint8))
    left, top = (size[0] - 6) // 2, (size[1] - 6) // 2
    crop = image.crop((left, top, left + 6, top + 6))
    for name in ("box", "bilinear", "bicubic", "lanczos"):
        decoded = decode(encoded(image), Transform("square", 3, name))
        expected = crop.resize((3, 3), Image.Resampling[name.upper()])
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(expected))
