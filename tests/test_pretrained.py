"""--pretrained: a run that starts from another's pretraining is the run that pretrained by itself."""

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from conftest import SIZES, TINY, assert_same, cases, refusal, resumed_alike, train
from fault_injection import change, differing, flags, logs_in, outcome, timeless_rows
from toy import makers

import main as program
from runs.directories import evaluations_of
from support.config import FIELDS
from support.config_file import UNRELATED_TO_PRETRAINING, read_same
from support.errors import UsageError
from tools import temperatures
from tools.restored import restore

LINES = "ab\nba\nabc\ncab\nbca\nbb\naab\n" * 3 + "".join(f"{a}{b}{c}\n" for a in "abc" for b in "abc" for c in "abc")
PURE = ("--total_epochs", "0", "--pretrain_d_epochs", "0")


def run(folder: Path, *more: str, tiny=TINY) -> int:
    return train([*tiny, *logs_in(folder), "--eval_every", "1", *more])


def test_as_if_it_had_pretrained_by_itself(tmp_path, capsys):
    assert run(tmp_path / "source", *PURE) == 0 and run(tmp_path / "alone") == 0
    own = ("--pretrained", str(tmp_path / "source" / "train"))
    started, alone = tmp_path / "started", outcome(tmp_path / "alone")
    assert run(started, *own) == 0 and not differing(outcome(started), alone)
    error = refusal(capsys, run, started, "--overwrite", "--pretrained", f"{tmp_path}/none", alone=False)
    assert f"--pretrained {tmp_path}/none: no run (there is no config.json)" in error
    error = refusal(capsys, run, tmp_path / "new", "--pretrained", f"{tmp_path}/source/eval", alone=False)
    assert f"its weights are in its --log_dir, {tmp_path}/source/train" in error
    assert not differing(outcome(started), alone)  # it has cost nothing
    assert run(started, *own, "--overwrite") == 0 and not differing(outcome(started), alone)
    error = refusal(capsys, run, tmp_path / "alone", *own, alone=False)
    assert f"--pretrained: the run in --log_dir {tmp_path}/alone/train began without it; choose another" in error
    shutil.rmtree(tmp_path / "source")  # it is needed no more
    assert run(started, *own, "--total_epochs", "4") == 0 and len(timeless_rows(started / "train")) == 4 + 2 + 4


def test_of_a_run_that_was_moved_and_is_on_text(tmp_path):
    """With an average, which the generator is at the end of its pretraining."""
    (tmp_path / "lines.txt").write_text(LINES)
    words = ("--data_dir", str(tmp_path / "lines.txt"), "--average", "0.5", "--vocab_size", "9")
    on_text = [*SIZES, "--dataset", "text", *words]
    assert run(tmp_path / "alone", tiny=on_text) == 0
    expected = outcome(tmp_path / "alone")
    (tmp_path / "alone").rename(tmp_path / "moved")
    assert run(tmp_path / "run", "--pretrained", str(tmp_path / "moved" / "train"), tiny=on_text) == 0
    assert not differing(outcome(tmp_path / "run"), expected)
    mine, its = (restore(tmp_path / name / "train", "pretrained").seqgan for name in ("run", "moved"))
    assert_same(mine.generator.get_weights(), its.generator.get_weights())
    assert_same(mine.generator.get_weights(), mine.average.get_weights())


OWN_DATA = """
import numpy as np
from data.real import Dataset
from data.training_set import training_data
from generator import TokenSpec

class Rows(Dataset):
    origin, spec = "own rows", TokenSpec(4, 3, start_token=4)

    def __init__(self, config):
        rows = np.random.default_rng(len(open("SEED").read())).integers(4, size=[60, 3], dtype=np.int32)
        train, self.valid, self.test = np.split(rows, [20, 40])
        self.training = training_data(train, config, "rows")
"""


