import numpy as np

from cnn_jax.recipes import Recipe
from cnn_jax.recipes.uses import LABELS
from cnn_jax.tasks import TASKS, Figure, Task, make_task


def test_every_task_of_a_recipe_is_there():
    named = set(Recipe.__dataclass_fields__["task"].type.__args__)
    assert named == {*TASKS} == {*LABELS}


def test_a_task_says_what_it_tells():
    for task in TASKS.values():
        assert issubclass(task, Task) and isinstance(task.trained, Figure)
        assert task.tested and all(isinstance(figure, Figure) for figure in task.tested)


def test_a_test_is_told_by_its_figures():
    task = make_task(Recipe(model="lenet5_modern"), 10, 1)
    summary = {"test_top1": 0.875, "test_top5": 1.0, "test_count": 1200}
    assert Task.told(task, summary) == "test top-1 87.50% (top-5 100.00%) of 1,200 images,"


def test_what_a_network_sees_is_of_the_recipes_size():
    task = make_task(Recipe(model="lenet5_modern", image_size=20), 10, 1)
    assert task.size == (20, 20)
    assert task.preprocess(np.zeros((2, 28, 28, 1), np.uint8), None).shape == (2, 20, 20, 1)
