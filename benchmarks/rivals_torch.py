"""PyTorch's side of the speed benchmarks: a contender of train_step, inference and small_data.

    PYTHON -m benchmarks.rivals_torch JOB    (networks.Job as JSON; a python with torch, torchvision and timm)

Everything is channels_last, on the GPU if there is one, with bfloat16 by autocast. Forms: "eager", "compile"
(torch.compile), "graphs" (torch.compile with CUDA graphs), and "fused", in inference: batch norm folded into the
convolutions by torch.fx, then torch.compile. Tasks: "train", "resident" and "infer" as in ours.py; "loop" trains on
an .npz file to the end, see small_data.
"""

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # every start compiles
import torch
from torch import nn
from torch.nn import functional

from benchmarks.contender import cores, memory_mb, serve_for, versions
from benchmarks.networks import AUX_WEIGHT, LEARNING_RATE, MOMENTUM, RESIDENT, Job

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAST = torch.channels_last
TORCHVISION = {
    "alexnet_owt": "alexnet",
    "vgg16": "vgg16",
    "googlenet_bn": "googlenet",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "densenet121": "densenet121",
    "mobilenetv2_100": "mobilenet_v2",
}
PACKAGES = ("torch", "torchvision", "timm")
TIMM = ("mobilenetv1_100", "seresnet50")
MODES = {"compile": "default", "fused": "default", "graphs": "reduce-overhead"}


def lenet5(job: Job) -> nn.Module:
    """Our lenet5_modern."""
    return nn.Sequential(
        nn.Conv2d(job.channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, job.classes),
    )


class BasicBlock(nn.Module):
    """Two 3x3 and a shortcut without parameters (He 2015, sec. 4.2)."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - channels

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.more or self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return functional.relu(x + y)


def resnet20(job: Job) -> nn.Module:
    """Our resnet20_cifar."""
    layers = [nn.Conv2d(job.channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for width in (16, 32, 64):
        for _ in range(3):
            layers.append(BasicBlock(channels, width, 2 if width > channels else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, job.classes))


def build(job: Job) -> nn.Module:
    """The counterpart of a network of ours."""
    if job.network in TIMM:
        import timm

        return timm.create_model(job.network, num_classes=job.classes)
    if job.network in TORCHVISION:
        import torchvision

        options = {"init_weights": False} if job.network == "googlenet_bn" else {}  # takes a minute, for no speed
        model = getattr(torchvision.models, TORCHVISION[job.network])(num_classes=job.classes, **options)
        if job.stem == "cifar":  # ResNet's
            model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        return model
    return {"lenet5_modern": lenet5, "resnet20_cifar": resnet20}[job.network](job)


def loss_of(model: nn.Module, job: Job) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(images, labels) -> the mean loss, with auxiliary heads', compiled if the form says so."""

    def loss(images, labels):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=job.dtype == "bfloat16"):
            logits, *aux = found if isinstance(found := model(images), tuple) else (found,)
            value = functional.cross_entropy(logits, labels)
            for one in aux:
                value = value + AUX_WEIGHT * functional.cross_entropy(one, labels)
        return value

    return torch.compile(loss, mode=MODES[job.form], dynamic=False) if job.form in MODES else loss


def sgd(model: nn.Module, job: Job, rate: float, decay: float = 0.0) -> torch.optim.Optimizer:
    """SGD with momentum, decay on kernels alone; in one kernel where the form is a compiled one."""
    sides = [[p for p in model.parameters() if (p.ndim > 1) is kernels] for kernels in (True, False)]
    groups = [{"params": params, "weight_decay": decay * one} for one, params in zip((1, 0), sides, strict=True)]
    return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, fused=True if job.form in MODES else None)


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, C) as PyTorch's (B, C, H, W), where it lies."""
    return images.permute(0, 3, 1, 2)


