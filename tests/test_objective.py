"""--objective: a user's function as the reward. Its values, the exact policy gradient, runs, and what it gets wrong."""

import csv
import importlib.util
import json
import shlex
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, all_sequences, probabilities, random_generator, randomise, train
from tensorboard.compat.proto.event_pb2 import Event
from test_main import rows, weights
from test_model import assert_same_gradient, flat, reward_instead
from test_reward import exact_gradient

from data.music.dataset import NottinghamData
from data.music.tokens import Grid
from data.text import TextData, Vocabulary
from evaluation import Evaluated
from generator import PolicyCopy
from model import SeqGAN
from runs.experiment import Cell, Method, data_flags, pretraining_words
from support import objective as objectives
from support.config import UsageError
from support.objective import Objective
from support.parser import parse, read_flags
from tools import alternatives, measured, sweep, temperatures
from tools import molecules as tools_molecules

ENDS = pytest.mark.parametrize("end_token", [None, 2], ids=["one length", "unequal lengths"])
SIZES = shlex.split("--vocab_size 4 --seq_len 3 --batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --no-jit")
D_SIZES = shlex.split("--d_emb_dim 3 --d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8")
D_SHORT = shlex.split("--pretrain_d_epochs 2 --d_steps 1 --d_epochs 1 --d_eval_samples 0")
STEP = tf.constant(0)
COUNTING = "def ones(sequences):\n    return [float((sequence == 1).sum()) for sequence in sequences]\n"


def ids(rows: np.ndarray) -> list[np.ndarray]:
    return list(rows)


def told(tokens):
    """A score that depends on every token and on its place: int [..., T] → float32 [...], by NumPy or TensorFlow."""
    tokens = tf.cast(tokens, tf.float32)
    return tf.sin(1.3 * tokens[..., 0] + 0.9 * tokens[..., 1] ** 2 + 2.1 * tokens[..., 2])


def objective_of(function) -> Objective:
    """The objective that a Python function is."""
    made = Objective("told.py:told", {"function": "told", "text": "told = print"}, ids)
    made._function = function
    return made


def model_of(*flags: str, end_token: int | None = None, function=None) -> SeqGAN:
    """V = 4, T = 3, networks far from uniform; in the g-step nothing is compiled."""
    config = parse([*SIZES, "--objective", "told.py:told", *flags])
    function = function or (lambda sequences: told(np.stack(sequences)).numpy().tolist())
    model = SeqGAN(config, 4, end_token=end_token, objective=objective_of(function))
    for seed, network in enumerate((model.generator, model.discriminator, model.reward.reference), start=1):
        if network is not None:
            randomise(network, seed)
    model.follow_policy(lag=0.0)
    model._draw, model._ascend = model._drawn, model._rewarded
    return model


# ---- the update


@ENDS
@pytest.mark.parametrize(
    "flags",
    [
        "--rollout_num 2",
        "--rollout_num 0 --baseline batch",
        f"--rollout_num 0 --kl_weight 0.7 --reward log_odds --objective_weight 0.4 {shlex.join(D_SIZES)}",
        "--rollout_num 2 --baseline prefix --kl_weight 0.7",
        f"--rollout_num 2 --kl_weight 0.7 --reward log_odds --objective_weight 0.4 {shlex.join(D_SIZES)}",
    ],
)
def test_the_step_follows_the_exact_gradient(flags, end_token):
    """That of E[(1 - λ) R + λ · objective] - β KL(G‖G₀), by enumeration."""
    model = model_of("--batch_size", "40000", *flags.split(), end_token=end_token)
    share = model.config.objective_share
    sequences = all_sequences(4, 3, end_token)
    scores = share * told(sequences).numpy().astype(np.float64)
    if share < 1:
        scores += (1 - share) * model.discriminator.log_odds(tf.constant(sequences)).numpy()
    assert (model.discriminator is None) == (share == 1)
    seen = []
    model._update_generator = lambda optimizer, gradients: seen.append(flat(gradients))
    model.g_step(STEP)
    assert_same_gradient(seen[0], exact_gradient(model, scores))