def test_data_of_ones_own_that_bring_no_checksums_are_told_by_their_sequences(here, eagerly, capsys):
    """A run of other data is refused as --pretrained, as --teacher and beside others; what is moved is the same."""
    for name, seed, content in (("one", "a", "1"), ("moved", "a", "1"), ("other", "b", "22")):
        Path(f"{name}.py").write_text(OWN_DATA.replace("SEED", seed))
        Path(seed).write_text(content)
    one, moved, other = ([*SIZES, "--dataset", f"{name}.py:Rows"] for name in ("one", "moved", "other"))
    constant, new = ["--reward", "constant", "--total_epochs"], logs_in(here / "new")
    assert train([*one, *constant, "0", *logs_in(here / "one")]) == 0
    start = (*constant, "1", "--pretrained", "one/train")
    assert train([*moved, *start, *logs_in(here / "moved")]) == 0
    assert "has read other data" in refusal(capsys, train, [*other, *start, *new], alone=False)
    assert train([*other, *constant, "0", *logs_in(here / "other")]) == 0
    beside = refusal(capsys, temperatures.main, ["one/train", "other/train", "-n", "4", "--temperatures", "1"])
    assert "other/train: a run with other data than one/train" in beside
    learnt = "--pretrain_g_epochs 0 --total_epochs 1 --g_update distil --teacher one/train"
    assert train([*moved, *learnt.split(), *logs_in(here / "taught")]) == 0
    shutil.copy("b", "a")  # the code stays
    assert "that run has other data" in refusal(capsys, train, [*one, *learnt.split(), *new], alone=False)
    assert "sequences of test and " in refusal(capsys, train, [*one, *constant, "1", *logs_in(here / "one")])
    with pytest.raises(UsageError, match="the run has read other data than own rows has now"):
        (run := restore(Path("one/train"))).data()
    assert read_same(run.content | {"data": {}}, {"rows": "1"}, run.config)  # the code tells


def toy(folder: Path, *words: str) -> int:
    return program.main(flags(folder, "--eval_every", "1", *words), makers(valid=True))


@pytest.mark.parametrize("replaced", [False, True])
def test_the_best_checkpoint_of_pretraining(tmp_path, capsys, replaced):
    """It is still there, or replaced by a better one since."""
    assert toy(tmp_path / "alone") == toy(tmp_path / "source", *([] if replaced else PURE)) == 0
    donor, started = tmp_path / "source" / "train", tmp_path / "started"
    assert (donor / "checkpoints" / "step-000000003").exists() != replaced
    capsys.readouterr()
    assert toy(started, "--pretrained", str(donor), *PURE) == 0
    assert ("step 3, was replaced" in capsys.readouterr().err) == replaced
    assert outcome(started)["steps of best"] == f"step-{5 if replaced else 3:09d}"
    assert toy(tmp_path / "run", "--pretrained", str(donor)) == 0
    assert not differing(outcome(tmp_path / "run"), outcome(tmp_path / "alone"))


def test_what_follows_may_begin_from_the_best(tmp_path, capsys):
    """Else the run warns, and says at its end, where nll_valid was least. Resumed bit for bit; it is shared, too."""
    (tmp_path / "lines.txt").write_text(LINES)
    words = shlex.split("--average 0.5 --vocab_size 9 --pretrain_g_epochs 24 --g_pretrain_lr 0.2 --eval_every 1")
    words = [*SIZES, "--dataset", "text", "--data_dir", str(tmp_path / "lines.txt"), *words]
    assert run(tmp_path / "plain", tiny=words) == 0
    out, err = capsys.readouterr()
    least = r"nll_valid was least, \d\.\d{3}, at epoch (\d+) of 24: tools/sample.py --checkpoint best; c"
    found = re.search(least, err)
    assert err.startswith("warning: pretrain_d begins from an overfitted") and err.endswith("begins it from there\n")
    assert found[0] in out.split("pretrain_g 24/24")[1].splitlines()[0] and found[0] in out.splitlines()[-2]
    words += ["--best_pretraining"]
    assert not resumed_alike(tmp_path, words, 22, 3) and "warning" not in capsys.readouterr().err
    policies = [restore(tmp_path / "plain" / "train", int(found[1]))]
    policies += [restore(tmp_path / "whole" / "train", step) for step in ("pretrained", 26)]
    best, *begun = [[each.seqgan.average.get_weights(), each.seqgan.generator.get_weights()] for each in policies]
    for average, generator in begun:
        assert_same(best[0] * 2, average + generator)
    own = ("--pretrained", str(tmp_path / "whole" / "train"))
    assert run(tmp_path / "shared", *own, tiny=words) == 0
    assert not differing(outcome(tmp_path / "shared"), outcome(tmp_path / "whole"))
    for more, why in (
        ((*own, "--eval_every", "2", "--overwrite"), "--eval_every 1, not 2"),
        (("--no-evaluate",), "--best_pretraining has no effect with --no-evaluate"),
    ):
        assert why in refusal(capsys, run, tmp_path / "shared", *more, tiny=words, alone=False)


