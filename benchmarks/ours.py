"""Our side of the speed benchmarks and plain Flax: a contender of train_step, inference and compile.

    python -m benchmarks.ours JOB    (networks.Job as JSON)

Forms: "auto" is what a user of cnn_jax gets; "jax" that without oneDNN; "flax" the same network with XLA's own
convolutions and XLA's own flags; "folded", in inference, batch norm folded into the convolutions.

Tasks: "train" steps on one batch that stays on the device; "resident" the same on batches drawn from a set of uint8
images that lies there; "infer"; "compile" prints the seconds of tracing, lowering and compiling; "export" writes digits
for a rival.
"""

import collections
import contextlib
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contender import memory_mb, serve_for, versions
from benchmarks.networks import AUX_WEIGHT, LEARNING_RATE, MOMENTUM, RESIDENT, Job
from benchmarks.report import PACKAGES

PROFILED = 5  # steps
AHEAD = 2  # steps under way at most, as train.py has it


@contextlib.contextmanager
def form_of(job: Job) -> Iterator[None]:
    """Everything of JAX happens inside, and nothing of cnn_jax was imported before."""
    own = os.environ.get("XLA_FLAGS")
    import cnn_jax  # tells XLA its flags

    del cnn_jax
    if job.form == "flax":
        os.environ.pop("XLA_FLAGS", None)
        os.environ |= {} if own is None else {"XLA_FLAGS": own}
    if (kind := {"flax": "xla", "jax": "jax"}.get(job.form)) is None:
        yield
        return
    from cnn_jax.layers import lowering

    with lowering(kind):
        yield


def build(job: Job) -> Any:
    """The network."""
    import jax.numpy as jnp

    from cnn_jax import create_model

    stem = {} if job.stem is None else {"stem": job.stem}
    return create_model(job.network, num_classes=job.classes, dtype=jnp.dtype(job.dtype), **stem)


def synthetic(job: Job, count: int) -> tuple[Any, Any]:
    """`count` random images, float32, and labels, on the device."""
    import jax

    images, labels = jax.random.split(jax.random.key(1))
    shape = (count, job.size, job.size, job.channels)
    return jax.random.normal(images, shape), jax.random.randint(labels, (count,), 0, job.classes)


def training(job: Job, model: Any) -> tuple[Callable, Callable]:
    """`init(key)` -> state and `step(state, images, labels)` -> state, loss."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels

    def init(key):
        images = jnp.zeros((1, job.size, job.size, job.channels))
        variables = model.init(key, images, train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return {"params": params, "batch_stats": batch_stats, "slots": optimizer.init(params), "key": key}

    def step(state, images, labels):
        key, dropout = jax.random.split(state["key"])

        def objective(params):
            logits, changed = model.apply(
                {"params": params, "batch_stats": state["batch_stats"]},
                images,
                train=True,
                mutable=["batch_stats", "aux_logits"],
                rngs={"dropout": dropout},
            )
            loss = cross_entropy(logits, labels).mean()
            for aux in jax.tree.leaves(changed.get("aux_logits", {})):
                loss += AUX_WEIGHT * cross_entropy(aux, labels).mean()
            return loss, changed.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
        updates, slots = optimizer.update(grads, state["slots"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "batch_stats": batch_stats, "slots": slots, "key": key}, loss

    return init, step


def staged(function: Callable, *arguments: Any, **options: Any) -> tuple[Callable, dict[str, float]]:
    """`function` compiled for `arguments`, and the seconds of each stage. `options` are jax.jit's."""
    import jax

    times = [time.perf_counter()]
    traced = jax.jit(function, **options).trace(*arguments)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    stages = zip(("trace", "lower", "compile"), times[1:], times[:-1], strict=True)
    return compiled, {name: end - start for name, end, start in stages}


def train(job: Job) -> None:
    """Serves training steps, on one batch or on a resident set."""
    import jax
    import numpy as np

    from cnn_jax.compilation import jit_once

    model = build(job)
    init, on_images = training(job, model)
    state = jit_once(init)(jax.random.key(0))
    if job.task == "resident":
        shape = (RESIDENT, job.size, job.size, job.channels)
        order = np.random.default_rng(0)
        pixels = order.integers(0, 256, shape, np.uint8)  # JAX would draw 32 bits of each in the device's memory
        batch = jax.device_put((pixels, order.integers(0, job.classes, RESIDENT, np.int32)))

        def step(state, images, labels, rows):
            return on_images(state, images[rows] / 127.5 - 1, labels[rows])

        def rows():
            return (order.integers(0, RESIDENT, job.batch, dtype=np.int32),)
    else:
        batch, step = synthetic(job, job.batch), on_images

        def rows():
            return ()

    parameters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    step, seconds = staged(step, state, *batch, *rows(), donate_argnums=0)

    def work(steps: int) -> int:
        nonlocal state
        running = collections.deque()
        for _ in range(steps):
            state, loss = step(state, *batch, *rows())
            running.append(loss)
            if len(running) > AHEAD:
                running.popleft().block_until_ready()
        jax.block_until_ready(state)
        return job.batch * steps

    work(1)
    facts = about(job, model) | {"parameters": parameters, "compile_s": sum(seconds.values())}
    if job.profile:
        try:
            facts["kernels"] = kernels(partial(work, PROFILED), PROFILED)
        except Exception as error:  # a profiler's own troubles, which are no reason to measure nothing
            facts["kernels"] = [(f"no profile: {error}"[:200], 0.0, 0.0)]
    serve_for(job.seconds, work, memory=used_mb, facts=facts)


