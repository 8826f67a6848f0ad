"""What XLA has compiled, kept from one process to the next."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

from support.device import keep_compiled, of_cache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is kept on other systems than Linux")
PROGRAM = """
import json
import support.quiet
import tensorflow as tf
from support.device import configure_tensorflow

configure_tensorflow(1, cache=True)
one = tf.function(lambda x: tf.reduce_sum(tf.exp(x) @ x), jit_compile=True)
other = tf.function(lambda x: tf.reduce_sum(tf.sin(x) @ x), jit_compile=True)
print(json.dumps([float(compiled(tf.ones([5, 5]))) for compiled in (one, other)]))
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """TensorFlow's flags for XLA with so many threads, by a function; the cache directory is "a b" in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a b"))

    def flags(threads: int = 1, given: str = "") -> str:
        monkeypatch.setenv("TF_XLA_FLAGS", given)
        keep_compiled(threads)
        return os.environ["TF_XLA_FLAGS"]

    return flags


def test_another_process_finds_what_was_compiled(kept, tmp_path):
    """And compiles anew what a power cut has left empty. One line tells of a damaged file."""

    def compiled(status: int = 0) -> tuple[Any, dict]:
        inherited = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=inherited, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        if status:
            return done.stderr, {}
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "a b").rglob("xla_compile_cache*")}
        assert files and all(path.stat().st_size for path in files)
        return json.loads(done.stdout.splitlines()[-1]), files

    values, before = compiled()
    emptied, *others = before
    emptied.write_bytes(b"")
    again, after = compiled()
    assert again == values and after.keys() == before.keys()
    assert others and all(after[path] == before[path] for path in others)
    assert {f'="{path.parent}" ' in kept() for path in before} == {True}
    emptied.write_bytes(b"damaged")
    assert of_cache(ValueError(compiled(status=1)[0].splitlines()[-1])).count(str(emptied)) == 1
    assert not of_cache(ValueError("another"))


def test_where_programs_are_kept(kept, tmp_path):
    """Each number of threads has its own; the user's own directory is taken, and one that can't be used is no error."""
    own = f"--tf_xla_persistent_cache_directory={tmp_path / 'own'}"
    assert kept(given=own) == own and not (tmp_path / "a b" / "seqgan").exists()
    assert kept(1) == kept(1) != kept(2) and len(list((tmp_path / "a b" / "seqgan").iterdir())) == 2
    shutil.rmtree(tmp_path / "a b" / "seqgan")
    (tmp_path / "a b" / "seqgan").write_text("a file\n")
    assert kept(given="--other") == "--other" and (tmp_path / "a b" / "seqgan").read_text() == "a file\n"
