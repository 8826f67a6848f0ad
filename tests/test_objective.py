"""--objective: a user's function as the reward. Its values, the exact policy gradient, runs, and what it gets wrong."""

import importlib.util
import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SIZES, TINY, assert_same, cases, fitting, refusal, resumed_alike, tiny_config, train
from enumeration import all_sequences, probabilities, random_generator, randomise_all
from fault_injection import differing, logs_in, outcome, rows_of, timeless_rows
from test_checkpoints import events
from test_model import ENDS, assert_same_gradient, exact_gradient, flat

from data.music.dataset import NottinghamData
from data.music.tokens import Grid
from data.text import TextData, Vocabulary
from evaluation.evaluator import Due
from evaluation.policy import MeasuredPolicy
from evaluation.run import Evaluation, Measures
from generator import PolicyCopy, TokenSpec
from model import SeqGAN, build
from reward import of_function
from support import own_code
from support.config_file import FORMAT
from support.errors import UsageError
from support.objective import KEPT, Objective
from support.parser import read_flags
from tools import temperatures
from tools.experiment import Cell, Method, fingerprint, mixed, read
from tools.restored import restore

COUNTING = "def ones(sequences):\n    return [float((sequence == 1).sum()) for sequence in sequences]\n"
TELLING = """import numpy as np
def told(sequences):
    a, b, c = np.stack(sequences).astype(np.float32).T
    return np.sin(1.3 * a + 0.9 * b ** 2 + 2.1 * c)
"""


def told(tokens):
    """A score that depends on every token and on its place, as TELLING has it: int [..., T] → float32 [...]."""
    tokens = tf.cast(tokens, tf.float32)
    return tf.sin(1.3 * tokens[..., 0] + 0.9 * tokens[..., 1] ** 2 + 2.1 * tokens[..., 2])


def objective_of(text: str = TELLING, function: str = "told", decode=list) -> Objective:
    """The objective that a text has; `decode` sees what the function is asked for."""
    return Objective(f"told.py:{function}", decode, {"function": function, "text": text})


def model_of(flags: str, end_token: int | None = None, objective: Objective | None = None) -> SeqGAN:
    config = tiny_config("--objective", "told.py:told", *flags.split())
    return randomise_all(build(config, TokenSpec(4, 3, end_token=end_token), objective=objective or objective_of()))


@cases(
    "flags, end_token",
    *(("--rollout_num 0 --baseline batch", None), ("--rollout_num 2 --baseline prefix --kl_weight 0.7", 2)),
    ("--rollout_num 0 --kl_weight 0.7 --reward log_odds --objective_weight 0.4", 2),
    ("--rollout_num 2 --kl_weight 0.7 --reward log_odds --objective_weight 0.4", None),
)
def test_the_step_follows_the_exact_gradient(flags, end_token):
    """That of E[(1 - λ) R + λ · objective] - β KL(G‖G₀), by enumeration; the weights stay, as the rate is 0."""
    seqgan = model_of(f"--batch_size 20000 --g_lr 0 {flags}", end_token)
    share, sequences = seqgan.config.objective_share, all_sequences(4, 3, end_token)
    scores = share * told(sequences).numpy().astype(np.float64)
    if share < 1:
        scores += (1 - share) * seqgan.discriminator.log_odds(tf.constant(sequences)).numpy()
    assert (seqgan.discriminator is None) == (share == 1)
    update = seqgan.g_step(tf.constant(0))
    _, gradients = seqgan.policy_gradient(update.tokens, update.rewards)
    assert_same_gradient(flat(gradients), exact_gradient(seqgan, scores))


@pytest.mark.parametrize(("rollouts", "end_token", "jit"), [(0, None, False), (2, 2, True)])
def test_the_three_parts_do_what_one_call_does(rollouts, end_token, jit):
    """Draws, rewards and weights are those of the same score inside the one step."""
    flags = f"--rollout_num {rollouts} --baseline batch"
    parts = model_of(f"{flags} --jit {jit}", end_token)
    config = tiny_config("--reward", "optimal", *flags.split())
    one = SeqGAN(config, TokenSpec(4, 3, end_token=end_token), None, of_function(told))
    one.generator.set_weights(parts.generator.get_weights())
    one.follow_policy(lag=0.0)
    before = flat(one.generator.weights)
    for step in range(2):
        expected, found = one._sampled_step(tf.constant(step)), parts.g_step(tf.constant(step))
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.rewards, expected.rewards, atol=1e-6)
    assert_same(one.generator.weights, parts.generator.weights, atol=1e-6)
    assert np.abs(flat(one.generator.weights) - before).max() > 0.01


