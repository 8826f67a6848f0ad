"""train_*.sh and tools/train_and_choose.py: what they run, when samples are chosen, signals."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, cases
from test_prepare_captions import folder

# In the place of main.py and of tools/sample.py: each tells its flags, waits and ends as it is asked to.
MAIN = """
import os, signal, sys, time
ended = []
numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
before = [signal.signal(number, lambda number, _: ended.append(number)) for number in numbers]
print("main", *sys.argv[1:], flush=True)
end = time.monotonic() + 60 * ("main" in os.environ.get("WAITS", ""))
while not ended and time.monotonic() < end:
    time.sleep(0.01)
print("saved")
list(map(signal.signal, numbers, before))
sys.exit(128 + ended[0] if ended else int(os.environ.get("TRAINED", 0)))
"""
SAMPLE = """
import os, sys, time
print("sample", *sys.argv[1:], flush=True)
time.sleep(60 * ("sample" in os.environ.get("WAITS", "")))
sys.exit(int(os.environ.get("CHOSEN", 0)) if "--candidates" in sys.argv else 0)
"""
SCRIPTS = ("nottingham", "captions", "poems")
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
POOLED = ["--discriminator", "pooled", "--pretrain_d_epochs", "5"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A folder with the scripts and stand-ins of the programs; the modules are those of this tree."""
    copy = tmp_path / "a tree"
    (copy / "tools").mkdir(parents=True)
    (copy / "main.py").write_text(MAIN)
    (copy / "tools" / "sample.py").write_text(SAMPLE)
    for name in SCRIPTS:
        shutil.copy(ROOT / f"train_{name}.sh", copy)
    for split in ("train", "valid", "test"):
        (copy / "data" / "Nottingham" / split).mkdir(parents=True)
        (copy / "data" / "Nottingham" / split / "a.mid").touch()
    return copy


def start(tree: Path, name: str, *flags: str, **environment: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | environment
    command = ["bash", f"{tree.name}/train_{name}.sh", *flags]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Bash can't trap what was ignored before it, as under nohup.
    heed = lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS]  # noqa: E731
    return subprocess.Popen(command, cwd=tree.parent, env=environment, preexec_fn=heed, **streams)


