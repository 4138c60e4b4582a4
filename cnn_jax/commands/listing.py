"""`cnn-jax list`, `info`, `summary`, `fit`: what is known of networks without weights. JAX comes when it is needed."""

import sys
from collections.abc import Sequence

from cnn_jax.errors import UserError
from cnn_jax.tables import aligned


def list_command(pattern: str, markdown: bool, pretrained: bool) -> str:
    """A line for each network that matches, or for each of their published weights, or the whole of docs/models.md."""
    from cnn_jax.models import list_models, model_info
    from cnn_jax.models.catalogue import catalogue

    if pretrained:
        return _weights(pattern)
    if markdown and pattern != "*":
        raise UserError("--markdown writes the whole of docs/models.md; leave out the pattern")
    if markdown:
        return catalogue()
    names = list_models(pattern)
    if not names:
        raise UserError(f"no model matches {pattern!r}; `cnn-jax list` shows all")
    rows = [("name", "year", "params M", "MACs M", "input", "top-1 %", "what it is")]
    for info in map(model_info, names):
        best = max((a.top1 for a in info.accuracies if a.top1 and a.comparable), default=None)
        rows.append(
            (
                info.name,
                str(info.year),
                f"{info.params / 1e6:,.2f}",
                f"{info.macs / 1e6:,.1f}",
                info.input_size[0],
                None if best is None else f"{best:.1f}",
                info.summary,
            )
        )
    return aligned(rows)


def _weights(pattern: str) -> str:
    from cnn_jax.models import list_models
    from cnn_jax.weights import weight_card

    rows: list[tuple] = [("weights", "input", "resize", "by", "classes", "top-1 %", "licence", "from")]
    for card in map(weight_card, list_models(pattern, pretrained=True)):
        size, top1 = card.input_size[0], None if card.top1 is None else f"{card.top1:.1f}"
        rows.append(
            (card.tag, size, card.resize, card.interpolation, card.num_classes, top1, card.license, card.source)
        )
    if len(rows) == 1:
        raise UserError(f"no published weights match {pattern!r}; `cnn-jax list --pretrained` shows all")
    return aligned(rows)


def info_command(name: str) -> str:
    """The card of a network, line by line."""
    from cnn_jax.models import model_info

    info = model_info(name)
    height, width, channels = info.input_size
    rows: list[tuple[str, str]] = [
        ("name", info.name if info.name == name else f"{info.name}, asked for as {name}"),
        ("what it is", info.summary),
        ("paper", f"{info.paper}, {info.year}, {info.section}"),
        (
            "parameters",
            f"{info.params:,}" + (f" and {info.aux_params:,} in auxiliary heads" if info.aux_params else ""),
        ),
        ("multiply-accumulates", f"{info.macs:,}"),
        ("input", f"{height}x{width}x{channels}, {info.interpolation} resize, centre crop {info.crop:g}"),
        ("mean, std", f"{_numbers(info.mean)}; {_numbers(info.std)}, of images in [0, 1]"),
        ("classes", f"{info.num_classes:,}"),
        ("also called", ", ".join(info.aliases) or "nothing else"),
        ("same network as", ", ".join(info.references) or "none elsewhere"),
        ("weights", ", ".join(info.weights) or "none published that load"),
    ]
    for accuracy in info.accuracies:
        top5 = f", top-5 {accuracy.top5:g} %" if accuracy.top5 else ""
        top1 = f"top-1 {accuracy.top1:g} %" if accuracy.top1 else ""
        rows.append(("accuracy", f"{accuracy.of}: {(top1 + top5).removeprefix(', ')} ({accuracy.source})"))
    rows += [
        ("feature", f"{f.name}: {f.channels:,} channels" + (f", stride {f.stride}" if f.stride else ", a vector"))
        for f in info.features
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:{width}}  {value}" for label, value in rows)


def summary_command(name: str, image_size: int | None, batch: int, stem: str | None) -> str:
    """A line for each layer with parameters, and the totals."""
    from cnn_jax.models import create_model, model_info
    from cnn_jax.models.structure import structure

    info = model_info(name)
    height, width, channels = info.input_size
    if image_size is not None:
        height = width = image_size
    model = create_model(name, **({} if stem is None else {"stem": stem}))
    found = structure(model, (height, width, channels))
    rows = [("layer", "kind", f"output of a batch of {batch}", "params", "MACs M")]
    for layer in found.layers:
        shape = "x".join(map(str, (batch, *layer.shape)))
        rows.append((layer.path, layer.kind, shape, layer.params, f"{layer.macs * batch / 1e6:,.1f}"))
    rows.append(("total", "", "", found.params, f"{found.macs * batch / 1e6:,.1f}"))
    values = sum(layer.values for layer in found.layers if not layer.path.startswith("aux")) * batch
    memory = f"activations: {values * 4 / 2**20:,.1f} MiB in float32, {values * 2 / 2**20:,.1f} MiB in bfloat16"
    note = "(outputs of the layers above, which a training step keeps)"
    aux = (
        f"\n{found.aux_params:,} parameters are in auxiliary heads, which only training computes"
        if found.aux_params
        else ""
    )
    return f"{aligned(rows)}\n{memory} {note}{aux}"


def fit_command(
    name: str,
    recipe: str | None,
    batch: int | None,
    image_size: int | None,
    dtype: str | None,
    optimizer: str | None,
    accumulate: int | None,
    remat: list[str] | None,
    memory: float | None,
) -> str:
    """What training.fit says of a recipe's step, or of plain SGD's."""
    from dataclasses import replace

    from cnn_jax.errors import did_you_mean
    from cnn_jax.models import model_info
    from cnn_jax.recipes import RECIPES, Recipe
    from cnn_jax.recipes.configuration import override

    model_info(name)
    if recipe is not None and recipe not in RECIPES:
        raise UserError(did_you_mean("recipe", recipe, RECIPES))
    config = Recipe(model=name) if recipe is None else replace(RECIPES[recipe], model=name)
    given = {"batch_size": batch, "image_size": image_size, "dtype": dtype, "remat": remat}
    moves = {"kind": optimizer, "accumulate": accumulate}
    given, moves = ({key: value for key, value in values.items() if value is not None} for values in (given, moves))
    config = override(config, {**given, "optimizer": moves})

    from cnn_jax.compilation import keep_programs  # JAX comes after the mistakes
    from cnn_jax.training.fit import report

    keep_programs()
    limit = None if memory is None else int(memory * 2**30)
    return report(config, limit, lambda line: print(line, file=sys.stderr, flush=True))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
