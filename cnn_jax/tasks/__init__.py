"""What networks are trained for. A recipe names its task; a task is a small object with loss, metrics and pictures."""

from cnn_jax.recipes import Recipe
from cnn_jax.tasks.caption import Caption
from cnn_jax.tasks.classify import Classify
from cnn_jax.tasks.embed import Embed
from cnn_jax.tasks.segment import Segment
from cnn_jax.tasks.task import Figure, Records, Task, image_size

TASKS: dict[str, type[Task]] = {"classify": Classify, "embed": Embed, "segment": Segment, "caption": Caption}


def make_task(config: Recipe, classes: int, channels: int, cropped: bool = False) -> Task:
    """The task of a recipe, for images and labels as Task says."""
    return TASKS[config.task](config, classes, channels, cropped)


__all__ = ["TASKS", "Figure", "Records", "Task", "image_size", "make_task"]
