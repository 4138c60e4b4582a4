"""Any network as one that embeds."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.embedding.losses import unit
from cnn_jax.layers import auxiliary
from cnn_jax.layers.options import Checked, Classes, Count, ModuleDef


class Embedder(Checked):
    """(B, H, W, C) images -> (B, dim) float32 embeddings of length 1.

    A linear layer without bias, called "head", on what `backbone` gives, whose layers keep their own names beside it:
    `Embedder(create_model("resnet50", num_classes=0))`. A `norm` may follow it, as BatchNorm does in facenet's and
    ArcFace's networks. With `dim=None` there is no layer: the features themselves are brought to length 1, which for
    inception_resnet_v1 gives facenet-pytorch's 512 values.

    `directions` adds ArcFace's, one for each class. They are an auxiliary head, "aux_arcface", with a `kernel` (dim,
    directions), whose cosines with the embeddings go out in training alone, to `mutable=["aux_logits"]`;
    `arcface_logits` puts the margin to them.
    """

    backbone: nn.Module
    dim: Count | None = 128
    norm: ModuleDef | None = None
    directions: Classes = 0
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        nn.share_scope(self, self.backbone)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.backbone(x, train=train)
        if self.dim is not None:
            x = nn.Dense(self.dim, use_bias=False, dtype=self.dtype, name="head")(x)
        if self.norm is not None:
            x = self.norm(dtype=self.dtype, name="head_norm")(x, train=train)
        x = unit(x)
        if self.directions and (train or self.is_initializing()):
            Directions(self.directions, name="aux_arcface")(x)
        return x


class Directions(nn.Module):
    """Cosines of embeddings (B, D) of length 1 with a direction for each class, (B, classes)."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # As a linear layer begins; lengths do not matter.
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.classes))
        return auxiliary(self, jnp.dot(x, unit(kernel.T).T, precision="highest"))
