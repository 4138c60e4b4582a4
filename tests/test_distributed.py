"""How processes meet: really, two on loopback; as clusters have it, from their variables."""

import importlib.util
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import ROOT
from loopback import ALONE, environment, free_port, run_each, run_script
from runs import THOUSAND, summary

import train
from cnn_jax import UserError, distributed

TOGETHER = """
import os, sys, time
from cnn_jax.errors import UserError
from cnn_jax import distributed
distributed.start(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
assert distributed.started()
here = []

def count():
    here.append(distributed.first())
    return {"sizes": [1, 2], "text": "x" * 3000}

def refuse():
    raise UserError("--out is taken")

def fail():
    raise OSError(28, "No space left on device")

def told(function, *what):
    try:
        return function and distributed.once(function, *what)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

counted = distributed.once(count)
mistakes = [told(refuse), told(fail, "write the log")]
print([distributed.first(), len(here), counted["sizes"], len(counted["text"]), *mistakes], file=sys.stderr)
distributed.quiet_others()
print("progress", flush=True)
if distributed.first():
    time.sleep(0.5)  # pictures
code = int(sys.argv[4])
distributed.leave(code)
os._exit(code)
"""


def test_one_process_does_and_all_know():
    first, second = run_script(TOGETHER, 2, 1, 0)
    assert (first.code, second.code) == (0, 0), second.stderr  # the second waits for the first one's pictures
    full = "[Errno 28] No space left on device"
    shared = "[1, 2], 3000, 'UserError: --out is taken'"
    assert f"[True, 1, {shared}, 'OSError: {full}']\n" in first.stderr
    assert f"[False, 0, {shared}, 'Unavailable: process 0 cannot write the log: {full}']\n" in second.stderr
    assert "progress\n" in first.stdout and "progress" not in second.stdout


ALONE_ERROR = """
import os, sys
from cnn_jax import distributed
distributed.PATIENCE, distributed.PATIENCE_FAILED = 10**6, 1
distributed.start(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
if not distributed.first():
    distributed.leave(2)
    os._exit(2)
distributed.once(lambda: None)
"""


def test_a_process_with_an_error_of_its_own_ends_and_takes_the_others_along():
    """It waits for them no longer than an error may, and they for it not at all."""
    first, second = run_script(ALONE_ERROR, 2)
    assert second.code == 2 and second.stderr.count("Traceback") == 0
    assert first.code != 0


SLURM_SCRIPT = """
import jax, os, sys
from cnn_jax import distributed
distributed.start()
print(jax.process_index(), jax.process_count(), jax.device_count(), file=sys.stderr)
distributed.leave(0)
os._exit(0)
"""


def slurm(process: int, processes: int, nodes: int) -> dict[str, str]:
    """What srun sets in a task of a step of so many tasks."""
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_NTASKS": str(processes),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def test_tasks_of_a_slurm_step_meet_by_its_variables_alone():
    port = str(free_port())
    envs = [environment(2, JAX_COORDINATOR_PORT=port, **slurm(i, 2, 1)) for i in range(2)]
    ended = run_each([[sys.executable, "-c", SLURM_SCRIPT]] * 2, envs)
    assert [end.code for end in ended] == [0, 0], ended
    assert [f"{i} 2 4\n" in end.stderr for i, end in enumerate(ended)] == [True, True]


def train_together(out, data_dir, *options, program=(ROOT / "train.py",)) -> list[list]:
    """The commands of train.py in two processes that write to `out`."""
    together = ("--coordinator", f"localhost:{free_port()}", "--processes", 2)
    command = [sys.executable, *program, "--data-dir", data_dir, "--out", out, *together, *options]
    return [[*command, "--process", process] for process in range(2)]


