"""How programs are compiled: kept between runs, and with less effort where they run once."""

import contextlib
import hashlib
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cnn_jax.storage import caches

LIMIT = 2 * 2**30  # bytes; beyond it the programs go first that were not used for longest
WORTH_KEEPING = 0.1  # seconds of compiling; what takes less is compiled again
DAMAGED = re.compile(r"Error reading persistent compilation cache entry for '([\w.-]+)'")
FULL = "Error writing persistent compilation cache entry"


def default_folder() -> Path:
    """Where this user's programs for this kind of machine lie: below XDG_CACHE_HOME or ~/.cache.

    A program for the CPU is machine code for its very processor, and home folders are shared: each
    kind of processor has a folder of its own.
    """
    return caches() / f"programs-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}"


def keep_programs(keep: bool = True) -> None:
    """Lets JAX keep what it compiles in JAX_COMPILATION_CACHE_DIR, or in `default_folder()` if that is not set.

    To be called before anything is compiled. Where the folder cannot be made a line says so, and
    programs are compiled each time. Not to `keep` also leaves JAX_COMPILATION_CACHE_DIR alone.
    """
    import jax

    if not keep:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    given: Any = jax.config.values["jax_compilation_cache_dir"]
    folder = Path(given or default_folder())
    if not given:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code in our name
        except OSError as error:
            print(f"programs are not kept for the next start: {folder}: {error.strerror}", flush=True)
            return
        make_room(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    _mend(folder)


def jit_once(function: Callable, **options: Any) -> Callable:
    """jax.jit for a program that runs once, such as a network's `init`.

    On a CPU LLVM spends most of its time on unrolled random numbers at its highest level; one level is
    enough for the same bits at the same speed in a quarter of the time (LeNet-5 0.95 s for 3.7 s,
    ResNet-18 3.2 s for 9.3 s, jax 0.10.2 on an AMD EPYC).
    """
    import jax
    from jax.core import Tracer

    def call(*arguments: Any) -> Any:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
            return function(*arguments)  # part of another program
        effort = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        return jax.jit(function, compiler_options=effort, **options)(*arguments)

    return call


def timed(seconds: dict[str, float], name: str, function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, which compiles; how long it takes is written down as `seconds[name]`."""
    began = time.perf_counter()
    made = function(*arguments)
    seconds[name] = time.perf_counter() - began
    return made


def _processor() -> str:
    """What machine code depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features", "CPU part")  # the last two: Arm
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(told)))


def make_room(folder: Path) -> None:
    """Removes the programs that were not used for longest, down to LIMIT."""
    programs = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process may be at it, too
            found = path.stat()
            programs.append((max(found.st_atime, found.st_mtime), found.st_size, path))
    total = sum(size for _, size, _ in programs)
    for _, size, path in sorted(programs):
        if total <= LIMIT:
            return
        path.unlink(missing_ok=True)
        total -= size


def _mend(folder: Path) -> None:
    """Removes a program that cannot be read when JAX finds it, as a kill in the middle of its writing leaves it.

    JAX would warn at each start, compile, and never write it again.
    """
    show = warnings.showwarning

    def mend(message: Warning | str, *where: Any) -> None:
        text = str(message)
        if damaged := DAMAGED.match(text):
            for path in folder.glob(f"{damaged[1]}-*"):
                path.unlink(missing_ok=True)
        elif text.startswith(FULL):
            print(f"{text}; it is compiled again at the next start", file=sys.stderr, flush=True)
        else:
            show(message, *where)

    warnings.showwarning = cast(Any, mend)
