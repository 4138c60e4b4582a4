"""The rival of benchmarks.predict: timm's network and transform behind a DataLoader, broken files left out."""

import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from benchmarks.contender import serve, versions


class Files(Dataset):
    """What the network sees of each file; None of a broken one."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            with Image.open(self.paths[index]) as image:
                return self.transform(image.convert("RGB")), index
        except OSError:
            return None


def collate(items):
    """The good ones of a batch."""
    return default_collate([item for item in items if item is not None])


if __name__ == "__main__":
    folder, network, tag, batch_size, workers = *sys.argv[1:4], *map(int, sys.argv[4:])
    torch.set_num_threads(workers)
    model = timm.create_model(network).eval().to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(tag).to_dict()))
    files = Files(sorted(Path(folder).rglob("*.jpg")), transform)

    @torch.inference_mode()
    def work(rounds: int) -> int:
        told = 0
        for _ in range(rounds):
            for images, indices in DataLoader(files, batch_size, num_workers=workers, collate_fn=collate):
                logits = model(images.to(memory_format=torch.channels_last))
                probabilities, classes = logits.softmax(-1).topk(5)
                told += len([*zip(indices.tolist(), classes.tolist(), probabilities.tolist(), strict=True)])
        return told

    serve(work, 1, lead=0, facts={"versions": versions("torch", "torchvision", "timm", "pillow")})
