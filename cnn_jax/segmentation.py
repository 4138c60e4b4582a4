"""Dense prediction: a class for each pixel, by U-Net or DeepLab v3 on any backbone; a feature pyramid for detectors.

A backbone is a network of `create_model(name, num_classes=0)`. Its layers stand beside those of the head at the top of
the variables, under their own names, so its weights load as a classifier's do. The head has the backbone's compute type
and, where it is given no `norm`, its batch norm. Maps are (B, H, W, C), masks (B, H, W) integers: classes, and IGNORED
where none is asked for.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.dataset import IGNORED
from cnn_jax.errors import UserError
from cnn_jax.layers import BatchNorm, Conv, ConvBN, global_avg_pool, taken
from cnn_jax.layers.options import Checked, Count, ModuleDef, Rate, Such

LOW = 48  # channels; Chen 2018, table 1
HALVED = 0.7  # of the side; halving leaves 0.46 to 0.67 of small odd maps, a convolution without padding 0.71 or more

Backbone = Annotated[
    nn.Module,
    Such("a network of create_model(..., num_classes=0)", lambda network: not getattr(network, "num_classes", 0)),
]
Numbers = Annotated[
    tuple[int, ...], Such("a tuple of whole numbers above 0", lambda numbers: numbers and min(numbers) > 0)
]


class UNet(Checked):
    """(B, H, W, C) images -> (B, H, W, num_classes) float32 logits (Ronneberger 2015, 1505.04597).

    From the backbone's last map upwards each step doubles the map, puts the backbone's map of that size beside it, and
    convolves twice by 3x3 (fig. 1): `up1`, `up2`, ... with `widths` channels, of which the last ones are taken where a
    backbone halves less often. Steps above the backbone's first map do without one. `head` is 3x3.

    As users of segmentation_models_pytorch know it, and equal to its Unet: maps are doubled by repeating pixels where
    the paper learns 2x2 convolutions, 3x3 convolutions have padding, so that the logits have the image's size, and are
    followed by batch norm: `norm`, the backbone's if not given.

    Raises:
      UserError: the backbone has no maps of two sizes, or halves more often than there are `widths`.
    """

    backbone: Backbone
    num_classes: Count
    widths: Numbers = (256, 128, 64, 32, 16)
    norm: ModuleDef | None = None

    def setup(self):
        nn.share_scope(self, self.backbone)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        maps = maps_by_stride(self.backbone, x, train=train)
        if len(maps) < 2:
            raise UserError(f"U-Net needs maps of several sizes, and {type(self.backbone).__name__} has {len(maps)}")
        (_, height, width, _), (stride, *_) = x.shape, maps
        *beside, y = maps.values()
        # From the first map to the image there is nothing to put beside.
        halvings = reversed(range(stride.bit_length() - 1))
        larger = [((-(-height // 2**n), -(-width // 2**n)), None) for n in halvings]
        steps = [((skip.shape[1], skip.shape[2]), skip) for skip in reversed(beside)] + larger
        if len(steps) > len(self.widths):
            name = type(self.backbone).__name__
            raise UserError(f"widths has {len(self.widths)} numbers, and from {name} to the image it is {len(steps)}")
        conv = head_conv(self)
        widths = self.widths[len(self.widths) - len(steps) :]
        for number, ((size, skip), channels) in enumerate(zip(steps, widths, strict=True), start=1):
            y = grown(y, size)
            y = y if skip is None else jnp.concatenate([y, skip], -1)
            y = TwoConvs(channels, conv, name=f"up{number}")(y, train=train)
        # Where nothing is padded, as in LeNet, the first map is smaller than the image.
        return classify_pixels(grown(y, (height, width)), self.num_classes, 3)


class DeepLabV3(Checked):
    """(B, H, W, C) images -> (B, H, W, num_classes) float32 logits (Chen 2017, 1706.05587).

    An atrous pyramid on the backbone's last map (sec. 3.3): `aspp` has a 1x1 convolution, a 3x3 one for each of
    `rates`, its taps so many positions apart, and the mean of the image, all `channels` wide; then `refine`, a 3x3, and
    `head`; logits are resized bilinearly. The rates are the paper's for a backbone of output_stride=16, doubled for 8.

    With `create_model("resnet50", num_classes=0, output_stride=8)` and rates 12, 24, 36 it is
    torchvision.models.segmentation.deeplabv3_resnet50, which has the 3x3 that the paper has not, and the dropout.

    With `decoder` it is DeepLab v3+ (Chen 2018, 1802.02611, sec. 3.1), for outlines finer than the last map: the
    backbone's map of that stride (4 in the paper) as `low`, 48 channels of a 1x1, beside the pyramid's output, resized
    to it; `refine` sees both, and `refine2`, another 3x3, stands before the head. Its convolutions are whole ones, not
    the separable ones of the paper's Xception. `norm` follows each, the backbone's batch norm if not given.

    Raises:
      UserError: the backbone has no map, or none of the stride `decoder`.
    """

    backbone: Backbone
    num_classes: Count
    rates: Numbers = (6, 12, 18)
    channels: Count = 256
    dropout: Rate = 0.5
    decoder: Count | None = None
    norm: ModuleDef | None = None

    def setup(self):
        nn.share_scope(self, self.backbone)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        maps = maps_by_stride(self.backbone, x, train=train)
        if not maps:
            raise UserError(f"DeepLab needs a map of features, and {type(self.backbone).__name__} has none")
        if self.decoder is not None and self.decoder not in maps:
            raise UserError(no_map(self.backbone, self.decoder, maps))
        conv = head_conv(self)
        y = AtrousPyramid(self.channels, self.rates, conv, name="aspp")([*maps.values()][-1], train=train)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        if self.decoder is not None:
            low = conv(LOW, 1, name="low")(maps[self.decoder], train=train)
            y = jnp.concatenate([resized(y, low.shape[1:3]), low], -1)
        y = conv(self.channels, 3, padding=1, name="refine")(y, train=train)
        if self.decoder is not None:
            y = conv(self.channels, 3, padding=1, name="refine2")(y, train=train)
        return resized(classify_pixels(y, self.num_classes, 1), x.shape[1:3])


class FeaturePyramid(Checked):
    """(B, H, W, C) images -> {stride: (B, H', W', channels)} maps for a detector (Lin 2016, 1612.03144, sec. 3).

    From the coarsest map downwards each is doubled by repeating pixels and added to a 1x1 convolution of the
    backbone's map of that stride (`inner4`, ...); a 3x3 convolution follows (`outer4`, ...). `strides` are those of
    anchors, pixels of the image to a position. Those beyond the backbone's last, such as 64, take every second
    position of the one before, as the paper does for its largest anchors (sec. 4.1, footnote). Convolutions have
    biases and no norm (sec. 3). Equal to torchvision.ops.FeaturePyramidNetwork with LastLevelMaxPool.

    Raises:
      UserError: the backbone has no map of a stride; the message names those that it has.
    """

    backbone: Backbone
    channels: Count = 256
    strides: Numbers = (4, 8, 16, 32)

    def setup(self):
        nn.share_scope(self, self.backbone)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[int, jax.Array]:
        maps = maps_by_stride(self.backbone, x, train=train)
        last = max(maps, default=0)
        own, further = ([s for s in sorted(self.strides) if (s <= last) == inside] for inside in (True, False))
        for stride in self.strides:
            if stride not in maps and (stride <= last or stride / 2 not in self.strides):
                raise UserError(no_map(self.backbone, stride, maps))
        conv = partial(Conv, self.channels, kernel_init=nn.initializers.glorot_uniform(), dtype=dtype_of(self.backbone))
        found, above = {}, None
        for stride in reversed(own):
            inner = conv(1, name=f"inner{stride}")(maps[stride])
            above = inner if above is None else inner + grown(above, (inner.shape[1], inner.shape[2]))
            found[stride] = conv(3, padding=1, name=f"outer{stride}")(above).astype(jnp.float32)
        for stride in further:
            found[stride] = found[stride // 2][:, ::2, ::2]
        return {stride: found[stride] for stride in self.strides}


class TwoConvs(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, (B, H, W, C) -> (B, H, W, width)."""

    width: int
    conv: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(self.width, 3, padding=1, name="conv1")(x, train=train)
        return self.conv(self.width, 3, padding=1, name="conv2")(x, train=train)


