"""What kills, bad disks and full ones leave: nothing acknowledged is lost, nothing damaged is read."""

import errno
import itertools
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import chex
import pytest
from loopback import run_script
from runs import SAFETY
from tiny_states import assert_equal, state_at

from cnn_jax import UserError, storage
from cnn_jax.errors import Unavailable
from cnn_jax.training.checkpoint import Checkpoints, load_variables


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 3 and 7, the better one 3."""
    folder = tmp_path / "run" / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step, top1 in ((3, 0.9), (7, 0.8)):
            checkpoints.save(state_at(step))
            checkpoints.note(step, {"test_top1": top1})
    return folder


@pytest.fixture
def pristine(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "pristine")


def put_back(folder, pristine):
    shutil.rmtree(folder)
    shutil.copytree(pristine, folder)


def files_of(step):
    return sorted(path.relative_to(step) for path in step.rglob("*") if path.is_file())


def flip(path, place):
    """One bit of the byte at `place`."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << place % 8
    path.write_bytes(data)


def assert_falls_back(folder, printed, what):
    """The newest step is passed over with a line that says `what`; the one before comes back whole."""
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 3
        assert checkpoints.latest_step() == 3
        assert_equal(checkpoints.restore(state_at(0), 3), state_at(3))
    assert printed() == f"checkpoint {folder / '7'} {what}; going on from the one before\n"


@pytest.fixture
def printed(capsys):
    return lambda: capsys.readouterr().out


def test_a_flipped_bit_in_any_place_is_found(folder, pristine, printed):
    places = 0
    for file in files_of(folder / "7"):
        size = (pristine / "7" / file).stat().st_size
        for place in sorted({0, size // 3, size // 2, size - 1}):
            put_back(folder, pristine)
            flip(folder / "7" / file, place)
            assert_falls_back(folder, printed, f"is damaged ({file.as_posix()}: other contents)")
            places += 1
    assert places >= 50


def test_any_flipped_bit_of_a_manifest_is_found(folder, printed):
    """Each of a thousand, since nothing else guards this file."""
    manifest = folder / "7" / "manifest.json"
    whole = manifest.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 1000):
        flip(manifest, place)
        with pytest.raises(UserError, match=r"7 is damaged \(manifest.json: other contents\)"):
            Checkpoints(folder).restore(state_at(0), 7)
        manifest.write_bytes(whole)


def test_a_file_cut_short_anywhere_is_found(folder, pristine, printed):
    for file in files_of(folder / "7"):
        size = (pristine / "7" / file).stat().st_size
        for left in (0, size // 2, size - 1):
            put_back(folder, pristine)
            os.truncate(folder / "7" / file, left)
            what = "other contents" if file.name == "manifest.json" else "cut short"
            assert_falls_back(folder, printed, f"is damaged ({file.as_posix()}: {what})")


def test_a_missing_file_is_found(folder, pristine, printed):
    for file in files_of(folder / "7"):
        put_back(folder, pristine)
        (folder / "7" / file).unlink()
        missing = f"is damaged ({file.as_posix()}: missing)"
        assert_falls_back(folder, printed, "was not finished" if file.name == "manifest.json" else missing)


def test_a_file_too_many_is_found(folder, printed):
    (folder / "7" / "d" / "more").write_text("")
    assert_falls_back(folder, printed, "is damaged (d/more: not part of it)")


def test_a_gutted_step_is_never_chosen(folder, printed):
    for path in (folder / "7").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_falls_back(folder, printed, "was not finished")


def test_a_step_whose_files_are_gone_is_never_chosen(folder, printed):
    for path in (folder / "7").iterdir():
        if path.name != "manifest.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_falls_back(folder, printed, "is damaged (_CHECKPOINT_METADATA: missing)")


def test_what_a_killed_writer_leaves_is_cleared_away(folder, printed):
    shutil.copytree(folder / "7", folder / "8.orbax-checkpoint-tmp")  # killed before orbax had all of it,
    shutil.copytree(folder / "7", folder / "9")  # before the manifest was there,
    (folder / "9" / "manifest.json").unlink()
    (folder / "9.manifest.part").write_text("")
    (folder / "7.manifest.part").write_text("{")  # while a test's result was written,
    shutil.copytree(folder / "3", folder / "deleted" / "1")  # or while an old step was removed
    with Checkpoints(folder) as checkpoints:
        assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]
        assert checkpoints.latest_step() == 7
        checkpoints.save(state_at(9))  # the same step, now whole
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7", "9"]
    assert printed() == ""


def test_a_step_that_never_had_a_manifest_is_kept_aside(folder, printed):
    """Such as one of an older version of this package."""
    (folder / "7" / "manifest.json").unlink()
    assert_falls_back(folder, printed, "was not finished")
    assert (folder / "damaged" / "7" / "_METADATA").exists()


def test_a_damaged_step_can_be_saved_again_and_is_kept_aside(folder):
    for _ in range(2):
        flip(folder / "7" / "_METADATA", 0)
        damaged = (folder / "7" / "_METADATA").read_bytes()
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.latest_step() == 3
            checkpoints.save(state_at(7))
            checkpoints.wait()
            assert checkpoints.latest_step() == 7
    with Checkpoints(folder) as checkpoints:
        assert_equal(checkpoints.restore(state_at(0), 7), state_at(7))
    assert sorted(path.name for path in (folder / "damaged").iterdir()) == ["7", "7-2"]
    assert (folder / "damaged" / "7-2" / "_METADATA").read_bytes() == damaged


def test_two_steps_in_each_others_place_are_found(folder, printed):
    for name, other in (("3", "aside"), ("7", "3"), ("aside", "7")):
        (folder / name).rename(folder / other)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() is None
    assert "3 is damaged (it is the one of step 7)" in printed()


def test_storage_that_fails_for_a_while_is_not_taken_for_damage(folder, printed, monkeypatch):
    """A step that cannot be read now is neither moved away nor passed over."""
    ends = []
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: ends and ends.pop()())
    stale = {"manifest.json": folder / "7" / "manifest.json", "_METADATA": folder / "7" / "_METADATA"}
    opened = Path.open

    def open_stale(path, *args, **options):
        if path in stale.values():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_stale)
    with Checkpoints(folder) as checkpoints, pytest.raises(Unavailable, match="Stale file handle, 7 times"):
        checkpoints.latest_step()
    ends[:] = [stale.clear]  # in the first pause
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 7
    assert printed() == "" and not (folder / "damaged").exists()