def test_each_script_prepares_then_trains_from_its_preset(tree, tmp_path):
    """Files that the environment names are relative to where the script was started; there may be none."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$NOTTINGHAM_ZIP $*"\n[ "$2" != "$FAILS" ] || exit 2\n')
    python.chmod(0o755)
    expected = {
        "nottingham": ("data.fetch_nottingham", "20 tunes", ("NOTTINGHAM_ZIP", "")),
        "captions": ("data.prepare_captions -o data/captions", "100 samples.txt", ("CAPTIONS", " {}")),
        "poems": ("data.prepare_quatrains -o data/quatrains.txt", "100 samples.txt", ("QUATRAINS_TGZ", " --tgz {}")),
    }
    for name, (prepare, samples, (variable, given)) in expected.items():
        for value, path in (("a b", f"{tmp_path}/a b"), ("/c", "/c"), ("", "")):
            environment = {"PYTHON": str(python), variable: value}
            out, err = start(tree, name, "--seed", "2", **environment).communicate()
            assert [line.split(" -m ")[1] for line in out.splitlines()] == [
                prepare + given.format(path) * bool(path),
                f"tools.train_and_choose {samples} --preset {name.replace('nottingham', 'music')} --seed 2",
            ]
            assert not err and out.startswith(f"{path} -m" if name == "nottingham" else " -m")
        failing = start(tree, name, **environment, FAILS=prepare.split()[0])
        assert failing.communicate()[0].count("\n") == failing.wait() - 1 == 1  # it was not trained


@cases(
    "environment, flags, status, programs, line",
    *(({}, [], 0, ["main", "sample"], ""), ({}, ["--discriminator", "echo"], 0, ["main", "sample guided"], "")),
    *(({}, POOLED, 0, ["main", "sample chosen"], ""), ({}, ["--version"], 0, [], "")),
    ({"CHOSEN": "3"}, POOLED, 0, ["main", "sample chosen", "sample"], "a b/tunes: plain samples, as the"),
    *(({"CHOSEN": "2"}, POOLED, 2, ["main", "sample chosen"], ""), ({"TRAINED": "2"}, [], 2, ["main"], "")),
    ({}, ["--data_dir", "mine"], 2, [], "train_and_choose.py: error: --data_dir mine: not an absolute path"),
    ({}, ["--batch_size", "0"], 2, [], "main.py: error: argument --batch_size: 0 is less than 1"),
)
def test_samples_are_chosen_after_a_training_that_has_ended(tree, environment, flags, status, programs, line):
    """Plain ones are left only where the discriminator has no gain, and a line says so."""
    script = start(tree, "nottingham", "--log_dir", "a b", *flags, **environment)
    out, err = script.communicate()
    plain = "sample a b -n 20 -o a b/tunes --abc"
    told = {"sample": plain, "sample chosen": f"{plain} --candidates 16 --rank", "sample guided": f"{plain} --guide"}
    told["main"] = " ".join(["main --songs_dir data/Nottingham --preset music --log_dir a b", *flags])
    assert [line for line in out.splitlines() if line.startswith(("main", "sample"))] == [told[one] for one in programs]
    assert script.returncode == status and err.startswith(line) and err.count("\n") == bool(line)
    if not programs:
        many = [sys.executable, str(ROOT / "tools" / "train_and_choose.py"), "1000001", "tunes"]
        refused = subprocess.run(many, capture_output=True, text=True)
        assert refused.stderr.startswith("train_and_choose.py: error: COUNT")


def test_data_of_another_kind_leave_no_songs(tree):
    out, _ = start(tree, "nottingham", "--preset", "quick").communicate()
    assert out.splitlines()[1:] == [
        *("main --preset music --preset quick", "saved"),
        "sample logs/train/quick -n 20 -o logs/train/quick/tunes --candidates 16 --rank",
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("program", ["main", "sample"])
def test_a_signal_to_the_script_ends_the_program_at_work(tree, program, number):
    """As `timeout` or a service manager sends it. Training saves; then nothing is chosen, nor drawn instead."""
    script = start(tree, "nottingham", WAITS=program)
    assert script.stdout and script.stderr
    while not (line := script.stdout.readline()).startswith(program):
        assert line, script.stderr.read()
    script.send_signal(number)
    out, _ = script.communicate(timeout=30)
    assert out == ("saved\n" if program == "main" else "")
    assert script.returncode == (128 + number if program == "main" else -number)


def test_a_script_from_text_to_samples(tree, tmp_path):
    """With the programs themselves: it prepares, trains, and leaves samples of the kind that it trained on."""
    (tree / "main.py").unlink()
    shutil.rmtree(tree / "tools")
    (tree / "main.py").symlink_to(ROOT / "main.py")
    (tree / "tools").symlink_to(ROOT / "tools")
    words = random.Random(0)
    lines = [" ".join(words.choices(["a", "red", "bus", "dog", "runs"], k=words.randint(3, 7))) for _ in range(1100)]
    folder(tmp_path / "in", train=lines, test=lines[:20])
    few = "--pretrain_g_epochs 2 --total_epochs 1 --g_hidden_dim 8 --g_emb_dim 8 --batch_size 4 --d_draws 64 --no-jit"
    few += " --d_batch_size 16 --d_eval_samples 0 --eval_samples 16 --guide_eta 1"
    script = start(tree, "captions", *few.split(), CAPTIONS="in")
    out, err = script.communicate(timeout=300)
    assert script.returncode == 0, err
    assert "bleu2" in out and "captions/samples.txt: plain samples, as the discriminator can't choose" in err
    samples = (tree / "logs" / "train" / "captions" / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert len(samples) == 100 and {*"".join(samples)} <= {*"<unk> aredbusdogruns"}
