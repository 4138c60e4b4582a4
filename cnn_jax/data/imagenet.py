"""The thousand classes of ImageNet-1k (ILSVRC 2012), in the order of their numbers."""

from importlib import resources

# A class a line: WordNet's number of the synset, in whose order classes are numbered (timm 1.0.31,
# data/_info/imagenet_synsets.txt; TFDS's imagenet2012 has the same), and a name that no other class has
# (torchvision 0.29.1, models/_meta.py; BSD 3-Clause, after WordNet 3.0).
_LINES = resources.files("cnn_jax.data").joinpath("imagenet_classes.txt").read_text().splitlines()

NAMES: dict[str, str] = dict(line.split(" ", 1) for line in _LINES)
CLASSES: tuple[str, ...] = tuple(NAMES.values())