def test_each_different_sequence_is_scored_once(eagerly):
    """In training, too; what is too much to remember is forgotten, and right all the same."""
    asked, first = [], "def told(sequences):\n    return [float(sequence[0]) for sequence in sequences]\n"
    objective = objective_of(first, decode=lambda rows: asked.extend(map(tuple, rows)) or list(rows))
    tokens = all_sequences(4, 3)
    twice = np.concatenate([tokens, tokens[::-1]])
    for _ in range(2):
        np.testing.assert_array_equal(objective.score(twice), twice[:, 0])
    assert sorted(asked) == sorted(map(tuple, tokens))
    asked.clear()
    seqgan = model_of("--rollout_num 3", objective=objective_of(first, decode=objective.decode))
    for step in range(3):
        seqgan.g_step(tf.constant(step))
    assert len(asked) == len(set(asked)) > 10
    many = np.stack([np.arange(KEPT + 1)] * 3, axis=1)
    for some in (many, twice):
        asked.clear()
        np.testing.assert_array_equal(objective.score(some), some[:, 0])
    assert len(asked) == len(tokens)


def test_text_pitches_or_ids():
    text = SimpleNamespace(vocabulary=Vocabulary("char", ("a", "b")))
    sequences = np.array([[0, 1, 3, 4], [1, 2, 0, 0]], np.int32)  # 2 is unknown, 3 the end, 4 padding
    assert TextData.decode(text, sequences) == ["ab", "b\ufffdaa"]
    tunes = np.array([[0, 1, Grid().vocab_size - 1], [40, Grid().vocab_size, Grid().vocab_size + 1]], np.int32)
    tune, other = NottinghamData.decode(SimpleNamespace(grid=Grid()), tunes)
    assert tune.tolist() == [0, 21, 108] and other.tolist() == [60]


@ENDS
def test_the_curves_are_the_expectations(end_token):
    policy, other = (random_generator(seed=seed, end_token=end_token) for seed in (0, 5))
    pretrained, config = PolicyCopy(other), SimpleNamespace(eval_samples=3000, d_eval_samples=0)
    data = SimpleNamespace(valid=all_sequences(4, 3)[:0])
    evaluator = SimpleNamespace(of_policy=lambda *_: {}, config=config, data=data)
    measures = Measures(MeasuredPolicy(policy, seed=1, jit=False), None, None)
    evaluation = Evaluation(evaluator, measures, objective=objective_of(), pretrained=pretrained)
    figures = evaluation.measure(0, Due(True, True, True))
    assert figures.keys() == {"objective", "kl_to_pretrained"}
    p, q = probabilities(policy), probabilities(pretrained)
    scores = told(all_sequences(4, 3, end_token)).numpy()
    exact = {"objective": (p * scores).sum(), "kl_to_pretrained": (p * np.log(p / q)).sum()}
    for name, (mean, error) in figures.items():
        assert abs(mean - exact[name]) < 4 * error < 0.2, name
    deviation = np.sqrt((p * scores**2).sum() - exact["objective"] ** 2)
    assert figures["objective"][1] == pytest.approx(deviation / np.sqrt(3000), rel=0.1)
    assert abs(exact["kl_to_pretrained"]) > 10 * figures["kl_to_pretrained"][1]


@pytest.fixture
def counting(here) -> str:
    """An objective, in the working directory: how many tokens are 1."""
    (here / "counting.py").write_text(COUNTING)
    return "counting.py:ones"


def run(folder, objective: str, flags: str = "", epochs: int = 1, evaluate: bool = True) -> int:
    words = f"--total_epochs {epochs} {flags} --checkpoint_every 1 --log_dir {folder}/train"
    words += " --kl_weight 0.5" * bool(epochs)
    words += f" --eval_samples 300 --eval_log_dir {folder}/eval" if evaluate else " --no-evaluate"
    return train([*TINY, *words.split(), *(["--objective", objective] if objective else [])])


