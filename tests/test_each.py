import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.augment.each import each


def test_a_branch_for_each_image_is_taken_as_by_vmap():
    images = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    choose = lambda i, options: jax.lax.switch(i, [jnp.sin, jnp.cos, jnp.negative], options["image"])
    which = jnp.array([2, 0, 1, 1, 0])
    expected = [[np.sin, np.cos, np.negative][i](image) for i, image in zip(which, images, strict=True)]
    np.testing.assert_allclose(each(choose, which, {"image": images}), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(choose)(which, {"image": images}), expected, rtol=1e-6)
