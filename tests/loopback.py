"""Several processes of one script on this machine, which meet on a free port."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from conftest import ROOT
from runs import SAFETY

CLUSTER = ("SLURM_", "TPU_", "JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JOB_COMPLETION")
ALONE = {name: None for name in os.environ if name.startswith(CLUSTER)}


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def environment(devices: int = 1, **changes: str | None) -> dict[str, str]:
    """This one's without what a cluster sets, with so many devices on the CPU; None takes a variable away."""
    forced = {
        # The second: compiled in a third of the time, for programs that run once.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
    }
    env = os.environ | ALONE | forced | changes
    return {name: value for name, value in env.items() if value is not None}


def run_each(commands: list[list], envs: list[dict], seconds: float = SAFETY) -> list[Ended]:
    """Starts all, waits for all; none outlives this."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [
        subprocess.Popen(list(map(str, command)), env=env, **pipes) for command, env in zip(commands, envs, strict=True)
    ]
    try:
        with ThreadPoolExecutor(len(started)) as readers:  # a full pipe would stop one, and those who wait for it
            said = list(readers.map(lambda process: process.communicate(timeout=seconds), started))
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


def run_script(script: str, processes: int = 1, devices: int = 1, *arguments) -> list[Ended]:
    """Runs `script` with arguments COORDINATOR, PROCESSES, PROCESS and those given; `devices` are each process's."""
    address = f"localhost:{free_port()}"
    commands = [[sys.executable, "-c", script, address, processes, i, *arguments] for i in range(processes)]
    return run_each(commands, [environment(devices)] * processes)
