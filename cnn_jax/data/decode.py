"""Image files to uint8 pixels on the host, and the crops that training and evaluation take of them."""

import io
import math
import warnings
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cnn_jax.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a file for a decompression bomb

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM", "TIFF")

Interpolation = Literal["bilinear", "bicubic"]


class BadImage(UserError):
    """An image that cannot be used; says why, not where it lies."""


def decode(image: "bytes | np.ndarray | Picture", channels: int) -> np.ndarray:
    """A file of one of FORMATS, what Pillow has opened, or pixels (H, W, C) -> (H, W, channels) uint8.

    As torchvision reads images: what is not RGB (CMYK, grey, palette) is converted, alpha is
    dropped, a GIF gives its first frame, an EXIF rotation is not applied. 16 bits become 8 by
    their upper byte. One channel is ITU-R 601's luma.

    Raises:
      BadImage: empty, truncated, corrupt, no image, or more than 178,956,970 pixels.
    """
    if isinstance(image, np.ndarray):
        return _with_channels(image, channels)
    if isinstance(image, bytes) and jpeg_size(image) is not None:
        return _decode_jpeg(image, channels)
    return _decode_other(image, channels)


def jpeg_size(image: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width, if the image is a JPEG that libjpeg-turbo turns into RGB by itself.

    Raises:
      BadImage: as `decode`.
    """
    if isinstance(image, np.ndarray):
        return None
    if not image:
        raise BadImage("is empty (0 bytes)")
    if not image.startswith(b"\xff\xd8"):
        return None
    import simplejpeg

    try:
        height, width, color, _ = simplejpeg.decode_jpeg_header(image, strict=False)
    except KeyError:  # simplejpeg looks up the colour space that is not there
        raise BadImage("is a damaged JPEG (its header is cut short)") from None
    except ValueError as error:
        raise BadImage(f"is a damaged JPEG ({first_line(error)})") from None
    _check_size(int(height), int(width))
    return None if color in ("CMYK", "YCCK") else (int(height), int(width))


def _decode_jpeg(image: bytes, channels: int) -> np.ndarray:
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(image, "GRAY" if channels == 1 else "RGB")
    except ValueError as error:
        if "extraneous bytes" in str(error):  # real photos have them; Pillow and TensorFlow do not mind either
            return simplejpeg.decode_jpeg(image, "GRAY" if channels == 1 else "RGB", strict=False)
        raise BadImage(f"is a damaged JPEG ({first_line(error)})") from None


def open_image(image: bytes) -> Any:
    """A file as Pillow opens it, if it is of one of FORMATS: others start programs (EPS) or are seldom looked after."""
    from PIL import Image

    return Image.open(io.BytesIO(image), formats=FORMATS)


def _decode_other(image: "bytes | Picture", channels: int) -> np.ndarray:
    from PIL import UnidentifiedImageError

    try:
        _quiet()
        with open_image(image) if isinstance(image, bytes) else nullcontext(image) as opened:
            _check_size(opened.height, opened.width)
            if opened.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip them
                grey = np.asarray(opened).astype(np.int64)
                return _with_channels((grey >> 8).clip(0, 255).astype(np.uint8)[:, :, None], channels)
            return np.asarray(opened.convert("L" if channels == 1 else "RGB")).reshape(
                opened.height, opened.width, channels
            )
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"is no image of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's plugins raise what they like for damaged files
        raise BadImage(f"is no readable image ({first_line(error)})") from None


@cache
def _quiet() -> None:
    """What Pillow warns of (large files, palettes) is decided here; once, since warnings' filters are all threads'."""
    warnings.filterwarnings("ignore", module="PIL")


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImage(f"has {width} x {height} pixels, more than {MAX_PIXELS:,} (a decompression bomb?)")


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels[:, :, :3] if pixels.shape[2] > 3 else np.repeat(pixels[:, :, :1], 3, 2)
    return (pixels[:, :, :3] @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[:, :, None]


def resize_shorter(pixels: np.ndarray, size: int, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """(H, W, C) uint8, its shorter side brought to `size` by Pillow (antialiased), as torchvision's Resize does."""
    from PIL import Image

    height, width, channels = pixels.shape
    shorter = min(height, width)
    target = (int(size * width / shorter), int(size * height / shorter))
    _check_size(*target)  # a narrow file would fill the memory
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return np.asarray(picture.resize(target, Image.Resampling[interpolation.upper()])).reshape(*target[::-1], channels)


def center(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width) of (H, W, C), in a black frame where that is smaller: torchvision's CenterCrop."""
    missing = [max(0, wanted - had) for wanted, had in zip((height, width), pixels.shape[:2], strict=True)]
    if any(missing):
        pixels = np.pad(pixels, [*((less // 2, less - less // 2) for less in missing), (0, 0)])
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def center_crop(
    image: bytes | np.ndarray,
    channels: int,
    size: int,
    crop: float,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """What a network is evaluated on: shorter side to floor(size / crop), then the middle, (size, size, channels).

    Raises:
      BadImage: as `decode`.
    """
    return center(resize_shorter(decode(image, channels), math.floor(size / crop), interpolation), size, size)
