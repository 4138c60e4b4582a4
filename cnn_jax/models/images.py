"""What all networks say of images that they do not take."""

import functools
from collections.abc import Callable
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers.geometry import TooSmall
from cnn_jax.models.structure import structure

LARGEST = 1024  # pixels a side; beyond that no smallest size is looked for
_searching: ContextVar[bool] = ContextVar("searching", default=False)


def takes_images(call: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Decorates the `__call__` of a network: images (B, H, W, C), of floats.

    Raises:
      UserError: images of another shape or type, or too small; it says what came and what the network takes.
    """

    @functools.wraps(call)
    def checked(self: nn.Module, x: jax.Array, *, train: bool) -> jax.Array:
        what = f"{type(self).__name__} takes images (B, H, W, C)"
        if x.ndim != 4:
            alone = "; one image is a batch of one, image[None]" if x.ndim == 3 else ""
            raise UserError(f"{what}, not {x.shape}{alone}")
        if x.shape[1] <= 4 < min(x.shape[2:]):
            raise UserError(f"{what}, not {x.shape}; channels come last, images.transpose(0, 2, 3, 1)")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise UserError(f"{what} of floats, by its card's mean and std, not {x.dtype}")
        try:
            return call(self, x, train=train)
        except TooSmall as error:
            if _searching.get():
                raise
            least = smallest(self.clone(parent=None, name=None), x.shape[-1])
            if least is None:
                raise UserError(f"{what}, not {x.shape}: {error}") from None
            other = '; stem="cifar" is for 28 to 64 pixels' if getattr(self, "stem", "cifar") != "cifar" else ""
            raise UserError(f"{what} of at least {least}x{least} pixels, not {x.shape}{other}") from None

    return checked


def smallest(network: nn.Module, channels: int) -> int | None:
    """The least H = W that a network takes, by abstract evaluation: some seconds. None beyond LARGEST."""
    searched = _searching.set(True)
    try:
        below, fits = 0, 8  # the first is too small, the second may be
        while not _fits(network, fits, channels):
            below, fits = fits, 2 * fits
            if fits > LARGEST:
                return None
        while fits - below > 1:
            middle = (below + fits) // 2
            below, fits = (below, middle) if _fits(network, middle, channels) else (middle, fits)
        return fits
    finally:
        _searching.reset(searched)


def _fits(network: nn.Module, size: int, channels: int) -> bool:
    try:
        structure(network, (size, size, channels))
    except TooSmall:
        return False
    return True
