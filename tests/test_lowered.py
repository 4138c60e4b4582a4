"""The switch, and what holds of every primitive of ours: derivatives of all kinds, vmap, devices, platforms."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax import UserError, create_model
from cnn_jax.layers import BatchNorm, SqueezeExcite, avg_pool, lowering, max_pool
from cnn_jax.layers.conv import convolve


def numbers(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def norm(scale, x):
    """Batch norm in training, and its running statistics."""
    layer = BatchNorm(group_size=2)
    params, stats = {"scale": scale, "bias": 0.3 * scale}, {"mean": 0 * scale, "var": 1 + 0 * scale}
    y, changed = layer.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    return y, changed


def gate(weights, x):
    layer = SqueezeExcite(2)
    half = weights.shape[0] // 2
    dense = {"kernel": weights[:, :half], "bias": weights[0, :half]}
    return layer.apply({"params": {"reduce": dense, "expand": {"kernel": weights[:half], "bias": weights[1]}}}, x)


LAYERS = {
    "conv": (lambda w, x: convolve(x, w, (2, 1), ((1, 0), (1, 2))), (3, 3, 6, 4)),
    "grouped": (lambda w, x: convolve(x, w, 1, 1, 3), (3, 3, 2, 9)),
    "depthwise": (lambda w, x: convolve(x, w, 2, 1, 6), (3, 3, 1, 6)),
    "dilated": (lambda w, x: convolve(x, w, 1, 2, 1, (2, 3)), (3, 2, 6, 4)),
    "pointwise": (lambda w, x: convolve(x, w, 2), (1, 1, 6, 5)),
    "dense": (lambda w, x: convolve(x, w), (9, 8, 6, 5)),
    "norm": (norm, (6,)),
    "gate": (gate, (6, 6)),
    "max": (lambda w, x: max_pool(x * w, 3, 2, 1, ceil_mode=True), (6,)),
    "mean": (lambda w, x: avg_pool(x * w, 3, 2, 1, count_include_pad=False), (6,)),
}
X = numbers(4, 9, 8, 6)


def losses(name):
    """The layer's loss by parameters and images; a function for each way of lowering, which jit has not seen."""
    layer, shape = LAYERS[name]

    def loss(kind, w, x):
        with lowering(kind):
            return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(layer(w, x)))

    return {kind: partial(loss, kind) for kind in ("auto", "jax", "xla")}, numbers(*shape)


def near(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5 * float(jnp.abs(other).max()))  # float32


def gradients(loss):
    """Of first and second order, in both modes, of single images, with activations computed again."""
    first = jax.grad(loss, (0, 1))
    return {
        "reverse": first,
        "forward over reverse": lambda w, x: jax.jvp(first, (w, x), (0.5 * w, 0.3 * x)),
        "reverse over reverse": jax.grad(lambda w, x: sum((leaf**2).sum() for leaf in first(w, x)), (0, 1)),
        "forward": lambda w, x: jax.jvp(loss, (w, x), (0.5 * w, 0.3 * x)),
        "of single images": lambda w, x: jax.vmap(jax.grad(loss), (None, 0))(w, x.reshape(2, 2, *x.shape[1:])),
        "of several parameters": lambda w, x: jax.vmap(jax.grad(loss), (0, None))(jnp.stack([w, 2 * w]), x),
        "remat": jax.grad(jax.checkpoint(loss), (0, 1)),
    }


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_of_every_kind_equal_those_of_jax(name):
    by_kind, w = losses(name)

    @quick_jit
    def all_of_them(w, x):
        return {kind: {how: f(w, x) for how, f in gradients(loss).items()} for kind, loss in by_kind.items()}

    found = all_of_them(w, X)
    near(found["auto"], found["xla"])
    near(found["jax"], found["xla"])


@pytest.mark.parametrize("name", ["conv", "depthwise", "norm", "max"])
def test_without_jit_each_operation_is_a_program(name):
    by_kind, w = losses(name)
    near(by_kind["auto"](w, X), by_kind["xla"](w, X))


def test_jax_without_jit_computes_the_same():
    """jax.disable_jit, by which people look inside."""
    functions, w = losses("conv")
    with jax.disable_jit():
        near(jax.grad(functions["auto"])(w, X), jax.grad(functions["xla"])(w, X))


def test_xla_leaves_no_primitive_of_ours():
    model = create_model("resnet18")
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 64, 3)))

    def text(kind):
        def run(variables, x):
            return model.apply(variables, x, train=False)

        with lowering(kind):
            return str(jax.make_jaxpr(run)(variables, jnp.zeros((1, 64, 64, 3))))

    def ours(kind):
        return [word for word in ("window_max", "conv", "affine", "moments", "means") if f" {word}[" in text(kind)]

    assert ours("auto") == ours("jax") == ["window_max", "conv", "affine", "means"]
    assert ours("xla") == [] and " conv_general_dilated[" in text("xla")


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="unknown lowering 'xl'; did you mean xla"), lowering("xl"):
        pass


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_operations_of_jax(platform):
    def step(w, x):
        return jax.grad(lambda w: max_pool(convolve(x, w, 1, 1, 6), 3, 2).sum())(w)

    w, x = numbers(3, 3, 1, 6), X
    text = jax.export.export(jax.jit(step), platforms=[platform])(w, x).mlir_module()
    assert text.count("stablehlo.convolution") == 2 and text.count("stablehlo.select_and_scatter") == 1
    assert "custom_call" not in text


def test_one_exported_program_serves_several_platforms():
    def step(w, x):
        return jax.grad(lambda w: (convolve(x, w, 2, 1, 6) ** 2).sum())(w)

    w = numbers(3, 3, 1, 6)
    exported = jax.export.export(jax.jit(step), platforms=["cpu", "cuda", "tpu"])(w, X)
    assert "custom_call" not in exported.mlir_module()  # no library, which another machine would lack
    near(exported.call(w, X), step(w, X))


ON_EIGHT = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import test_lowered as t
from cnn_jax.layers import lowering

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
x = t.numbers(16, 9, 8, 6)
for name in t.LAYERS:
    by_kind, w = t.losses(name)
    expected = jax.jit(jax.grad(by_kind["xla"], (0, 1)))(w, x)
    for kind in ("auto", "jax"):
        loss = by_kind[kind]
        batch, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        step = jax.jit(jax.grad(loss, (0, 1)), in_shardings=(everywhere, batch), out_shardings=(everywhere, batch))
        program = step.lower(w, x).compile()
        assert "all-gather" not in program.as_text(), (name, kind)
        t.near(program(jax.device_put(w, everywhere), jax.device_put(x, batch)), expected)

        def mine(w, x):
            return jax.grad(lambda w: jax.lax.psum(loss(w, x), "data"))(w)

        if name != "norm":  # whose statistics are then of one device
            t.near(jax.jit(jax.shard_map(mine, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))(w, x), expected[0])
print("equal")
"""


def test_eight_devices_give_the_same_and_gather_no_activations():
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)]),
    }
    done = subprocess.run([sys.executable, "-c", ON_EIGHT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == "equal\n", done.stderr