def test_a_run_is_continued_bit_for_bit_and_rises(counting, tmp_path, capsys):
    flags = "--g_lr 0.1 --baseline batch --objective_weight 0.9 --d_steps 1 --d_epochs 1"  # D is continued, too
    for folder, epochs in (("parts", 2), ("parts", 6), ("whole", 6)):
        assert run(tmp_path / folder, counting, flags, epochs) == 0
    parts, whole = (outcome(tmp_path / name) for name in ("parts", "whole"))
    assert not [name for name in differing(parts, whole) if "metrics.csv" in name or name.startswith("weights ")]
    assert any(name.startswith("weights pretrained_policy") for name in whole)
    evaluations = timeless_rows(tmp_path / "whole" / "eval")
    assert all(row["objective"] and row["objective_se"] and row["real_objective"] for row in evaluations)
    for row in evaluations:
        assert bool(row["kl_to_pretrained"]) == (row["phase"] == "adversarial")
    objective = [float(row["objective"]) for row in evaluations]
    assert objective[-1] > objective[2] + 0.2 and float(evaluations[-1]["kl_to_pretrained"]) > 0.05
    capsys.readouterr()
    assert train(["--no-is_train", *logs_in(tmp_path / "whole")]) == 0
    out = capsys.readouterr().out
    assert "objective " in out and "kl_to_pretrained " in out and "nats per sequence" in out
    first, last = (restore(tmp_path / "whole" / "train", which).seqgan for which in ("pretrained", "newest"))
    assert_same(last.pretrained.get_weights(), first.generator.get_weights())


@cases("by", "--objective counting.py:ones", "--discriminator pooled --d_steps 0 --d_filter_sizes 2 --d_num_filters 3")
def test_a_run_that_learns_the_best_candidates_is_continued_bit_for_bit(counting, tmp_path, eagerly, by):
    words = f"--g_update distil --candidates 3 --total_epochs 3 --g_lr 0.1 --pretrain_g_epochs 2 {by}"
    assert not resumed_alike(tmp_path, [*TINY, *words.split()], 3, 1 + ("pooled" in by))


def test_a_file_that_changed_is_refused(counting, tmp_path, capsys, eagerly):
    assert run(tmp_path, counting, epochs=0) == 0
    content = json.loads((tmp_path / "train" / "config.json").read_text())
    assert content["objective"] == {"function": "ones", "text": COUNTING}
    before = timeless_rows(tmp_path / "train")
    (tmp_path / "counting.py").write_text(COUNTING + "twos = ones\n")
    for objective in (counting, "counting.py:twos"):
        for flags in ("", "--no-is_train"):
            why = f"--objective: the code of {objective[12:]} changed since the run in --log_dir {tmp_path}"
            assert why in refusal(capsys, run, tmp_path, objective, flags, epochs=0)
    assert timeless_rows(tmp_path / "train") == before
    (tmp_path / "elsewhere.py").write_text(COUNTING)  # the same text by another name is the same
    assert run(tmp_path, "elsewhere.py:ones", epochs=0) == 0 and run(tmp_path, counting, "--overwrite", epochs=0) == 0


def test_another_objective_starts_from_the_same_pretraining(counting, tmp_path, eagerly):
    """But not with the other's figures; so does one with an objective from a run without."""
    assert run(tmp_path / "one", counting) == 0
    (tmp_path / "other.py").write_text(COUNTING.replace("== 1", "== 2"))
    pretrained = f"--pretrained {tmp_path}/one/train"
    assert run(tmp_path / "two", "other.py:ones", pretrained) == 0
    restored = [restore(tmp_path / name / "train").seqgan for name in ("one", "two")]
    assert_same(*(seqgan.pretrained.get_weights() for seqgan in restored))
    for row in timeless_rows(tmp_path / "two" / "eval"):
        assert bool(row["objective"]) == bool(row["real_objective"]) == (row["phase"] == "adversarial")
        assert row["nll_test"]
    assert run(tmp_path / "three", counting, pretrained, epochs=0) == 0
    assert all(row["objective"] for row in timeless_rows(tmp_path / "three" / "eval"))
    for tag in ("samples/objective", "se/objective"):
        steps = ([step for t, step in events(tmp_path / name / "eval") if t == tag] for name in ("two", "three"))
        assert [*steps] == [[4], [0, 1, 3]]
    assert run(tmp_path / "mle", "", "--reward constant", epochs=0) == 0
    assert run(tmp_path / "four", counting, f"--pretrained {tmp_path}/mle/train") == 0
    phases = [(row["phase"], bool(row["objective"])) for row in timeless_rows(tmp_path / "four" / "eval")]
    assert phases[0] == ("pretrain_g", False) and phases[-1] == ("adversarial", True)


