"""Programs that are kept between processes, and those that are compiled with less effort."""

import os
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest

from cnn_jax import compilation
from cnn_jax.compilation import default_folder, jit_once

# Prints how many programs came from the cache, and what was said on stderr goes there.
ONE_PROGRAM = """
import jax
from cnn_jax.compilation import keep_programs
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
keep_programs({keep})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print("kept", len(hits), float(jax.jit(lambda x: (x * 3).sum())(jax.numpy.arange(7.0))), len(hits))
"""


@pytest.fixture
def start(tmp_path):
    """Runs the program in a process whose cache folder is tmp_path/cnn_jax/programs-...; its output."""

    def run(keep=True, **changes):
        env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"} | changes
        done = subprocess.run(
            [sys.executable, "-c", ONE_PROGRAM.format(keep=keep)], capture_output=True, text=True, env=env
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return run


def programs(tmp_path):
    return sorted(tmp_path.glob("cnn_jax/programs-*/jit__lambda*-cache"))


def test_a_second_process_compiles_nothing(start, tmp_path):
    assert start() == ["kept", "0", "63.0", "0"]
    (program,) = programs(tmp_path)
    assert stat.S_IMODE(program.parent.stat().st_mode) == 0o700
    found, *_, hits = start()
    assert found == "kept" and int(hits) > 0


def test_another_flag_of_xla_is_another_program(start, tmp_path):
    """Its numbers may be others, so it must not be taken for one that was kept without the flag."""
    for count, flags in enumerate(("", "--xla_cpu_enable_fast_math=true"), start=1):
        assert start(XLA_FLAGS=flags) == ["kept", "0", "63.0", "0"]
        assert len(programs(tmp_path)) == count


def test_a_program_cut_short_by_a_kill_is_written_again_without_a_word(start, tmp_path):
    start()
    (program,) = programs(tmp_path)
    whole = program.read_bytes()
    program.write_bytes(whole[: len(whole) // 2])
    assert start()[2] == "63.0"
    assert programs(tmp_path) == [program] and len(program.read_bytes()) > len(whole) // 2
    assert int(start()[-1]) > 0


def test_nothing_is_kept_where_that_is_not_wanted_or_not_possible(start, tmp_path):
    start(keep=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "cnn_jax").write_text("a file")
    told = " ".join(start())
    assert told.startswith(f"programs are not kept for the next start: {tmp_path}/cnn_jax/programs-")
    assert told.endswith("kept 0 63.0 0")


def test_a_users_own_folder_is_taken(start, tmp_path):
    own = tmp_path / "own"
    start(JAX_COMPILATION_CACHE_DIR=str(own))
    assert list(own.glob("jit__lambda*-cache")) and not (tmp_path / "cnn_jax").exists()


def test_each_kind_of_processor_has_a_folder_of_its_own(monkeypatch):
    mine = default_folder()
    assert mine == default_folder()
    monkeypatch.setattr(compilation, "_processor", lambda: "another one")
    assert default_folder() != mine and default_folder().parent == mine.parent


def test_programs_that_were_not_used_for_longest_make_room(monkeypatch, tmp_path):
    for age, name in enumerate(("new", "old", "oldest")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(40))
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compilation, "LIMIT", 100)
    compilation.make_room(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-cache", "old-cache"]


def test_a_program_that_runs_once_computes_what_any_other_does():
    def draw(key):
        return jax.nn.initializers.he_normal()(key, (3, 3, 8, 16))

    key = jax.random.key(0)
    np.testing.assert_allclose(jit_once(draw)(key), jax.jit(draw)(key), rtol=1e-6)
