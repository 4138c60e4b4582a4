"""From a recipe to all that a step needs besides arrays; the one place where training knows a network by name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import transfer
from cnn_jax.data.order import Timeline
from cnn_jax.errors import UserError
from cnn_jax.models import model_info
from cnn_jax.models.structure import structure
from cnn_jax.recipes import Recipe
from cnn_jax.tasks import Task, image_size, make_task
from cnn_jax.training import optimizer
from cnn_jax.training.state import TrainState


@dataclass(frozen=True)
class Program:
    """What a recipe computes, for images of `channels` channels and `classes` classes; the steps' first argument.

    `cropped` says that training images come randomly cropped from the host. Nothing here compiles or
    reads data; the functions are for jit.
    """

    config: Recipe
    timeline: Timeline
    classes: int
    channels: int
    cropped: bool = False

    @cached_property
    def task(self) -> Task:
        """What is learned: the network's outputs, their loss and what is told of them."""
        return make_task(self.config, self.classes, self.channels, self.cropped)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self.task.size

    @cached_property
    def model(self) -> nn.Module:
        """The network; a UserError names an option of the recipe that it does not have."""
        return self._model()

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """Top-level layers that keep their values; a UserError names the nearest if the recipe's is none."""
        until = self.config.freeze_until
        return () if until is None else transfer.before(self._layers, until)

    @cached_property
    def _plain(self) -> nn.Module:
        """The network with what decides its layers alone."""
        return self._network(network_options(self.config))

    def _network(self, options: dict[str, Any]) -> nn.Module:
        """The task's, with these options; an error about one of the recipe's says how to leave it out."""
        try:
            return self.task.model(**options)
        except UserError as error:
            if any(repr(name) in str(error) for name in self.config.model_options):
                raise UserError(f"{error}; with --model-options '{{}}' the recipe asks for none") from None
            raise

    @cached_property
    def _layers(self) -> tuple[str, ...]:
        return transfer.layer_names(self._plain, (*self.size, self.channels))

    @cached_property
    def apply(self) -> Callable:
        """The network's, of (variables, images)."""
        return self.model.apply

    def _model(self, **batch_norm) -> nn.Module:
        config = self.config
        given: dict[str, Any] = {
            "dropout": config.dropout,
            "stochastic_depth": config.stochastic_depth or None,
            "zero_init": config.zero_init or None,
            "remat": config.remat or None,
        }
        own = {"group_size": config.bn_group_size, "momentum": config.bn_momentum}
        options = network_options(config) | {name: value for name, value in given.items() if value is not None}
        own = {name: value for name, value in own.items() if value is not None} | batch_norm
        norms, of_head = self._frozen_norms()
        if norms:
            own["frozen"] = (*options.get("batch_norm", {}).get("frozen", ()), *norms)
        if own:
            options["batch_norm"] = options.get("batch_norm", {}) | own
        if of_head:  # create_model, which makes the backbone, knows none of them
            options["frozen_head"] = of_head
        return self._network({"dtype": jnp.dtype(config.dtype), **options})

    def _frozen_norms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Paths of the batch norms that keep their statistics: the backbone's, and those of a head on it."""
        everywhere = self.config.freeze_norms
        if not (everywhere or self.frozen):
            return (), ()

        def among(network: nn.Module) -> tuple[str, ...]:
            variables = structure(network, (*self.size, self.channels)).variables
            return transfer.norms_in(variables, tuple(variables["params"]) if everywhere else self.frozen)

        backbone = getattr(self._plain, "backbone", self._plain)
        norms = among(backbone)
        if everywhere and not norms:
            raise UserError(f"--freeze-norms: {self.config.model} has no batch norm")
        # Those of a head start at 0 and 1, so that --freeze-norms leaves them; the layers before "up3" may be its.
        of_head = () if everywhere or backbone is self._plain else tuple(sorted({*among(self._plain)} - {*norms}))
        return norms, of_head

    def held(self, params: dict) -> dict:
        """The parameters, of which the frozen ones have no gradient, so that none is computed."""
        return {name: jax.lax.stop_gradient(part) if name in self.frozen else part for name, part in params.items()}

    @cached_property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The recipe's, which takes the learning rate with each step's gradient."""
        config, shares = self.config.optimizer, None
        if self.frozen or config.layer_decay < 1:
            shares = transfer.rate_shares(self._layers, self.frozen, config.layer_decay)
        return optimizer.make_optimizer(config, self.config.schedule, self.timeline.steps_per_epoch, shares)

    def init(self, seed: int | jax.Array) -> TrainState:
        """The state before the first step; traceable, `seed` too."""
        key_init, key_train = jax.random.split(jax.random.key(seed))
        variables = self.model.init(key_init, jnp.zeros((1, *self.size, self.channels)), train=False)
        return TrainState.create(variables, self.optimizer, key_train, ema=self.config.optimizer.ema > 0)

    @cached_property
    def beginning(self) -> tuple[Callable, Any]:
        """A function and its argument that make the state before the first step; several seeds have an axis in it.

        The same object each time: by that JAX finds what it has traced.
        """
        first, seeds = self.config.seed, self.config.seeds
        roots = np.arange(first, first + seeds, dtype=np.uint32)
        return (self.init, roots[0]) if seeds == 1 else (jax.vmap(self.init), roots)

    @cached_property
    def rate(self) -> optax.Schedule:
        """The learning rate of a step, by its number."""
        line = self.timeline
        of_epochs = (line.epochs, line.steps_per_epoch, line.batch_size, line.shift)
        return optimizer.make_rate(self.config.optimizer, self.config.schedule, *of_epochs)

    @cached_property
    def moments(self) -> Callable:
        """As `apply`, but running statistics become those of the batch itself.

        Raises:
          UserError: the network has no batch norm.
        """
        return self._model(momentum=0.0, group_size=None).apply

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of a training step for one image, by custom: 2 a multiply-add, 3 times forward."""
        return 3 * 2 * structure(self._plain, (*self.size, self.channels)).macs


def network_options(config: Recipe) -> dict[str, Any]:
    """Options of create_model that decide a recipe's network, its layers and what they compute in evaluation."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(plain, value))
        return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value

    stem = {} if config.stem is None else {"stem": config.stem}
    return stem | {name: plain(value) for name, value in config.model_options.items()}


def evaluation_view(config: Recipe) -> dict[str, Any]:
    """`size`, `crop` and `interpolation` of the images that a recipe's network is tested on, by its card."""
    info = model_info(config.model)
    return {"size": image_size(config)[0], "crop": info.crop, "interpolation": info.interpolation}
