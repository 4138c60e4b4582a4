"""What torchvision and timm know of their published weights, as rows of cnn_jax/models/pretrained.json.

    PYTHON tests/library_weights.py < references.json

PYTHON has both libraries and need not have cnn_jax; references.json has the names that they give our networks.
"""

import json
import math
import sys

import timm
import torchvision

VERSIONS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k"}
USUAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "num_classes": 1000}
INSIDE = ("inception_v3", "googlenet")  # take images normalised for ImageNet and turn them into [-1, 1] themselves


def torchvision_rows(model: str, name: str) -> list[dict]:
    rows = []
    for weights in torchvision.models.get_model_weights(name) if name in torchvision.models.list_models() else ():
        if weights.name in VERSIONS:
            how, half = weights.transforms(), (0.5, 0.5, 0.5)
            rows.append(
                {
                    "tag": f"{model}.{VERSIONS[weights.name]}",
                    "reference": f"torchvision.{name}",
                    "url": weights.url,
                    "license": "bsd-3-clause",
                    "size": how.crop_size[0],
                    "resize": how.resize_size[0],
                    "interpolation": how.interpolation.value,
                    "mean": half if name in INSIDE else tuple(how.mean),
                    "std": half if name in INSIDE else tuple(how.std),
                    "num_classes": len(weights.meta["categories"]),
                }
            )
    return rows


def timm_rows(model: str, name: str) -> list[dict]:
    rows = []
    for tagged in timm.list_pretrained(f"{name}.*"):
        about = timm.get_pretrained_cfg(tagged)
        assert about.crop_mode == "center" and not about.label_offset, tagged
        size, tested = about.input_size[1], (about.test_input_size or about.input_size)[1]
        resize = math.floor(size / about.crop_pct)
        test_resize = math.floor(tested / (about.test_crop_pct or about.crop_pct))
        row = {
            "tag": f"{model}.{about.tag}",
            "reference": f"timm.{name}",
            "hub": about.hf_hub_id,
            "url": about.url or None,
            "license": about.license,
            "size": size,
            "resize": resize,
            "interpolation": about.interpolation,
            "mean": tuple(about.mean),
            "std": tuple(about.std),
            "num_classes": about.num_classes,
        }
        if (tested, test_resize) != (size, resize):
            row |= {"test_size": tested, "test_resize": test_resize}
        rows.append(row)
    return rows


def merged(model: str, references: list[str]) -> list[dict]:
    """A row for each tag: torchvision's figures for its own weights, with timm's copy on the Hub."""
    rows: dict[str, dict] = {}
    for reference in sorted(references):  # timm's come first
        library, name = reference.split(".", 1)
        for row in {"timm": timm_rows, "torchvision": torchvision_rows}.get(library, lambda *_: [])(model, name):
            copy = rows.get(row["tag"], {})
            rows[row["tag"]] = row | {key: copy[key] for key in ("reference", "hub") if key in copy}
    return [{k: v for k, v in rows[tag].items() if v is not None and USUAL.get(k) != v} for tag in sorted(rows)]


if __name__ == "__main__":
    networks = json.load(sys.stdin)
    json.dump({model: merged(model, references) for model, references in networks.items()}, sys.stdout)