def test_what_fails_costs_no_earlier_run(counting, tmp_path, capsys, eagerly):
    """--overwrite, of a function that fails only when it is called."""
    assert run(tmp_path, counting, epochs=0) == 0
    before = sorted((tmp_path / "train" / "checkpoints").iterdir()), timeless_rows(tmp_path / "eval")
    for text, why in (
        ("    return []", "ones returned 0 values for 40 sequences"),
        ("    return [s[0] + len(sequences) for s in sequences]", "may depend on that sequence"),
        ("    import random\n    return [random.random() for _ in sequences]", "that sequence alone"),
    ):
        (tmp_path / "counting.py").write_text(f"def ones(sequences):\n{text}\n")
        assert why in refusal(capsys, run, tmp_path, counting, "--overwrite", epochs=0)
    assert before == (sorted((tmp_path / "train" / "checkpoints").iterdir()), timeless_rows(tmp_path / "eval"))


def test_it_is_asked_early_where_there_is_no_validation_set(counting, tmp_path, capsys):
    (tmp_path / "lines").mkdir()
    for name in ("train.txt", "test.txt"):
        (tmp_path / "lines" / name).write_text("ab\nba\nabb\n")
    (tmp_path / "none.py").write_text("def f(lines):\n    return []\n")
    words = "--dataset text --data_dir lines --vocab_size 9 --log_dir run --eval_log_dir eval --objective none.py:f"
    assert "none.py: f returned 0 values for" in refusal(capsys, train, [*SIZES, *words.split()], alone=False)
    assert not (tmp_path / "run").exists()


def test_the_program_ends_before_training_or_where_the_function_fails(counting, tmp_path, capsys, eagerly):
    why = "main.py: error: --objective none.py: No such file or directory\n"
    assert refusal(capsys, run, tmp_path, "none.py:f") == why and not (tmp_path / "train").exists()
    (tmp_path / "mine.py").write_text("def f(sequences):\n    return [0.0] * 7\n")
    assert "mine.py: f returned 7 values for 40 sequences\n" in refusal(capsys, run, tmp_path, "mine.py:f")
    late = "    calls.append(1)\n    1 / (len(calls) < 8)\n    return [0.0] * len(sequences)\n"
    (tmp_path / "late.py").write_text(f"calls = []\ndef f(sequences):\n{late}")
    why = "main.py: error: --objective late.py: line 4: ZeroDivisionError: division by zero\n"
    late = (tmp_path / "late", "late.py:f", "--baseline batch", 9)
    assert refusal(capsys, run, *late, evaluate=False, alone=False) == why
    assert restore(tmp_path / "late" / "train").taken > 4  # epochs of pretraining


ODD = "    def __array__(self, *_, **__):\n        raise RuntimeError('a tensor that needs its gradient')\n"
NO_F, NUMBERS = "has no function or class 'f'", "f returned a {} that is not a list of 2 numbers"
BODIES = [
    ("return [[1.0], [2.0]]", "f returned values of shape [2, 1] for 2 sequences"),
    ("return None", "f returned values of shape [] for 2 sequences"),
    *(("return ['1', '2']", NUMBERS.format("list")), ("return [1 + 2j, 3]", NUMBERS.format("list"))),
    ("return [10**400, 0]", NUMBERS.format("list")),
    ("return (0.0 for _ in sequences)", NUMBERS.format("generator")),
    ("return [0.0, float('nan')]", "f returned nan for array([1, 2, 3], dtype=int32), not a"),
    ("return [-1e38, 0.0]", "f returned -1e+38 for array([0, 1, 2], dtype=int32), not a number within ±1e+15"),
    *(("raise SystemExit", "line 2: SystemExit"), ("raise GeneratorExit", "line 2: GeneratorExit")),
    ("raise ValueError('two\\nlines')", "line 2: ValueError: two lines"),
]


