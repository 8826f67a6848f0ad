import csv
import json
import re
import shlex
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
from conftest import ROOT, TINY, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import main as program
from model import SeqGAN
from support import config, pictures
from support.config import UsageError, parse
from support.console import where
from support.logs import RunLog, name_of

CLOCK = "seconds_per_epoch"  # the one scalar that measures time


def run(folder: Path, *flags: str, main=train) -> int:
    logs = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    return main([*TINY, "--d_eval_samples", "16", *logs, *flags])


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
    return {name: curve for name, curve in read_scalars(folder).items() if name != CLOCK}


def tensors(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Everything in the event files but the clock and the hyper-parameters, which hold the directories' names."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if name_of(tag) != CLOCK and "hparams" not in tag]
    return {(tag, e.step): tf.make_ndarray(e.tensor_proto) for tag in tags for e in events.Tensors(tag)}


def weights(folder: Path) -> dict[str, np.ndarray]:
    """All variables of the newest checkpoint."""
    newest = max((folder / "train" / "checkpoints").iterdir()) / "weights"
    reader = tf.train.load_checkpoint(str(newest))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name}


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the time they took."""
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name != CLOCK} for row in csv.DictReader(file)]


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
    assert set(read_scalars(finished / "train")[CLOCK]) == {0, 1, 2, 3, 4, 5, 6}
    with open(finished / "train" / "metrics.csv", encoding="utf-8") as file:
        seconds = [row[CLOCK] for row in csv.DictReader(file) if row["phase"] != "pretrain_d"]
    assert len(seconds) == 7 and all(float(value) > 0 for value in seconds)
    for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
        assert list(evaluation[name]) == [0, 1, 3, 4, 5, 6]  # the first and the last of each phase, and every second
        assert all(error > 0 for error in evaluation[f"{name}_se"].values())
    for name in ("d_test_acc", "d_gain", "d_optimal_acc"):
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
    likelihoods = ("g_entropy", "kl_forward", "kl_reverse", "nll_test", "oracle_entropy")
    assert sorted(shown["nll"]) == ["nll", *(f"nll/{name}" for name in likelihoods)]
    assert all(tag.endswith(("_loss", "_acc", "_reward", CLOCK)) or "reward_at" in tag for tag in shown["training"])
    shown["samples"].remove("samples/likelihoods")  # the pictures
    assert {name_of(tag) for tag in shown["se"]} == {f"{name_of(tag)}_se" for tag in shown["nll"] + shown["samples"]}


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
    """XLA draws other numbers from a key, so they agree in law: within four standard errors where both are right."""
    figures = []
    for folder, jit in (("on", "True"), ("off", "False")):
        flags = ["--pretrain_g_epochs", "60", "--total_epochs", "0", "--batch_size", "256", "--eval_samples", "4000"]
        assert run(tmp_path / folder, "--jit", jit, *flags) == 0
        figures.append(rows(tmp_path / folder / "eval")[-1])
    for name in ("nll", "nll_test", "g_entropy", "oracle_entropy"):
        difference = float(figures[0][name]) - float(figures[1][name])
        error = np.hypot(*(float(row[f"{name}_se"]) for row in figures))
        learning = 0.02 if name != "oracle_entropy" else 0.0  # two generators that learnt from different samples
        assert abs(difference) < 4 * error + learning, name


def test_the_last_line_tells_the_figures(tmp_path, capsys):
    assert run(tmp_path, "--no-jit") == 0
    captured = capsys.readouterr()
    first, *progress = captured.out.strip().splitlines()
    assert first.startswith("oracle: 4 tokens") and "floor" in first
    place = next(i for i, line in enumerate(progress) if line.split() == ["generated", "real"])
    progress, (head, nll, nll_test, entropy, *others, last) = progress[:place], progress[place:]
    final = {name: f"{float(value):.3f}" for name, value in rows(tmp_path / "eval")[-1].items() if name != "phase"}
    assert nll.split() == ["nll", final["nll"], "±", final["nll_se"]]
    assert nll_test.split() == ["nll_test", final["nll_test"], "±", final["nll_test_se"]]
    both = [final["g_entropy"], "±", final["g_entropy_se"], final["oracle_entropy"], "±", final["oracle_entropy_se"]]
    assert entropy.split() == ["g_entropy", *both]
    assert all(line.split()[1:] == [final[line.split()[0]], "±", final[f"{line.split()[0]}_se"]] for line in others)
    starts = [re.match(r"\S+ +", line).end() for line in (nll, nll_test, entropy, *others)]
    assert set(starts) == {head.index("generated")}  # aligned
    assert head.index("real") == entropy.index(final["oracle_entropy"])
    assert "nats a token" in last and last.endswith(f"curves: tensorboard --logdir {tmp_path}")
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


def test_the_program_runs_as_a_script(tmp_path):
    logs = ["--log_dir", str(tmp_path / "t"), "--eval_log_dir", str(tmp_path / "e"), "--total_epochs", "1"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *TINY, *logs], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *progress, last = done.stdout.splitlines()
    assert first.startswith("oracle: ") and last.endswith(f"tensorboard --logdir {tmp_path}")
    assert [line.split()[0] for line in progress[:5]] == [*["pretrain_g"] * 3, "pretrain_d", "adversarial"]


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


@pytest.mark.parametrize("name", config.PRESETS)
def test_a_preset_is_made_of_flags_that_go_together(name):
    assert parse(["--preset", name]).preset == name and config.PRESETS[name].keys() <= config.FIELDS.keys()


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
