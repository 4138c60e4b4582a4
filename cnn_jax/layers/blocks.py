"""Small compositions that many families use."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import UserError
from cnn_jax.layers.channels import scale_channels
from cnn_jax.layers.conv import Conv, IntPair, Padding
from cnn_jax.layers.norm import BatchNorm
from cnn_jax.layers.options import GlobalPool, ModuleDef
from cnn_jax.layers.pool import avg_pool, global_avg_pool, global_pool

HEAD_INIT = nn.initializers.lecun_normal()


class ConvBN(nn.Module):
    """Convolution -> batch norm -> activation, (B, H, W, C) -> (B, H', W', features).

    `act=None` leaves the activation out (a residual branch's last layer, MobileNet v2's linear
    projection). `norm` is a batch-norm constructor, for another epsilon or a group size.
    `use_bias` gives the convolution a bias that the norm makes idle: some published weights have it.
    `zero_init` starts the norm's scale at 0, see `last_norm`. `dilation` and `by_blocks` are Conv's.
    """

    features: int
    kernel_size: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    groups: int = 1
    dilation: IntPair = 1
    act: Callable | None = nn.relu
    norm: Callable[..., nn.Module] = BatchNorm
    use_bias: bool = False
    zero_init: bool = False
    by_blocks: bool = False
    kernel_init: Callable = nn.initializers.he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.groups,
            self.dilation,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            by_blocks=self.by_blocks,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = last_norm(self.norm, self.zero_init)(dtype=self.dtype, name="norm")(x, train=train)
        return x if self.act is None else self.act(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu 2018, 1709.01507, eq. 2-4).

    (B, H, W, C) -> (B, H, W, C): mean over positions -> `reduce` to C / reduction -> ReLU ->
    `expand` to C -> sigmoid, or another `gate`. `divisor` rounds the hidden width to its nearest
    multiple, as timm does with 8; without it the width is the paper's C // reduction, at least 1.
    `hidden` says it instead.
    """

    reduction: int = 16
    divisor: int = 1
    hidden: int | None = None
    gate: Callable = nn.sigmoid
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = self.hidden
        if hidden is None:
            hidden = x.shape[-1] // self.reduction + self.divisor // 2
            hidden = max(self.divisor, hidden // self.divisor * self.divisor)
        s = global_avg_pool(x)
        s = nn.relu(nn.Dense(hidden, dtype=self.dtype, name="reduce")(s))
        s = self.gate(nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(s))
        return scale_channels(x, s)


def squeeze_excite(reduction: int | None, divisor: int = 1, *, dtype: jnp.dtype) -> ModuleDef | None:
    """The SqueezeExcite of a network's option `se_reduction`, for its blocks to name; None if it has none."""
    return None if reduction is None else partial(SqueezeExcite, reduction, divisor, dtype=dtype)


def zero_pad_shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Shortcut without parameters: every `stride`-th pixel, zeros for the new channels.

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), features); option A of He 2015
    (1512.03385), sec. 3.3. The paper leaves the place of the zeros open: half stand before the
    channels and half behind, as in the CIFAR weights of akamaster/pytorch_resnet_cifar10.
    """
    x = x[:, ::stride, ::stride]
    new = features - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


def average_shortcut(x: jax.Array, stride: int) -> jax.Array:
    """2x2 means before a shortcut's projection (1812.01187, fig. 2c): (B, H, W, C) -> (B, H', W', C).

    Of stride 1 where the stage dilates instead: then a row and a column of zeros behind the image count, as in timm.
    """
    if stride == 1:
        return avg_pool(x, 2, 1, ((0, 1), (0, 1)))
    return avg_pool(x, 2, stride, ceil_mode=True, count_include_pad=False)


class Shortcut(nn.Module):
    """The path around a block, (B, H, W, C) -> (B, H', W', features) (He 2015, sec. 3.3).

    `kind`: "A" zeros for new channels; "B" projection where the shape changes; "C" projection
    always; "D" as B with 2x2 averaging before a 1x1 of stride 1 (1812.01187, fig. 2c). `dilation`: see
    resnet.BasicBlock.
    """

    features: int
    stride: int
    dilation: tuple[int, int] = (1, 1)
    kind: str = "B"
    kernel_size: int = 1
    conv: ModuleDef = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.kind != "C" and self.stride == 1 and x.shape[-1] == self.features:
            return x
        if self.kind == "A":
            return zero_pad_shortcut(x, self.features, self.stride)
        stride, (before, behind) = self.stride, self.dilation
        halves = stride > 1 or before != behind  # or would, but for the dilation
        if self.kind == "D" and halves:
            x, stride = average_shortcut(x, stride), 1
        size = self.kernel_size if halves else 1
        project = self.conv(self.features, size, stride, size // 2 * before, dilation=before, act=None, name="project")
        return project(x, train=train)


def stage_strides(strides: Iterable[int], before: int, output_stride: int) -> Iterator[tuple[int, int, int]]:
    """For each stage its stride and two dilations: of the blocks' convolutions before the image is halved and after.

    Stages halve the image as `strides` say until `output_stride` of its pixels, `before` of them before the first
    stage, make one position. From there on they double the dilation instead, with the same kernels (Chen 2017,
    1706.05587, sec. 3.2): where no block averages over positions, those of the halved map keep their values. The
    first dilation is for the first block alone, whose input is that of the stage before.
    """
    dilation = 1
    for stride in strides:
        halves, first = before * stride <= output_stride, dilation
        dilation *= 1 if halves else stride
        before *= stride if halves else 1
        yield stride if halves else 1, first, dilation


def last_norm(norm: Callable[..., nn.Module], zero_init: bool) -> Callable[..., nn.Module]:
    """`norm`, for the end of a residual branch: with `zero_init` its scale starts at 0, not 1.

    So the branch gives 0 and the block its shortcut, at first (Goyal 2017, 1706.02677, sec. 5.1).
    """
    return partial(norm, scale_init=nn.initializers.zeros_init()) if zero_init else norm


def drop_branch(y: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """Stochastic depth: a residual branch (B, H, W, C), in training 0 for a share `rate` of the images.

    Huang 2016 (1603.09382), sec. 3, but as torchvision and timm do: each image draws for itself,
    where the paper drops a block for the whole batch, and what is left is divided by 1 - rate,
    where the paper multiplies in evaluation. So no computation is saved, and batch norms inside the
    branch see all images. Draws from the key "dropout"; in evaluation or at rate 0 `y` as it is,
    without a key. To be called inside a compact block.
    """
    return nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name="stochastic_depth")(y)


def depth_rates(blocks: int, last: float) -> Iterator[float]:
    """Rates for drop_branch: block l of L has l / L times that of the last one (Huang 2016, sec. 3).

    The first block has 1 / L of it, not 0 as in timm and torchvision, which count from 0.
    """
    return (last * block / blocks for block in range(1, blocks + 1))


def call_block(
    block: nn.Module,
    x: jax.Array | tuple[jax.Array, ...],
    *,
    train: bool,
    remat: bool | tuple[str, ...] | Callable[[str], bool],
    scanned: int | None = None,
) -> jax.Array:
    """`block(x, train=train)`; with `remat` its activations are computed again in the backward pass.

    `remat` says of which blocks: all, none, those whose name matches a glob, or a function of the
    name. Numbers stay the same; what waits for the backward pass falls to the blocks' inputs
    (jax.checkpoint). XLA's programs for a CPU got no smaller by it: the temporary memory of a
    38-layer CIFAR ResNet grew from 191 to 228 MB at 64 images (jax 0.10.2).

    `scanned` calls that many blocks like this one, each with variables of its own, in one loop that is
    compiled once: the variables of `block` have a first axis of that length.

    Raises:
      UserError: `scanned` blocks with stochastic depth, which would have a rate each.
    """
    if scanned is not None:
        if getattr(block, "stochastic_depth", 0.0):
            raise UserError(
                "scan runs equal blocks, and stochastic_depth gives each a rate of its own; take one of both"
            )
        loop = nn.scan(
            lambda module, x, _: (call_block(module, x, train=train, remat=remat), None),
            variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=scanned,
        )
        return loop(block, x, None)[0]
    name = str(block.name)
    if isinstance(remat, tuple):
        again = any(fnmatchcase(name, glob) for glob in remat)
    else:
        again = remat(name) if callable(remat) else remat
    if not again:
        return block(x, train=train)
    return nn.remat(lambda module, x: module(x, train=train))(block, x)


def classify(
    x: jax.Array,
    num_classes: int,
    *,
    train: bool,
    pool: GlobalPool | None = None,
    dropout: float = 0.0,
    kernel_init: Callable = HEAD_INIT,
    dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
    """Pool -> dropout -> linear layer `head`, a map (B, H, W, F) -> logits (B, num_classes) float32.

    `pool` is global_pool's; "" gives a map of logits, (B, H, W, num_classes). None is for features (B, F); then a map
    gives the mean of its positions' logits (Simonyan 2014, sec. 3.2). Products of bfloat16 are added in float32 and
    stay so: rounded again, the logits of a thousand classes would often tie for the first place. To be called inside a
    compact network. `num_classes=0` gives the features, float32.
    """
    if pool is not None:
        x = global_pool(x, pool)
    if num_classes > 0:
        x = nn.Dropout(dropout, deterministic=not train)(x)
        dot = partial(lax.dot_general, preferred_element_type=jnp.promote_types(dtype, jnp.float32))
        x = nn.Dense(num_classes, kernel_init=kernel_init, dtype=dtype, dot_general=dot, name="head")(x)
    x = x.astype(jnp.float32)
    return global_avg_pool(x) if pool is None and x.ndim == 4 else x
