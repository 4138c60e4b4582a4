"""LeNet-5: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proc. IEEE 86(11), 1998; and LeNet-1: LeCun, Boser, Denker, Henderson, Howard, Hubbard & Jackel,
"Handwritten Digit Recognition with a Back-Propagation Network", NIPS 2, 1989.

`lenet5` is the network of sec. II.B as printed: connection table, trainable subsampling, scaled
tanh, RBF output on drawn bitmaps. Departures: the paper leaves open the constant j of the loss
(eq. 9) and the initialisation of biases; here biases follow the rule for weights.

`lenet5_modern` is what is usually called LeNet-5 today: dense C3, ReLU, max pooling without
parameters, a linear output. No paper defines it.

`lenet1` is the network of 1989, whose three totals it has: 4,635 units, 98,442 connections, 2,578 parameters (p. 402).
LeNet-4 is not here: the paper of 1998 (sec. III.C) gives it some 17,000 parameters, fewer than the 120 units on its 16
last maps would take, and no table of connections.
"""

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.layers import Conv, classify, max_pool, tap
from cnn_jax.layers.conv import convolve
from cnn_jax.layers.options import Checked, Classes, Such
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

# Table I: the maps of S2 that each map of C3 sees, 60 of 96 connections.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Table 1 of 1989: the maps of H2 that each map of H3 sees, 20 of 48 connections, in two halves that never meet.
H3_TABLE = ((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1), (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3))

# Fig. 3: a 7x12 picture of each digit, '#' = +1 (ink), '.' = -1, ten side by side.
BITMAPS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def rbf_codes() -> np.ndarray:
    """The fixed weights of the output layer, (10, 84) float32 of +1 and -1, each 12x7 row by row."""
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    codes = [[pixel == "#" for row in rows for pixel in row[digit]] for digit in range(10)]
    return np.where(codes, 1, -1).astype(np.float32)


def squash(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), which maps +-1 to +-1 (eq. 6 and app. A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def uniform_fan_in(fan_in: int | np.ndarray):
    """Uniform in [-2.4/F, 2.4/F] with F the inputs of a unit, one for all or one per output (app. A)."""
    limit = 2.4 / np.asarray(fan_in, np.float32)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -1, 1) * limit

    return init


def map_loss(logits: jax.Array, labels: jax.Array, j: float = 1.0) -> jax.Array:
    """The maximum-a-posteriori criterion per image, (B, 10) and (B, C) -> (B,) float32 (eq. 9).

    y_D + log(exp(-j) + sum_i exp(-y_i)) for penalties y = -logits: cross entropy with one more
    class, "rubbish", at the constant penalty j > 0. `labels` are (B, 10) probabilities, one-hot
    or smoothed. The paper does not give j.
    """
    rubbish = jnp.full((*logits.shape[:-1], 1), -j, logits.dtype)
    everything = jax.nn.logsumexp(jnp.concatenate([logits, rubbish], -1), axis=-1)
    return everything - jnp.sum(labels * logits, -1)


