"""Random crops on the host: no more of a JPEG is decoded than its crop needs."""

import math
import threading
from collections.abc import Callable

import numpy as np

from cnn_jax.data.decode import BadImage, decode, jpeg_size
from cnn_jax.errors import first_line

Box = tuple[int, int, int, int]  # top, left, height, width

_kept = threading.local()  # each thread's buffer for pixels, used again for every image


def random_resized_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A box with a share of the area in `scale` and width/height in `ratio` (Szegedy 2014, sec. 6).

    Area uniform, log of the ratio uniform, ten tries, then the largest central box of an allowed
    ratio: torchvision's RandomResizedCrop.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def scale_jitter_box(
    rng: np.random.Generator, height: int, width: int, size: int, shorter: tuple[float, float] = (256, 512)
) -> Box:
    """The square that becomes a `size` crop once the shorter side is resized to a random S in `shorter`.

    S is uniform (VGG: Simonyan 2014, sec. 3.1, [256, 512]; ResNet: He 2015, sec. 3.4,
    [256, 480]), the place is uniform.
    """
    side = round(size * min(height, width) / rng.uniform(*shorter))
    side = max(1, min(side, height, width))
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side, side


def crop(image: bytes | np.ndarray, channels: int, size: int, box: Callable[[int, int], Box]) -> np.ndarray:
    """The part `box(height, width)` of an image, resized to (size, size, channels) uint8.

    Bilinear; where more than two pixels become one, a JPEG is decoded at 1/2, 1/4 or 1/8 and
    other images are averaged over areas.

    Raises:
      BadImage: as `decode`; damage below the box of a JPEG is not met.
    """
    import cv2

    whole = jpeg_size(image)
    if whole is None:
        pixels = decode(image, channels)
        top, left, height, width = box(*pixels.shape[:2])
        part = pixels[top : top + height, left : left + width]
    else:
        assert isinstance(image, bytes)
        top, left, height, width = box(*whole)
        shrink = min(8, 2 ** int(math.log2(max(1, min(height, width) / size))))
        part = decode_rows(image, channels, whole, top + height, shrink)
        scaled = [round(edge / shrink) for edge in (top, top + height, left, left + width)]
        part = part[scaled[0] : max(scaled[1], scaled[0] + 1), scaled[2] : max(scaled[3], scaled[2] + 1)]
    how = cv2.INTER_AREA if min(part.shape[:2]) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=how).reshape(size, size, channels)


def decode_rows(jpeg: bytes, channels: int, whole: tuple[int, int], bottom: int, shrink: int = 1) -> np.ndarray:
    """The upper rows of a JPEG of `whole` size, at least to `bottom`, at 1/shrink of its size.

    A sequential JPEG is told to end there, by the height in its frame header, so that the rows
    below cost nothing. The array is a view of a buffer that the next call in this thread overwrites.

    Raises:
      BadImage: damaged so that nothing can be decoded, or cut short anywhere. What else is damaged
        between is told only where no rows are left out: libjpeg's complaint of those comes first.
    """
    import simplejpeg

    height, width = whole
    if jpeg.rfind(b"\xff\xd9") < 0:
        raise BadImage("is a damaged JPEG (it ends too early)")
    rows = min(height, bottom + 16)  # a block more: chroma is interpolated from the row below
    frame = _frame_header(jpeg) if rows < height else None
    data: bytes | bytearray = jpeg
    if frame:
        data = bytearray(jpeg)
        data[frame + 5 : frame + 7] = rows.to_bytes(2, "big")
    else:
        rows = height
    shape = (-(-rows // shrink), -(-width // shrink), channels)
    try:
        simplejpeg.decode_jpeg(
            data,
            "GRAY" if channels == 1 else "RGB",
            min_height=shape[0],
            min_width=shape[1],
            buffer=_buffer(math.prod(shape)),
        )
    except ValueError as error:
        if "extraneous bytes" not in str(error):  # the rows that were left out
            raise BadImage(f"is a damaged JPEG ({first_line(error)})") from None
    return _buffer(math.prod(shape))[: math.prod(shape)].reshape(shape)


def _frame_header(jpeg: bytes) -> int | None:
    """Where the frame header of a sequential Huffman JPEG starts (SOF0 or SOF1: T.81, B.2.2)."""
    at = 2
    while at + 9 < len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker in (0xC0, 0xC1):
            return at
        if marker in (0xC2, 0xDA):  # progressive, or already the pixels
            return None
        at += 1 if marker == 0xFF else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return None


def _buffer(size: int) -> np.ndarray:
    """At least `size` bytes that belong to this thread."""
    kept = getattr(_kept, "buffer", None)
    if kept is None or kept.size < size:
        kept = _kept.buffer = np.empty(size, np.uint8)
    return kept
