import dataclasses

import pytest

from cnn_jax import RECIPES, UserError, list_models
from cnn_jax.recipes import Augment, Optimizer, Recipe, Schedule


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_names_a_registered_model(name):
    assert RECIPES[name].model in list_models()


def test_the_1998_recipe_trains_the_1998_network():
    recipe = RECIPES["lenet5_1998"]
    assert (recipe.model, recipe.loss, recipe.epochs) == ("lenet5", "map", 20)  # 20 passes, sec. III.B


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["lenet5_modern"].epochs = 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe("m", epochs=0), "epochs must be at least 1 and at most 1,000,000, not 0"),
        (lambda: Recipe("m", batch_size=-4), "batch-size must be at least 1 and at most 1,000,000, not -4"),
        (lambda: Recipe("m", seed=-1), "seed must be at least 0 and at most 4,294,967,295, not -1"),
        (lambda: Recipe("m", label_smoothing=1.0), "label-smoothing must be at least 0 and at most 0.99, not 1.0"),
        (lambda: Optimizer(lr=0.0), "optimizer.lr must be above 0, not 0.0"),
        (lambda: Optimizer(lr=float("nan")), "optimizer.lr must be a finite number, not nan"),
        (lambda: Optimizer(lr=float("inf")), "optimizer.lr must be a finite number, not inf"),
        (lambda: Optimizer(momentum=1.5), "optimizer.momentum must be at least 0 and at most 1, not 1.5"),
        (lambda: Optimizer(weight_decay=-1), "optimizer.weight-decay must be at least 0, not -1"),
        (lambda: Schedule(boundaries=(float("inf"),)), "schedule.boundaries must be a finite number, not inf"),
        (lambda: Schedule(boundaries=(0.0,)), "schedule.boundaries must be above 0, not 0.0"),
        (lambda: Schedule(warmup=-1), "schedule.warmup must be at least 0 and at most 1,000,000, not -1"),
        (lambda: Schedule(factor=0), "schedule.factor must be above 0 and at most 1, not 0"),
        (lambda: Schedule(patience=0), "schedule.patience must be at least 1, not 0"),
        (lambda: Schedule(kind="step"), "schedule.boundaries must be given with schedule.kind=step, not ()"),
        (
            lambda: Schedule(kind="step", boundaries=(3, 2)),
            "schedule.boundaries must be rising epochs above 0, not (3, 2)",
        ),
        (lambda: Optimizer(lr_per=0), "optimizer.lr-per must be at least 1 and at most 1,000,000, not 0"),
        (lambda: Optimizer(decay=1.0), "optimizer.decay must be at least 0 and below 1, not 1.0"),
        (lambda: Optimizer(betas=(0.9, 1.0)), "optimizer.betas must be at least 0 and below 1, not 1.0"),
        (lambda: Optimizer(betas=(0.9,)), "optimizer.betas must be two numbers, not (0.9,)"),
        (lambda: Optimizer(epsilon=0.0), "optimizer.epsilon must be above 0, not 0.0"),
        (lambda: Optimizer(clip=-1.0), "optimizer.clip must be at least 0, not -1.0"),
        (lambda: Optimizer(accumulate=0), "optimizer.accumulate must be at least 1 and at most 1,000,000, not 0"),
        (lambda: Optimizer(ema=1.0), "optimizer.ema must be at least 0 and below 1, not 1.0"),
        (lambda: Schedule(warmup_from=1.5), "schedule.warmup-from must be at least 0 and at most 1, not 1.5"),
        (
            lambda: Schedule(warmup=1, warmup_kind="constant"),
            "schedule.warmup-from must be above 0 with schedule.warmup-kind=constant, not 0.0",
        ),
        (lambda: Schedule(every=0), "schedule.every must be above 0 and at most 1,000,000, not 0"),
        (lambda: Schedule(power=0), "schedule.power must be above 0 and at most 100, not 0"),
        (lambda: Schedule(end=2.0), "schedule.end must be at least 0 and at most 1, not 2.0"),
        (
            lambda: Schedule(kind="plateau", factor=1.0),
            "schedule.factor must be below 1 with schedule.kind=plateau, not 1.0",
        ),
        (
            lambda: Recipe("m", batch_size=64, optimizer=Optimizer(accumulate=3)),
            "batch-size must be a multiple of optimizer.accumulate=3, not 64",
        ),
        (
            lambda: Recipe("m", batch_size=64, optimizer=Optimizer(accumulate=2), bn_group_size=24),
            "bn-group-size must be a divisor of the 32 images that are computed at once, not 24",
        ),
        (lambda: Recipe("m", bce_threshold=1.0), "bce-threshold must be at least 0 and below 1, not 1.0"),
        (lambda: Recipe("m", aux_weight=-1), "aux-weight must be at least 0, not -1"),
        (lambda: Recipe("m", dropout=1.0), "dropout must be at least 0 and below 1, not 1.0"),
        (lambda: Recipe("m", stochastic_depth=1.0), "stochastic-depth must be at least 0 and below 1, not 1.0"),
        (lambda: Recipe("m", bn_momentum=1.0), "bn-momentum must be at least 0 and below 1, not 1.0"),
        (lambda: Recipe("m", precise_bn=-1), "precise-bn must be at least 0 and at most 1,000,000, not -1"),
        (lambda: Recipe("m", max_skipped=0), "max-skipped must be at least 1 and at most 1,000,000, not 0"),
        (lambda: Recipe("m", start=" "), "start must be a folder, not ' '"),
        (lambda: Recipe("m", remat=("",)), "remat must be names or globs such as \"stage1*\", not ('',)"),
        (lambda: Augment(rotate=-1), "augment.rotate must be at least 0 and at most 180, not -1"),
        (lambda: Augment(scale=1.0), "augment.scale must be at least 0 and at most 0.9, not 1.0"),
    ],
)
def test_values_out_of_range_are_told_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == message