def test_a_run_whose_steps_are_all_damaged_has_none(folder, printed):
    for step in (3, 7):
        flip(folder / str(step) / "_METADATA", 0)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
    assert printed() == "".join(
        f"checkpoint {folder / step} is damaged (_METADATA: other contents); none is left\n" for step in ("7", "3")
    )


def test_a_damaged_best_gives_way_to_the_next_best(folder, printed):
    flip(folder / "3" / "_METADATA", 0)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.best_step() == 7
    assert "3 is damaged (_METADATA: other contents); the next best takes its place" in printed()


def test_a_damaged_step_is_not_restored(folder):
    flip(folder / "7" / "manifest.ocdbt", 50)
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(state_at(0), 7)
    assert str(error.value) == f"checkpoint {folder / '7'} is damaged (manifest.ocdbt: other contents)"


def test_a_step_that_is_not_there_is_told(folder):
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="checkpoints/8 is not there"):
        checkpoints.restore(state_at(0), 8)


def test_loading_falls_back_and_touches_nothing(folder, capsys):
    chex.assert_trees_all_equal(load_variables(folder.parent, "latest"), state_at(7).variables)
    flip(folder / "7" / "_METADATA", 0)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    chex.assert_trees_all_equal(load_variables(folder.parent, "latest"), state_at(3).variables)
    told = f"checkpoint {folder / '7'} is damaged (_METADATA: other contents); another one is taken\n"
    assert capsys.readouterr() == ("", told)  # on stderr: what calls it may print a result
    flip(folder / "7" / "_METADATA", 0)
    flip(folder / "3" / "_METADATA", 0)
    chex.assert_trees_all_equal(load_variables(folder.parent, "best"), state_at(7).variables)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")}.keys() == before.keys()


