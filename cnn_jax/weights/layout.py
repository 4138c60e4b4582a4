"""State dicts of PyTorch and Keras networks to variables and back: a layout rule each, a table of names each."""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnn_jax.errors import UserError, did_you_mean, first_line
from cnn_jax.models import create_model, model_info
from cnn_jax.models.structure import structure
from cnn_jax.weights.keras_layout import from_keras, to_keras
from cnn_jax.weights.names import BGR, aliases_for, table_for

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
KERAS_LEAVES = {"kernel": "kernel", "scale": "gamma", "bias": "bias", "mean": "moving_mean", "var": "moving_variance"}
Path = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One variable: its state-dict key, its shape there, its shape here, and whether the inputs stand the other way.

    `keras` says that axes stand there as here, in Keras's layout.
    """

    key: str
    theirs: tuple[int, ...]
    ours: tuple[int, ...]
    turned: bool = False
    keras: bool = False

    @property
    def axes(self) -> tuple[int, int]:
        """Those of outputs and inputs there."""
        return (-1, -2) if self.keras else (0, 1)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of that shape holds this variable: as it is there, flattened, or as a convolution."""
        if self.keras:
            return shape == self.theirs
        if len(self.ours) == 1:
            return shape in (self.ours, (1, *self.ours))  # the second in files of PyTorch before 0.4, bn_inception's
        *window, inputs, outputs = self.ours
        height, width = window or (1, 1)
        return shape in (self.theirs, (outputs, inputs * height * width), (outputs, inputs, height, width))

    def load(self, array: np.ndarray) -> jax.Array:
        """(O, I, kh, kw), or (O, I * kh * kw) flattened channels first, to (kh, kw, I, O); (O, I) to (I, O).

        Keras's kernels stand so already, depthwise ones with their last two axes exchanged, one of which is 1.
        """
        if len(self.ours) > 1 and not self.keras:
            *window, inputs, outputs = self.ours
            array = np.moveaxis(array.reshape(outputs, inputs, *window), (0, 1), (-1, -2))
        else:
            array = array.reshape(self.ours)
        array = array[..., ::-1, :] if self.turned else array
        return jnp.asarray(array, jnp.float32)

    def save(self, value: jax.Array) -> np.ndarray:
        """The way back, exact."""
        array = np.asarray(value)
        array = array[..., ::-1, :] if self.turned else array
        if len(self.ours) > 1 and not self.keras:
            array = np.moveaxis(array, (-1, -2), (0, 1))
        return np.ascontiguousarray(array.reshape(self.theirs))


def import_state_dict(
    name: str,
    state_dict: Mapping[str, np.ndarray],
    *,
    reference: str | None = None,
    key: jax.Array | None = None,
    **options,
) -> dict:
    """A PyTorch or Keras network's state dict as variables of `create_model(name, **options)`.

    `state_dict` maps the keys of torchvision, timm or Keras (whichever of the card's `references` fits
    best, or the one given) to arrays in that library's layout; read_state_dict reads one from a file.
    Keys may begin with "module.", "_orig_mod." or "model."; num_batches_tracked is ignored; image
    channels are the file's, in the order red, green, blue also where the file has Caffe's.

    Without `num_classes` the network has as many as the file. With another number everything but
    the head is taken, the head is drawn from `key` (jax.random.key(0) if none) and a warning
    says so; a file without a head needs `num_classes` said. Auxiliary heads that the file lacks
    are left out of the variables: enough for evaluation, and `aux=False` trains without them.

    Returns `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      UserError: the network has no reference, or keys are missing, surplus or misshapen, or
        values are no arrays of real numbers.
    """
    variables, told = imported(name, state_dict, reference=reference, key=key, **options)
    if told:
        warnings.warn(told, stacklevel=2)
    return variables


def imported(
    name: str,
    state_dict: Mapping[str, np.ndarray],
    *,
    reference: str | None = None,
    key: jax.Array | None = None,
    **options,
) -> tuple[dict, str | None]:
    """import_state_dict's variables, and what there is to say of a head that is not the file's."""
    given = _arrays(state_dict)
    shaping = {k: v for k, v in options.items() if k not in ("aux", "num_classes", "dtype")}
    reference, arrays, entries = _chosen(name, reference, given, shaping)
    entries, classes = _shaped(name, reference, arrays, entries, shaping, may_lack_head="num_classes" in options)
    _check(arrays, entries, f"{reference} ({name})")
    values = {path: entry.load(arrays[entry.key]) for path, entry in entries.items()}
    values, told = _refitted(name, values, classes, key, options)
    return unflatten_dict(values), told


def _chosen(
    name: str, reference: str | None, given: dict[str, np.ndarray], shaping: dict
) -> tuple[str, dict[str, np.ndarray], dict[Path, Entry]]:
    """The reference that knows most of the keys, the arrays by its names of today, and the variables there."""
    fits = []
    for candidate in _references(name, reference):
        arrays, entries = _current_names(given, candidate), places(name, candidate, shaping)
        fits.append((sum(entry.key in arrays for entry in entries.values()), candidate, arrays, entries))
    return max(fits, key=itemgetter(0))[1:]


