"""What XLA and the C library are told before they start: XLA_FLAGS and GLIBC_TUNABLES. A user's own always win.

No JAX is imported here. XLA reads the variable once, and ends the process at a flag that it does not know: each
flag here is in every jaxlib that pyproject.toml allows.
"""

import os
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

Flags = dict[str, str]

# What XLA's compiler for a CPU gives to YNNPACK, less these. YNNPACK's convolutions and their gradients are up to three
# times slower than XLA's older ones (docs/performance.md); its sums inside of some fusions have wrong values before
# jaxlib 0.12 (jax-ml/jax#39103).
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
SLOW_CONVOLUTIONS, WRONG_SUMS = "-individual_convolution", "-reduce"
# The same bits in every run on a GPU: no kernels that add in any order, and no races between kernels, of which another
# one may win the next time. CPUs and TPUs need no flag for it.
DETERMINISTIC: Flags = {"xla_gpu_deterministic_ops": "true", "xla_gpu_autotune_level": "0"}

HUGE_PAGES = "glibc.malloc.hugetlb=1"
OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def always() -> Flags:
    """What every program needs with the jaxlib that is installed; nothing where there is none."""
    try:
        version = metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return {}
    number = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if number < (0, 8, 2):  # XLA has no such convolutions yet, and does not know the flag or its value
        return {}
    wrong = number < (0, 12)
    return {YNNPACK: f"{WRONG_SUMS},{SLOW_CONVOLUTIONS}" if wrong else SLOW_CONVOLUTIONS}


def add_flags(flags: Flags) -> list[str]:
    """Puts `flags` into XLA_FLAGS, but for those that the user has set; gives these, if they say otherwise, as typed.

    XLA_FLAGS may name a file of flags; then it becomes the file's text. Where JAX has its devices already it is too
    late: nothing is changed, and a UserWarning names the flags that these devices would have needed.
    """
    own = os.environ.get("XLA_FLAGS", "").strip()
    if own and not own.startswith("-"):
        try:
            own = Path(own).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return []  # XLA will say what it makes of that
    given = dict(word.lstrip("-").partition("=")[::2] for word in own.split())
    missing = [f"--{name}={value}" for name, value in flags.items() if name not in given]
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        # Not for later programs either: JAX's cache takes the variable for what they were compiled with.
        if late := [flag for flag in missing if f"_{bridge.default_backend()}_" in flag]:
            told = f"JAX runs already, without {' '.join(late)}: import cnn_jax before its first use"
            warnings.warn(told, stacklevel=3)
    elif missing:
        os.environ["XLA_FLAGS"] = " ".join([own, *missing]).strip()
    return [f"--{name}={given[name]}" for name, value in flags.items() if name in given and _differ(given[name], value)]


def ask_for_huge_pages() -> None:
    """Where Linux gives large pages to those who ask, starts this process anew, once, with a glibc that asks.

    A program on a CPU gets the memory that it computes in from the system at each call, and each page is found missing
    and zeroed then: MobileNet v2's step of 16 images took 1.6 times as long with pages of 4 KB as with these of 2 MB.
    glibc reads GLIBC_TUNABLES only when a process starts. To be called first thing.
    """
    own = os.environ.get("GLIBC_TUNABLES", "")
    try:
        asked_for = "[madvise]" in OFFERED.read_text()  # else "always" or "never"
    except OSError:  # not Linux
        return
    if asked_for and "glibc.malloc.hugetlb" not in own:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (own, HUGE_PAGES)))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _differ(given: str, value: str) -> bool:
    return ("true" if given in ("", "1") else given.lower()) != value
