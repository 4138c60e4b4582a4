"""Variables as a folder that timm reads, which on the Hub is a repository."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from cnn_jax.atomic import write_json, write_whole
from cnn_jax.errors import UserError
from cnn_jax.models import model_info
from cnn_jax.models.card import for_channels
from cnn_jax.storage import telling
from cnn_jax.weights.cards import CONFIG, WEIGHTS, WeightCard, network_card
from cnn_jax.weights.layout import export_state_dict, first_kernel, places

README = """---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- cnn_jax
{license}---
# {name}

{summary} ({paper}, {year}); {classes:,} classes.

Images enter in RGB, from 0 to 1: the shorter side resized to {resize} pixels ({interpolation}), the middle
{height}x{width} pixels of it, less {mean}, divided by {std}.
{facts}
```python
import timm

model = timm.create_model("hf-hub:USER/REPOSITORY", pretrained=True)
```
```python
import cnn_jax

model, variables = cnn_jax.load_pretrained("hf://USER/REPOSITORY")
```
"""


def save_pretrained(
    folder: str | Path,
    name: str,
    variables: Mapping,
    *,
    card: WeightCard | None = None,
    classes: Sequence[str] = (),
    facts: Sequence[str] = (),
) -> None:
    """Writes variables of `create_model(name)` into `folder` as timm does: model.safetensors, config.json, README.md.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` and load_pretrained(FOLDER) read it, and the repository on
    the Hub that it becomes. `card` says how images enter, by default as model_info has it; `classes` are their
    names in order, `facts` lines for the model card. Auxiliary heads are left out.

    Raises:
      UserError: timm has no such network, the variables are not its own, or `folder` cannot be written.
    """
    info, folder = model_info(name), Path(folder)
    reference = next((each for each in info.references if each.startswith("timm.")), None)
    if reference is None:
        raise UserError(f"timm has no {name}, and this is its format; export_state_dict knows other layouts")
    values = {path: np.asarray(v) for path, v in flatten_dict(dict(variables)).items() if not path[1].startswith("aux")}
    state_dict = export_state_dict(name, unflatten_dict(values), reference=reference)
    there, stem = places(name, reference), first_kernel(name)
    head = there["params", "head", "kernel"]
    channels = values[stem].shape[-2]
    count = len(state_dict[head.key]) if head.key in state_dict else 0
    if classes and len(classes) != count:
        raise UserError(f"these are {len(classes)} names, and {name} tells {count} classes apart")
    card = card or network_card(name, channels=channels)
    height, width, _ = card.input_size
    mean, std = map(list, for_channels(card.mean, card.std, channels))
    about = {
        "architecture": reference.removeprefix("timm."),
        "num_classes": count,
        "num_features": head.ours[-2],
        **({"label_names": list(classes)} if classes else {}),
        **({"model_args": {"in_chans": channels}} if channels != info.input_size[2] else {}),
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "interpolation": card.interpolation,
            "crop_pct": card.crop,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": count,
            "first_conv": there[stem].key.removesuffix(".weight"),
            "classifier": head.key.removesuffix(".weight"),
            "license": card.license,
        },
    }
    text = README.format(
        license=f"license: {card.license}\n" if card.license else "",
        name=name,
        summary=info.summary,
        paper=info.paper,
        year=info.year,
        classes=count,
        resize=card.resize,
        interpolation=card.interpolation,
        height=height,
        width=width,
        mean=mean,
        std=std,
        facts="".join(f"\n{fact}\n" for fact in facts),
    )
    with telling(f"cannot write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{WEIGHTS}.part"
        save_file(state_dict, part, {"format": "pt"})
        part.replace(folder / WEIGHTS)
        write_json(folder / CONFIG, about)
        write_whole(folder / "README.md", text)
