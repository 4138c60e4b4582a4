"""Several processes, one for each host or each device: how they meet, and what one of them does for all."""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.request import Request, urlopen

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from cnn_jax.errors import Unavailable, UserError, first_line, lasting

PATIENCE = 300  # seconds until all processes must have met, and must have come to their end
PATIENCE_FAILED = 10  # seconds that a process with an error of its own waits for others to have it too
VARIABLES = {"coordinator": "JAX_COORDINATOR_ADDRESS", "processes": "JAX_NUM_PROCESSES", "process": "JAX_PROCESS_ID"}
SLURM = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"}  # what JAX asks for
TPU_HOSTS = "computeMetadata/v1/instance/attributes/worker-network-endpoints"
LOST = re.compile(r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|[Gg]loo|NCCL|[Cc]onnection")  # of JAX's errors
BLOCK = 1024  # bytes; texts of as many blocks share a compiled broadcast

_met = False


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, patience: int = PATIENCE
) -> None:
    """Meets the other processes of this run, if it has any; to be called before anything touches a device.

    `coordinator` is HOST:PORT of process 0, which listens there; `process` counts from 0. Where None,
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (or JOB_COMPLETION_INDEX, of an
    indexed Kubernetes Job) tell. The tasks of a SLURM step and the hosts of a Cloud TPU slice meet
    without them. Where nothing tells of others, nothing is done.

    From here on SIGTERM belongs to JAX's preemption service: see signals.StopRequest.poll.

    Raises:
      UserError: some of the three are missing or impossible.
      Unavailable: after `patience` seconds not all processes are there (the attempt goes on in a
        thread: end by os._exit).
    """
    global _met  # noqa: PLW0603  JAX is joined once a process
    told: dict[str, Any] = {"coordinator": coordinator, "processes": processes, "process": process}
    told = {name: _variable(VARIABLES[name]) if value is None else value for name, value in told.items()}
    cluster = _cluster()
    if cluster is None:
        if set(told.values()) == {None}:
            return
        if told["process"] is None:
            told["process"] = _variable("JOB_COMPLETION_INDEX")
        _check(**told)
    options: dict[str, Any] = {
        "coordinator_address": told["coordinator"],
        "num_processes": told["processes"],
        "process_id": told["process"],
        "cluster_detection_method": None if cluster else "deactivate",
        "initialization_timeout": 2 * patience,  # it ends in an abort with a stack trace, so ours comes before
    }
    if cluster == "SLURM" and os.environ.get("SLURM_STEP_NUM_NODES") == os.environ["SLURM_NTASKS"]:
        options["local_device_ids"] = []  # a node's one task takes all its devices; JAX would take the first
    failed: list[Exception] = []

    def meet() -> None:
        try:
            jax.distributed.initialize(**options)
            # On a CPU the first exchange fails if somebody is 30 s late: better now than after a download.
            broadcast_one_to_all(np.zeros((), np.int32))
        except Exception as error:  # JAX's, gRPC's, those of a metadata server
            failed.append(error)

    meeting = threading.Thread(target=meet, daemon=True)
    meeting.start()
    meeting.join(patience)
    where = cluster or "process {process} of {processes}, coordinator {coordinator}".format(**told)
    if meeting.is_alive():
        raise Unavailable(f"{where}: not all processes are there after {patience} s; each needs its own start")
    if failed:
        raise Unavailable(f"{where}: the processes cannot meet: {first_line(failed[0])}")
    _met = True


def started() -> bool:
    """Whether `start` has met others."""
    return _met


def first() -> bool:
    """Whether this process is the one that writes logs, pictures and summaries."""
    return jax.process_index() == 0


def quiet_others() -> None:
    """Lets standard output speak in the first process only; errors go to every process's stderr."""
    if not first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def once(function: Callable[[], Any], what: str = "go on") -> Any:
    """Calls `function` in the first process; what it returns, or its UserError, in every process.

    With several processes the result goes through JSON, and all must come here. After an error that
    is no UserError the others say "process 0 cannot `what`".

    Raises:
      UserError: the function's, or in the others for any error of it. The first process raises its own.
    """
    if jax.process_count() == 1:
        return function()
    found, error = None, None
    if first():
        try:
            found = {"result": function()}
        except UserError as mistake:
            found, error = {"told": str(mistake), "passing": isinstance(mistake, Unavailable)}, mistake
        except Exception as other:
            passing = isinstance(other, OSError) and not lasting(other)
            found, error = {"told": f"process 0 cannot {what}: {first_line(other)}", "passing": passing}, other
    found = _from_first(found)
    if error:
        raise error
    if "told" in found:
        raise (Unavailable if found["passing"] else UserError)(found["told"])
    return found["result"]


def same(tree: Any) -> Any:
    """The first process's NumPy arrays, in every process; each has read a tree of the same shapes."""
    return tree if jax.process_count() == 1 else broadcast_one_to_all(tree)


def leave(exit_code: int) -> None:
    """Before os._exit: lets processes end together, since the others take a lost one for a crash and abort.

    With 0 and 75 (stopped by SIGTERM), to which all come, waits for the others as long as it takes to
    draw pictures. An error may be this process's alone; then it waits shortly, and the others abort
    as soon as they miss it.
    """
    if _met:
        leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        leaving.start()
        leaving.join(PATIENCE if exit_code in (0, 75) else PATIENCE_FAILED)


def _from_first(value: Any) -> Any:
    """The first process's JSON value, in every process."""
    text = json.dumps(value).encode() if first() else b""
    length = int(broadcast_one_to_all(np.int32(-(-len(text) // BLOCK) * BLOCK)))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    return json.loads(np.asarray(broadcast_one_to_all(padded), np.uint8).tobytes())


def _cluster() -> str | None:
    """The launcher of several processes which JAX can ask for their number and places, if there is one."""
    env = os.environ
    if env.keys() >= SLURM and int(env["SLURM_NTASKS"]) > 1:
        return "SLURM"
    # JAX sets the first where it sees no TPU.
    if "TPU_SKIP_MDS_QUERY" in env or find_spec("libtpu") is None or "tpu" not in env.get("JAX_PLATFORMS", "tpu"):
        return None
    hosts = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES") or _tpu_hosts()  # the first two: GKE
    return "Cloud TPU" if "," in hosts else None


def _tpu_hosts() -> str:
    """The hosts of this Cloud TPU slice, separated by commas, as its metadata server tells."""
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = Request(f"http://{server}/{TPU_HOSTS}", headers={"Metadata-Flavor": "Google"})
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def _variable(name: str) -> Any:
    """An environment variable's value, a number but for the address; None where there is none."""
    text = os.environ.get(name)
    if text is None or name == VARIABLES["coordinator"]:
        return text
    if not text.isdecimal():
        raise UserError(f"{name} must be a number, not {text!r}")
    return int(text)


def _check(coordinator: Any, processes: Any, process: Any) -> None:
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing:
        raise UserError(
            "several processes need --coordinator HOST:PORT, --processes N and --process I of each; "
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator must be HOST:PORT of process 0, not {coordinator}")
    if not 0 <= process < processes:
        raise UserError(f"--process must be 0 to {processes - 1} with --processes {processes}, not {process}")
