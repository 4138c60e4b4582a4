"""What memory a step takes."""

from dataclasses import replace

import pytest

from cnn_jax import UserError
from cnn_jax.recipes import Optimizer, Recipe
from cnn_jax.training.fit import Memory, largest_batch, report, step_memory, with_batch

RESNET = Recipe(model="resnet20_cifar", batch_size=16)
LENET = Recipe(model="lenet5_modern", image_size=32, batch_size=1024)  # compiled in a second
PARAMS, STATISTICS = 269_722, 1_376  # of ten classes; 2 * (7 * 16 + 6 * 32 + 6 * 64) of the 19 norms


def test_state_and_images_are_counted_to_the_byte():
    memory = step_memory(RESNET, classes=10)
    counters, key = 3 * 4, 2 * 4
    assert memory.state == 4 * (2 * PARAMS + STATISTICS) + counters + key  # with SGD's momentum
    assert memory.batch == 16 * (32 * 32 * 3 + 4)
    averaged = replace(RESNET, optimizer=Optimizer(kind="adamw", ema=0.9))
    more = step_memory(averaged, classes=10).state - memory.state
    assert more == 4 * (2 * PARAMS + STATISTICS) + 4  # another moment, the averages, Adam's counter


def test_accumulation_needs_less_work():
    plain = step_memory(LENET, classes=10).work
    parts = replace(LENET, optimizer=Optimizer(accumulate=4))
    assert step_memory(parts, classes=10).work < 0.5 * plain


def straight(fixed, per_image, tried):
    """Measures memory that is a straight line, and notes of which batches."""

    def measure(batch_size):
        tried.append(batch_size)
        return Memory(batch_size, fixed, 0, per_image * batch_size)

    return measure


@pytest.mark.parametrize("first", [1, 32, 4096])
@pytest.mark.parametrize(("limit", "best"), [(1000, 9), (10_000, 99), (1_000_000, 9992)])
def test_the_largest_batch_is_found_in_a_few_compilations(first, limit, best):
    tried = []
    measure = straight(100, 100, tried)
    found = largest_batch(measure, measure(first), limit)
    assert found.total <= limit and best * 15 / 16 - 1 <= found.batch_size <= best
    assert len(tried) <= 14


def test_the_largest_batch_divides_into_parts():
    measure = straight(100, 100, [])
    assert largest_batch(measure, measure(6), 1999, multiple=6).batch_size == 18
    assert largest_batch(measure, measure(6), 699, multiple=6) is None


def test_another_batch_size_keeps_groups_that_divide():
    config = with_batch(replace(RESNET, batch_size=32, bn_group_size=16), 24)
    assert (config.batch_size, config.bn_group_size) == (24, 8)


def test_a_report_says_whether_it_fits_and_what_would():
    told = []
    head, *table, last = report(LENET, limit=40 * 2**20, tell=told.append).splitlines()
    assert told[0] == "compiling a step of 1024 images" and len(told) <= 10
    assert head.startswith("lenet5_modern, a training step on images of 32x32: sgd, float32, compiled for one ")
    assert last.startswith("1024 images do not fit into 0.04 GiB; the largest batch is ")
    best = int(last.rsplit(" ", 1)[1])
    assert 0 < best < 1024 and [line.split()[0] for line in table] == ["images", "1024", str(best)]
    assert report(LENET, limit=2**18).endswith("1024 images do not fit into 0.00 GiB; no batch fits")


def test_images_that_a_network_does_not_take_are_told():
    with pytest.raises(UserError, match=r"of at least 75x75 pixels, not \(1, 20, 20, 3\)"):
        step_memory(Recipe(model="inception_v3", image_size=20, batch_size=2))
