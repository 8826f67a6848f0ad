"""What XLA has compiled, kept from one process to the next: the same numbers, whatever becomes of the files."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import QUICK_XLA, ROOT
from fault_injection import Trainer, differing, flags, outcome

from support import compile_cache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is kept on other systems than Linux")

# One step of training, with evaluations.
MLE = ["--jit", "--d_eval_samples", "0", "--pretrain_d_epochs", "0", "--total_epochs", "0"]


class Machine:
    """Where trainings share a cache."""

    def __init__(self, home: Path):
        self.name = secrets.token_hex(4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(home))
            patch.setenv("XLA_FLAGS", QUICK_XLA)
            patch.delenv("TF_XLA_FLAGS")  # the tests' own folder
            self.trainer = Trainer()
        self.cache = home / "seqgan" / "compiled"

    def train(self, folder: Path, *more: str, **job) -> dict:
        """The outcome of a run that ends well."""
        ended = self.trainer.run(flags(folder, *more), **job)
        assert ended.status == 0 and not ended.err, ended
        return outcome(folder)

    def entries(self) -> dict[Path, int]:
        """The files and the times of their last change."""
        return {path: path.stat().st_mtime_ns for path in self.cache.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("home"))
    yield machine
    machine.trainer.close()


@pytest.fixture(scope="module")
def reference(machine, tmp_path_factory) -> dict:
    """The outcome of a run of `MLE` without a cache."""
    found = machine.train(tmp_path_factory.mktemp("run"), *MLE, "--no-compile_cache")
    assert not machine.entries()
    return found


@pytest.fixture
def filled(machine, reference, tmp_path) -> Machine:
    """A machine whose cache has what `MLE` compiles."""
    assert not differing(machine.train(tmp_path / "filled", *MLE), reference)
    assert len(machine.entries()) >= 3
    return machine


def test_a_second_start_compiles_nothing(filled, reference, tmp_path):
    before = filled.entries()
    assert not differing(filled.train(tmp_path, *MLE), reference)
    assert filled.entries() == before
    # Neither does it for another seed, but what depends on it.
    filled.train(tmp_path / "other", *MLE, "--seed", "5")
    new = filled.entries().keys() - before.keys()
    assert before.items() < filled.entries().items() and len(new) < len(before)
    for path in new:
        path.unlink()


def test_damage_costs_a_compilation(filled, reference, tmp_path):
    whole = {path: path.read_bytes() for path in filled.entries()}
    first, second, third, *others = sorted(whole)
    first.write_bytes(whole[first][:-100])
    second.write_bytes(bytes(len(whole[second])))
    third.write_bytes(b"")
    for path in others:
        path.write_bytes(os.urandom(1000))
    unfinished = first.with_name(f"{first.name}.x1y2z3")
    unfinished.write_bytes(whole[first])
    assert not differing(filled.train(tmp_path, *MLE), reference)
    assert filled.entries().keys() == whole.keys()
    assert all(len(path.read_bytes()) >= 1000 for path in whole)


def test_tensorflow_itself_does_not_survive_damage(filled, tmp_path):
    """Hence the checksums; and that this fails shows that entries are read at all."""
    whole = {path: path.read_bytes() for path in filled.entries()}
    for path, content in whole.items():
        damaged = content[compile_cache.DIGEST : -100]
        path.write_bytes(hashlib.sha256(damaged).digest() + damaged)
    assert filled.trainer.run(flags(tmp_path, *MLE)).status != 0
    for path, content in whole.items():
        path.write_bytes(content)


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, filled, reference):
    moved = filled.cache.rename(tmp_path / "moved")
    filled.cache.write_text("a file\n")
    try:
        assert not differing(filled.train(tmp_path / "run", *MLE), reference)
        assert filled.cache.read_text() == "a file\n"
    finally:
        filled.cache.unlink()
        moved.rename(filled.cache)


def test_two_at_once(machine, tmp_path):
    other, shape = Machine(machine.cache.parent.parent), [*MLE, "--vocab_size", "7"]
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda which: which.train(tmp_path / which.name, *shape), (machine, other)))
    other.trainer.close()
    assert not differing(*outcomes)
    before = machine.entries()
    assert {path.suffix for path in before} == {".pb"}
    assert not differing(machine.train(tmp_path / "third", *shape), outcomes[0])
    assert machine.entries() == before


def test_all_steps_are_the_same_programs_and_a_resumed_run_the_same_run(machine, tmp_path):
    more = ["--jit", "--d_eval_samples", "0", "--total_epochs", "2", "--pretrain_d_epochs", "1"]
    first = machine.train(tmp_path / "first", *more)
    before = machine.entries()
    ended = machine.trainer.run(flags(tmp_path / "second", *more), at=100, action="SIGTERM")
    assert ended.status == 143 and "interrupted after" in ended.out and machine.entries() == before, ended
    assert not differing(machine.train(tmp_path / "second", *more), first)


@pytest.mark.parametrize("tool", ["sample.py", "temperatures.py"])
def test_tools_keep_what_they_compile(filled, tmp_path, tool):
    home, run = tmp_path / "home", tmp_path / "filled" / "train"
    environment = os.environ | {"XDG_CACHE_HOME": str(home), "TF_XLA_FLAGS": ""}
    printed = []
    for flag in ("--no-compile_cache", None):
        assert not (home / "seqgan").exists()
        command = [sys.executable, f"tools/{tool}", str(run), "-n", "3", *([flag] if flag else [])]
        printed.append(subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True).stdout)
    assert printed[0] == printed[1]
    assert list((home / "seqgan" / "compiled").rglob("*.pb"))


CASES = """
import json, os, sys
import support.quiet
from support import compile_cache
from support.device import configure_tensorflow
for environment, threads, what in json.loads(sys.argv[1]):
    if not os.fork():
        os.environ.update(environment)
        configure_tensorflow(threads, keep_compiled=tuple(what))
        print(json.dumps([str(compile_cache._folder), os.environ.get("TF_XLA_FLAGS")]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_what_a_program_depends_on_has_a_folder_of_its_own(tmp_path):
    own = "--tf_xla_persistent_cache_directory=mine --tf_xla_clustering_debug=false"
    cases = [
        ({}, 2, ["a"]),
        ({"TF_CPP_MIN_LOG_LEVEL": "2"}, 2, ["a"]),  # alike
        ({}, 3, ["a"]),
        ({}, 2, ["b"]),
        ({"XLA_FLAGS": "--xla_backend_optimization_level=1"}, 2, ["a"]),
        ({"TF_XLA_FLAGS": "--tf_xla_clustering_debug=false"}, 2, ["a"]),
        ({"TF_XLA_FLAGS": own}, 2, ["a"]),  # the user's own folder
        ({}, 2, []),  # without
    ]
    environment = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-c", CASES, json.dumps(cases)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    *cached, theirs, without = map(json.loads, done.stdout.splitlines())
    folders = [folder for folder, _ in cached]
    assert folders[0] == folders[1] and len(set(folders)) == 5
    assert cached[-1][1] == f"--tf_xla_clustering_debug=false {compile_cache.FLAG}"
    assert theirs == ["None", own] and without == ["None", None]
    assert sorted(map(str, (tmp_path / "seqgan" / "compiled").iterdir())) == sorted(set(folders))


# ---- how much is kept


def fill(folder: Path, *sizes: int, used: float) -> list[Path]:
    """Writes whole entries of so many bytes, the older the earlier."""
    folder.mkdir(parents=True)
    paths = [folder / f"xla_compile_cache__{i}__0__XLA_CPU_JIT.pb" for i in range(len(sizes))]
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        content = bytes([i]) * (size - compile_cache.DIGEST)
        path.write_bytes(hashlib.sha256(content).digest() + content)
        os.utime(path, (used + i, used + i))
    os.utime(folder, (used, used))
    return paths


def test_a_folder_keeps_its_newest_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "LARGEST", 1000)
    paths = fill(tmp_path / "folder", 400, 400, 400, 400, used=10.0)
    (tmp_path / "folder" / "notes.txt").write_text("the user's own")
    found = dict(compile_cache._whole_entries(tmp_path / "folder"))
    assert found == {paths[i].name: bytes([i]) * (400 - compile_cache.DIGEST) for i in (2, 3)}
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert (tmp_path / "folder" / "notes.txt").exists()


def test_folders_used_longest_ago_go_first_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "TOTAL", 1000)
    names = [f"{i:032x}" for i in range(4)]
    used = (30.0, 10.0, 40.0, 20.0)
    for name, when in zip(names, used, strict=True):
        fill(tmp_path / name, 400, used=when)
    (tmp_path / names[3] / "notes.txt").write_text("the user's own")
    os.utime(tmp_path / names[3], (20.0, 20.0))
    fill(tmp_path / "mine", 4000, used=1.0)
    compile_cache._remove_unused(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    entry = "xla_compile_cache__0__0__XLA_CPU_JIT.pb"
    assert left == {f"{names[0]}/{entry}", f"{names[2]}/{entry}", f"{names[3]}/notes.txt", f"mine/{entry}"}
