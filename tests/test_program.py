"""main.py as it is used: as a script, with other settings, and what its flags mean."""

import re
import shlex
import subprocess
import sys
from importlib.machinery import PathFinder

import numpy as np
import pytest
import tensorflow as tf
import toy
from conftest import ROOT, TINY, assert_same, cases, train
from fault_injection import fitting, logs_in, timeless_rows
from test_main import run

import main as program
from support import presets
from support.config import FIELDS, SECTIONS, Config, UsageError
from support.parser import parse
from tools.restored import restore

ON = ("", "--evaluate", "--evaluate True", "--evaluate=1", "--no-evaluate --evaluate", "--evaluate --seed 3")
OFF = ("--no-evaluate", "--evaluate False", "--evaluate=false", "--evaluate 0", "--evaluate no")


@pytest.mark.parametrize("left", ["g_epochs 0 --d_steps 0", "d_epochs 0 --d_steps 0", "d_epochs 0 --d_epochs 1"])
def test_a_phase_may_be_left_out(tmp_path, capsys, left):
    flags = f"--pretrain_{left}"
    assert program.main(fitting(TINY, [*logs_in(tmp_path), *flags.split()]), toy.makers(valid=False)) == 0
    assert ("warning: D is never trained" in capsys.readouterr().err) == (left == "d_epochs 0 --d_steps 0")
    phases = {row["phase"] for row in timeless_rows(tmp_path / "train")}
    assert phases == {"pretrain_g", "pretrain_d", "adversarial"} - {flags.split()[0][2:-7]}


@pytest.mark.parametrize(("flags", "expected"), [([], False), (["--no-deterministic"], True)])
def test_products_are_rounded_to_10_bits_where_runs_need_not_repeat(tmp_path, flags, expected):
    def stop(*_):
        raise UsageError("this far")

    argv = fitting(TINY, ["--log_dir", str(tmp_path / "train"), "--no-evaluate", *flags])
    try:
        assert program.main(argv, program.MAKERS._replace(data=stop)) == 2
        assert tf.config.experimental.tensor_float_32_execution_enabled() == expected
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def test_packages_of_the_same_names_elsewhere_are_not_taken(tmp_path):
    """Without an __init__.py a folder loses to a package that has one, wherever they are on the path."""
    text = "".join(path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")])
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE))
    ours = {path.parent.name for path in ROOT.glob("*/*.py")} & imported
    assert ours >= {"data", "evaluation", "guidance", "support", "runs", "tools"}
    for name in ours:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        assert PathFinder.find_spec(name, [str(ROOT), str(tmp_path)]).origin == str(ROOT / name / "__init__.py"), name


