"""main.py as it is used: as a script, with other settings, and what its flags mean."""

import ast
import re
import shlex
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TINY
from test_main import rows, run, scalars

import main as program
from model import SeqGAN
from support import config, presets
from support.config import UsageError
from support.device import configure_tensorflow
from support.parser import parse


@pytest.mark.parametrize(
    "flags",
    [
        ["--train_size", "9", "--baseline", "batch", "--rollout_lag", "0.8", "--g_steps", "2"],
        ["--no-jit", "--pretrain_g_epochs", "0", "--d_steps", "0"],
        [
            "--no-jit",
            "--pretrain_d_epochs",
            "0",
            "--rollout_num",
            "1",
            "--eval_samples",
            "300",
            "--dropout_keep_prob",
            "1",
        ],
    ],
)
def test_other_settings_run(tmp_path, flags):
    assert run(tmp_path, "--d_eval_samples", "0", *flags) == 0
    assert np.isfinite(list(scalars(tmp_path / "eval")["nll"].values())).all()


def test_jit_on_and_off_agree(tmp_path):
    """They draw the same numbers from a key. A sum that is rounded otherwise may choose another token, seldom."""
    figures = []
    for folder, jit in (("on", "True"), ("off", "False")):
        flags = ["--pretrain_g_epochs", "60", "--total_epochs", "0", "--batch_size", "256", "--eval_samples", "4000"]
        assert run(tmp_path / folder, "--jit", jit, *flags) == 0
        figures.append(rows(tmp_path / folder / "eval")[-1])
    for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
        assert float(figures[0][name]) == pytest.approx(float(figures[1][name]), abs=1e-4), name


@pytest.mark.parametrize(("flags", "expected"), [([], False), (["--tf32"], True), (["--tf32", "False"], False)])
def test_tf32_is_off_unless_it_is_asked_for(tmp_path, monkeypatch, flags, expected):
    def configure(*arguments):
        configure_tensorflow(*arguments)
        raise UsageError("this far")

    monkeypatch.setattr(program, "configure_tensorflow", configure)
    try:
        assert run(tmp_path, *flags) == 2
        assert tf.config.experimental.tensor_float_32_execution_enabled() == expected
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def test_the_last_line_tells_the_figures(tmp_path, capsys):
    assert run(tmp_path, "--no-jit") == 0
    captured = capsys.readouterr()
    first, *progress = captured.out.strip().splitlines()
    assert first.startswith("oracle: 4 tokens") and "floor" in first
    kinds = ["generated", "resampled", "real"]
    place = next(i for i, line in enumerate(progress) if line.split() == kinds)
    progress, (head, *table, last) = progress[:place], progress[place:]
    final = {
        name: f"{float(value):.3f}" for name, value in rows(tmp_path / "eval")[-1].items() if value and name != "phase"
    }

    def shown(name: str) -> str:
        error = f" ± {final[f'{name}_se']}" if f"{name}_se" in final else ""
        return final[name] + error if name in final else ""

    assert [line.split()[0] for line in table[:3]] == ["nll", "nll_test", "g_entropy"]
    starts = [*map(head.index, kinds), None]  # aligned
    for line in (line for line in table if not line.startswith("seconds")):
        name, cells = line.split()[0], [line[a:b].strip() for a, b in zip(starts, starts[1:], strict=False)]
        real = shown("oracle_entropy") if name == "g_entropy" else ""
        assert cells == [shown(name), shown(f"{name}_resampled"), real], line
    assert "nats per token" in last and last.endswith(f"curves: tensorboard --logdir {tmp_path}")
    # A line an evaluation.
    assert [line.split(":")[0] for line in progress] == [
        *(f"pretrain_g {n}/4" for n in (1, 2, 4)),
        "pretrain_d 2/2",
        *(f"adversarial {n}/3" for n in (1, 2, 3)),
    ]
    evaluated = rows(tmp_path / "eval")[1]
    for name in ("nll", "nll_test", "g_entropy"):
        assert f"{name} {float(evaluated[name]):.3f}" in progress[1]
    assert "d_pretrain_loss " in progress[3]
    assert re.search(r"; \d+\.\d (epochs/s|s an epoch), \d:\d\d:\d\d left of this phase$", progress[1])
    assert captured.err == ""  # no progress bar where stderr is no terminal


def test_a_finished_run_says_so_and_is_evaluated_on_request(tmp_path, capsys):
    assert run(tmp_path, "--no-jit") == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(tmp_path, "--no-jit") == 0
    assert "finished" in capsys.readouterr().out
    assert run(tmp_path, "--no-jit", "--no-is_train") == 0
    assert re.search(r"nll +\d", capsys.readouterr().out)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_the_program_runs_as_a_script(tmp_path):
    logs = ["--log_dir", str(tmp_path / "t"), "--eval_log_dir", str(tmp_path / "e"), "--total_epochs", "1"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *TINY, *logs], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *progress, last = done.stdout.splitlines()
    assert first.startswith("oracle: ") and last.endswith(f"tensorboard --logdir {tmp_path}")
    assert [line.split()[0] for line in progress[:5]] == [*["pretrain_g"] * 3, "pretrain_d", "adversarial"]


def test_packages_of_the_same_names_elsewhere_are_not_taken(tmp_path):
    """Without an __init__.py a folder loses to a package that has one, wherever they are on the path."""
    imports = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imports |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imports |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    names = {name.split(".")[0] for name in imports}
    ours = {path.parent.name for path in ROOT.glob("*/*.py")} & names
    assert ours >= {"data", "support", "runs", "tools"}
    for name in ours:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        assert PathFinder.find_spec(name, [str(ROOT), str(tmp_path)]).origin == str(ROOT / name / "__init__.py"), name


