"""The networks of the speed benchmarks, and what a contender is asked to do with one. Plain Python, for every side."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

LEARNING_RATE, MOMENTUM = 1e-3, 0.9
ROOT = Path(__file__).parent.parent
RESIDENT = 50_000  # images of a set on the device, as CIFAR-10 has them
AUX_WEIGHT = 0.3  # of auxiliary heads' losses: Szegedy 2014 (1409.4842), sec. 5


@dataclass(frozen=True)
class Job:
    """A network at a batch size, `size` pixels a side. It goes to a contender's process as JSON.

    `form` is the way it is to be computed, a word of the side that is asked; `seconds` is how long a round takes,
    about; `profile` asks for the kernels that took longest; `options` are the task's own.
    """

    network: str
    batch: int
    size: int = 224
    channels: int = 3
    classes: int = 1000
    stem: str | None = None
    dtype: str = "float32"
    task: str = "train"
    form: str = ""
    seconds: float = 1.0
    profile: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def command(self, python: str, module: str, **changes: Any) -> tuple[str, ...]:
        """What starts the contender `module` on this, or on this with `changes`."""
        return (python, "-m", f"benchmarks.{module}", json.dumps(asdict(replace(self, **changes))))

    def output(self, python: str, module: str, environment: dict[str, str] | None = None, **changes: Any) -> str:
        """What that process prints, once it is done."""
        command = self.command(python, module, **changes)
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    @classmethod
    def given(cls) -> "Job":
        """The one that the command line of this process names."""
        return cls(**json.loads(sys.argv[1]))


# Batches that train at full speed and fit 8 GB with three rivals beside it.
NETWORKS = {
    job.network: job
    for job in (
        Job("lenet5_modern", 128, 32, 1, 10),
        Job("alexnet_owt", 16),
        Job("vgg16", 8),
        Job("googlenet_bn", 16),
        Job("resnet18", 16),
        Job("resnet50", 8),
        Job("densenet121", 8),
        Job("mobilenetv1_100", 16),
        Job("mobilenetv2_100", 16),
        Job("seresnet50", 8),
    )
}
