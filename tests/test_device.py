"""What XLA has compiled, kept from one process to the next."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is kept on other systems than Linux")

PROGRAM = """
import json, os, sys
import support.quiet
import tensorflow as tf
from support.device import configure_tensorflow

configure_tensorflow(int(sys.argv[1]), cache=True)
compiled = tf.function(lambda x: tf.reduce_sum(tf.exp(x) @ x), jit_compile=True)
print(json.dumps([float(compiled(tf.ones([5, 5]))), os.environ.get("TF_XLA_FLAGS", "")]))
"""


def compiled(home, threads: int = 1, **environment: str) -> tuple[float, str]:
    """What a process computes that compiles a program, and TensorFlow's flags for XLA."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)],
        env=inherited | {"XDG_CACHE_HOME": str(home)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def entries(home) -> dict:
    """The files that are kept, and the times of their last change."""
    return {path: path.stat().st_mtime_ns for path in home.rglob("xla_compile_cache*")}


def test_another_process_finds_what_was_compiled(tmp_path):
    """And compiles anew what a power cut has left empty; another number of threads has programs of its own."""
    value, _ = compiled(tmp_path)
    kept = entries(tmp_path)
    assert kept and all(path.stat().st_size for path in kept)
    assert compiled(tmp_path)[0] == value and entries(tmp_path) == kept
    emptied = next(iter(kept))
    emptied.write_bytes(b"")
    assert compiled(tmp_path)[0] == value
    assert emptied.stat().st_size and entries(tmp_path).keys() == kept.keys()
    assert compiled(tmp_path, threads=2)[0] == pytest.approx(value)
    folders = {path.parent for path in entries(tmp_path)}
    assert len(folders) == 2 and all(path.parent == tmp_path / "seqgan" for path in folders)


def test_a_directory_that_cannot_be_used_is_no_error(tmp_path):
    (tmp_path / "seqgan").write_text("a file\n")
    _, flags = compiled(tmp_path)
    assert "persistent_cache" not in flags and (tmp_path / "seqgan").read_text() == "a file\n"


def test_the_users_own_directory_is_taken(tmp_path):
    own = f"--tf_xla_persistent_cache_directory={tmp_path / 'own'}"
    assert compiled(tmp_path, TF_XLA_FLAGS=own)[1] == own
    assert not (tmp_path / "seqgan").exists() and entries(tmp_path / "own")