def test_loading_from_nothing_but_damage_is_told_in_one_line(folder):
    flip(folder / "7" / "_METADATA", 0)
    (folder / "3" / "manifest.json").unlink()
    with pytest.raises(UserError) as error:
        load_variables(folder.parent)
    told = f"{folder} holds no checkpoint that can be read: 7 is damaged (_METADATA: other contents)"
    assert str(error.value) == told


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this place lets nobody mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of tensorstore's threads
def test_a_full_disk_costs_no_checkpoint(disk):
    """Where a save fails depends on the blocks that are free; it succeeds as soon as there are enough."""
    folder, ballast = disk / "checkpoints", disk / "ballast"
    refused, saved = 0, [40, 60]
    with Checkpoints(folder) as checkpoints:
        for step in saved:
            checkpoints.save(state_at(step))
        checkpoints.wait()
        for blocks in range(0, 60, 2):
            step, space = 80 + blocks, os.statvfs(disk)
            ballast.write_bytes(bytes(space.f_bsize * (space.f_bavail - blocks)))
            checkpoints.save(state_at(step))
            try:
                checkpoints.wait()
            except UserError as error:
                told = str(error)
                late = f"{step}.orbax-checkpoint-tmp"  # a thread of the failed save may still be writing
                assert {path.name for path in folder.iterdir()} - {late} == set(map(str, saved))
                assert checkpoints.latest_step() == saved[1]
                ballast.unlink()
                checkpoints.save(state_at(step))
                checkpoints.wait()
                assert {path.name for path in folder.iterdir()} == {str(saved[1]), str(step)}
                refused += 1
            else:
                saved = [saved[1], step]
                break
            assert told == (
                f"checkpoint {folder / str(step)} cannot be written: No space left on device; "
                f"the checkpoints of steps {saved[0]}, {saved[1]} are intact"
            )
            saved = [saved[1], step]
        assert 5 <= refused < 30  # a checkpoint has more than ten files, each of a block at least
    with Checkpoints(folder) as checkpoints:
        for step in saved:
            assert_equal(checkpoints.restore(state_at(0), step), state_at(step))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_note_that_finds_the_disk_full_leaves_the_step_as_it_was(disk):
    with Checkpoints(disk / "checkpoints") as checkpoints:
        checkpoints.save(state_at(40))
        checkpoints.wait()
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bsize * os.statvfs(disk).f_bavail))
        with pytest.raises(UserError, match="40 cannot take the result of its test: No space left on device"):
            checkpoints.note(40, {"test_top1": 0.5})
        (disk / "ballast").unlink()
        assert checkpoints.noted(40) is None
    with Checkpoints(disk / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 40
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["40"]


TWO_ON_A_FULL_DISK = """
import os, sys, jax
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from functools import partial
from pathlib import Path
from jax.sharding import NamedSharding, PartitionSpec as P
from tiny_states import state_at
from cnn_jax import UserError, storage
from cnn_jax.errors import Unavailable
from cnn_jax.training.checkpoint import Checkpoints

disk = Path(sys.argv[4])
everywhere = NamedSharding(jax.make_mesh((2,), ("data",)), P())
try:
    with Checkpoints(disk / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(jax.jit(partial(state_at, step), out_shardings=everywhere)())
            checkpoints.wait()
            if step == 1 and jax.process_index() == 0:
                space = os.statvfs(disk)
                ballast = bytes(space.f_bsize * (space.f_bavail - int(sys.argv[5])))
                (disk / "ballast").write_bytes(ballast)
except UserError as error:
    print(f"SAID {error}", flush=True)
    os._exit(2)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("blocks", [0, 12])
def test_two_processes_on_a_full_disk_stop_together(disk, blocks):
    """Where one of them fails, the other does not wait for it until a barrier's deadline, 20 minutes."""
    processes = run_script(TWO_ON_A_FULL_DISK, 2, 1, disk, blocks)
    told = [process.stdout.split("SAID ")[-1] for process in processes]
    assert told[0] == told[1]
    assert re.fullmatch(
        f"checkpoint {disk}/checkpoints/2 cannot be written: (No space left on device|another process failed); "
        "the checkpoint of step 1 is intact\n",
        told[0],
    )
    assert sorted(path.name for path in (disk / "checkpoints").iterdir())[0] == "1"


WIDTH = 10_000  # 80 kB each for kernel and momentum


def save_on_and_on(folder, acknowledged):
    """Saves and tests step after step, and tells of each as it is acknowledged: by wait, by poll and by a test."""
    with Checkpoints(folder) as checkpoints:
        start = checkpoints.latest_step() or 0
        for step in itertools.count(start + 1):
            checkpoints.save(state_at(step, width=WIDTH))
            if step % 3 == 0:
                checkpoints.wait()
            if step % 3 == 1:
                checkpoints.note(step, {"test_top1": step % 5 / 5})
            while (durable := checkpoints.poll()) is None:
                time.sleep(0.001)
            acknowledged.send(durable)


def kill_at_random(folder, kills, seed):
    """Kills `save_on_and_on` again and again; no acknowledged step may be missing."""
    draw = random.Random(seed)
    context = multiprocessing.get_context("forkserver")  # which imports JAX once
    context.set_forkserver_preload(["tiny_states", "cnn_jax.training.checkpoint", "test_checkpoint_damage"])
    newest = 0
    for _ in range(kills):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=save_on_and_on, args=(folder, theirs))
        process.start()
        theirs.close()
        assert ours.poll(SAFETY)  # its first save is through
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        while ours.poll():
            try:
                newest = ours.recv()
            except EOFError:
                break
        with Checkpoints(folder) as checkpoints:
            found = checkpoints.latest_step()
            assert found is not None and newest <= found <= newest + 1
            assert_equal(checkpoints.restore(state_at(0, width=WIDTH), found), state_at(found, width=WIDTH))
            assert checkpoints.best_step() is not None
        assert not {path.name for path in folder.iterdir() if not path.name.isdigit()}
    return newest


def test_killed_at_any_moment_no_acknowledged_step_is_lost(tmp_path):
    assert kill_at_random(tmp_path, kills=8, seed=0) >= 8


@pytest.mark.slow
def test_two_hundred_kills_lose_no_acknowledged_step(tmp_path):
    assert kill_at_random(tmp_path, kills=200, seed=1) >= 200
