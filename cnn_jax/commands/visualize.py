"""`cnn-jax visualize`: what a network looks at, as a picture. JAX comes after the command line is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cnn_jax.commands.network import Network

CAMS = {"gradcam": "gradcam", "gradcam++": "gradcam_plus_plus", "layercam": "layercam"}
MAPS = ("saliency", "guided_backprop", "integrated_gradients", "occlusion", *CAMS)
WITHOUT_PHOTO = ("filters", "activation_maximization")
METHODS = (*MAPS, "deconvnet", "features", *WITHOUT_PHOTO)
LAYERED = (*CAMS, "deconvnet", "features", "activation_maximization")
CHANNELED = ("deconvnet", "activation_maximization")
OF_A_CLASS = (*MAPS, "activation_maximization")
MOST = 64, 9  # channels that are drawn: of a layer's features, of a deconvnet


def add_visualize(commands: Any) -> None:
    """The options of the command."""
    look = commands.add_parser("visualize", help="what a network looks at, as a picture")
    look.add_argument("method", metavar="METHOD", help=", ".join(METHODS))
    look.add_argument("photo", nargs="?", metavar="PHOTO", help=f"not for {' and '.join(WITHOUT_PHOTO)}")
    look.add_argument(
        "--model", required=True, metavar="NAME", help="a tag such as resnet50.tv_in1k, or what train.py left"
    )
    look.add_argument("--weights", metavar="FILE", help="of the model, where they are not published ones")
    look.add_argument("--target", metavar="CLASS", help="its name or number; what the network takes PHOTO for")
    look.add_argument("--layer", metavar="NAME", help="of the network, such as stage4; the last map")
    look.add_argument("--channel", type=int, metavar="NUMBER", help=f"of the layer, for {' and '.join(CHANNELED)}")
    look.add_argument("--score", action="store_true", help="also how fast the class goes as the map's pixels go")
    look.add_argument("--out", type=Path, metavar="FILE.png", help="METHOD-PHOTO.png if not given")
    look.set_defaults(run=visualize_command)


def visualize_command(
    *,
    method: str,
    photo: str | None,
    model: str,
    weights: str | None,
    target: str | None,
    layer: str | None,
    channel: int | None,
    score: bool,
    out: Path | None,
) -> str:
    """Writes the picture; a line on what is in it.

    `model` and `weights` are open_source's.

    Raises:
      UserError: no such method, network, photograph, class, layer or channel; an option that the method has no use for.
    """
    if method not in METHODS:
        raise UserError(did_you_mean("method", method, METHODS))
    if (photo is None) != (method in WITHOUT_PHOTO):
        wants = "takes no photograph" if photo else "takes a photograph: cnn-jax visualize METHOD PHOTO --model NAME"
        raise UserError(f"{method} {wants}")
    for option, given, takers in (
        ("--target", target is not None, OF_A_CLASS),
        ("--layer", layer is not None, LAYERED),
        ("--channel", channel is not None, CHANNELED),
        ("--score", score, MAPS),
    ):
        if given and method not in takers:
            raise UserError(f"{method} takes no {option}; it is for {', '.join(takers)}")
    if photo is not None and not Path(photo).is_file():  # before weights are fetched
        raise UserError(f"there is no file {photo}")
    out = out or Path(f"{method}-{Path(photo).stem}.png" if photo else f"{method}.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out is the name of a picture, such as {out.stem}.png, not {out}")

    from cnn_jax.compilation import keep_programs
    from cnn_jax.visualize import can_draw

    if not can_draw():
        raise UserError("pictures need matplotlib: pip install matplotlib")
    keep_programs()
    from cnn_jax.commands.network import open_source
    from cnn_jax.visualize import draw_panels

    network = open_source(model, weights)
    number = None if target is None else class_number(target, network.classes, network.num_classes)
    if photo is None:
        panels, told = _without_photo(method, network, number, layer, channel)
    elif method in MAPS:
        panels, told = _map(method, network, photo, number, layer, score)
    else:
        panels, told = _of_layer(method, network, photo, layer, channel)
    draw_panels(panels, out, f"{method}, {network.source}: {told}")
    return f"{method}: {told}; {out}"


def class_number(target: str, classes: Sequence[str] | None, count: int) -> int:
    """The number of a class by its name, in whatever letters, or its number.

    Raises:
      UserError: there is none, or several of this name.
    """
    found = [i for i, name in enumerate(classes or ()) if name.lower() == target.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} classes are called {target!r}; say which: {', '.join(map(str, found))}")
    if target.isdecimal() and int(target) < count:
        return int(target)
    if classes is None or target.isdecimal():
        raise UserError(f"the network's classes are 0 to {count - 1}, not {target!r}")
    raise UserError(did_you_mean("class", target, classes))


def _map(
    method: str, network: "Network", photo: str, number: int | None, layer: str | None, score: bool
) -> tuple[dict, str]:
    import jax
    import numpy as np

    from cnn_jax import visualize
    from cnn_jax.visualize.scores import last_map, logits

    pixels, seen = _read(network, photo)
    of = network.model, network.variables, seen
    probabilities = jax.nn.softmax(logits(*of))[0]
    number = int(probabilities.argmax()) if number is None else number
    name = str(number) if network.classes is None else network.classes[number]
    how, where = {}, ""
    if method in CAMS:
        how = {"layer": layer or last_map(network.model, seen)}
        where = f" in {how['layer']}"
    elif method == "occlusion":
        how = {"window": max(1, min(pixels.shape[:2]) // 6)}
    found = getattr(visualize, CAMS.get(method, method))(*of, number, **how)
    panels = {"what the network sees": pixels, f"{method}{where}": visualize.overlay(pixels, np.asarray(found[0]))}
    if method == "guided_backprop":
        gradient = visualize.input_gradient(*of, number, rule="guided")
        panels["in colours"] = visualize.as_picture(np.asarray(gradient[0]))
    told = f"{name}, {100 * float(probabilities[number]):.1f} %{where}"
    if score:
        gone, back = (float(measure(*of, found, number)[0]) for measure in (visualize.deletion, visualize.insertion))
        told += f", deletion {gone:.3f}, insertion {back:.3f}"
    return panels, told


def _of_layer(method: str, network: "Network", photo: str, layer: str | None, channel: int | None) -> tuple[dict, str]:
    import numpy as np

    from cnn_jax import visualize
    from cnn_jax.visualize.scores import activation, last_map

    pixels, seen = _read(network, photo)
    layer = layer or last_map(network.model, seen)
    found = np.asarray(activation(network.model, network.variables, seen, layer)[0])
    if method == "features" and found.ndim != 3:
        raise UserError(f"{layer} gives vectors, which are no maps")
    most = MOST[method == "deconvnet"]
    peaks = found.reshape(-1, found.shape[-1]).max(0)
    strongest = np.argsort(-peaks, kind="stable")[:most] if channel is None else np.array([channel])
    if method == "features":
        maps = np.moveaxis(found[..., strongest], -1, 0)
        top = np.maximum(maps.max((1, 2), keepdims=True), 1e-12)
        drawn = (255 * (maps / top).clip(0, 1)).astype(np.uint8)[..., None]
    else:
        alike = np.repeat(seen, len(strongest), 0)
        down = np.asarray(visualize.deconvnet(network.model, network.variables, alike, layer, strongest))
        drawn = np.stack([visualize.as_picture(one) for one in down])
    which = f"the {len(strongest)} strongest of {len(peaks)} channels" if channel is None else f"channel {channel}"
    return {"what the network sees": pixels, layer: visualize.tiles(drawn)}, f"{which} of {layer}"


def _without_photo(
    method: str, network: "Network", number: int | None, layer: str | None, channel: int | None
) -> tuple[dict, str]:
    import numpy as np

    from cnn_jax import visualize

    shape = (*network.seen.size, len(network.seen.mean))
    if method == "filters":
        filters = np.asarray(visualize.first_filters(network.model, network.variables, shape))
        drawn = np.stack([visualize.as_picture(one) for one in filters])
        if drawn.shape[-1] not in (1, 3):
            raise UserError(f"filters of {drawn.shape[-1]} channels have no colours")
        count, height, width, _ = filters.shape
        return {"": visualize.tiles(drawn)}, f"{count} filters of {height}x{width}"
    if (layer is None) != (channel is None) or (layer is None) == (number is None):
        raise UserError(f"{method} takes --target CLASS, or --layer NAME and --channel NUMBER")
    which = number if layer is None else channel
    assert which is not None
    made = visualize.activation_maximization(network.model, network.variables, which, shape, layer=layer)
    pixels = 255 * (np.asarray(made) * network.seen.std + network.seen.mean)
    names = network.classes or [*map(str, range(network.num_classes))]
    told = f"channel {channel} of {layer}" if layer is not None else names[which]
    return {told: pixels.round().clip(0, 255).astype(np.uint8)}, f"for {told}"


def _read(network: "Network", photo: str) -> tuple[Any, Any]:
    """What the network sees of a photograph: (H, W, C) uint8, and (1, H, W, C) float32, normalised."""
    seen = network.seen(photo)  # tells a bad image by its name
    return network.seen.pixels(photo), seen