def test_a_script_whose_output_nobody_takes(tmp_path):
    """Closed streams, a broken pipe, a full disk: that is not the run's fault, and its files are what they would be."""
    seen, status = {}, tmp_path / "status"
    ways = {"open": "", "closed": ">&- 2>&- <&-", "pipe": "| head -c 1", "full": ">/dev/full"}
    for name, way in ways.items():
        few = f"--pretrain_g_epochs 1 --total_epochs 0 --pretrain_d_epochs 0 --no-evaluate --log_dir {tmp_path / name}"
        words = [sys.executable, str(ROOT / "main.py"), *fitting(TINY, few.split())]
        command = f"{shlex.join(words)} {way}; echo ${{PIPESTATUS[0]}} > {shlex.quote(str(status))}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
        assert (status.read_text(), done.stderr) == ("0\n", ""), (name, done)
        seen[name] = timeless_rows(tmp_path / name)
        assert len(done.stdout) == {"open": len(done.stdout), "pipe": 1}.get(name, 0)
        if name == "open":
            first, progress, *_, last = done.stdout.splitlines()
            assert first.startswith("oracle: ") and progress.startswith("pretrain_g 1/1")
            assert last.endswith(f"tensorboard --logdir {tmp_path}")
    program = (
        "import os; from support import streams as s; s.keep_writing(); os.set_blocking(1, False); print('a' * 10**6)"
    )
    stalled = ["bash", "-o", "pipefail", "-c", f"{sys.executable} -c {shlex.quote(program)} | (sleep 1; wc -c)"]
    assert subprocess.run(stalled, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout.strip() == "1000001"
    assert all(left == seen["open"] for left in seen.values())


@pytest.mark.parametrize(("words", "value"), [(words, words in ON) for words in (*ON, *OFF)])
def test_boolean_flags_mean_what_they_say(words, value):
    assert parse(words.split()).evaluate is value


def test_presets_and_explicit_flags():
    default, paper = parse([]), parse(["--preset", "paper"])
    assert (paper.batch_size, paper.g_hidden_dim, paper.train_size) == (64, 32, 10_000)
    lstm = parse(["--discriminator", "lstm", "--d_lr", "0.5"])
    assert (lstm.d_batch_size, default.d_batch_size, lstm.cosine_decay, lstm.d_lr) == (1024, 64, ("d",), 0.5)
    assert parse(["--batch_size", "8", "--preset", "paper"]).batch_size == 8
    assert parse(["--preset=paper", "--batch_size", "32"]).batch_size == 32  # the default's value, but explicit
    assert parse(["--preset", "paper", "--d_filter_sizes", "1", "--d_num_filters", "2"]).d_filter_sizes == (1,)
    # An additive discriminator in the place of another is trained as the preset trains that one.
    for name in ("bigram", "lstm", "echo"):
        assert parse(["--preset", "text", "--data_dir", __file__, "--discriminator", name]).d_draws == 115_200
    assert parse(["--discriminator", "echo"]).d_draws == 262_144


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_made_of_flags_that_go_together(name):
    needed = ["--data_dir", "lines.txt"] if name.startswith("text") else []
    assert parse(["--preset", name, *needed]).preset == name and presets.PRESETS[name].keys() <= FIELDS.keys()


def help_of(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@cases("words", [], ["--preset", "paper"], ["--preset=music"], ["--seq_len", "9", "--preset", "captions"])
def test_help_tells_every_flag_its_meaning_and_default(capsys, words):
    entries = {entry.split()[0]: " ".join(entry.split()) for entry in re.split(r"\n\n|\n  --", help_of(capsys, *words))}
    for name, value in vars(parse(words[-2:])).items():
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        assert entries[name].endswith(f"(default: {shown if shown != '' else 'none'})")
        assert len(entries[name].split("(default")[0].split()) > 2


def test_help_comes_in_groups_with_an_example_and_pages(capsys):
    """The groups are those of the comments between the fields."""
    text = help_of(capsys)
    groups: dict[str, list[str]] = {}
    for title, name in re.findall(r"^(?:(\w[\w ]*):$|  --(\w+))", text, re.MULTILINE):
        groups.setdefault(title or next(reversed(groups)), []).extend([name] if name else [])
    assert [name for title in SECTIONS for name in groups[title]] == list(FIELDS)
    assert {title: names[0] for title, names in groups.items() if title in SECTIONS} == SECTIONS
    example = re.search(r"^  python main\.py (--preset .*)$", text, re.MULTILINE)
    assert isinstance(parse(shlex.split(example[1])), Config)
    pages = re.findall(r"[\w/]+\.md", text)
    assert len(pages) >= 3 and all((ROOT / page).is_file() for page in pages)


def test_the_pretrained_state_is_kept_and_rollouts_begin_with_it(tmp_path):
    """As long as the run, bit for bit that of pretraining alone; with a lag of 1 rollouts keep it. With a fixed set."""
    only = "--train_size 33 --total_epochs 0 --pretrain_d_epochs 0 --no-evaluate"
    assert train([*TINY, "--log_dir", str(tmp_path / "alone" / "train"), *only.split()]) == 0
    other = "--train_size 33 --baseline batch --g_steps 2 --rollout_num 1 --rollout_lag 1 --dropout_keep_prob 1"
    assert run(tmp_path / "trained", "--checkpoint_every", "1", *other.split()) == 0
    assert all(np.isfinite(float(row["nll"])) for row in timeless_rows(tmp_path / "trained" / "eval") if row["nll"])
    found = sorted(path.name for path in (tmp_path / "trained" / "train" / "checkpoints").iterdir())
    assert found == [f"step-{step:09d}" for step in (4, 10, 14, 18)]
    alone = restore(tmp_path / "alone" / "train").seqgan
    kept, trained = (restore(tmp_path / "trained" / "train", which).seqgan for which in ("pretrained", "newest"))
    assert_same(*([*each.generator.weights, *each.g_pretrain_optimizer.variables] for each in (kept, alone)))
    assert_same(trained.rollout_policy.get_weights(), alone.generator.get_weights())
    assert (trained.generator.get_weights()[0] != alone.generator.get_weights()[0]).any()
