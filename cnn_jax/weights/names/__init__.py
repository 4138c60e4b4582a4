"""Where each network's variables stand in the state dicts of other libraries: one table a family.

A row (pattern, name) is for re.fullmatch over the path of a layer here, such as
"stage2_block1/conv1/norm"; the first row that matches gives the layer's name there. In a name
`\\1` is the first group, and `<1>` the first group, a number, less one: we count from 1, PyTorch
from 0. A third element says how many axes the weight has there, where that is not the kernel's
number here: SE layers that are 1x1 convolutions (4), flattened fully connected ones (2). Keras's
networks are a file of their own.
"""

from fnmatch import fnmatchcase

from cnn_jax.weights.names import cells, inception, keras, mobile, residual, sequential
from cnn_jax.weights.names.table import Table

# Keyed by a glob over a card's references; the first that matches counts.
TABLES: dict[str, Table] = (
    sequential.TABLES | inception.TABLES | residual.TABLES | mobile.TABLES | cells.TABLES | keras.TABLES
)
ALIASES = residual.ALIASES | keras.ALIASES
# Their first kernels see blue, green, red, as Caffe's images are; ours see red, green, blue.
BGR = (
    "pretrainedmodels.bninception",
    *("keras.VGG16", "keras.VGG19", "keras.ResNet50", "keras.ResNet101", "keras.ResNet152"),
)


def table_for(reference: str) -> Table:
    """The table of a reference such as "timm.resnet50"."""
    return next(table for glob, table in TABLES.items() if fnmatchcase(reference, glob))


def aliases_for(reference: str) -> tuple[tuple[str, str], ...]:
    """What to substitute in the keys of a file of that reference; mostly nothing."""
    return next((rows for glob, rows in ALIASES.items() if fnmatchcase(reference, glob)), ())