def wait() -> None:
    """Until the device is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def train(job: Job) -> None:
    """Serves training steps, on one batch or on a resident set."""
    model = build(job).to(DEVICE, memory_format=LAST).train()
    loss, optimizer = loss_of(model, job), sgd(model, job, LEARNING_RATE)
    if job.task == "resident":
        shape = (RESIDENT, job.size, job.size, job.channels)
        pixels = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
        classes = torch.randint(job.classes, (RESIDENT,), device=DEVICE)

        def batch():
            rows = torch.randint(RESIDENT, (job.batch,), device=DEVICE)
            return channels_last(pixels[rows] / 127.5 - 1), classes[rows]
    else:
        images = torch.randn(job.batch, job.channels, job.size, job.size).to(DEVICE, memory_format=LAST)
        labels = torch.randint(job.classes, (job.batch,), device=DEVICE)

        def batch():
            return images, labels

    def work(steps: int) -> int:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss(*batch()).backward()
            optimizer.step()
        wait()
        return job.batch * steps

    serve_for(job.seconds, work, memory=used_mb, facts=about(model, job, work))


def infer(job: Job) -> None:
    """Serves single answers: each batch is waited for."""
    model = build(job).to(DEVICE, memory_format=LAST).eval()
    parameters = sum(p.numel() for p in model.parameters())
    if job.form == "fused":
        from torch.fx.experimental.optimization import fuse

        model = fuse(model).to(DEVICE, memory_format=LAST)
    if job.form in MODES:
        model = torch.compile(model, mode=MODES[job.form], dynamic=False)
    images = torch.randn(job.batch, job.channels, job.size, job.size).to(DEVICE, memory_format=LAST)

    @torch.inference_mode()
    def work(batches: int) -> int:
        for _ in range(batches):
            model(images)
            wait()
        return job.batch * batches

    facts = about(model, job, work) | {"parameters": parameters}
    serve_for(job.seconds, work, memory=used_mb, facts=facts)


def loop(job: Job, path: str, epochs: int, rate: float, decay: float) -> None:
    """Trains on all of an .npz file, resident, and prints a line of JSON for each epoch.

    It holds normalised float32 images (N, H, W, C) `train` and `test`, int64 `train_labels` and `test_labels`. The
    rate rises for an epoch and falls by a cosine, as train.py's. A line has the test's `top1` in [0, 1] and
    `images_per_s`, of training alone, so far, without the first step.
    """
    import numpy as np

    with np.load(path) as found:
        sets = {name: torch.from_numpy(found[name]).to(DEVICE) for name in found.files}
    model = build(job)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):  # PyTorch's own start is slow to leave
            nn.init.kaiming_normal_(layer.weight)
    model = model.to(DEVICE, memory_format=LAST)
    loss, optimizer = loss_of(model, job), sgd(model, job, rate, decay)
    steps = len(sets["train"]) // job.batch

    def scale(step: int) -> float:
        if step < steps:
            return step / steps
        return 0.5 * (1 + math.cos(math.pi * (step - steps) / max((epochs - 1) * steps, 1)))

    schedule, done, spent = torch.optim.lr_scheduler.LambdaLR(optimizer, scale), 0, 0.0
    for _ in range(epochs):
        model.train()
        start = time.perf_counter()
        for rows in torch.randperm(len(sets["train"]), device=DEVICE)[: steps * job.batch].split(job.batch):
            optimizer.zero_grad(set_to_none=True)
            loss(channels_last(sets["train"][rows]), sets["train_labels"][rows]).backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == 1:  # which compiled
                wait()
                start = time.perf_counter()
        wait()
        spent += time.perf_counter() - start
        model.eval()
        with torch.inference_mode():
            pairs = zip(sets["test"].split(500), sets["test_labels"].split(500), strict=True)
            right = sum((model(channels_last(images)).argmax(1) == labels).sum().item() for images, labels in pairs)
        told = {"top1": right / len(sets["test"]), "images_per_s": (done - 1) * job.batch / spent}
        print(json.dumps(told), flush=True)


def about(model: nn.Module, job: Job, work: Callable[[int], int]) -> dict[str, Any]:
    """What the report says of this side; runs the first steps, of which the first compiles."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work(1)
        times.append(time.perf_counter() - start)
    return {
        "versions": versions(*PACKAGES),
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()),
        "compile_s": times[0] - min(times[1:]) if job.form in MODES else None,
    }


def used_mb() -> float:
    """Peak memory of the device in MB of 10**6 bytes; on a CPU of this process."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return memory_mb(os.getpid(), children=False)


if __name__ == "__main__":
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # on a GPU, as XLA does
    job = Job.given()
    tasks = {"train": train, "resident": train, "infer": infer, "loop": loop}
    if job.task == "versions":
        print(json.dumps(versions(*PACKAGES)))
    else:
        tasks[job.task](job, **job.options)
