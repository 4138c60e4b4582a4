"""jax.jit for programs that run once: compiled in a third of the time, with LLVM's optimisations left out.

Outside jit each operation is a program of its own, too small to be kept between runs: a network's
`init` and `apply` are a program each here.
"""

from functools import partial

import jax

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def quick_init(module, *inputs, **options):
    """`module.init(jax.random.key(0), *inputs, **options)` as one program."""
    return quick_jit(partial(module.init, **options))(jax.random.key(0), *inputs)


def quick_apply(module, variables, *inputs, **options):
    """`module.apply(variables, *inputs, **options)` as one program."""
    return quick_jit(partial(module.apply, **options))(variables, *inputs)
