"""Encoded images to pixels: every mode, format and defect."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
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


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def deep_png(colour_type: int, row: bytes, bits: int = 16, transparent: tuple = ()) -> bytes:
    """A PNG of equal rows, of kinds that Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", SIZE, SIZE, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * SIZE)
    values = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    chunks = [chunk(b"IHDR", header), values if transparent else b"", chunk(b"IDAT", pixels)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def samples(*pixel: int) -> bytes:
    """A row of one pixel of 16-bit samples."""
    return struct.pack(f">{len(pixel)}H", *pixel) * SIZE


def grey_tiff(bits: int, value: int, *, white: int) -> bytes:
    """A grey TIFF of 12 or 16 bits of one value; `white` is 1 if its largest value is white, 0 if 0 is."""
    if bits == 16:
        pixels = struct.pack("<H", value) * SIZE * SIZE
    else:  # each row begins with a byte
        row = (f"{value:012b}" * SIZE).ljust(8 * ((12 * SIZE + 7) // 8), "0")
        pixels = int(row, 2).to_bytes(len(row) // 8, "big") * SIZE
    tags = {
        256: SIZE,
        257: SIZE,
        258: bits,
        259: 1,
        262: white,
        273: 8 + 2 + 9 * 12 + 4,
        277: 1,
        278: SIZE,
        279: len(pixels),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


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
        (deep_png(0, samples(0x4D99)), (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (deep_png(2, samples(0x0A99, 0x1499, 0x1E00)), (10, 20, 30), ("16-bit",)),
        (b"P5 5 5 65535\n" + samples(0x4D99) * SIZE, (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (b"P5 5 5 1023\n" + samples(0x134) * SIZE, (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (b"P2 5 5 65535\n" + b"19865 " * 25, (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (
            b"P6 5 5 65535\n" + samples(0x0AFF, 0x1401, 0x1E00) * SIZE,
            (11, 20, 30),
            ("16-bit",),
        ),  # Pillow rounds
        (b"P5 5 5 15\n" + b"\3" * 25, (51, 51, 51), ("grey",)),
        (b"P4 5 5\n" + b"\xff" * SIZE, (0, 0, 0), ("grey",)),
        (grey_tiff(16, 0x4D99, white=1), (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (grey_tiff(16, 0x4D99, white=0), (0xB2, 0xB2, 0xB2), ("16-bit", "grey")),
        (grey_tiff(12, 0x4D9, white=1), (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (
            deep_png(0, samples(0x4D99), transparent=(0x4D99,)),
            (255, 255, 255),
            ("16-bit", "grey", "transparency"),
        ),
        (
            deep_png(0, samples(0x4D99), transparent=(0x4D98,)),
            (0x4D, 0x4D, 0x4D),
            ("16-bit", "grey", "transparency"),
        ),
        (
            deep_png(2, samples(0x0A99, 0x1499, 0x1E00), transparent=(0x0A99, 0x1499, 0x1E00)),
            (255, 255, 255),
            ("16-bit", "transparency"),
        ),
        (
            deep_png(0, bytes([0x11] * 3), 4, transparent=(1,)),
            (255, 255, 255),
            ("grey", "transparency"),
        ),
        (
            deep_png(0, bytes([0x55] * 2), 2, transparent=(1,)),
            (255, 255, 255),
            ("grey", "transparency"),
        ),
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation):
    """As Pillow applies it, in a grey image of 16 bits too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = Image.fromarray(RNG.integers(0, 2**16, (SIZE, SIZE)).astype(np.uint16))
    for image, shift in ((noise(), 0), (deep, 8)):
        data = encoded(image, exif=exif)
        decoded = decode(data, Transform("square", SIZE, "box"))
        assert ("orientation" in decoded.converted) == (orientation > 1)
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened)) >> shift
        expected = expected if image.mode == "RGB" else expected[..., None].repeat(3, axis=2)
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), expected)


def test_unreadable_metadata_does_not_cost_the_image():
    image = noise()
    decoded = decode(encoded(image, exif=b"Exif\0\0nonsense"), Transform("square", SIZE, "box"))
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(image))


def text(kind: bytes, length: int) -> bytes:
    """A chunk of so many bytes of text, or a colour profile, compressed unless it is plain text."""
    packed = zlib.compress(b"x" * length)
    contents = {
        b"tEXt": b"a\0" + b"x" * length,
        b"zTXt": b"a\0\0" + packed,
        b"iTXt": b"a\0\1\0\0\0" + packed,
        b"iCCP": b"a\0\0" + packed,
    }
    return chunk(kind, contents[kind])


AFTER_HEADER = 8 + 25  # of a PNG: its signature and its first chunk


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("place", [AFTER_HEADER, -12])
def test_long_texts_and_profiles_do_not_cost_a_png(kind, place):
    """More than Pillow accepts, in one chunk or in all, before or after the pixels."""
    image = noise()
    data = encoded(image)
    for texts in (text(kind, 2 << 20), text(kind, 1 << 20) * 70):
        decoded = decode(data[:place] + texts + data[place:], Transform("square", SIZE, "box"))
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_large_profiles_do_not_cost_an_image_of_another_format(kind):
    exif = Image.Exif()
    exif[0x010E] = "y" * 60_000  # the image's description
    data = encoded(noise(), kind, icc_profile=b"x" * (3 << 20), exif=exif)
    assert len(data) > 3 << 20
    assert decode(data, Transform("square", SIZE, "box")).skipped is None


def test_a_damaged_text_does_not_cost_a_png_and_missing_pixels_do():
    data = png()
    damaged = text(b"zTXt", 100)[:-1] + b"!"
    transform = Transform("square", SIZE, "box")
    assert decode(data[:AFTER_HEADER] + damaged + data[AFTER_HEADER:], transform).skipped is None
    cut = data[: data.index(b"IEND") - 34]
    for texts in (b"", damaged, text(b"zTXt", 2 << 20)):
        found = decode(cut[:AFTER_HEADER] + texts + cut[AFTER_HEADER:], transform)
        assert found.skipped == "corrupt"


def test_a_png_with_long_texts_may_still_be_a_bomb(monkeypatch):
    """Neither its pixels nor its texts are decompressed: of the texts there are 200 MB."""
    data = png(20)
    data = data[:AFTER_HEADER] + text(b"zTXt", 200 << 20) + data[AFTER_HEADER:]
    transform = Transform("square", SIZE, "box")
    tracemalloc.start()
    assert decode(data, transform).skipped is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    assert decode(data, transform).skipped == "bomb"


def test_heic_under_another_name_is_unsupported_and_a_broken_avif_corrupt():
    transform = Transform("square", SIZE, "box")
    for brand, reason in ((b"heic", "unsupported"), (b"mif1", "unsupported"), (b"avif", "corrupt")):
        data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + b"rest"
        assert decode(data, transform).skipped == reason


def test_modes_that_pillow_does_not_scale_stay_unsupported():
    """A PGM and a TIFF of 32-bit integers have one mode in Pillow: only of the PGM the largest value is known."""
    for image in (Image.new("I", (SIZE, SIZE), 70_000), Image.new("LAB", (SIZE, SIZE))):
        data = encoded(image, "TIFF")
        assert decode(data, Transform("square", SIZE, "box")).skipped == "unsupported"


@pytest.mark.parametrize("size", [(11, 6), (6, 11)])
def test_the_square_crop_is_central_and_the_filter_pillows(size):
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3)).astype(np.uint8))
    left, top = (size[0] - 6) // 2, (size[1] - 6) // 2
    crop = image.crop((left, top, left + 6, top + 6))
    for name in ("box", "bilinear", "bicubic", "lanczos"):
        decoded = decode(encoded(image), Transform("square", 3, name))
        expected = crop.resize((3, 3), Image.Resampling[name.upper()])
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(expected))
