"""Fifty files that a folder of images may hold: what is odd, and what is to be said of it."""

import io
import struct
import zlib

import numpy as np
import simplejpeg
from PIL import Image

H, W = 40, 60
_y, _x = np.mgrid[0:H, 0:W]
PIXELS = np.stack([_x * 4, _y * 6, 255 - _x * 4], -1).astype(np.uint8)  # smooth, so that JPEG keeps it


def saved(pixels, kind, mode=None, **options) -> bytes:
    picture = Image.fromarray(pixels)
    out = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(out, kind, **options)
    return out.getvalue()


JPEG = saved(PIXELS, "JPEG", quality=95)
PROGRESSIVE = saved(PIXELS, "JPEG", quality=95, progressive=True)
PNG = saved(PIXELS, "PNG")
GIF = saved(PIXELS, "GIF")
WEBP = saved(PIXELS, "WEBP", lossless=True)
BMP = saved(PIXELS, "BMP")
ALPHA = np.dstack([PIXELS, np.full((H, W), 128, np.uint8)])


def big_png(width, height) -> bytes:
    """A PNG whose header promises `width` x `height` pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def big_jpeg(width, height) -> bytes:
    """A JPEG whose frame header promises `width` x `height` pixels."""
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


def animated(kind, **options) -> bytes:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    return out.getvalue()


def flipped(data, *places) -> bytes:
    data = bytearray(data)
    for place in places:
        data[place] ^= 0xFF
    return bytes(data)


EMPTY, DAMAGED, NO_IMAGE, BOMB = r"is empty \(0 bytes\)", "is a damaged JPEG", "is no ", "decompression bomb"
TABLES = JPEG.index(b"\xff\xdb")  # quantisation tables
FRAME = JPEG.index(b"\xff\xc0")
SCAN = JPEG.index(b"\xff\xda")

BAD = {
    "zero_bytes.jpg": (b"", EMPTY),
    "zero_bytes.png": (b"", EMPTY),
    "start_marker_only.jpg": (JPEG[:2], DAMAGED),
    "three_bytes.jpg": (JPEG[:3], DAMAGED),
    "cut_in_tables.jpg": (JPEG[: TABLES + 10], DAMAGED),
    "cut_in_frame_header.jpg": (JPEG[: FRAME + 4], DAMAGED),
    "cut_before_the_scan.jpg": (JPEG[:SCAN], DAMAGED),
    "cut_in_the_scan.jpg": (JPEG[: (SCAN + len(JPEG)) // 2], DAMAGED),
    "cut_near_the_end.jpg": (JPEG[:-30], DAMAGED),
    "no_end_marker.jpg": (JPEG[:-2], DAMAGED),
    "cut_progressive.jpg": (PROGRESSIVE[: len(PROGRESSIVE) // 2], DAMAGED),
    "zeros_after_the_header.jpg": (JPEG[:SCAN] + bytes(len(JPEG) - SCAN), DAMAGED),
    "zeros_from_the_middle.jpg": (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) - len(JPEG) // 2), DAMAGED),
    "bad_frame_length.jpg": (flipped(JPEG, FRAME + 2), DAMAGED),
    "bad_table_length.jpg": (flipped(JPEG, TABLES + 2), DAMAGED),
    "twelve_bits.jpg": (JPEG[: FRAME + 4] + b"\x0c" + JPEG[FRAME + 5 :], DAMAGED),
    "no_rows.jpg": (big_jpeg(60, 0), DAMAGED),
    "all_zero.jpg": (bytes(5000), NO_IMAGE),
    # Pillow would start Ghostscript for it.
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", NO_IMAGE),
    "text.jpg": (b"<html>404 not found</html>", NO_IMAGE),
    "noise.jpg": (np.random.default_rng(0).bytes(3000), NO_IMAGE),
    "folder_list.jpg": (b"total 12\ndrwxr-xr-x 2 a b 4096 .", NO_IMAGE),
    "cut_signature.png": (PNG[:6], NO_IMAGE),
    "cut_header.png": (PNG[:20], NO_IMAGE),
    "cut_pixels.png": (PNG[: len(PNG) // 2], NO_IMAGE),
    "bad_checksum.png": (flipped(PNG, PNG.index(b"IDAT") + 30), NO_IMAGE),
    "cut.gif": (GIF[:200], NO_IMAGE),
    "cut.webp": (WEBP[: len(WEBP) // 2], NO_IMAGE),
    "cut.bmp": (BMP[:1000], NO_IMAGE),
    "bomb_30000.jpg": (big_jpeg(30_000, 30_000), BOMB),
    "bomb_30000.png": (big_png(30_000, 30_000), BOMB),
    "bomb_65000.jpg": (big_jpeg(65_000, 65_000), BOMB),
}

_grey16 = (np.asarray(Image.fromarray(PIXELS).convert("L"), np.uint16) * 257).astype(np.uint16)
_cmyk_pillow = saved(PIXELS, "JPEG", mode="CMYK", quality=95)

# Odd, but legible: (file, the pixels that it should give, how far JPEG or a palette may be from them).
GOOD = {
    "plain.jpg": (JPEG, PIXELS, 12),
    "progressive.jpg": (PROGRESSIVE, PIXELS, 12),
    "no_subsampling.jpg": (simplejpeg.encode_jpeg(PIXELS, 95, colorsubsampling="444"), PIXELS, 12),
    "trailing_bytes.jpg": (JPEG + bytes(100), PIXELS, 12),
    "restart_markers.jpg": (saved(PIXELS, "JPEG", quality=95, restart_marker_blocks=2), PIXELS, 12),
    "cmyk.jpg": (_cmyk_pillow, PIXELS, 14),
    "cmyk.tiff": (saved(PIXELS, "TIFF", mode="CMYK"), PIXELS, 1),
    "grey.jpg": (saved(PIXELS, "JPEG", mode="L", quality=95), "grey", 6),
    "grey.png": (saved(PIXELS, "PNG", mode="L"), "grey", 0),
    "two_levels.png": (saved(np.where(_x[:, :] < 30, 0, 255).astype(np.uint8), "PNG", mode="1"), "halves", 0),
    "sixteen_bits.png": (saved(_grey16, "PNG"), "grey", 1),
    "alpha.png": (saved(ALPHA, "PNG"), PIXELS, 0),
    "grey_and_alpha.png": (saved(ALPHA, "PNG", mode="LA"), "grey", 0),
    "palette.png": (saved(PIXELS, "PNG", mode="P"), PIXELS, 60),
    "png_named_jpg.jpg": (PNG, PIXELS, 0),
    "jpeg_named_png.png": (JPEG, PIXELS, 12),
    "animated.gif": (animated("GIF"), PIXELS, 60),
    "animated.webp": (animated("WEBP", lossless=True), PIXELS, 0),
    "one_pixel.png": (saved(PIXELS[:1, :1], "PNG"), PIXELS[:1, :1], 0),
    "one_pixel.jpg": (saved(PIXELS[:1, :1], "JPEG", quality=95), PIXELS[:1, :1], 12),
    "one_row.png": (saved(PIXELS[:1], "PNG"), PIXELS[:1], 0),
    "turned_by_exif.jpg": (
        saved(
            PIXELS, "JPEG", quality=95, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        ),
        PIXELS,
        12,
    ),
}
assert len(BAD) + len(GOOD) >= 50


def expected(wanted) -> np.ndarray:
    """The pixels named by an entry of GOOD, three channels."""
    if isinstance(wanted, np.ndarray):
        return wanted
    grey = np.asarray(Image.fromarray(PIXELS).convert("L")) if wanted == "grey" else np.where(_x < 30, 0, 255)
    return np.repeat(grey[:, :, None], 3, 2)