class AtrousPyramid(nn.Module):
    """Chen 2017, fig. 5: what several fields of view see of a map, (B, H, W, C) -> (B, H, W, channels)."""

    channels: int
    rates: tuple[int, ...]
    conv: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(self.conv, self.channels)
        seen = [conv(1, name="point")(x, train=train)]
        for number, rate in enumerate(self.rates, start=1):
            seen.append(conv(3, padding=rate, dilation=rate, name=f"atrous{number}")(x, train=train))
        whole = conv(1, name="image")(global_avg_pool(x)[:, None, None], train=train)
        seen.append(jnp.broadcast_to(whole, seen[0].shape))
        return conv(1, name="project")(jnp.concatenate(seen, -1), train=train)


def maps_by_stride(backbone: nn.Module, images: jax.Array, *, train: bool) -> dict[int, jax.Array]:
    """The last map of each size inside a backbone, largest first, by the pixels of an image to a position.

    To be called inside a module that has it. What follows the last map is left out, its parameters too: VGG's fully
    connected layers.
    """

    def headless(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> jax.Array:
        last = context.module is backbone and context.method_name == "forward_head"
        return args[0] if last else call(*args, **kwargs)

    with taken() as taps, nn.intercept_methods(headless):
        backbone(images, train=train)
    maps, side, stride = {}, images.shape[1], 1
    for x in taps.values():
        if x.ndim == 4:
            if not maps or x.shape[1] < HALVED * side:
                # 0.2 for maps that padding, or none, leaves a little larger or smaller than a halving does.
                stride *= 2 ** max(int(math.log2(side / x.shape[1]) + 0.2), 1 if maps else 0)
            side = x.shape[1]
            maps[stride] = x
    return maps


def no_map(backbone: nn.Module, stride: int, maps: dict[int, jax.Array]) -> str:
    """The line for a stride that is not among a backbone's."""
    there = f"its strides are {', '.join(map(str, maps))}" if maps else "it has none"
    return f"{type(backbone).__name__} has no map of stride {stride}; {there}"


def resized(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """(B, H, W, C) -> (B, *size, C), bilinear, PyTorch's with align_corners=False where it grows."""
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear", antialias=False)


def grown(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(B, H, W, C) -> (B, *size, C) by repeating pixels, PyTorch's "nearest": the one at floor(i * H / size[0])."""
    batch, height, width, channels = x.shape
    if size[0] % height or size[1] % width:
        rows, columns = (np.arange(to) * of // to for to, of in zip(size, (height, width), strict=True))
        return x[:, rows][:, :, columns]
    times = size[0] // height, size[1] // width  # copies, whose gradient is a sum and no scatter
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, times[0], width, times[1], channels))
    return x.reshape(batch, *size, channels)


def dtype_of(backbone: nn.Module) -> jnp.dtype:
    """A network's compute type."""
    return getattr(backbone, "dtype", jnp.float32)


def norm_of(backbone: nn.Module) -> ModuleDef:
    """A network's batch norm, or the default one where it has none."""
    return getattr(backbone, "norm", None) or BatchNorm


def head_conv(network: UNet | DeepLabV3) -> ModuleDef:
    """Convolutions of what stands on a backbone."""
    return partial(ConvBN, norm=network.norm or norm_of(network.backbone), dtype=dtype_of(network.backbone))


def classify_pixels(x: jax.Array, classes: int, kernel: int) -> jax.Array:
    """The convolution `head`, in float32: (B, H, W, C) -> (B, H, W, classes). To be called inside a compact module."""
    init = nn.initializers.lecun_normal()
    return Conv(classes, kernel, padding=kernel // 2, kernel_init=init, name="head")(x.astype(jnp.float32))


def pixel_cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """The mean negative log-likelihood of each image's pixels, in nats, (B,); 0 for an image that is all IGNORED.

    (B, H, W, C) and (B, H, W) -> (B,) float32. torch.nn.functional.cross_entropy(..., ignore_index=255), an image at
    a time.
    """
    logits, counted = logits.astype(jnp.float32), masks != IGNORED
    likelihood = (jax.nn.log_softmax(logits) * jax.nn.one_hot(masks, logits.shape[-1])).sum(-1)
    return -jnp.where(counted, likelihood, 0).sum((1, 2)) / jnp.maximum(counted.sum((1, 2)), 1)


def dice_loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """1 - the mean of soft Dice over the classes in an image's mask, in [0, 1], (B,) (Milletari 2016, 1606.04797, 3).

    (B, H, W, C) and (B, H, W) -> (B,) float32. Of a class with probabilities p and truth t it is 2 sum(p t) /
    (sum(p) + sum(t)); the paper squares both below, segmentation_models_pytorch does not. An image that is all IGNORED
    has 0.
    """
    counted = (masks != IGNORED)[..., None]
    guess = jax.nn.softmax(logits.astype(jnp.float32)) * counted
    truth = jax.nn.one_hot(masks, logits.shape[-1]) * counted
    there = truth.sum((1, 2))  # (B, C)
    dice = 2 * (guess * truth).sum((1, 2)) / jnp.maximum(guess.sum((1, 2)) + there, 1e-7)
    present = there > 0
    return jnp.where(present, 1 - dice, 0).sum(-1) / jnp.maximum(present.sum(-1), 1)


def pixel_confusion(guesses: jax.Array, masks: jax.Array, classes: int) -> jax.Array:
    """Pixels by true class (rows) and guess (columns), for each image: (B, H, W) twice -> (B, classes, classes) int32.

    IGNORED pixels are not counted. For the device; the sum over images is what `scores` takes.
    """
    place = jnp.where(masks == IGNORED, classes**2, masks.astype(jnp.int32) * classes + guesses)
    count = partial(jnp.bincount, length=classes**2 + 1)
    return jax.vmap(count)(place.reshape(len(place), -1))[:, :-1].reshape(-1, classes, classes)


def scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """What a confusion matrix (C, C) of pixels says, rows true classes; shares in [0, 1], float64.

    `iou` and `dice` (C,): intersection over union TP / (TP + FP + FN), and 2 TP / (2 TP + FP + FN), NaN for a class
    that is neither there nor guessed; `mean_iou` and `mean_dice` over the others; `accuracy` of the pixels. Of a whole
    test set's sum, as PASCAL VOC and Cityscapes have it, not the mean over images.
    """
    confusion = np.asarray(confusion, np.int64)
    right, there, guessed = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 of a class that does not occur
        iou, dice = right / (there + guessed - right), 2 * right / (there + guessed)
        accuracy = right.sum() / confusion.sum()
    return {
        "mean_iou": np.nanmean(iou),
        "mean_dice": np.nanmean(dice),
        "accuracy": accuracy,
        "iou": iou,
        "dice": dice,
    }