@cases(
    "text, why",
    *(("def f(sequences)\n    return 1\n", "line 1: SyntaxError: expected ':'"), ("raise KeyboardInterrupt\n", None)),
    ("x = 1\nimport no_such_package\n", "line 2: ModuleNotFoundError: No module named 'no_such_package'"),
    ("f = 3\n", f"{NO_F}, and none at all"),
    ("import json\nfrom pathlib import Path\nf = 3\ndef g(): pass\nclass K: pass\n", f"{NO_F}; it has g, K"),
    (f"class Odd:\n{ODD}def f(sequences):\n    return Odd()\n", NUMBERS.format("Odd")),
    ("def f(s):\n    g(s)\ndef g(s):\n    s.go()\n", "line 4: AttributeError: 'list' object has no attribute 'go'"),
    *((f"def f(sequences):\n    {line}\n", why) for line, why in BODIES),
)
def test_what_is_wrong_is_one_line(text, why, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError if why else KeyboardInterrupt) as error:  # which is the user's own doing
        Objective(f"{path}:f", list).score(np.array([[0, 1, 2], [1, 2, 3]]))
    if why:
        assert str(error.value).startswith(f"--objective {path}: {why}") and "\n" not in str(error.value)


def test_what_the_function_prints_is_not_output(tmp_path, capsys):
    (tmp_path / "loud.py").write_text("print('read')\ndef f(sequences):\n    print('called')\n    return [0.0] * 2\n")
    Objective(f"{tmp_path / 'loud.py'}:f", list).score(np.array([[0, 1, 2], [1, 2, 3]]))
    assert capsys.readouterr() == ("", "read\ncalled\n")