@pytest.mark.slow
def test_two_processes_train_one_network_stop_together_and_go_on(data_dir, tmp_path):
    """Of SIGTERM to one of them both know; a run that was stopped ends with the bits of one that was not."""
    # Steps enough for JAX to agree on one of them, within seconds.
    run = ("--epochs", 40, "--batch-size", 100, "--train-split", THOUSAND)
    envs = [environment()] * 2
    ended = run_each(train_together(tmp_path / "whole", data_dir, *run), envs)
    assert [end.code for end in ended] == [0, 0], ended
    assert "61,706 parameters, on 2 x cpu" in ended[0].stdout and "parameters" not in ended[1].stdout

    cut = tmp_path / "cut"
    spied = (ROOT / "tests" / "spied.py", tmp_path / "log")
    together = train_together(cut, data_dir, *run, "--resume", "auto", program=spied)
    ended = run_each(together, [environment(), environment(STOP=f"{int(signal.SIGTERM)} 20 .")])
    assert [end.code for end in ended] == [75, 75], ended
    told = [end.stderr.splitlines()[-1] for end in ended]
    assert told[0] == told[1] and told[0].startswith("train.py: stopped by SIGTERM at step ")

    ended = run_each(train_together(cut, data_dir, *run, "--resume", "auto"), envs)
    assert [end.code for end in ended] == [0, 0], ended
    assert summary(cut)["params_digest"] == summary(tmp_path / "whole")["params_digest"]


def test_a_mistake_ends_all_processes_with_the_same_line(data_dir, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    ended = run_each(train_together(tmp_path, data_dir), [environment()] * 2)
    assert [end.code for end in ended] == [2, 2], ended
    line = f"train.py: {tmp_path} already holds a run: continue it with --resume, or choose another --out"
    assert [end.stderr.splitlines()[-1] for end in ended] == [line] * 2


LOST = """
import os, sys, time
from cnn_jax.errors import UserError
from cnn_jax import distributed
distributed.PATIENCE = distributed.PATIENCE_FAILED = 10**6
try:
    distributed.start(sys.argv[1], 2, int(sys.argv[4]), patience=2)
except UserError as error:
    print(error, file=sys.stderr)
distributed.leave(2)
os._exit(2)
"""


@pytest.mark.parametrize("process", [0, 1])
def test_processes_that_do_not_come_are_waited_for_and_told_in_one_line(process):
    (ended,) = run_script(LOST, 1, 1, process)
    assert ended.code == 2
    assert ended.stderr.startswith(f"process {process} of 2, coordinator localhost:")
    assert ended.stderr.endswith(": not all processes are there after 2 s; each needs its own start\n")
    assert ended.stderr.count("\n") == 1


@pytest.fixture
def asked(monkeypatch):
    """What jax.distributed.initialize is asked; nothing around tells of a cluster."""
    calls = []
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # as JAX does where it sees no TPU
    monkeypatch.setattr(distributed, "_met", False)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda **options: calls.append(options))
    return calls


def test_a_process_of_which_nothing_tells_is_alone(asked, monkeypatch):
    distributed.start()
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")  # an indexed Job whose pods have nothing to do with each other
    distributed.start()
    assert asked == [] and not distributed.started() and distributed.first()
    assert distributed.once(lambda: (1, 2)) == (1, 2)
    distributed.leave(0)


