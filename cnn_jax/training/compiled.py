"""A program compiled for a mesh and its data, ahead of time."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax.compilation import jit_once
from cnn_jax.data import order
from cnn_jax.data.engines import Batch, Engine
from cnn_jax.errors import UserError, first_line
from cnn_jax.evaluation import evaluate
from cnn_jax.training.program import Program
from cnn_jax.training.sharding import replicated, split
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import precise_statistics

MOMENTS = 0x626E0000  # set apart from the keys of steps


def per_seed(mesh: Mesh) -> NamedSharding:
    """(seeds, B, ...) arrays: each seed's batch split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def create_state(program: Program, places: Any = None) -> TrainState:
    """The state before the first step, made on the devices as `places` says; abstract if it says nothing.

    Several seeds (config.seeds) get a leading axis in every leaf.

    Raises:
      UserError: an option that the network does not have, or a size of images that it does not take.
    """
    config = program.config
    init = jax.vmap(program.init) if config.seeds > 1 else program.init
    seeds = np.arange(config.seed, config.seed + config.seeds, dtype=np.uint32)
    seed = seeds if config.seeds > 1 else seeds[0]
    if places is not None:
        return jit_once(init, out_shardings=places)(seed)
    try:
        return jax.eval_shape(init, seed)
    except UserError:
        raise
    except Exception as error:  # a map shrank below a pixel, or a layer met a size it was not made for
        height, width = program.size
        raise UserError(f"{config.model} does not take {height}x{width} images ({first_line(error)})") from error


class Compiled:
    """The functions of a run, for one mesh, one batch size and one place of the data.

    Attributes:
      step: (state, batch) -> (state, metrics); the state is donated.
      seconds: what tracing and compiling took.
    """

    def __init__(
        self,
        program: Program,
        mesh: Mesh,
        state: TrainState,
        engines: Mapping[str, Engine],
        sizes: Mapping[str, int],
        *,
        tested: str,
        shift: int = 0,
    ):
        """`engines` and `sizes`, in images, of "train", "test", maybe "validation"; `tested` is used after epochs."""
        start = time.perf_counter()
        self.program, self.engines, self.sizes = program, engines, sizes
        self._batch_size, self._seeds = program.config.batch_size, program.config.seeds
        self._everywhere = replicated(mesh)
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        train, test = program.train(shift), program.test()
        batches = split(mesh)
        if self._seeds > 1:
            train, test = side_by_side(train), partial(_of_seeds, test)
            batches = per_seed(mesh)
        self.step = self._compiled(
            train, "train", batches, state, out_shardings=(places, self._everywhere), donate_argnums=0
        )
        self._tests = {
            kind: self._compiled(test, kind, split(mesh), state.tested, out_shardings=self._everywhere)
            for kind in dict.fromkeys((tested, "test"))  # in one order: all processes compile together
        }
        if program.config.precise_bn:
            self._moments = self._compiled(
                lambda given, batch: program.moments()(given[0], batch, given[1]),
                "train",
                batches,
                (state.tested, state.key),
                out_shardings=self._everywhere,
            )
        self.seconds = time.perf_counter() - start

    def _compiled(self, function: Callable, kind: str, batches: NamedSharding, of: Any, **options) -> Callable:
        """Ahead of time: `function(of, batch)` for batches of `kind`."""
        engine = self.engines[kind]

        def gathered(of, data, batch):
            return function(of, jax.lax.with_sharding_constraint(engine.gather(data, batch), batches))

        shape = (self._batch_size,) if kind != "train" or self._seeds == 1 else (self._seeds, self._batch_size)
        program = jax.jit(gathered, **options).lower(of, engine.data, engine.example(shape)).compile()
        return lambda of, batch: program(of, engine.data, batch)

    def rows(self, epoch: int, offset: int = 0) -> np.ndarray:
        """Image numbers of an epoch's batches from image `offset` of its order on, (steps, B), or (steps, seeds, B)."""
        first = self.program.config.seed
        orders = [
            order.epoch_order(seed, epoch, self.sizes["train"], self._batch_size, offset)
            for seed in range(first, first + self._seeds)
        ]
        return np.stack(orders, 1) if self._seeds > 1 else orders[0]

    def predict(
        self, state: TrainState, kind: str, heed: Callable[[Iterable[Batch]], Iterator[Batch]]
    ) -> dict[str, np.ndarray]:
        """evaluation.evaluate's records of a whole split; of several seeds (N, seeds) but for `label` and `index`."""
        rows, mask = order.evaluation_order(self.sizes[kind], self._batch_size)
        batches = self.engines[kind].batches(rows)
        return evaluate(partial(self._tests[kind], state.tested), heed(batches), rows, mask)

    def settle(self, state: TrainState, epoch: int) -> TrainState:
        """The state with precise batch statistics, if the recipe asks for them: over first batches of the epoch."""
        rows = self.rows(epoch)[: self.program.config.precise_bn]
        if not len(rows):
            return state
        batches, key = self.engines["train"].batches(rows, epoch), jax.random.fold_in(state.key, MOMENTS)
        keys = (jax.device_put(jax.random.fold_in(key, number), self._everywhere) for number in range(len(rows)))
        found = precise_statistics(
            self._moments((state.tested, at), batch) for at, batch in zip(keys, batches, strict=True)
        )
        found = jax.device_put(found, self._everywhere)
        return state.replace(ema=state.ema | {"batch_stats": found}) if state.ema else state.replace(batch_stats=found)


def side_by_side(function: Callable) -> Callable:
    """`function` of several seeds at once, along the first axis of each argument.

    jax.vmap, but on a CPU one seed after another in the same program: vmap makes convolutions of one
    kernel a seed grouped ones, with which LeNet-5 trained at a quarter of the speed there.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function)

    def each(*arguments):
        seeds = len(jax.tree.leaves(arguments)[0])
        found = [function(*jax.tree.map(itemgetter(seed), arguments)) for seed in range(seeds)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return each


def _of_seeds(test: Callable, variables: dict, batch: Batch) -> dict[str, jax.Array]:
    """The records of one batch by several seeds' variables, (B, seeds); what is the same for all stays (B,)."""
    records = side_by_side(partial(test, batch=batch))(variables)
    same = {name: records[name][0] for name in ("label", "good")}
    return {name: values.T for name, values in records.items()} | same
