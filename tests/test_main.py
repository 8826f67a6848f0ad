"""What a run of main.py leaves."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, train
from data.held_out import D_FIGURES
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import main as program
from model import SeqGAN
from runs.console import where
from runs.logs import RunLog
from support import pictures
from support.config import UsageError
from support.parser import VERSION, parse

CLOCKS = ("seconds_per_epoch", "compile_seconds", "seconds")  # the scalars that measure time


def name_of(tag: str) -> str:
    """The name, as in metrics.csv, of the scalar with a tag; older runs' tags are their names."""
    group, _, name = tag.rpartition("/")
    return f"{name}_se" if group == "se" else name


def run(folder: Path, *flags: str, main=train) -> int:
    logs = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    return main([*TINY, "--d_eval_samples", "40", *logs, *flags])


def read_scalars(directory: Path) -> dict[str, dict[int, float]]:
    """All scalars of a directory's event files: {name: {step: value}}."""
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return {
        name_of(tag): {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    return {name: curve for name, curve in read_scalars(folder).items() if name not in CLOCKS}


def tensors(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Everything in the event files but the clock and the hyper-parameters, which hold the directories' names."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if name_of(tag) not in CLOCKS and "hparams" not in tag]
    return {(tag, e.step): tf.make_ndarray(e.tensor_proto) for tag in tags for e in events.Tensors(tag)}


def weights(folder: Path) -> dict[str, np.ndarray]:
    """All variables of the newest checkpoint."""
    newest = max((folder / "train" / "checkpoints").iterdir()) / "weights"
    reader = tf.train.load_checkpoint(str(newest))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name}


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the time they took."""
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKS} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A tiny run of every phase, with all that can be logged."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder, "--log_generation") == 0
    return folder


def test_every_phase_leaves_its_scalars(finished):
    train, evaluation = scalars(finished / "train"), scalars(finished / "eval")
    assert set(train["g_pretrain_loss"]) == {0, 1, 2, 3}
    assert set(train["d_pretrain_loss"]) == set(train["d_pretrain_acc"]) == {0, 1}
    for tag in ("g_loss", "g_reward", "d_loss", "d_acc"):
        assert set(train[tag]) == {4, 5, 6}
        assert np.isfinite(list(train[tag].values())).all()
    assert set(read_scalars(finished / "train")[CLOCKS[0]]) == {0, 1, 2, 3, 4, 5, 6}
    with open(finished / "train" / "metrics.csv", encoding="utf-8") as file:
        seconds = [row[CLOCKS[0]] for row in csv.DictReader(file) if row["phase"] != "pretrain_d"]
    assert len(seconds) == 7 and all(float(value) > 0 for value in seconds)
    compiled = read_scalars(finished / "train")[CLOCKS[1]]  # the first step of a kind, but not in D's pretraining
    assert set(compiled) == {0, 4} and compiled[0] > float(seconds[0])
    for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
        assert list(evaluation[name]) == [0, 1, 3, 4, 5, 6]  # the first and the last of each phase, and every second
        assert all(error > 0 for error in evaluation[f"{name}_se"].values())
    for name in (*D_FIGURES, "d_optimal_acc"):
        assert list(evaluation[name]) == [3, 4, 5, 6]  # from the discriminator's pretraining on
    assert [(row["phase"], row["epoch"]) for row in rows(finished / "eval")] == [
        *(("pretrain_g", epoch) for epoch in "013"),
        ("pretrain_d", "3"),  # of the generator that four epochs have pretrained
        *(("adversarial", epoch) for epoch in "456"),
    ]


def test_tensorboard_shows_first_what_a_reader_wants(finished):
    """It groups tags by what comes before a stroke and sorts the groups; the first are open."""
    shown = {}
    for kind in ("train", "eval"):
        events = EventAccumulator(str(finished / kind))
        events.Reload()
        plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
        for tag in plugins:
            if not tag.startswith("_"):
                shown.setdefault(tag.split("/")[0], []).append(tag)
    groups = sorted(shown)
    assert groups == ["nll", "samples", "se", "training"]
    likelihoods = ["g_entropy", "kl_forward", "kl_reverse", "nll_test", "oracle_entropy"]
    likelihoods += [f"{name}_resampled" for name in ("nll", "g_entropy", "kl_forward", "kl_reverse", "nll_test")]
    assert sorted(shown["nll"]) == sorted(["nll", *(f"nll/{name}" for name in likelihoods)])
    assert all(tag.endswith(("_loss", "_acc", "_reward", *CLOCKS)) or "reward_at" in tag for tag in shown["training"])
    shown["samples"].remove("samples/likelihoods")  # the pictures
    with_error = [tag for tag in shown["nll"] + shown["samples"] if tag not in ("samples/d_eta", "samples/seconds")]
    assert {name_of(tag) for tag in shown["se"]} == {f"{name_of(tag)}_se" for tag in with_error}


def test_metrics_csv_holds_the_same_rows(finished):
    for kind in ("train", "eval"):
        logged = scalars(finished / kind)
        from_csv: dict[str, dict[int, float]] = {}
        for row in rows(finished / kind):
            for name, value in row.items():
                if name not in ("epoch", "phase") and value:
                    from_csv.setdefault(name, {})[int(row["epoch"])] = float(np.float32(value))
        assert from_csv == logged


def test_histograms_and_pictures(finished):
    events = {kind: EventAccumulator(str(finished / kind)) for kind in ("train", "eval")}
    for kind in events:
        events[kind].Reload()
    tags = {kind: events[kind].Tags()["tensors"] for kind in events}
    assert {f"training/reward_at_step/{t:02d}" for t in (1, 2, 3)} <= set(tags["train"])
    assert "samples/likelihoods" not in tags["train"]  # once is enough
    pictures = events["eval"].Tensors("samples/likelihoods")
    assert [picture.step for picture in pictures] == [0, 1, 3, 4, 5, 6]
    width, height, png = pictures[-1].tensor_proto.string_val
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)


def test_a_picture_of_likelihoods_has_the_colour_of_each_token():
    """The likelier, the brighter, on one scale for all batches; both batches are in it."""
    likely, unlikely = np.full((4, 3), -0.1), np.full((4, 3), -3.5)
    picture = pictures.likelihoods({"generated": unlikely, "real": likely}, vocab_size=4).astype(int)
    dark, bright = (picture[picture.shape[0] // 2, int(picture.shape[1] * share)] for share in (0.2, 0.6))
    assert dark.sum() < bright.sum() - 100
    swapped = pictures.likelihoods({"generated": likely, "real": unlikely}, vocab_size=4).astype(int)
    np.testing.assert_array_equal(swapped[picture.shape[0] // 2, int(picture.shape[1] * 0.2)], bright)


def test_the_configuration_is_kept(finished):
    described = json.loads((finished / "train" / "config.json").read_text())
    assert described == json.loads((finished / "eval" / "config.json").read_text())
    assert described["flags"]["vocab_size"] == 4 and described["flags"]["d_filter_sizes"] == [1, 3]
    assert described["versions"]["seqgan"] == VERSION
    assert described["versions"]["tensorflow"] == tf.__version__ and described["device"] == ["CPU"]
    assert re.fullmatch(r"([0-9a-f]{40}\+?)?", described["git_commit"])
    events = EventAccumulator(str(finished / "eval"))
    events.Reload()
    assert events.PluginTagToContent("hparams")


def test_hparams_tell_runs_apart(tmp_path):
    """Each has a trial of its own, whatever its directories are called."""
    trials = set()
    for run_id in ("aaaaaa", "bbbbbb"):
        for place in ("one/eval", "two/eval"):
            (tmp_path / place).mkdir(parents=True)
            log = RunLog(tmp_path / place, ("a",), {}, "samples")
            log.write_hyperparameters({"flags": {"seed": 1}, "git_commit": "", "run": run_id})
            log.close()
            events = EventAccumulator(str(tmp_path / place))
            events.Reload()
            (content,) = events.PluginTagToContent("hparams").values()
            trials.add(plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.group_name)
            shutil.rmtree(tmp_path / place)
    assert trials == {f"{place}/eval {run_id}" for place in ("one", "two") for run_id in ("aaaaaa", "bbbbbb")}


def test_where_the_curves_are():
    """TensorBoard calls the run by the last part of its path, which the directory to start it in must not hide."""
    assert where(parse([])) == "curves: tensorboard --logdir logs/eval"
    assert where(parse(["--no-evaluate"])) == "curves: tensorboard --logdir logs/train"
    assert where(parse(["--eval_log_dir", "mine"])) == "curves: tensorboard --logdir mine"


def test_the_weights_are_not_in_the_evaluation_directory(finished):
    with pytest.raises(UsageError, match=f"its weights are in its --log_dir, {finished / 'train'}"):
        SeqGAN.restored(finished / "eval")


def test_two_runs_of_one_command_are_bitwise_equal(finished, tmp_path):
    assert run(tmp_path, "--log_generation", main=program.main) == 0  # which traces all anew
    for kind in ("train", "eval"):
        ours, theirs = tensors(finished / kind), tensors(tmp_path / kind)
        assert ours.keys() == theirs.keys() and len(ours) > 20
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=str(name))
        assert rows(finished / kind) == rows(tmp_path / kind)
    ours, theirs = weights(finished), weights(tmp_path)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_another_seed_is_another_run(finished, tmp_path):
    assert run(tmp_path, "--seed", "2", "--total_epochs", "0") == 0
    ours, theirs = scalars(tmp_path / "eval"), scalars(finished / "eval")
    assert all(ours["nll"][epoch] != theirs["nll"][epoch] for epoch in (0, 1, 3))
    assert ours["oracle_entropy"][0] == theirs["oracle_entropy"][0]


def test_runs_of_other_lengths_share_their_beginning(finished, tmp_path):
    """Pretraining alone, twice as long, is bitwise the same while both pretrain; then they part."""
    assert run(tmp_path, "--pretrain_g_epochs", "8", "--total_epochs", "0") == 0
    ours, theirs = rows(finished / "eval"), rows(tmp_path / "eval")
    assert ours[:3] == theirs[:3] and int(ours[2]["epoch"]) == 3
    assert {row["phase"] for row in theirs} == {"pretrain_g"} and theirs[-1]["epoch"] == "7"
    assert ours[-1]["nll"] != theirs[-1]["nll"]
    assert rows(finished / "train")[:4] == rows(tmp_path / "train")[:4]
    assert run(tmp_path, "--total_epochs", "5", "--overwrite") == 0
    longer = {(row["epoch"], row["phase"]): row for row in rows(tmp_path / "eval")}
    assert len(longer) == 8
    for row in ours[:-1]:  # the last one is there for being the last
        assert longer[row["epoch"], row["phase"]] == row


def test_evaluating_costs_the_training_nothing(finished, tmp_path):
    assert run(tmp_path, "--evaluate", "False") == 0
    assert rows(tmp_path / "train") == rows(finished / "train")
    assert not (tmp_path / "eval").exists()


def test_tensorboard_serves_the_scalars(finished):
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(finished),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = next(m[0] for line in server.stderr if (m := re.search(r"http://127\.0\.0\.1:\d+", line)))
        expected = scalars(finished / "eval")["nll"]
        served: list = []
        for _ in range(60):  # it reads the files in the background
            try:
                with urllib.request.urlopen(f"{address}/data/plugin/scalars/scalars?run=eval&tag=nll") as answer:
                    served = json.load(answer)
            except urllib.error.HTTPError:
                served = []
            if len(served) == len(expected):
                break
            time.sleep(0.5)
        assert {step: value for _, step, value in served} == expected
    finally:
        server.kill()
        server.wait()


def test_overwrite_spares_what_the_run_has_not_written(tmp_path):
    """A run on the oracle writes neither tunes nor a vocabulary."""
    assert run(tmp_path, "--total_epochs", "0") == 0
    names = ("sample99.mid", "sample0.mid", "tunes.abc", "vocabulary.json", "events.out.tfevents.7.host")
    mine = [tmp_path / "train" / name for name in names]
    for path in mine:
        path.write_text("mine")
    assert run(tmp_path, "--total_epochs", "0", "--overwrite") == 0
    assert all(path.read_text() == "mine" for path in mine)