def _shaped(
    name: str,
    reference: str,
    arrays: dict[str, np.ndarray],
    entries: dict[Path, Entry],
    shaping: dict,
    *,
    may_lack_head: bool,
) -> tuple[dict[Path, Entry], int]:
    """The entries for the file's own classes and channels of images, without heads that it lacks; and those classes."""
    info = model_info(name)
    kernels = (e.key for path, e in entries.items() if "head" in path and path[-1] == "kernel")
    head = next((arrays[key] for key in kernels if key in arrays), None)
    outputs, inputs = entries[first_kernel(name)].axes
    classes = head.shape[outputs] if head is not None and head.ndim else info.num_classes
    stem = arrays.get(entries[first_kernel(name)].key)
    channels = stem.shape[inputs] if stem is not None and stem.ndim == 4 else info.input_size[2]
    if (classes, channels) != (info.num_classes, info.input_size[2]):
        entries = places(name, reference, shaping | {"num_classes": classes}, channels)
    if head is None and may_lack_head:
        classes = 0
        entries = {path: e for path, e in entries.items() if "head" not in path}
    if not any(e.key in arrays for path, e in entries.items() if _is_aux(path)):
        entries = {path: e for path, e in entries.items() if not _is_aux(path)}
    return entries, classes


def _refitted(
    name: str, values: dict[Path, jax.Array], classes: int, key: jax.Array | None, options: dict
) -> tuple[dict[Path, jax.Array], str | None]:
    """The values with the head that is asked for, and what to say if it is not the file's."""
    wanted = options.get("num_classes", classes)
    if options.get("aux") is False or wanted == 0:
        values = {path: value for path, value in values.items() if not _is_aux(path)}
    if wanted == classes:
        return values, None
    new = f"the head for {wanted} is newly drawn" if wanted else "the head is left out"
    values = {path: value for path, value in values.items() if "head" not in path}
    if wanted:
        model, size = create_model(name, **options), model_info(name).input_size
        image = jnp.zeros((1, *size[:2], values[first_kernel(name)].shape[-2]))
        drawn = jax.jit(lambda k: model.init(k, image, train=False))(jax.random.key(0) if key is None else key)
        values |= {path: value for path, value in flatten_dict(drawn).items() if "head" in path}
    return values, f"{name}: the weights are for {classes} classes; {new}"


