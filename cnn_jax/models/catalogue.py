"""docs/models.md, written from the cards."""

from cnn_jax.models import MODELS
from cnn_jax.models.card import ModelInfo

HEAD = """# The networks

Written from the cards by `cnn-jax list --markdown > docs/models.md`; a test keeps it so.

Parameters are without auxiliary heads; MACs are multiply-accumulates of convolutions and linear
layers for one image of the input size. "Same as" names the networks of other libraries with the
same layers, whose weights load with `import_state_dict`, published ones by name
([weights.md](weights.md)). Those for which `tests/golden/` has a file have been compared by what
they compute; of the others the names and shapes of all variables. Accuracy is published top-1 /
top-5 in percent on ImageNet-1k validation (for the small networks the set is named): the first
figure known, others are in `cnn-jax info NAME`.
"""


def catalogue() -> str:
    """The page: a table for each paper, in the order of the registry."""
    parts: list[str] = [HEAD.rstrip()]
    papers: dict[str, list[ModelInfo]] = {}
    for info in MODELS.values():
        papers.setdefault(f"{info.paper}, {info.year}", []).append(info)
    for paper, infos in papers.items():
        parts.append(f"\n## {paper}\n")
        parts.append("| name | what it is | where | params | MACs | input | same as | accuracy |")
        parts.append("| --- | --- | --- | ---: | ---: | ---: | --- | --- |")
        parts += [_row(info) for info in infos]
    return "\n".join(parts)


def _row(info: ModelInfo) -> str:
    cells = (
        ", ".join(f"`{name}`" for name in (info.name, *info.aliases)),
        info.summary,
        info.section,
        f"{info.params:,}",
        f"{info.macs / 1e6:,.1f} M",
        str(info.input_size[0]),
        ", ".join(info.references) or "-",
        _accuracy(info),
    )
    return f"| {' | '.join(cells)} |"


def _accuracy(info: ModelInfo) -> str:
    if not info.accuracies:
        return "-"
    first = info.accuracies[0]
    figures = " / ".join("-" if figure is None else f"{figure:g}" for figure in (first.top1, first.top5))
    return f"{figures} ({first.of})"