def test_copying_that_is_killed_begins_again(trainer, tmp_path):
    """The best checkpoint is saved before that of the end, when the logs are whole already."""

    def toy(folder: str, *words: str, **job):
        more = shlex.split("--pretrain_g_epochs 9 --eval_every 1")
        return trainer.run(flags(tmp_path / folder, *more, *words), toy=True, valid=True, **job)

    assert toy("source", *PURE).status == toy("alone").status == 0
    own, expected = ("--pretrained", str(tmp_path / "source" / "train")), outcome(tmp_path / "alone")
    whole = toy("whole", *own)
    assert whole.status == 0 and not differing(outcome(tmp_path / "whole"), expected)
    assert toy("whole", "--pretrained", "/nope", "--total_epochs", "7").status == 0  # it is not read any more
    assert json.loads((tmp_path / "whole/train/config.json").read_text())["flags"]["pretrained"] == own[1]
    halves = 0
    for at in range(8, whole.calls // 2, 17):
        assert toy(str(at), *own, at=at).status == -signal.SIGKILL
        if [path.name for path in (tmp_path / str(at)).glob("train/checkpoints/step-*")] == ["step-000000007"]:
            halves += 1
            ended = toy(str(at))
            assert ended.status == 2 and "copying --pretrained was interrupted; give it once more" in ended.err
        assert toy(str(at), *own).status == 0
        assert not differing(outcome(tmp_path / str(at)), expected), at
    assert halves >= 1


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    assert run(folder, *PURE) == 0
    return folder


@cases(
    "more, why",
    *((["--g_pretrain_lr", "0.5"], "--g_pretrain_lr 0.01, not 0.5"), (["--seed", "2"], "--seed 1, not 2")),
    (["--pretrain_g_epochs", "5"], "--pretrain_g_epochs 4, not 5"),
    (["--eval_samples", "18"], "--eval_samples 16, not 18"),
)
def test_another_pretraining_is_refused(source, tmp_path, capsys, more, why):
    error = refusal(capsys, run, tmp_path / "run", "--pretrained", str(source / "train"), *more)
    assert error.startswith("main.py: error: --pretrained") and why in error, error
    assert not (tmp_path / "run").exists()


def test_evaluations_at_other_epochs_are_no_other_pretraining(source, tmp_path):
    """The curve of pretraining has its points where the other run has evaluated. Nor are flags without effect one."""
    folder = tmp_path / "run"
    (path := source / "train/config.json").write_text(path.read_text().replace('"min_count": 1', '"min_count": 7'))
    assert run(folder, "--pretrained", str(source / "train"), "--eval_every", "3", "--total_epochs", "4") == 0
    points = [(row["phase"], row["epoch"]) for row in timeless_rows(folder / "eval")]
    assert points == [("pretrain_g", n) for n in "0123"] + [("adversarial", n) for n in "467"]
    names = [*FIELDS]
    ends = ("dataset", "pretrain_d_epochs"), ("g_emb_dim", "reward"), ("oracle_seed", "oracle_params")
    part = {name for first, end in ends for name in names[names.index(first) : names.index(end)]}
    assert UNRELATED_TO_PRETRAINING & part == {"g_lr"}


def test_evaluations_are_this_runs_own(source, tmp_path, capsys):
    """Not those of a run that has taken their place, nor what the run has in --log_dir, whose name may be the same."""
    train_dir, eval_dir = tmp_path / "train" / "x", tmp_path / "eval" / "x"
    shutil.copytree(source / "train", train_dir)
    change(train_dir / "config.json", flags={"log_dir": str(train_dir), "eval_log_dir": str(eval_dir)})
    shutil.copytree(source / "eval", eval_dir)
    assert evaluations_of(train_dir) == eval_dir
    shutil.move(tmp_path / "train", tmp_path / "moved" / "train")
    assert evaluations_of(tmp_path / "moved" / "train" / "x") == eval_dir  # where they stayed
    shutil.move(tmp_path / "eval", tmp_path / "moved" / "eval")
    assert evaluations_of(tmp_path / "moved" / "train" / "x") == tmp_path / "moved" / "eval" / "x"
    change(tmp_path / "moved" / "eval" / "x" / "config.json", run="another")
    error = refusal(capsys, run, tmp_path / "run", "--pretrained", str(tmp_path / "moved/train/x"), alone=False)
    assert "no evaluations of this run, neither in" in error and not (tmp_path / "run").exists()


def test_what_is_missing_is_named(source, tmp_path, capsys):
    def refused(directory: Path, why: str) -> None:
        error = refusal(capsys, run, tmp_path / "run", "--pretrained", str(directory))
        assert "--pretrained" in error and why in error, error
        assert not (tmp_path / "run").exists()

    refused(tmp_path / "nowhere", "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    path = copy / "train" / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    refused(copy / "train", f"{path}: rows or line ends changed")
    path.unlink()
    refused(copy / "train", "metrics.csv: missing or cut short")
    shutil.rmtree(copy / "train" / "checkpoints")
    refused(copy / "train", "no checkpoint")