class Subsampling(nn.Module):
    """Sum of each 2x2 block, times a trainable coefficient, plus a trainable bias, per map.

    (B, H, W, C) -> (B, H/2, W/2, C), 2 C parameters (sec. II.B, layer S2). Not an average.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, maps = x.shape
        sums = x.reshape(batch, height // 2, 2, width // 2, 2, maps).sum((2, 4))
        coefficient = self.param("coefficient", uniform_fan_in(4), (maps,), jnp.float32)
        bias = self.param("bias", uniform_fan_in(4), (maps,), jnp.float32)
        return sums * coefficient.astype(x.dtype) + bias.astype(x.dtype)


class TableConv(nn.Module):
    """5x5 convolution in which output map i sees only the input maps `table[i]` (layers C3 and H3).

    `kernel` is (5, 5, number of connections): what is not connected has no weight.
    """

    table: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = len(self.table)
        outputs = np.repeat(np.arange(maps), [len(row) for row in self.table])
        inputs = np.concatenate(self.table)
        fan_in = np.array([25 * len(row) for row in self.table])
        weights = self.param("kernel", uniform_fan_in(fan_in[outputs]), (5, 5, len(inputs)), jnp.float32)
        bias = self.param("bias", uniform_fan_in(fan_in), (maps,), jnp.float32)
        # One slot per possible connection; the absent ones point at a zero behind the weights.
        slots = np.full((x.shape[-1], maps), len(inputs))
        slots[inputs, outputs] = np.arange(len(inputs))
        kernel = jnp.pad(weights, [(0, 0), (0, 0), (0, 1)])[:, :, slots]
        return convolve(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


def check_size(x: jax.Array) -> None:
    """Raises a UserError unless x is (B, 32, 32, C)."""
    if x.ndim != 4 or x.shape[1:3] != (32, 32):
        raise UserError(f"LeNet-5 takes images (B, 32, 32, C), got {x.shape}; pad 28x28 digits by 2 pixels a side")


class LeNet1(Checked):
    """The network of 1989: (B, 28, 28, C) -> (B, num_classes); 2,578 parameters with one channel and ten classes.

    Input: -1 for white, 1 for ink, the 16x16 digit in the middle (pp. 398, 400). The outputs are the sums of the last
    units before they are squashed, of the same order as the paper's, so that every loss here takes them; the paper
    trains the squashed ones to +-1 by their squared error. With `num_classes=0` the 192 values of H4. Taps: h1 to h4.

    Raises:
      UserError: another image size.
    """

    num_classes: Classes = 10
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if x.ndim != 4 or x.shape[1:3] != (28, 28):
            raise UserError(f"LeNet-1 takes images (B, 28, 28, C), got {x.shape}")
        x = x.astype(self.dtype)
        h1_init = uniform_fan_in(25 * x.shape[-1])
        x = tap(self, "h1", squash(Conv(4, 5, kernel_init=h1_init, bias_init=h1_init, dtype=self.dtype, name="h1")(x)))
        x = tap(self, "h2", squash(Subsampling(name="h2")(x)))
        x = tap(self, "h3", squash(TableConv(H3_TABLE, name="h3")(x)))
        x = tap(self, "h4", squash(Subsampling(name="h4")(x)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """H4, (B, 4, 4, 12), -> logits: a linear layer."""
        x = x.reshape(len(x), -1)
        return classify(x, self.num_classes, train=train, kernel_init=uniform_fan_in(192), dtype=self.dtype)


TenDigits = Annotated[
    Literal[0, 10], Such("10 or 0", why="lenet5 compares with bitmaps of ten digits, lenet5_modern takes any number")
]


class LeNet5(Checked):
    """The network of 1998: (B, 32, 32, C) -> (B, 10); 60,000 trainable parameters with one channel.

    Input: white background -0.1, black ink 1.175 (sec. II.B). Output: minus the squared distance
    of F6 to each digit's bitmap (eq. 7), so that the largest logit wins as everywhere else here.
    With `num_classes=0` the 84 values of F6. Taps: c1, s2, c3, s4, c5, f6.

    Raises:
      UserError: another image size.
    """

    num_classes: TenDigits = 10
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        check_size(x)
        x = x.astype(self.dtype)
        maps = x.shape[-1]
        c1_init, c5_init = uniform_fan_in(25 * maps), uniform_fan_in(25 * 16)
        x = tap(self, "c1", squash(Conv(6, 5, kernel_init=c1_init, bias_init=c1_init, dtype=self.dtype, name="c1")(x)))
        x = tap(self, "s2", squash(Subsampling(name="s2")(x)))
        x = tap(self, "c3", squash(TableConv(C3_TABLE, name="c3")(x)))
        x = tap(self, "s4", squash(Subsampling(name="s4")(x)))
        x = tap(
            self, "c5", squash(Conv(120, 5, kernel_init=c5_init, bias_init=c5_init, dtype=self.dtype, name="c5")(x))
        )
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """C5, (B, 1, 1, 120), -> the outputs: F6 and the distances of eq. 7."""
        del train  # nothing in this network behaves differently in training
        f6_init = uniform_fan_in(120)
        x = nn.Dense(84, kernel_init=f6_init, bias_init=f6_init, dtype=self.dtype, name="f6")(x[:, 0, 0])
        x = tap(self, "f6", squash(x)).astype(jnp.float32)
        if self.num_classes == 0:
            return x
        return -jnp.square(x[:, None] - rbf_codes()).sum(-1)


class LeNet5Modern(Checked):
    """Dense C3, ReLU, 2x2 max pooling, linear output: (B, 32, 32, C) -> (B, num_classes).

    61,706 parameters with one channel and ten classes. Input: zero mean, unit variance. With
    `num_classes=0` the 84 values of F6. Taps: c1, s2, c3, s4, c5, f6.

    Raises:
      UserError: another image size.
    """

    num_classes: Classes = 10
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        check_size(x)
        x = tap(self, "c1", nn.relu(Conv(6, 5, dtype=self.dtype, name="c1")(x)))
        x = tap(self, "s2", max_pool(x, 2))
        x = tap(self, "c3", nn.relu(Conv(16, 5, dtype=self.dtype, name="c3")(x)))
        x = tap(self, "s4", max_pool(x, 2))
        x = tap(self, "c5", nn.relu(Conv(120, 5, dtype=self.dtype, name="c5")(x)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """C5, (B, 1, 1, 120), -> logits: F6 and a linear layer."""
        x = nn.Dense(84, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name="f6")(x[:, 0, 0])
        return classify(tap(self, "f6", nn.relu(x)), self.num_classes, train=train, dtype=self.dtype)


VARIANTS = (
    ModelInfo(
        "lenet1",
        LeNet1,
        "LeNet-1 of 1989: two halves that never meet, trainable subsampling",
        paper="LeCun et al., Handwritten Digit Recognition with a Back-Propagation Network",
        year=1989,
        section="p. 400",
        params=2_578,
        macs=91_520,
        num_classes=10,
        input_size=(28, 28, 1),
        mean=(0.5,),  # paper 0 -> -1, ink 1 -> 1
        std=(0.5,),
    ),
    ModelInfo(
        "lenet5",
        LeNet5,
        "LeNet-5 of 1998: sparse C3, trainable subsampling, RBF output",
        paper="LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition",
        year=1998,
        section="II.B",
        params=60_000,
        macs=325_680,
        num_classes=10,
        fixed=840,
        input_size=(32, 32, 1),
        mean=(0.1 / 1.275,),  # paper 0 -> -0.1, ink 1 -> 1.175
        std=(1 / 1.275,),
    ),
    ModelInfo(
        "lenet5_modern",
        LeNet5Modern,
        "LeNet-5 as it is taught today: dense C3, ReLU, max pooling, linear output",
        paper="after LeCun, Bottou, Bengio & Haffner",
        year=1998,
        section="II.B",
        params=61_706,
        macs=416_520,
        num_classes=10,
        input_size=(32, 32, 1),
        mean=(0.1307,),  # of MNIST's training images
        std=(0.3081,),
    ),
)
