"""What torchvision and timm make of the photographs here: reference.json. Run by a Python that has both.

    PYTHON tests/photos/reference.py

For each of TORCHVISION, TIMM and TESTED: mean and deviation as the library says them, and for each photograph, through
the library's own transform for evaluation, the sha256 of the grey levels (H, W, C) uint8 and of what the network takes,
float32, and the levels at GRID x GRID places, to see how far another array is from them. Together they have every
resize, crop and interpolation of published weights that either library makes.
"""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import timm
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import models

HERE = Path(__file__).parent
KINDS = (".jpg", ".png", ".gif", ".webp")
GRID = 3
# Weights by our tags, which are timm's.
TORCHVISION = {
    "resnet50.tv_in1k": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet50.tv2_in1k": models.ResNet50_Weights.IMAGENET1K_V2,
    "inception_v3.tv_in1k": models.Inception_V3_Weights.IMAGENET1K_V1,
}
TIMM = (
    "resnet50.a1_in1k", "nasnetalarge.tf_in1k", "mobilenetv3_large_100.miil_in21k_ft_in1k", "dpn68.mx_in1k",
    "inception_v3.tf_in1k", "inception_resnet_v2.tf_in1k", "xception41.tf_in1k", "xception65.ra3_in1k",
    "resnet18.a3_in1k", "resnet18.gluon_in1k", "resnet34.ra4_e3600_r224_in1k", "resnet50.a1h_in1k", "resnet50.bamboo",
    "resnet101d.ra2_in1k", "resnetv2_34d.ra4_e3600_r384_in1k",
)  # fmt: skip
# At the size that timm advises for tests.
TESTED = (
    "densenet121.ra_in1k", "mobilenetv1_125.ra4_e3600_r224_in1k", "resnet50.a1_in1k", "resnet101d.ra2_in1k",
    "resnetv2_34d.ra4_e3600_r384_in1k",
)  # fmt: skip


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    lines = [f' "versions": {json.dumps({module.__name__: module.__version__ for module in (timm, torchvision, PIL)})}']
    made = {tag: (weights.transforms(), weights.transforms()) for tag, weights in TORCHVISION.items()}
    for tags, tested in ((TIMM, False), (TESTED, True)):
        for tag in tags:
            about = timm.get_pretrained_cfg(tag).to_dict()
            config = resolve_data_config(pretrained_cfg=about, use_test_size=tested)
            made[tag + " as tested" * tested] = create_transform(**config), SimpleNamespace(**config)
    for tag, (transform, config) in made.items():
        mean, std = config.mean, config.std
        rows = [f'  "mean": {json.dumps(list(mean))}', f'  "std": {json.dumps(list(std))}']
        for path in sorted(path for path in HERE.iterdir() if path.suffix in KINDS):
            taken = transform(Image.open(path).convert("RGB")).numpy().transpose(1, 2, 0)
            levels = ((taken * np.float32(std) + np.float32(mean)) * 255).round().astype(np.uint8)
            places = np.linspace(0, len(levels) - 1, GRID + 2).astype(int)[1:-1]
            some = levels[np.ix_(places, places)].ravel().tolist()
            row = {"pixels": sha256(levels), "input": sha256(taken), "some": some}
            rows.append(f"  {json.dumps(path.name)}: {json.dumps(row)}")
        lines.append(f" {json.dumps(tag)}: {{\n" + ",\n".join(rows) + "\n }")
    (HERE / "reference.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