def test_options_win_over_variables(asked, monkeypatch):
    for name, value in {"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": "4", "PROCESS_ID": "2"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    distributed.start(process=3)
    (options,) = asked
    assert (options["coordinator_address"], options["num_processes"], options["process_id"]) == ("a:1", 4, 3)
    assert options["cluster_detection_method"] == "deactivate" and distributed.started()


def test_a_pod_of_an_indexed_job_takes_its_index(asked, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "train-0.train:8476")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    distributed.start(processes=2)
    assert (asked[0]["num_processes"], asked[0]["process_id"]) == (2, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"SLURM_NTASKS": "1"}, []),
        ({"SLURM_STEP_NODELIST": None}, []),  # inside a batch script, before srun
        ({}, [None]),  # JAX's rule: a task's device is the one of its number on the node
        ({"SLURM_STEP_NUM_NODES": "4"}, [[]]),  # a node's one task has all of its devices
    ],
)
def test_a_slurm_step_of_several_tasks_is_a_cluster(asked, monkeypatch, changes, expected):
    for name, value in (slurm(1, 4, 2) | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    distributed.start()
    assert [options.get("local_device_ids") for options in asked] == expected
    assert all(options["cluster_detection_method"] is None for options in asked)


@pytest.fixture
def tpu(asked, monkeypatch):
    """A Cloud TPU host, with a metadata server of which a test sets the answer; None is not found."""
    answer = {"text": None}

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.headers["Metadata-Flavor"] == "Google" and self.path.endswith("/worker-network-endpoints")
            self.send_response(200 if good and answer["text"] else 404)
            self.end_headers()
            self.wfile.write((answer["text"] or "").encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("localhost", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY")
    found = importlib.util.find_spec
    monkeypatch.setattr(distributed, "find_spec", lambda name: found("os") if name == "libtpu" else found(name))
    yield answer
    server.shutdown()


@pytest.mark.parametrize(
    ("text", "calls"), [(None, 0), ("10.0.0.2", 0), ("10.0.0.2,10.0.0.3", 1), ("w0:8470:10.0.0.2,w1:8470:10.0.0.3", 1)]
)
def test_a_cloud_tpu_slice_of_several_hosts_is_a_cluster(asked, tpu, text, calls):
    tpu["text"] = text
    distributed.start()
    assert len(asked) == calls


def test_on_gke_the_hosts_are_in_a_variable(asked, tpu, monkeypatch):
    tpu["text"] = "10.0.0.2,10.0.0.3"
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "train-0-0.train")
    distributed.start()
    assert asked == []
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "train-0-0.train,train-0-1.train")
    distributed.start()
    assert len(asked) == 1
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # no TPU is wanted
    distributed.start()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"coordinator": "a:1"}, "of each; --processes and --process are missing"),
        ({"coordinator": "a:1", "processes": 2}, "of each; --process is missing"),
        ({"process": 1, "processes": 2}, "of each; --coordinator is missing"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "--coordinator must be HOST:PORT of process 0, not a"),
        ({"coordinator": "80", "processes": 2, "process": 0}, "--coordinator must be HOST:PORT of process 0, not 80"),
        (
            {"coordinator": "a:1", "processes": 2, "process": 2},
            "--process must be 0 to 1 with --processes 2, not 2",
        ),
    ],
)
def test_options_in_part_or_out_of_range_are_told(asked, options, told):
    with pytest.raises(UserError, match=told):
        distributed.start(**options)
    assert asked == []


def test_a_variable_that_is_no_number_is_told(asked, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="^JAX_NUM_PROCESSES must be a number, not 'two'$"):
        distributed.start()


def test_a_cluster_in_which_jax_fails_is_told_in_one_line(asked, monkeypatch):
    def fail(**_):
        raise RuntimeError("Failed to recognize coordinator\nand more")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", fail)
    for name, value in slurm(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="^SLURM: the processes cannot meet: Failed to recognize coordinator$"):
        distributed.start()
    assert not distributed.started()


@pytest.mark.parametrize(("met", "code"), [(True, 75), (False, None)])
def test_a_peer_that_jax_misses_is_one_line_to_start_again_by(monkeypatch, capsys, met, code):
    """Without others it is an error like any other."""

    def lost(*_):
        raise RuntimeError("UNAVAILABLE: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:4711")

    monkeypatch.setattr(train, "run", lost)
    monkeypatch.setattr(distributed, "_met", met)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        if code is None:
            with pytest.raises(RuntimeError, match="UNAVAILABLE"):
                train.main([])
        else:
            assert train.main([]) == code
            told = "train.py: another process is gone or late (UNAVAILABLE: Gloo all-reduce failed: Connection closed"
            err = capsys.readouterr().err
            assert err.startswith(told) and err.count("\n") == 1
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