@pytest.mark.parametrize(
    ("rollouts", "end_token", "compiled"), [("0", None, False), ("2", None, False), ("0", 2, False), ("2", 2, True)]
)
def test_the_three_parts_do_what_one_call_does(rollouts, end_token, compiled):
    """Draws, rewards and weights are those of the same score inside the one step."""
    parts = model_of("--rollout_num", rollouts, "--baseline", "batch", end_token=end_token)
    if compiled:
        parts._draw, parts._ascend = (tf.function(f, jit_compile=True) for f in (parts._drawn, parts._rewarded))
    config = parse([*SIZES, "--rollout_num", rollouts, "--baseline", "batch", "--reward", "optimal"])
    one = SeqGAN(config, 4, end_token=end_token)
    reward_instead(one, told)
    for mine, theirs in zip(one.generator.weights, parts.generator.weights, strict=True):
        mine.assign(theirs)
    one.follow_policy(lag=0.0)
    for step in range(2):
        expected, found = one._g_step(tf.constant(step)), parts.g_step(tf.constant(step))
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.rewards, expected.rewards, atol=1e-6)
    for mine, theirs in zip(one.generator.weights, parts.generator.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_without_a_weight_it_is_not_asked_in_training():
    def fails(sequences):
        raise AssertionError

    model = model_of("--objective_weight", "0", "--reward", "constant", function=fails)
    np.testing.assert_array_equal(model.g_step(STEP).rewards, np.ones([4, 3]))


def test_each_different_sequence_is_scored_once(monkeypatch):
    asked = []

    def scored(sequences):
        asked.extend(tuple(sequence) for sequence in sequences)
        return [float(sequence[0]) for sequence in sequences]

    objective = objective_of(scored)
    tokens = all_sequences(4, 3)
    twice = np.concatenate([tokens, tokens[::-1]])
    for _ in range(2):
        np.testing.assert_array_equal(objective.score(twice), twice[:, 0])
    assert sorted(asked) == sorted(map(tuple, tokens))
    model = model_of("--rollout_num", "3", function=scored)
    asked.clear()
    for step in range(3):
        model.g_step(tf.constant(step))
    assert len(asked) == len(set(asked)) > 10
    monkeypatch.setattr(objectives, "KEPT", 10)  # what is too much to remember is forgotten, and right all the same
    for some in (tokens[:30], twice):
        np.testing.assert_array_equal(objective.score(some), some[:, 0])
        assert len(objective._known) <= 10


# ---- what it is given


def test_text_pitches_or_ids():
    text = types.SimpleNamespace(vocabulary=Vocabulary("char", ("a", "b")))
    rows = np.array([[0, 1, 3, 4], [1, 2, 0, 0]], np.int32)  # 2 is unknown, 3 the end, 4 padding
    assert TextData.decode(text, rows) == ["ab", "b\ufffdaa"]
    tune, other = NottinghamData.decode(None, np.array([[0, 1, Grid().vocab_size - 1], [40, 0, 0]], np.int32))
    assert tune.tolist() == [0, 21, 108] and other.tolist() == [60, 0, 0]


# ---- where it is measured


@ENDS
def test_the_curves_are_the_expectations(end_token):
    policy, other = (random_generator(seed=seed, end_token=end_token) for seed in (0, 5))
    pretrained = PolicyCopy(other, "pretrained")
    evaluated = Evaluated(parse([*SIZES, "--reward", "constant"]), policy)
    objective = objective_of(lambda sequences: told(np.stack(sequences)).numpy())
    figures = evaluated.towards(objective, pretrained, 3000, 0)
    p, q = probabilities(policy), probabilities(pretrained)
    scores = told(all_sequences(4, 3, end_token)).numpy()
    exact = {"objective": (p * scores).sum(), "kl_to_pretrained": (p * np.log(p / q)).sum()}
    spread = {"objective": np.sqrt((p * scores**2).sum() - (p * scores).sum() ** 2)}
    for name, (mean, error) in figures.items():
        assert abs(mean - exact[name]) < 4 * error < 0.2, name
    assert figures["objective"][1] == pytest.approx(spread["objective"] / np.sqrt(3000), rel=0.1)
    assert abs(exact["kl_to_pretrained"]) > 10 * figures["kl_to_pretrained"][1]


# ---- runs

LENGTHS = shlex.split(
    "--oracle_emb_dim 3 --oracle_hidden_dim 4 --rollout_num 2 --kl_weight 0.5 --pretrain_g_epochs 4 --eval_every 2 "
    "--eval_samples 300 --checkpoint_every 1 --keep_checkpoints 9"
)


@pytest.fixture
def counting(tmp_path, monkeypatch) -> str:
    """An objective, in the working directory: how many tokens are 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting.py").write_text(COUNTING)
    return "counting.py:ones"


def run(folder, objective: str, *flags: str) -> int:
    logs = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    return train([*SIZES, *LENGTHS, *logs, "--objective", objective, *flags])


def test_a_run_is_continued_bit_for_bit_and_rises(counting, tmp_path, capsys):
    flags = [
        "--g_lr",
        "0.05",
        "--baseline",
        "batch",
        "--objective_weight",
        "0.9",
        *D_SIZES,
        *D_SHORT,
    ]  # also D is continued
    for total in ("2", "10"):
        assert run(tmp_path / "parts", counting, *flags, "--total_epochs", total) == 0
    assert run(tmp_path / "whole", counting, *flags, "--total_epochs", "10") == 0
    parts, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert parts.keys() == whole.keys() and any("pretrained_policy" in name for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    for kind in ("train", "eval"):
        assert rows(tmp_path / "parts" / kind) == rows(tmp_path / "whole" / kind)
    evaluations = rows(tmp_path / "whole" / "eval")
    assert all(row["objective"] and row["objective_se"] and row["real_objective"] for row in evaluations)
    assert [bool(row["kl_to_pretrained"]) for row in evaluations] == [
        row["phase"] == "adversarial" for row in evaluations
    ]
    objective = [float(row["objective"]) for row in evaluations]
    assert objective[-1] > objective[2] + 0.2 and float(evaluations[-1]["kl_to_pretrained"]) > 0.05
    capsys.readouterr()
    logs = ["--log_dir", str(tmp_path / "whole" / "train"), "--eval_log_dir", str(tmp_path / "whole" / "eval")]
    assert train(["--no-is_train", *logs]) == 0
    out = capsys.readouterr().out
    assert "objective " in out and "kl_to_pretrained " in out and "nats per sequence" in out
    # the pretrained policy is that of the end of pretraining
    first = SeqGAN.restored(tmp_path / "whole" / "train", "pretrained").generator.get_weights()
    for mine, theirs in zip(SeqGAN.restored(tmp_path / "whole" / "train").pretrained.get_weights(), first, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_that_changed_is_refused(counting, tmp_path, capsys):
    assert run(tmp_path, counting, "--total_epochs", "1") == 0
    content = json.loads((tmp_path / "train" / "config.json").read_text())
    assert content["objective"] == {"function": "ones", "text": COUNTING}
    before = rows(tmp_path / "train")
    (tmp_path / "counting.py").write_text(COUNTING + "twos = ones\n")
    for objective in (counting, "counting.py:twos"):
        for more in ([], ["--no-is_train"]):
            capsys.readouterr()
            assert run(tmp_path, objective, "--total_epochs", "1" if more else "2", *more) == 2
            assert capsys.readouterr().err.startswith(f"main.py: error: --objective {objective}: changed since the run")
    assert rows(tmp_path / "train") == before
    (tmp_path / "elsewhere.py").write_text(COUNTING)  # the same text by another name is the same
    assert run(tmp_path, "elsewhere.py:ones", "--total_epochs", "2") == 0
    assert run(tmp_path, counting, "--total_epochs", "2", "--overwrite") == 0


def test_another_objective_starts_from_the_same_pretraining(counting, tmp_path):
    assert run(tmp_path / "one", counting, "--total_epochs", "1") == 0
    (tmp_path / "other.py").write_text(COUNTING.replace("== 1", "== 2"))
    pretrained = ["--pretrained", str(tmp_path / "one" / "train"), "--total_epochs", "1"]
    assert run(tmp_path / "two", "other.py:ones", *pretrained) == 0
    restored = [SeqGAN.restored(tmp_path / name / "train") for name in ("one", "two")]
    for mine, theirs in zip(*(model.pretrained.get_weights() for model in restored), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # but not with the other objective's figures
    for row in rows(tmp_path / "two" / "eval"):
        assert bool(row["objective"]) == bool(row["real_objective"]) == (row["phase"] == "adversarial")
        assert row["nll_test"]
    assert run(tmp_path / "three", counting, *pretrained[:2], "--total_epochs", "0") == 0
    assert all(row["objective"] for row in rows(tmp_path / "three" / "eval"))
    for tag in ("samples/objective", "se/objective"):
        assert [steps_of(tmp_path / name / "eval", tag) for name in ("two", "three")] == [[4], [0, 1, 3]]


def steps_of(folder, tag: str) -> list[int]:
    """The steps of the events of one scalar."""
    (path,) = (path for path in folder.glob("events*") if "hparams" not in path.name)
    events = [Event.FromString(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    return [event.step for event in events for value in event.summary.value if value.tag == tag]


def test_a_run_with_an_objective_starts_from_the_pretraining_of_one_without(counting, tmp_path):
    logs = ["--log_dir", str(tmp_path / "mle" / "train"), "--eval_log_dir", str(tmp_path / "mle" / "eval")]
    sizes = f"{shlex.join(SIZES)} --oracle_emb_dim 3 --oracle_hidden_dim 4 --pretrain_g_epochs 4 --eval_samples 300"
    assert train([*shlex.split(f"{sizes} --reward constant --eval_every 2 --total_epochs 0"), *logs]) == 0
    pretrained = ["--pretrained", str(tmp_path / "mle" / "train"), "--total_epochs", "1"]
    assert run(tmp_path / "one", counting, *pretrained) == 0
    phases = [(row["phase"], bool(row["objective"])) for row in rows(tmp_path / "one" / "eval")]
    assert phases[0] == ("pretrain_g", False) and phases[-1] == ("adversarial", True)


def test_what_fails_costs_no_earlier_run(counting, tmp_path, capsys):
    """--overwrite, of a function that fails only when it is called."""
    assert run(tmp_path, counting, "--total_epochs", "1") == 0
    before = sorted((tmp_path / "train" / "checkpoints").iterdir()), rows(tmp_path / "eval")
    for text, why in (
        ("def ones(sequences):\n    return []\n", "ones returned 0 values for 40 sequences"),
        (
            "def ones(sequences):\n    return [s[0] + len(sequences) for s in sequences]\n",
            "may depend on that sequence",
        ),
        (
            "import random\ndef ones(sequences):\n    return [random.random() for _ in sequences]\n",
            "that sequence alone",
        ),
    ):
        (tmp_path / "counting.py").write_text(text)
        capsys.readouterr()
        assert run(tmp_path, counting, "--total_epochs", "1", "--overwrite") == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1
    assert before == (sorted((tmp_path / "train" / "checkpoints").iterdir()), rows(tmp_path / "eval"))


def test_it_is_asked_early_where_there_is_no_validation_set(counting, tmp_path, capsys):
    (tmp_path / "lines").mkdir()
    for name in ("train.txt", "test.txt"):
        (tmp_path / "lines" / name).write_text("ab\nba\nabb\n")
    (tmp_path / "none.py").write_text("def f(lines):\n    return []\n")
    words = [*SIZES, "--dataset", "text", "--data_dir", "lines", "--vocab_size", "9", "--log_dir", "run"]
    assert train([*words, "--eval_log_dir", "eval", "--objective", "none.py:f"]) == 2
    assert "none.py: f returned 0 values for" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_the_function_prints_is_not_output(tmp_path, capsys):
    (tmp_path / "loud.py").write_text("print('read')\ndef f(sequences):\n    print('called')\n    return [0.0] * 2\n")
    Objective.read(f"{tmp_path / 'loud.py'}:f", ids).score(np.array([[0, 1, 2], [1, 2, 3]]))
    assert capsys.readouterr() == ("", "read\ncalled\n")


def test_the_temperatures_of_a_run_tell_of_its_own_objective(counting, tmp_path, capsys):
    """Also where the file is gone."""
    assert run(tmp_path, counting, "--total_epochs", "2") == 0
    (tmp_path / "counting.py").unlink()
    capsys.readouterr()
    csv_file = tmp_path / "plane.csv"
    flags = ["--checkpoints", "--temperatures", "1", "0.5", "--csv", str(csv_file), "-n", "64"]
    assert temperatures.main([str(tmp_path / "train"), *flags]) == 0
    out = capsys.readouterr().out
    assert "\n| objective |" in out and "\n| KL(G‖pretrained) |" in out
    with open(csv_file, newline="") as file:
        found = {(row["run"], row["temperature"]): row for row in csv.DictReader(file)}
    values = {key: (float(row["objective"]), float(row["kl_to_pretrained"])) for key, row in found.items() if key[1]}
    assert len(values) == 4 and float(found["real data", ""]["objective"]) > 0
    assert values["train pretrained", "1.0"][1] == pytest.approx(0, abs=1e-6) and values["train", "1.0"][1] > 1e-4
    assert values["train pretrained", "0.5"][1] > 1e-3


# ---- what is wrong with it

ODD = "    def __array__(self, *_, **__):\n        raise RuntimeError('a tensor that needs its gradient')\n"
WRONG = [
    ("def f(sequences)\n    return 1\n", "line 1: SyntaxError: expected ':'"),
    ("x = 1\nimport no_such_package\n", "line 2: ModuleNotFoundError: No module named 'no_such_package'"),
    ("g = len\n", "has no function 'f'"),
    ("f = 3\n", "has no function 'f'"),
    ("def f(sequences):\n    return [1.0]\n", "f returned 1 values for 2 sequences"),
    ("def f(sequences):\n    return [[1.0], [2.0]]\n", "f returned values of shape [2, 1] for 2 sequences"),
    ("def f(sequences):\n    return None\n", "f returned values of shape [] for 2 sequences"),
    ("def f(sequences):\n    return ['1', '2']\n", "f returned a list that is not a list of 2 numbers"),
    ("def f(sequences):\n    return [1 + 2j, 3]\n", "f returned a list that is not a list of 2 numbers"),
    (f"class Odd:\n{ODD}def f(sequences):\n    return Odd()\n", "f returned a Odd that is not a list of 2 numbers"),
    ("def f(sequences):\n    return ['good', 'bad']\n", "f returned a list that is not a list of 2 numbers"),
    ("def f(sequences):\n    return [10**400, 0]\n", "f returned a list that is not a list of 2 numbers"),
    ("def f(sequences):\n    return (0.0 for _ in sequences)\n", "f returned a generator that is not a list of 2"),
    ("def f(sequences):\n    return [0.0, float('nan')]\n", "f returned nan for array([1, 2, 3], dtype=int32)"),
    ("def f(sequences):\n    return [-1e300, 0.0]\n", "f returned -inf for array([0, 1, 2], dtype=int32)"),
    (
        "def f(sequences):\n    return [g(s) for s in sequences]\ndef g(s):\n    return s.strip('\\n')\n",
        "line 4: AttributeError: 'numpy.ndarray' object has no attribute 'strip'",
    ),
    ("def f(sequences):\n    raise SystemExit\n", "line 2: SystemExit"),
    ("def f(sequences):\n    raise ValueError('two\\nlines')\n", "line 2: ValueError: two lines"),
    ("raise KeyboardInterrupt\n", None),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_wrong_is_one_line(text, why, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)

    def ask():
        Objective.read(f"{path}:f", ids).score(np.array([[0, 1, 2], [1, 2, 3]]))

    if why is None:  # that is the user's own doing
        with pytest.raises(KeyboardInterrupt):
            ask()
        return
    with pytest.raises(UsageError) as error:
        ask()
    assert str(error.value).startswith(f"--objective {path}: {why}") and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "long.py").write_text("#" * (objectives.LONGEST + 1))
    (tmp_path / "wide.py").write_text("#" + "𝕏" * (objectives.LONGEST // 4))  # four bytes each
    for name, why in (
        ("none.py", "No such file"),
        (".", "Is a directory"),
        ("latin.py", "UTF-8"),
        ("long.py", "longer"),
        ("wide.py", "longer"),
    ):
        with pytest.raises(UsageError, match=f"^--objective {tmp_path / name}: .*{why}"):
            Objective.read(f"{tmp_path / name}:f", ids)


def test_the_program_ends_before_training_or_where_the_function_fails(tmp_path, monkeypatch, capsys):
    """With the last checkpoint as it was; --debug shows the traceback."""
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, "none.py:f", "--total_epochs", "1") == 2
    assert capsys.readouterr().err == "main.py: error: --objective none.py: No such file or directory\n"
    assert not (tmp_path / "train").exists()
    (tmp_path / "mine.py").write_text("def f(sequences):\n    return [0.0] * 7\n")
    assert run(tmp_path, "mine.py:f", "--total_epochs", "1") == 2
    assert "mine.py: f returned 7 values for 40 sequences\n" in capsys.readouterr().err
    late = "    calls.append(1)\n    1 / (len(calls) < 8)\n    return [0.0] * len(sequences)\n"
    (tmp_path / "late.py").write_text(f"calls = []\ndef f(sequences):\n{late}")
    flags = ["--total_epochs", "9", "--no-evaluate", "--baseline", "batch"]
    assert run(tmp_path / "late", "late.py:f", *flags) == 2
    assert (
        capsys.readouterr().err == "main.py: error: --objective late.py: line 4: ZeroDivisionError: division by zero\n"
    )
    saved = sorted((tmp_path / "late" / "train" / "checkpoints").iterdir())
    assert len(saved) > 4
    with pytest.raises(UsageError) as error:
        run(tmp_path / "debug", "late.py:f", *flags, "--debug")
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--objective a.py", "--objective a.py: not a FILE.py:FUNCTION"),
        ("--objective a.py:", "not a FILE.py:FUNCTION"),
        ("--objective :f", "not a FILE.py:FUNCTION"),
        ("--objective_weight 0.5", "--objective_weight has no effect without --objective FILE"),
        (
            "--objective a.py:f --d_lr 0.1",
            "--d_lr has no effect with --objective and without --objective_weight below 1",
        ),
        ("--objective a.py:f --d_filter_sizes 2", "--d_filter_sizes has no effect with --objective"),
        ("--objective a.py:f --reward bleu --train_size 64", "--reward has no effect with --objective"),
        ("--objective a.py:f --objective_weight 0.5 --discriminator lstm --g_update fold", "--g_update sampled"),
        ("--objective a.py:f --objective_weight 1.5", "1.5 is more than 1"),
        ("--objective a.py:f --objective_weight 0 --reward random --rollout_num 2", "--rollout_num has no effect"),
    ],
)
def test_flags_that_do_not_go_together(flags, why):
    with pytest.raises(UsageError) as error:
        read_flags(flags.split())
    assert why in str(error.value)


def test_flags_that_do():
    music = read_flags(["--preset", "music"])
    assert read_flags(["--preset", "music", "--discriminator", music.discriminator]) == music != read_flags([])
    config = read_flags(["--preset", "music", "--objective", "a.py:f", "--kl_weight", "0.2", "--rollout_num", "4"])
    assert not config.trains_discriminator and config.rollouts_drawn == 4
    config = read_flags(["--objective", "a.py:f", "--objective_weight", "0.5", "--d_lr", "0.1", "--reward", "log_odds"])
    assert config.trains_discriminator
    assert (
        read_flags(["--objective", "a.py:f", "--objective_weight", "0.5", "--reward", "constant"]).rollouts_drawn == 16
    )


# ---- sweeps


def test_a_sweep_tells_changed_objectives_apart(counting, tmp_path):
    flags = (*SIZES, "--oracle_emb_dim", "3", "--objective", counting, "--total_epochs", "1")
    cells = [Cell(Method("m", "m", flags, (1, 2)), seed, 1, tmp_path / str(seed)) for seed in (1, 2)]
    for cell, text in zip(cells, (COUNTING, COUNTING + "\n"), strict=True):
        cell.log_dir.mkdir(parents=True)
        content = {
            "flags": {"total_epochs": 1},
            "run": "x",
            "data": {},
            "objective": {"function": "ones", "text": text},
        }
        (cell.log_dir / "config.json").write_text(json.dumps(content))
    assert cells[0].data != cells[1].data and data_flags(cells[0]) == data_flags(cells[1])
    assert "m, seed 2: read other data than m, seed 1" in sweep.mixed({cell: cell.data for cell in cells})
    assert sweep.data_now(cells[0].argv) == cells[0].data
    words = pretraining_words(flags)
    assert "--objective" not in words and not read_flags(words).trains_discriminator  # whose filters would not fit
    short = shlex.split("--seq_len 4 --discriminator bigram --g_update expected --reward log_odds --rollout_num 0")
    assert not read_flags(pretraining_words(short)).trains_discriminator  # nor those of the CNN, which it has not


# ---- alternatives


def test_a_yes_or_no_objective_has_closed_forms():
    """Of a share p: best of n, the two points of rejection sampling, and the least KL between them."""
    scores, real, p = np.repeat([0.0, 1.0], [96, 4]), np.repeat([0.0, 1.0], [3, 1]), 0.04
    best = alternatives.best_of(scores, real, 8)
    q = 1 - (1 - p) ** 8
    kl = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    nll = -(0.25 * np.log(q / p) + 0.75 * np.log((1 - q) / (1 - p)))
    np.testing.assert_allclose(best, (q, kl, nll, 8))
    np.testing.assert_allclose(alternatives.tilted(scores, real, 0), (1, -np.log(p), np.inf, 1 / p))
    half = alternatives.tilted(scores, real, 1 / np.log(24))  # 24 times as likely: odds of 1
    np.testing.assert_allclose(half, (0.5, 0.5 * np.log(0.5 / p) + 0.5 * np.log(0.5 / 0.96), half.nll, 12.5))


def test_the_best_of_n_by_enumeration():
    """All draws of three, where equals share; and a score that no sample has lies between its neighbours."""
    scores = np.array([0.1, 0.5, 0.5, 0.9])
    maxima = np.array([max(scores[list(index)]) for index in np.ndindex(4, 4, 4)])
    best = alternatives.best_of(scores, np.array([0.7, 0.9]), 3)
    q = np.array([(maxima == score).mean() for score in (0.1, 0.5, 0.9)])
    p = np.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(best, (maxima.mean(), (q * np.log(q / p)).sum(), best.nll, 3))
    np.testing.assert_allclose(best.nll, -(np.log(3 * 0.75**2) + np.log(q[2] / p[2])) / 2)


def test_the_alternatives_of_a_run(counting, tmp_path, capsys):
    lines = ["".join("ab"[i >> place & 1] for place in range(3)) for i in range(8)]
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in lines * 8))
    (tmp_path / "first.py").write_text("def first(lines):\n    return [float(line[:1] == 'a') for line in lines]\n")
    text = (
        f"{shlex.join(SIZES)} --vocab_size 9 --dataset text --data_dir lines.txt --pretrain_g_epochs 2 --total_epochs 2"
    )
    logs = f"--log_dir {tmp_path}/train --eval_log_dir {tmp_path}/eval --rollout_num 1 --kl_weight 0.5"
    assert train(shlex.split(f"{text} {logs} --objective first.py:first")) == 0
    capsys.readouterr()
    command = (
        f"{tmp_path / 'train'} -n 256 --best_of 2 --beta 0 0.5 --mle_steps 20 40 --mle_lr 0.05 -o {tmp_path}/a.png"
    )
    assert alternatives.main(shlex.split(command)) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["policy"].split(",")[0] for row in found[1:4]] == ["pretrained policy", "best of n", "least KL"]
    objective, kl = ([float(row[name] or "nan") for row in found] for name in ("objective", "kl"))
    p = objective[1]
    assert objective[2] == pytest.approx(1 - (1 - p) ** 2, rel=1e-3) and kl[3] == pytest.approx(-np.log(p), rel=1e-3)
    assert objective[3] == 1 and found[3]["nll"] == "inf" and len(found) == 8 and found[7]["policy"] == "test set"
    last = rows(tmp_path / "eval")[-1]
    assert (objective[0], kl[0]) == pytest.approx((float(last["objective"]), float(last["kl_to_pretrained"])), rel=1e-3)
    assert objective[6] > p + 0.1 and kl[6] > 0.05 and (tmp_path / "a.png").stat().st_size > 1000
    few = f"{tmp_path / 'train'} -n 2 --best_of --beta --mle_steps 1 --mle_rows 3 --least 0"
    assert alternatives.main(shlex.split(few)) == 0
    assert "MLE on what meets it, 3 sequences, 1 updates" in capsys.readouterr().out.replace('"', "")
    assert run(tmp_path / "ids", counting, "--total_epochs", "1") == 0
    # Figures of two objectives are not of one table.
    (tmp_path / "first.py").write_text("def first(lines):\n    return [float(line[:1] == 'b') for line in lines]\n")
    logs = f"--log_dir {tmp_path}/other/train --no-evaluate --rollout_num 1 --kl_weight 0.5"
    assert train(shlex.split(f"{text} {logs} --objective first.py:first")) == 0
    capsys.readouterr()
    for logdirs, why in (
        (["ids"], "no test set"),
        (["none"], "no run"),
        ([".", "other"], "another objective"),
        ([".", "none"], "not a readable configuration"),
    ):
        with pytest.raises(SystemExit) as ended:
            alternatives.main([str(tmp_path / logdir / "train") for logdir in logdirs])
        assert ended.value.code == 2 and why in capsys.readouterr().err
    for words in ("--least 2", "--mle_rows 9", "--mle_lr 0.1", f"--table {ROOT}/experiments/objective_tunes.toml"):
        with pytest.raises(SystemExit) as ended:
            alternatives.main([str(tmp_path / "train"), *words.split()])
        assert ended.value.code == 2 and f"{words.split()[0]} has no effect without" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        logdirs = [str(tmp_path / logdir / "train") for logdir in (".", "other")]
        temperatures.main([*logdirs, "-n", "16", "--temperatures", "1"])
    assert ended.value.code == 2 and "another objective" in capsys.readouterr().err


# ---- the examples


def example(name: str):
    """A file of objectives/, as the program runs it: on its own."""
    spec = importlib.util.spec_from_file_location(f"objectives_{name}", ROOT / "objectives" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_whistle():
    whistle = example("whistle")
    tunes = [np.array(tune) for tune in ([62, 0, 83], [61, 62, 63], [60, 62, 0], [84, 85, 86], [64, 66, 67])]
    assert whistle.playable(tunes) == [1, 0, 0, 0, 1]
    np.testing.assert_allclose(whistle.playable_share(tunes), [1, 1 / 3, 2 / 3, 0, 1])
    tunes = [[62, 74, 62], [74, 83, 62], [62, 73, 62], [74, 76, 74], [64, 74, 62], [62, 0, 62], [62, 75, 74, 62]]
    assert whistle.framed([np.array(tune) for tune in tunes]) == [1, 1, 0, 0, 0, 0, 0]
    assert whistle.framed_share([np.array(tune) for tune in tunes]) == [1, 1, *[0.75] * 5]


def test_quatrain():
    pytest.importorskip("pypinyin", reason="pypinyin, of requirements-dev.txt, is not installed")
    quatrain = example("quatrain")
    poem = "白日依山盡黃河入海流欲窮千里目更上一層樓"
    assert quatrain.regulated([poem]) == quatrain.rhyme([poem]) == quatrain.tones([poem]) == [1]
    others = [poem[:-1] + "山", poem[:-1] + "流", poem[:-1], "", "a" * 20]
    assert quatrain.rhyme(others) == [0] * 5 and quatrain.tones(others)[:2] == [1, 1]
    assert quatrain.tones(others)[2:4] == [0, 0] and quatrain.regulated(others) == [0] * 5
    unknown = "".join("天" if i in (3, 18) else "山" if i in (9, 19) else "\ufffd" for i in range(20))
    assert quatrain.tones([unknown, unknown.replace("\ufffd", "的")]) == [0, 0]  # neither level nor oblique
    swapped = poem[:1] + "山依日" + poem[4:]
    assert quatrain.tones([swapped]) == [pytest.approx(6 / 7)] and quatrain.regulated([swapped]) == [0]
    assert [quatrain.reading(c)[0] for c in "天間春月女"] == ["an", "an", "en", "ie", "v"]


def test_molecules():
    pytest.importorskip("rdkit", reason="RDKit, of requirements-dev.txt, is not installed")
    molecules = example("molecules")
    strings = ["CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1(", "", "CCO"]
    assert molecules.valid(strings) == [1, 0, 0, 1]
    assert molecules.valid(["C C O", "CC )))", "CCO name", "CCO\n"]) == [
        0,
        0,
        0,
        0,
    ]  # RDKit reads no further than a blank
    np.testing.assert_allclose(molecules.qed(strings), [0.5501, 0, 0, 0.4068], atol=1e-3)


def test_samples_of_molecules_are_measured(tmp_path, capsys):
    """By hand: OCC and CCO are one molecule, which the training set has."""
    pytest.importorskip("rdkit", reason="RDKit, of requirements-dev.txt, is not installed")
    samples, train, table = tmp_path / "qed" / "1.txt", tmp_path / "train.txt", tmp_path / "samples.csv"
    samples.parent.mkdir()
    samples.write_text("OCC\nCCO\nc1ccccc1\nc1ccccc1(\n\nCCN\n")
    train.write_text("CCO\nCCC\n")
    assert tools_molecules.main([str(samples), "--train", str(train)]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert [row[name] for name in ("valid", "unique", "novel")] == ["0.6667", "0.7500", "0.6667"]
    assert float(row["qed"]) == pytest.approx((2 * 0.4068 + 0.4426 + 0.4085) / 4, abs=2e-3)
    assert np.isnan(tools_molecules.measure(["(", ""], [])["qed"])
    assert tools_molecules.main([str(samples), "--train", str(train), "-o", str(table)]) == 0  # for a report
    assert measured.table(measured.read_points(table), {"qed": "QED, β"})[:2] == [["", "QED, β"], ["valid", "0.667"]]


def test_the_diversity_of_fingerprints():
    prints = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    assert tools_molecules.diversity(prints) == pytest.approx(1 - (1 + 1 + 2 * 0.25) / 9)


def test_without_rdkit_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    for name in [name for name in sys.modules if name.startswith("rdkit.")]:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "samples.txt").write_text("CCO\n")
    with pytest.raises(SystemExit) as ended:
        tools_molecules.main([str(tmp_path / "samples.txt"), "--train", str(tmp_path / "samples.txt")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "RDKit is needed: pip install rdkit" in error and error.count("\n") == 1


def test_continued_maximum_likelihood_reads_real_tokens():
    """Also that of a run with --scheduled_sampling."""
    rows, ended = all_sequences(4, 3), []
    for share in ("0", "1"):
        model = SeqGAN(parse([*SIZES, *D_SIZES, "--scheduled_sampling", share]), 4)
        subject = SimpleNamespace(model=model)
        assert len(list(alternatives.continued(subject, rows, model.generator, [3], 0.05))) == 1
        ended.append([weight.numpy() for weight in model.generator.weights])
    for mine, theirs in zip(*ended, strict=True):
        np.testing.assert_array_equal(mine, theirs)
