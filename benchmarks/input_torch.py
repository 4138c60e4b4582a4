"""The rival in PyTorch: ImageFolder, PIL, RandomResizedCrop, a DataLoader with two workers, uint8 out."""

import sys

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, RandomResizedCrop

from benchmarks.contender import serve

if __name__ == "__main__":
    folder, batch_size, batches, workers = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    images = ImageFolder(folder, Compose([RandomResizedCrop(224), PILToTensor()]))
    loader = DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)

    def endless():
        while True:
            yield from loader

    batch = endless()
    serve(lambda count: sum(len(next(batch)[0]) for _ in range(count)), batches)