def export_state_dict(
    name: str, variables: Mapping, *, reference: str | None = None, **options
) -> dict[str, np.ndarray]:
    """Variables of `create_model(name, **options)` as a state dict for PyTorch or Keras, the exact way back.

    In the layout of `reference`, by default the first of the card's. PyTorch's batch norms get a
    num_batches_tracked of 0, biases that Keras has before batch norms are 0, and scales that its batch norms
    lack go into the convolutions before them.

    Raises:
      UserError: the network has no such reference, or the variables are not its own.
    """
    reference = _references(name, reference)[0]
    values = flatten_dict(dict(variables))
    head = next((value for path, value in values.items() if path[0] == "params" and "head" in path), None)
    if head is not None:
        options = {"num_classes": head.shape[-1]} | options
    stem = values.get(first_kernel(name))
    entries = places(name, reference, options, None if stem is None else stem.shape[-2])
    strange = ["/".join(path) for path in values if path not in entries]
    wrong = ["/".join(p) for p, v in values.items() if p in entries and v.shape != entries[p].ours]
    whole = {path[1] for path in values}  # a head may be absent, half a head may not
    absent = ["/".join(p) for p in entries if p not in values and (p[1] in whole or not (_is_aux(p) or "head" in p))]
    if problems := _problems("they", ("lack", absent), ("have besides", strange), ("differ in shape at", wrong)):
        raise UserError(f"these are not variables of {name}: {problems}")
    state_dict = {}
    for path, entry in entries.items():
        if path in values:
            state_dict[entry.key] = entry.save(values[path])
            if path[-1] == "var" and not entry.keras:
                state_dict[entry.key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return to_keras(state_dict, reference) if reference.startswith("keras.") else state_dict


def _references(name: str, reference: str | None) -> tuple[str, ...]:
    """The one asked for, or all of the card's."""
    references = model_info(name).references
    if not references:
        raise UserError(f"{name} has no published weights in another library's layout")
    if reference is not None and reference not in references:
        raise UserError(did_you_mean(f"reference of {name}", reference, references))
    return references if reference is None else (reference,)


def _arrays(state_dict: Mapping) -> dict[str, np.ndarray]:
    """The entries as arrays, by their names without what training wrappers put before them."""
    if not isinstance(state_dict, Mapping):
        kind = type(state_dict).__name__
        raise UserError(f"a state dict maps names to arrays, this is a {kind}; read_state_dict(path) reads a file")
    arrays: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        key = re.sub(r"^(module\.|_orig_mod\.|model\.)+", "", str(name))
        if key.endswith("num_batches_tracked"):
            continue
        if key in arrays:
            raise UserError(f"the state dict has {key} twice, once as {name}")
        arrays[key] = _array(str(name), value)
    return arrays


def _array(name: str, value: Any) -> np.ndarray:
    """A NumPy array of numbers; PyTorch's tensors are welcome too."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu().double().numpy()
        array = np.asarray(value)
    except Exception as error:  # ragged lists, foreign objects
        raise UserError(f"{name} in the state dict is no array: {first_line(error)}") from error
    if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
        raise UserError(f"{name} in the state dict is no array of real numbers, but of {array.dtype}")
    return array


def first_kernel(name: str) -> Path:
    """Where the first convolution's kernel stands, (kh, kw, channels of the image, features)."""
    return ("params", *model_info(name).structure.layers[0].path.split("/"), "kernel")


def _is_aux(path: Path) -> bool:
    return path[1].startswith("aux")


def places(
    name: str, reference: str, options: Mapping = MappingProxyType({}), channels: int | None = None
) -> dict[Path, Entry]:
    """Every variable of the network with its place in the reference's state dict."""
    info, table, keras = model_info(name), table_for(reference), reference.startswith("keras.")
    height, width, usual = info.input_size
    if options.get("num_classes") == info.num_classes:
        options = {option: value for option, value in options.items() if option != "num_classes"}
    if options or channels not in (None, usual):
        found = structure(create_model(name, **options), (height, width, channels or usual))
    else:
        found = info.structure
    entries, leaves = {}, flatten_dict(found.variables)
    for path, leaf in leaves.items():
        layer = "/".join(path[1:-1])
        rows = ((re.fullmatch(row[0], layer), row) for row in table)
        match, (_, target, *axes) = next((found for found in rows if found[0]), (None, ("", "")))
        if match is None:
            raise UserError(f"{reference} has no layer for {layer}, which {name} has with these options")
        target, axes = _expanded(match, target), axes[0] if axes else len(leaf.shape)
        first = path == first_kernel(name)
        if keras:
            leaf_name = "beta" if (*path[:-1], "scale") in leaves and path[-1] == "bias" else KERAS_LEAVES[path[-1]]
            key, theirs = f"{target}{'_' if '/' in target else '/'}{leaf_name}", _keras_shape(leaf.shape, axes, first)
        else:
            key, theirs = f"{target}.{LEAVES[path[-1]]}", _torch_shape(leaf.shape, axes)
        entries[path] = Entry(key, theirs, leaf.shape, reference in BGR and first, keras)
    return entries


def _torch_shape(ours: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """The shape of a variable in PyTorch, where a kernel has so many axes."""
    if len(ours) == 1:
        return ours
    *window, inputs, outputs = ours
    window = [*window, 1, 1][:2]
    return (outputs, inputs, *window) if axes == 4 else (outputs, inputs * math.prod(window))


def _keras_shape(ours: tuple[int, ...], axes: int, first: bool) -> tuple[int, ...]:
    """The shape of a variable in Keras. A kernel of one input is a depthwise one, unless it is the first."""
    if len(ours) == 1:
        return ours
    *window, inputs, outputs = ours
    if axes == 2:
        return math.prod(window) * inputs, outputs
    depthwise = window and inputs == 1 and not first
    return (*(window or (1, 1)), *((outputs, inputs) if depthwise else (inputs, outputs)))


def _expanded(match: re.Match, name: str) -> str:
    """A name of a table with its groups filled in; `<1>` is the first, a number, less one."""
    return match.expand(re.sub(r"<(\d)>", lambda place: str(int(match[int(place[1])]) - 1), name))


def _current_names(arrays: dict[str, np.ndarray], reference: str) -> dict[str, np.ndarray]:
    for pattern, name in aliases_for(reference):
        arrays = {re.sub(pattern, name, k): v for k, v in arrays.items()}
    return from_keras(arrays, reference) if reference.startswith("keras.") else arrays


def _check(arrays: Mapping[str, np.ndarray], entries: Mapping[Path, Entry], whose: str) -> None:
    """Raises a UserError that names what is missing, surplus or misshapen."""
    keys = {entry.key for entry in entries.values()}
    misshapen = [
        f"{e.key} {arrays[e.key].shape} instead of {e.theirs}"
        for e in entries.values()
        if e.key in arrays and not e.admits(arrays[e.key].shape)
    ]
    problems = _problems(
        "it",
        ("misses", [key for key in keys if key not in arrays]),
        ("has besides", [key for key in arrays if key not in keys]),
        ("has", misshapen),
    )
    if problems:
        raise UserError(f"this state dict is not one of {whose}: {problems}")


def _problems(who: str, *kinds: tuple[str, list[str]]) -> str:
    """`it misses a, b, c and 4 more; it has besides d`, or nothing."""
    told = []
    for verb, names in kinds:
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            told.append(f"{who} {verb} {', '.join(sorted(names)[:5])}{more}")
    return "; ".join(told)