def test_a_run_whose_output_nobody_takes(tmp_path):
    """Closed streams, a broken pipe, a full disk: that is not the run's fault, and its files are what they would be."""
    seen, status = {}, tmp_path / "status"
    ways = {"open": "", "closed": ">&- 2>&- <&-", "pipe": "| head -c 1", "full": ">/dev/full"}
    for name, way in ways.items():
        logs = ["--log_dir", str(tmp_path / name / "train"), "--eval_log_dir", str(tmp_path / name / "eval")]
        words = [sys.executable, str(ROOT / "main.py"), *TINY, *logs, "--no-jit", "--total_epochs", "1"]
        command = f"{shlex.join(words)} {way}; echo ${{PIPESTATUS[0]}} > {shlex.quote(str(status))}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (status.read_text(), done.stderr) == ("0\n", ""), (name, done)
        seen[name] = [rows(tmp_path / name / kind) for kind in ("train", "eval")]
        assert len(done.stdout) == {"open": len(done.stdout), "pipe": 1}.get(name, 0)
    assert all(left == seen["open"] for left in seen.values())


# ---- flags


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("", True),
        ("--evaluate", True),
        ("--no-evaluate", False),
        ("--evaluate False", False),
        ("--evaluate=false", False),
        ("--evaluate 0", False),
        ("--evaluate no", False),
        ("--evaluate True", True),
        ("--no-evaluate --evaluate", True),
        ("--evaluate --seed 3", True),
    ],
)
def test_boolean_flags_mean_what_they_say(words, value):
    assert parse(words.split()).evaluate is value


def test_presets_and_explicit_flags():
    default, paper = parse([]), parse(["--preset", "paper"])
    assert (default.batch_size, default.g_hidden_dim, default.train_size) == (32, 50, 0)
    assert (paper.batch_size, paper.g_hidden_dim, paper.train_size) == (64, 32, 10_000)
    assert sum(paper.d_num_filters) == 1720 and len(paper.d_filter_sizes) == 12
    assert parse(["--batch_size", "8", "--preset", "paper"]).batch_size == 8
    assert parse(["--preset=paper", "--batch_size", "32"]).batch_size == 32  # the default's value, but explicit
    assert parse(["--preset", "paper", "--d_filter_sizes", "1", "--d_num_filters", "2"]).d_filter_sizes == (1,)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_made_of_flags_that_go_together(name):
    assert parse(["--preset", name]).preset == name and presets.PRESETS[name].keys() <= config.FIELDS.keys()


def test_help_tells_every_flag_its_meaning_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    entries = re.split(r"\n\n|\n  --", capsys.readouterr().out)
    entries = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
    for name, value in vars(parse([])).items():
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        assert entries[name].endswith(f"(default: {shown if shown != '' else 'none'})")
        assert len(entries[name].split("(default")[0].split()) > 2


def test_help_comes_in_groups(capsys):
    """Those of the comments between the fields."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = re.findall(r"^(?:(\w[\w ]*):$|  --(\w+))", capsys.readouterr().out, re.MULTILINE)
    written = re.findall(r"^    (?:# (.+)|(\w+): \w.* = flag\()", Path(config.__file__).read_text(), re.MULTILINE)
    groups: dict[str, list[str]] = {}
    for title, name in written:
        if title:
            groups[title] = groups.pop("", [])  # --preset comes before the first
        groups.setdefault(title or next(reversed(groups), ""), []).extend([name] if name else [])
    found: dict[str, list[str]] = {}
    for title, name in shown:
        if title:
            found[title] = []
        elif found:
            found[next(reversed(found))].append(name)
    found.pop("options", None)
    assert found == groups and len(groups) == 7 and set(sum(groups.values(), [])) == set(config.FIELDS)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--version"])
    assert stop.value.code == 0 and re.fullmatch(r"SeqGAN \d+\.\d+\.\d+, Python 3\.\S+\n", capsys.readouterr().out)


def state_of(model: SeqGAN) -> list:
    """What pretraining leaves; a layer's variables also have the seed of a dropout that is not used."""
    return [*model.generator.weights, *model.discriminator.weights, *model.g_pretrain_optimizer.variables]


def test_the_pretrained_state_is_kept(tmp_path):
    """As long as the run, bit for bit that of pretraining alone."""
    few = ["--keep_checkpoints", "1", "--checkpoint_every", "1"]
    assert run(tmp_path / "pretrained", "--total_epochs", "0") == run(tmp_path / "trained", *few) == 0
    found = sorted(path.name for path in (tmp_path / "trained" / "train" / "checkpoints").iterdir())
    assert found == ["step-000000004", "step-000000015"]
    alone = SeqGAN.restored(tmp_path / "pretrained" / "train")
    kept, trained = (SeqGAN.restored(tmp_path / "trained" / "train", which) for which in ("pretrained", "newest"))
    for ours, theirs in zip(*map(state_of, (kept, alone)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (trained.generator.get_weights()[0] != alone.generator.get_weights()[0]).any()


def test_rollouts_begin_with_the_pretrained_policy(tmp_path):
    """With a lag of 1 they keep it, whatever becomes of the policy."""
    assert run(tmp_path / "pretrained", "--no-jit", "--total_epochs", "0") == 0
    assert run(tmp_path / "trained", "--no-jit", "--total_epochs", "2", "--rollout_lag", "1") == 0
    pretrained, trained = (SeqGAN.restored(tmp_path / name / "train") for name in ("pretrained", "trained"))
    for kept, first in zip(trained.rollout_policy.get_weights(), pretrained.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, first)
    assert (trained.generator.get_weights()[0] != pretrained.generator.get_weights()[0]).any()