def test_a_file_that_cannot_be_read(tmp_path):
    moved, source = f"{tmp_path / 'moved.py'}:f", {"function": "f", "text": "def f(): pass"}  # of a run's record
    assert own_code.load("--discriminator", moved, source) is own_code.load("--discriminator", moved)
    (tmp_path / "moved.py").write_text("def f():\n    return 1\n")  # another file, which the name means once forgotten
    assert own_code.load("--discriminator", moved)() is None
    own_code.forget()
    assert own_code.load("--discriminator", moved)() == 1
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "long.py").write_text("#" * (own_code.LONGEST + 1))
    (tmp_path / "wide.py").write_text("#" + "𝕏" * (own_code.LONGEST // 4))  # four bytes each
    found = {"none": "No such file", "latin": "UTF-8", "long": "longer", "wide": "longer"}
    for name, why in {".": "Is a directory", **{f"{name}.py": why for name, why in found.items()}}.items():
        with pytest.raises(UsageError, match=f"^--objective {tmp_path / name}: .*{why}"):
            Objective(f"{tmp_path / name}:f", list)


def test_flags_that_do():
    words = "--preset music --total_epochs 9 --objective a.py:f --kl_weight 0.2 --rollout_num 4"
    config = read_flags(words.split())
    assert not config.trains_discriminator and config.rollouts_drawn == 4
    half = ["--objective", "a.py:f", "--objective_weight", "0.5", "--reward"]
    assert read_flags([*half, "log_odds", "--d_lr", "0.1"]).trains_discriminator
    assert read_flags([*half, "constant"]).rollouts_drawn == 16


def test_a_sweep_tells_changed_objectives_apart(counting, tmp_path):
    flags = (*fitting([*TINY, "--objective", counting]), "--total_epochs", "1")
    cells = [Cell(Method("m", "m", flags, (1, 2)), seed, 1, tmp_path / str(seed)) for seed in (1, 2)]
    for cell, text in zip(cells, (COUNTING, COUNTING + "\n"), strict=True):
        cell.log_dir.mkdir(parents=True)
        content = {"format": FORMAT, "flags": {"total_epochs": 1}, "run": "x", "data": {}}
        content["objective"] = {"function": "ones", "text": text}
        (cell.log_dir / "config.json").write_text(json.dumps(content))
    assert [cell.recoded for cell in cells] == [False, True]
    data = {cell: fingerprint(cell.recorded) for cell in cells}
    assert "m, seed 2: read other data than m, seed 1" in mixed(data)
    assert len({fingerprint({"reward": {"function": "f", "text": text}}) for text in "ab"}) == 2
    method = "[[methods]]\nname = '{}'\nflags = '--seq_len 3 --objective counting.py:{}'\n"
    (tmp_path / "table.toml").write_text(f"seeds = [1]\n{method.format('one', 'ones')}{method.format('two', 'twos')}")
    sources = {cell.source for cell in read(tmp_path / "table.toml").cells(tmp_path) if cell.source}
    (shared,) = (read_flags(source.argv) for source in sources)  # and no filters that would not fit
    assert not shared.objective and not shared.trains_discriminator


def test_the_best_of_n_by_enumeration():
    """All draws of three, where equals share; and a score that no sample has lies between its neighbours."""
    scores = np.array([0.1, 0.5, 0.5, 0.9])
    maxima = np.array([max(scores[list(index)]) for index in np.ndindex(4, 4, 4)])
    of_samples, of_real = temperatures.best_of(scores, np.array([0.7, 0.9]), 3)
    exact = {score: (maxima == score).mean() / (scores == score).mean() for score in scores}
    np.testing.assert_allclose(of_samples, [exact[score] for score in scores])
    np.testing.assert_allclose(of_real, [3 * 0.75**2, exact[0.9]])


def test_what_no_sample_comes_near_is_left_out(capsys):
    """Else real sequences would be e^30 times as likely as samples, at a KL of 0."""
    policy = SimpleNamespace(sample=lambda *_: tf.zeros([4, 3], tf.int32))
    more = {"objective": SimpleNamespace(score=lambda rows: rows.sum(axis=1)), "test": np.ones([2, 3]), "name": "r"}
    run = SimpleNamespace(seqgan=SimpleNamespace(pretrained=policy), measured=lambda policy: policy, size=4, **more)
    assert not list(temperatures.MeasuredRun.by_objective(run, (), [0.1, 0.0]))
    told = "--beta {}: rests on {} effective draws; draw more with -n; left out\n"
    assert capsys.readouterr().err == told.format("0.1", "3.7e-13") + told.format("0", "0")
    policy.sample, policy.nll = lambda *_: tf.constant([[0] * 3] * 3 + [[1] * 3]), lambda rows: tf.fill(len(rows), 2.0)
    run.lengths, odds = np.array([3, 3]), np.array([1, 1, 1, np.e])
    best, tilted = temperatures.MeasuredRun.by_objective(run, [2], [3.0])  # all real ones alike: the draws' error alone
    assert "nll_test_se" not in best and tilted["nll_test"] == pytest.approx((2 - 1 + np.log(odds.mean())) / 3)
    assert tilted["nll_test_se"] == pytest.approx(odds.std(ddof=1) / 2 / odds.mean() / 3)


def test_the_temperatures_of_a_run_and_what_its_objective_allows(counting, tmp_path, capsys, eagerly):
    """Also where the file is gone; figures of two objectives are not of one table."""
    (tmp_path / "lines").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / "lines" / f"{name}.txt").write_text("aba\nabb\nbab\naaa\nba\n")
    first = "def first(lines):\n    return [float(line[:1] == 'a') for line in lines]\n"
    words = f"{shlex.join(SIZES)} --dataset text --data_dir lines --pretrain_g_epochs 2 --total_epochs 2 --no-evaluate "
    words += "--rollout_num 1 --kl_weight 0.5 --objective first.py:first --vocab_size 9 --log_dir one/train"
    (tmp_path / "first.py").write_text(first)
    assert train(words.split()) == 0
    (tmp_path / "first.py").unlink()
    shutil.copytree("one", "other")
    text = Path("other/train/config.json").read_text()
    Path("other/train/config.json").write_text(text.replace("== 'a'", "== 'b'"))
    few = "--checkpoints --temperatures 1 0.5 -n 256 --best_of 2 --beta 1 0 --csv plane.csv -o plane.png"
    assert temperatures.main(["one/train", *few.split()]) == 0
    out = capsys.readouterr().out
    assert "| objective " in out and "| KL(G‖pretrained) " in out and (tmp_path / "plane.png").stat().st_size > 1000
    found = {(row["run"], row["temperature"]): row for row in rows_of(Path("plane.csv"))}
    names = ("objective", "kl_to_pretrained", "nll_test")
    objective, kl, nll = ({key: float(row[name] or "nan") for key, row in found.items()} for name in names)
    before, own = ("train pretrained", "1.0"), ("train", "1.0")
    p, share = objective[before], 3 / 5  # of generated and of real lines
    assert kl[before] == pytest.approx(0, abs=1e-6) and kl[own] > 1e-4
    assert kl["train pretrained", "0.5"] > 1e-3 and objective["real data", ""] == pytest.approx(share)
    best, tilted, rejected = ("train, best of n", "1.0"), ("train, least KL", "1.0"), ("train, least KL", "0.0")
    for key, q in {best: 1 - (1 - p) ** 2, tilted: p * np.e / (1 - p + p * np.e)}.items():
        yes, no = np.log(q / p), np.log((1 - q) / (1 - p))
        assert (objective[key], kl[key]) == pytest.approx((q, q * yes + (1 - q) * no), rel=1e-5)
        assert nll[key] - nll[before] == pytest.approx(-(share * yes + (1 - share) * no) / 3, rel=1e-4)
    assert (objective[rejected], kl[rejected]) == pytest.approx((1, -np.log(p))) and not found[rejected]["nll_test"]
    assert found[best]["candidates"] == "2"
    assert temperatures.main(["one/train", *shlex.split("-n 2 --temperatures 1 --best_of 2 --beta 5")]) == 0
    out, error = capsys.readouterr()
    assert "| train, reweighted by the objective (least KL), β = 5 " in out
    assert "--beta 5: rests on " in error and " effective draws; draw more with -n" in error
    words = ["one/train", "other/train", "--temperatures", "1"]
    assert "another objective" in refusal(capsys, temperatures.main, words, alone=False)


def example(name: str):
    """A file of objectives/, as the program runs it: on its own."""
    spec = importlib.util.spec_from_file_location(f"objectives_{name}", ROOT / "objectives" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_whistle():
    whistle = example("whistle")
    tunes = [np.array(tune) for tune in ([62, 0, 83], [61, 62, 63], [60, 62, 0], [84, 85, 86], [66, 67, 69])]
    assert whistle.playable(tunes) == [1, 0, 0, 0, 1]
    tunes = [[62, 74, 62], [74, 83, 62], [62, 73, 62], [74, 76, 74], [64, 74, 62], [62, 0, 62], [62, 75, 74, 62]]
    assert whistle.framed([np.array(tune) for tune in tunes]) == [1, 1, 0, 0, 0, 0, 0]
    assert whistle.framed_share([np.array(tune) for tune in tunes]) == [1, 1, *[0.75] * 5]
    scores = (whistle.playable, whistle.framed, whistle.framed_share)
    assert [score([np.array([], int)]) for score in scores] == [[0.0]] * 3  # a whole tune may end at once


def test_quatrain():
    pytest.importorskip("pypinyin", reason="pypinyin, of requirements-dev.txt, is not installed")
    quatrain, poem = example("quatrain"), "白日依山盡黃河入海流欲窮千里目更上一層樓"
    assert quatrain.rhyme([poem]) == quatrain.tones([poem]) == [1]
    others = [poem[:-1] + "山", poem[:-1] + "流", poem[:-1], "", "a" * 20]
    assert quatrain.rhyme(others) == [0] * 5 and quatrain.tones(others)[:2] == [1, 1]
    assert quatrain.tones(others)[2:4] == [0, 0]
    unknown = "".join("天" if i in (3, 18) else "山" if i in (9, 19) else "\ufffd" for i in range(20))
    assert quatrain.tones([unknown, unknown.replace("\ufffd", "的")]) == [0, 0]  # neither level nor oblique
    swapped = poem[:1] + "山依日" + poem[4:]
    assert quatrain.tones([swapped]) == [pytest.approx(6 / 7)]
    assert [quatrain.reading(c)[0] for c in "天間春月女"] == ["an", "an", "en", "ie", "v"]


def test_molecules():
    pytest.importorskip("rdkit", reason="RDKit, of requirements-dev.txt, is not installed")
    molecules, strings = example("molecules"), ["CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1(", "", "CCO"]
    assert molecules.valid(strings) == [1, 0, 0, 1]
    assert molecules.valid(["C C O", "CC )))", "CCO name", "CCO\n"]) == [0] * 4  # RDKit reads no further than a blank
    assert molecules.valid(["C" * 2000, "C" * 20_001]) == [1, 0]  # of which RDKit would end the process
    np.testing.assert_allclose(molecules.qed(strings), [0.5501, 0, 0, 0.4068], atol=1e-3)