def infer(job: Job) -> None:
    """Serves single answers: each batch is waited for."""
    import jax
    import jax.numpy as jnp

    from cnn_jax.compilation import jit_once

    model = network = build(job)
    images, _ = synthetic(job, job.batch)
    one = jnp.zeros((1, job.size, job.size, job.channels))
    variables = jit_once(lambda key: model.init(key, one, train=False))(jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    if job.form == "folded":
        from cnn_jax import fold_batch_norm

        model, variables = fold_batch_norm(model, variables)
    answer, seconds = staged(lambda variables, images: model.apply(variables, images, train=False), variables, images)

    def work(batches: int) -> int:
        for _ in range(batches):
            jax.block_until_ready(answer(variables, images))
        return job.batch * batches

    work(1)
    facts = about(job, network) | {"parameters": parameters, "compile_s": sum(seconds.values())}
    serve_for(job.seconds, work, memory=used_mb, facts=facts)


def compiling(job: Job) -> None:
    """Prints the seconds of each stage of init and of the training step, as JSON."""
    import jax

    from cnn_jax.compilation import keep_programs

    keep_programs()  # in JAX_COMPILATION_CACHE_DIR, if so told
    init, step = training(job, build(job))
    key = jax.random.key(0)
    # As compilation.jit_once does it.
    effort = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    _, of_init = staged(init, key, compiler_options=effort)
    shapes = jax.eval_shape(lambda: (init(key), *synthetic(job, job.batch)))
    _, of_step = staged(step, *shapes, donate_argnums=0)
    print(json.dumps({"init": of_init, "step": of_step, "versions": versions(*PACKAGES)}))


def export(job: Job, path: str, dataset: str, data_dir: str | None) -> None:
    """Writes what the network sees of a resident data set as an .npz file, for rivals_torch.loop."""
    import jax
    import numpy as np

    from cnn_jax import model_info, open_dataset
    from cnn_jax.data.augment import make_preprocess
    from cnn_jax.recipes.recipe import Augment

    norm = model_info(job.network).normalization(job.channels)
    see = jax.jit(make_preprocess((job.size, job.size), *norm, asdict(Augment())), static_argnums=1)
    made: dict[str, Any] = {}
    for kind in ("train", "test"):
        data = open_dataset(dataset, kind, data_dir)
        made |= {kind: np.asarray(see(data.images, None)), f"{kind}_labels": data.labels.astype(np.int64)}
    np.savez(path, **made)


def about(job: Job, model: Any) -> dict[str, Any]:
    """What the report says of this side."""
    import jax

    from cnn_jax.models.structure import structure
    from cnn_jax.training.hardware import PEAKS

    kind = jax.devices()[0].device_kind
    macs = structure(model, (job.size, job.size, job.channels)).macs
    return {
        "versions": versions(*PACKAGES),
        "device": kind,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "flops": 6 * macs,  # of an image in training, by custom: 2 a multiply-add, 3 times forward
        "peak_flops": PEAKS.get(kind),
    }


def used_mb() -> float:
    """Peak memory of the device in MB of 10**6 bytes; on a CPU of this process."""
    import jax

    most = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return memory_mb(os.getpid(), children=False) if most is None else most / 1e6


def kernels(work: Callable[[], Any], steps: int) -> list[tuple[str, float, float]]:
    """`longest` of a profile of `work`, which makes so many steps."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            work()
        (path,) = Path(folder).glob("plugins/profile/*/perfetto_trace.json.gz")
        return longest(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"], steps)


def longest(events: list[dict[str, Any]], steps: int, most: int = 10) -> list[tuple[str, float, float]]:
    """The kernels of a trace that took longest: name, ms a step, share of all kernels' time.

    What ran on a GPU's streams; on a CPU, which has none, the operations that its threads ran.
    """
    named = [e for e in events if e.get("ph") == "M"]
    places = {e["pid"]: e["args"]["name"] for e in named if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in named if e["name"] == "thread_name"}
    streams = {
        key for key, name in threads.items() if places.get(key[0], "").startswith("/device:") and "Stream" in name
    }
    ran = streams or {key for key, name in threads.items() if "XLA" in name}
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in ran:
            name = event["name"]
            if streams or not ("::" in name or name.startswith("end: ")):  # the thread pool's own
                spent[name] += event["dur"]  # microseconds
    total = sum(spent.values())
    return [(name, us / 1e3 / steps, us / total) for name, us in spent.most_common(most)]


if __name__ == "__main__":
    job = Job.given()
    if job.form != "flax":
        from cnn_jax.platform import ask_for_huge_pages

        ask_for_huge_pages()  # as train.py does
    with form_of(job):
        if job.task != "compile":
            from cnn_jax.compilation import keep_programs

            keep_programs(False)  # every start compiles
        tasks = {"train": train, "resident": train, "infer": infer, "compile": compiling, "export": export}
        tasks[job.task](job, **job.options)
