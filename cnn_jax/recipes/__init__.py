"""Recipes: everything that decides a run's result, as frozen dataclasses. No JAX is imported here."""

from cnn_jax.recipes import lenet
from cnn_jax.recipes.recipe import Augment, Optimizer, Recipe, Schedule

RECIPES: dict[str, Recipe] = {**lenet.RECIPES}
DEFAULT_RECIPE = "lenet5_modern"

__all__ = ["DEFAULT_RECIPE", "RECIPES", "Augment", "Optimizer", "Recipe", "Schedule"]
