"""What a run of main.py leaves."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, cases, train
from fault_injection import CLOCKS, differing, events_of, logs_in, outcome, rows_of, timeless_rows

import main as program
from evaluation.metrics import D_FIGURES, described, told
from evaluation.oracle import likelihoods
from runs.console import Progress, where
from support.errors import UsageError
from support.parser import VERSION, parse
from tools.restored import restore

ALL = ("--d_eval_samples", "40", "--log_generation")


def run(folder: Path, *flags: str, main=train) -> int:
    return main([*TINY, *logs_in(folder), *flags])


def name_of(tag: str) -> str:
    """The name, as in metrics.csv, of the scalar with a tag."""
    group, _, name = tag.rpartition("/")
    return f"{name}_se" if group == "se" else name


def scalars(directory: Path) -> dict[str, dict[int, float]]:
    """All scalars of a directory's event files: {name: {step: value}}."""
    events = events_of(directory)
    return {
        name_of(tag): {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A tiny run of every phase, with all that can be logged; `out` and `err` are what it said."""
    folder = tmp_path_factory.mktemp("finished")
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err, redirect_stdout(out), redirect_stderr(err):
        assert run(folder, *ALL) == 0
    return folder


def test_what_a_run_tells(finished):
    """A line an evaluation, then a table of the last one."""
    first, *progress = (finished / "out").read_text().strip().splitlines()
    assert first.startswith("oracle: 4 tokens") and "floor" in first
    kinds = ["generated", "resampled", "real"]
    place = next(i for i, line in enumerate(progress) if line.split() == kinds)
    progress, (head, *table, last) = progress[:place], progress[place:]
    evaluated = timeless_rows(finished / "eval")
    final = {name: f"{float(value):.3f}" for name, value in evaluated[-1].items() if value and name != "phase"}

    def shown(name: str) -> str:
        error = f" ± {final[f'{name}_se']}" if f"{name}_se" in final else ""
        return final[name] + error if name in final else ""

    assert [line.split()[0] for line in table[:3]] == ["nll", "nll_test", "g_entropy"]
    starts = [*map(head.index, kinds), None]  # aligned
    for line in (line for line in table if not line.startswith("seconds")):
        name, cells = line.split()[0], [line[a:b].strip() for a, b in zip(starts, starts[1:], strict=False)]
        real = shown("oracle_entropy") if name == "g_entropy" else ""
        assert cells == [shown(name), shown(f"{name}_resampled"), real], line
    assert "nats per token" in last and last.endswith(f"curves: tensorboard --logdir {finished}")
    places = [*(f"pretrain_g {n}/4" for n in (1, 2, 4)), "pretrain_d 2/2", *(f"adversarial {n}/3" for n in (1, 2, 3))]
    assert [line.split(":")[0] for line in progress] == places
    for name in ("nll", "nll_test", "g_entropy"):
        assert f"{name} {float(evaluated[1][name]):.3f}" in progress[1]
    assert "d_pretrain_loss " in progress[3]
    assert re.search(r"; \d+\.\d (epochs/s|s an epoch), \d:\d\d:\d\d left of this phase$", progress[1])
    assert (finished / "err").read_text() == ""  # no progress bar where stderr is no terminal


def test_every_phase_leaves_its_scalars_histograms_and_pictures(finished):
    train, evaluation = scalars(finished / "train"), scalars(finished / "eval")
    assert set(train["g_pretrain_loss"]) == {0, 1, 2, 3}
    assert set(train["d_pretrain_loss"]) == set(train["d_pretrain_acc"]) == {0, 1}
    for tag in ("g_loss", "g_reward", "d_loss", "d_acc"):
        assert set(train[tag]) == {4, 5, 6} and np.isfinite(list(train[tag].values())).all()
    assert set(train["seconds_per_epoch"]) == {0, 1, 2, 3, 4, 5, 6}
    rows = rows_of(finished / "train" / "metrics.csv")
    seconds = [row["seconds_per_epoch"] for row in rows if row["phase"] != "pretrain_d"]
    assert len(seconds) == 7 and all(float(value) > 0 for value in seconds)
    compiled = train["compile_seconds"]  # the first step of a kind, but not in D's pretraining
    assert set(compiled) == {0, 4} and compiled[0] > float(seconds[0])
    for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
        assert list(evaluation[name]) == [0, 1, 3, 4, 5, 6]  # the first and the last of each phase, and every second
        assert all(error > 0 for error in evaluation[f"{name}_se"].values())
    resampled = (f"{name}_resampled" for name in ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse", "d_gain"))
    for name in (*D_FIGURES, "d_optimal_acc", *resampled):
        assert list(evaluation[name]) == [3, 4, 5, 6]  # from the discriminator's pretraining on
    places = [("pretrain_g", epoch) for epoch in "013"] + [("adversarial", epoch) for epoch in "456"]
    places.insert(3, ("pretrain_d", "3"))  # of the generator that four epochs have pretrained
    assert [(row["phase"], row["epoch"]) for row in timeless_rows(finished / "eval")] == places
    tags = events_of(finished / "train").Tags()["tensors"]
    assert {f"training/reward_at_step/{t:02d}" for t in (1, 2, 3)} <= set(tags)
    assert "samples/likelihoods" not in tags  # once is enough
    pictures = events_of(finished / "eval").Tensors("samples/likelihoods")
    assert [picture.step for picture in pictures] == [0, 1, 3, 4, 5, 6]
    width, height, png = pictures[-1].tensor_proto.string_val
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)


def test_tensorboard_shows_first_what_a_reader_wants(finished):
    """It groups tags by what comes before a stroke and sorts the groups; the first are open."""
    shown: dict[str, list[str]] = {}
    for kind in ("train", "eval"):
        events = events_of(finished / kind)
        for tag in (tag for tag in events.Tags()["tensors"] if not tag.startswith("_")):
            shown.setdefault(tag.split("/")[0], []).append(tag)
            metadata = events.SummaryMetadata(tag)
            if metadata.plugin_data.plugin_name == "scalars":
                assert metadata.summary_description == described(name_of(tag)) != "", tag
    assert described("nll_test_guided") == "Guided: NLL of the test set under the generator. In nats per token."
    assert sorted(shown) == ["nll", "samples", "se", "training"]
    names = ["g_entropy", "kl_forward", "kl_reverse", "nll_test", "oracle_entropy"]
    names += [f"{name}_resampled" for name in ("nll", "g_entropy", "kl_forward", "kl_reverse", "nll_test")]
    assert sorted(shown["nll"]) == sorted(["nll", *(f"nll/{name}" for name in names)])
    assert all(tag.endswith(("_loss", "_acc", "_reward", *CLOCKS)) or "reward_at" in tag for tag in shown["training"])
    without = ("samples/d_eta", "samples/seconds", "samples/likelihoods")
    own = [name_of(tag) for tag in shown["nll"] + shown["samples"] if tag not in without]
    assert {name_of(tag) for tag in shown["se"]} == {f"{name}_se" for name in own}


@pytest.mark.parametrize(("pause", "count"), [(0.0, 4), (60.0, 2)])
def test_where_there_is_no_terminal_a_line_comes_after_a_minute(capsys, monkeypatch, pause, count):
    """And after an evaluation; the last one, and the bar, end with a remark."""
    monkeypatch.setattr("runs.console.PAUSE", pause)
    with Progress("pretrain_g", 4, 0, told) as progress:
        for epoch in range(4):
            figures = {"nll_test": (1.0, 0.1)} if epoch in (1, 3) else None
            progress.update(epoch, {"loss": 2.0}, figures, "remark")
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) + 1 == count and "remark" not in "".join(lines) and last.endswith("nll_test 1.000; remark")
    assert progress.bar.postfix == "loss=2.000, remark"


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_metrics_csv_holds_the_same_rows(finished, kind):
    from_csv: dict[str, dict[int, float]] = {}
    for row in timeless_rows(finished / kind):
        for name, value in row.items():
            if name not in ("epoch", "phase") and value:
                from_csv.setdefault(name, {})[int(row["epoch"])] = float(np.float32(value))
    assert from_csv == {name: curve for name, curve in scalars(finished / kind).items() if name not in CLOCKS}


def test_a_picture_of_likelihoods_has_the_colour_of_each_token():
    """The likelier, the brighter, on one scale for all batches; both batches are in it."""
    likely, unlikely = np.full((4, 3), -0.1), np.full((4, 3), -3.5)
    picture = likelihoods({"generated": unlikely, "real": likely}, vocab_size=4).astype(int)
    middle, first, second = picture.shape[0] // 2, int(picture.shape[1] * 0.2), int(picture.shape[1] * 0.6)
    assert picture[middle, first].sum() < picture[middle, second].sum() - 100
    swapped = likelihoods({"generated": likely, "real": unlikely}, vocab_size=4).astype(int)
    np.testing.assert_array_equal(swapped[middle, first], picture[middle, second])


def test_the_configuration_is_kept(finished):
    described = json.loads((finished / "train" / "config.json").read_text())
    assert described == json.loads((finished / "eval" / "config.json").read_text())
    assert described["flags"]["vocab_size"] == 4 and described["flags"]["d_filter_sizes"] == [1, 3]
    assert described["versions"]["seqgan"] == VERSION
    assert described["versions"]["tensorflow"] == tf.__version__ and described["device"] == ["CPU"]
    assert re.fullmatch(r"([0-9a-f]{40}\+?)?", described["git_commit"])
    with pytest.raises(UsageError, match=f"its weights are in its --log_dir, {finished / 'train'}"):
        restore(finished / "eval")


@cases("words, place", ([], "logs/eval"), (["--no-evaluate"], "logs/train"), (["--eval_log_dir", "mine"], "mine"))
def test_where_the_curves_are(words, place):
    """TensorBoard calls the run by the last part of its path, which the directory to start it in must not hide."""
    assert where(parse(words)) == f"curves: tensorboard --logdir {place}"


def test_two_runs_of_one_command_are_bitwise_equal(finished, tmp_path):
    assert run(tmp_path, *ALL, main=program.main) == 0  # which traces all anew
    assert not differing(outcome(finished), outcome(tmp_path)) and len(outcome(finished)) > 80


def test_jit_on_and_off_agree(finished, tmp_path):
    """They draw the same numbers from a key. A sum that is rounded otherwise may choose another token, seldom."""
    assert run(tmp_path, "--jit") == 0
    found, names = [], ("g_pretrain_loss", "g_loss", "g_reward", "d_loss", "nll", "nll_test", "g_entropy")
    for folder in (tmp_path, finished):
        rows = [row for kind in ("train", "eval") for row in timeless_rows(folder / kind) if row.get("nll") != ""]
        found.append([[float(row.get(name) or 0) for name in names] for row in rows])
    np.testing.assert_allclose(*found, atol=1e-4)


def test_another_seed_is_another_run_on_the_same_oracle(finished, tmp_path):
    """And --overwrite spares what the run has not written: one on the oracle writes neither tunes nor a vocabulary."""
    words = ("--seed", "2", "--total_epochs", "0", "--pretrain_d_epochs", "0")
    assert run(tmp_path, *words) == 0
    ours, theirs = scalars(tmp_path / "eval"), scalars(finished / "eval")
    assert all(ours["nll"][epoch] != theirs["nll"][epoch] for epoch in (0, 1, 3))
    assert ours["oracle_entropy"][0] == pytest.approx(theirs["oracle_entropy"][0], rel=1e-5)
    names = ("sample99.mid", "sample0.mid", "tunes.abc", "vocabulary.json", "events.out.tfevents.7.host")
    mine = [tmp_path / "train" / name for name in names]
    for path in mine:
        path.write_text("mine")
    assert run(tmp_path, *words, "--overwrite") == 0 and all(path.read_text() == "mine" for path in mine)


def test_runs_of_other_lengths_share_their_beginning(finished, tmp_path):
    """Twice as much pretraining is bitwise the same while both pretrain; then they part. So is adversarial training."""
    assert run(tmp_path / "pretrained", *ALL, "--pretrain_g_epochs", "8", "--total_epochs", "1") == 0
    ours, theirs = timeless_rows(finished / "eval"), timeless_rows(tmp_path / "pretrained" / "eval")
    assert ours[:3] == theirs[:3] and int(ours[2]["epoch"]) == 3 and theirs[3]["epoch"] == "5"
    assert ours[-1]["nll"] != theirs[-1]["nll"]
    assert timeless_rows(finished / "train")[:4] == timeless_rows(tmp_path / "pretrained" / "train")[:4]
    assert run(tmp_path / "trained", *ALL, "--total_epochs", "5") == 0
    longer = {(row["epoch"], row["phase"]): row for row in timeless_rows(tmp_path / "trained" / "eval")}
    assert len(longer) == 8
    for row in ours[:-1]:  # the last one is there for being the last
        assert longer[row["epoch"], row["phase"]] == row


def test_evaluating_costs_the_training_nothing(finished, tmp_path):
    assert train([*TINY, "--log_dir", str(tmp_path / "train"), "--no-evaluate"]) == 0
    assert timeless_rows(tmp_path / "train") == timeless_rows(finished / "train") and not (tmp_path / "eval").exists()
    before = outcome(finished)  # which evaluating without training leaves as it is
    assert train(["--no-is_train", "--log_dir", str(finished / "train"), "--eval_log_dir", "unused"]) == 0
    assert not differing(outcome(finished), before)
