"""What the tests share: tiny runs, the real data where it is present and, of enumeration.py, a world of four tokens.

TensorFlow takes seconds to trace a model's steps, however small, and XLA some 20 more to compile them. So:

- `SIZES` has `--no-jit`; a test of what is compiled adds `--jit`. The fixture `eagerly` compiles nothing at all;
- `train(argv)` is `main.main(argv)`, but runs of one shape (of the same flags, lengths and directories aside) share
  their data, networks and what measures them, which begin each run as they were made;
- `shared_seqgan(config, spec)` is `model.build(config, spec)`, shared in the same way: not for two models at once;
- what XLA has compiled is kept for the session, for all its processes; not where numbers of threads are compared.
"""

import atexit
import ctypes
import gc
import os
import shutil
import tempfile

if "TF_XLA_FLAGS" not in os.environ:  # set by the first process, before its TensorFlow begins; the others inherit it
    COMPILED = tempfile.mkdtemp(prefix="compiled-")
    os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={COMPILED}"
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
XLA = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", XLA)

import dataclasses
import functools
import itertools
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import support.quiet  # noqa: F401 - before TensorFlow

import fault_injection
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from enumeration import all_sequences, index_of, probabilities  # noqa: F401 - tests may have them from here
from fault_injection import Trainer, differing, logs_in, outcome
from tensorflow.python.framework import ops

import main as program
from data import DataError, checksum
from data.music.midi import melody_of, read_notes
from data.music.tokens import KEYS, REST, Grid, begins
from data.oracle import OracleData
from data.real import Dataset, read_data
from evaluation.evaluator import Due
from evaluation.run import Evaluation, evaluator_of, measures_of
from generator import TokenSpec
from model import SeqGAN, build
from support.config import Config
from support.config_file import FREE_TO_CHANGE
from support.device import configure_tensorflow
from support.parser import parse

configure_tensorflow()  # as main.py does, lest what is compiled before and after differ in their rounding
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
gc.freeze()  # collections need not pass over what the imports made: a traced run takes a tenth less
tf.get_logger().setLevel("ERROR")  # it warns of retracing, which many small models in one process are bound to cause
NOW, END = Due(evaluation=True, samples=False, last=False), Due(evaluation=True, samples=True, last=True)
ROOT = Path(__file__).resolve().parent.parent
SIZES = shlex.split(
    "--no-jit --seq_len 3 --batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 "
    "--d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8 "
    "--pretrain_g_epochs 4 --pretrain_d_epochs 2 --total_epochs 3 --d_steps 2 --d_epochs 2 --eval_samples 16 "
    "--eval_every 2 --d_eval_samples 0"
)
TINY = [*SIZES, *shlex.split("--vocab_size 4 --oracle_emb_dim 3 --oracle_hidden_dim 4")]
BIGRAM = [*TINY, *shlex.split("--discriminator bigram --d_draws 8")]
QUICK = (  # files that take seconds, for `-m quick`
    *("bad_input", "checkpoints", "discriminator", "fetch_nottingham", "midi", "oracle"),
    *("metric_registry", "packages", "readme", "seeds"),
)
NOT_COMPILED = FREE_TO_CHANGE | {"evaluate", "data_dir", "token_length"}  # flags that no step is compiled from
LENGTHS = ("pretrain_g_epochs", "pretrain_d_epochs", "total_epochs")
SHARED = 5  # models of different shapes that are kept, as each takes memory
TRACED = 60  # custom gradients, about as many as three models have
KEPT: dict[tuple, tuple[SeqGAN, list[tuple[tf.Variable, np.ndarray]]]] = {}  # with all variables and their first values


def cases(names: str, *values: Any, **more: Any) -> pytest.MarkDecorator:
    """`pytest.mark.parametrize(names, values)`, its values being arguments."""
    return pytest.mark.parametrize(names, values, **more)


ENDS = cases("end_token", None, 2, ids=["one length", "unequal lengths"])


def refusal(capsys: Any, main: Callable, *given: Any, status: int = 2, alone: bool = True, **more: Any) -> str:
    """The line with which `main(*given, **more)` ends; with `alone` the only one, of a tool also on stdout."""
    capsys.readouterr()
    try:
        ended = main(*given, **more)
    except SystemExit as stop:
        ended = stop.code
    out, err = (text if isinstance(text, str) else text.decode() for text in capsys.readouterr())
    (*others, line), (room, _, name) = err.splitlines(), main.__module__.rpartition(".")
    begins = line.startswith((f"{name}.py: error: ", f"{name}: error: ")) if room else ": error: " in line
    assert ended == status and begins and err.count(": error: ") == 1, (ended, err)
    assert not alone or not others and not (room and out), (out, err)
    return line + "\n"


def read_melody(path, grid: Grid, read=read_notes) -> tuple[np.ndarray, float, int | None]:
    """`melody_of` a file, whose name is in a DataError."""
    try:
        return melody_of(Path(path).read_bytes(), grid, read)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_tokens(path, frame_seconds: float = 0.4, frame_beats: float = 0.0, onsets: bool = False) -> np.ndarray:
    """The melody of a MIDI file, int32 [frames]."""
    return read_melody(path, Grid(frame_seconds, frame_beats, onsets))[0]


def canonical(tokens: np.ndarray, onsets: bool) -> np.ndarray:
    """What reading the written tune gives: a pitch goes on only after itself."""
    goes_on = onsets & (tokens != REST) & ~begins(tokens, onsets)
    return np.where(tokens == REST, REST, (tokens - 1) % KEYS + 1 + KEYS * goes_on).astype(np.int32)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of files that take seconds."""
    for item in items:
        if item.path.stem.removeprefix("test_") in QUICK:
            item.add_marker("quick")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function that finds a file of real data by its name, or skips, saying where it would be."""
    folder = Path(os.environ.get("SEQGAN_SHARED_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"no real data: {folder / name} is absent (SEQGAN_SHARED_DATA names another folder)")
        return folder / name

    return find


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    """Trains in processes that can be killed."""
    yield (trainer := Trainer())
    trainer.close()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory, a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def eagerly(monkeypatch) -> Iterator[None]:
    """Runs steps operation by operation: no tracing, which pays where tiny networks take few steps. η is at most 4."""
    monkeypatch.setattr("guidance.guided.ETAS", (4.0,))
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    """Lets go of what was traced and is not kept: TensorFlow's registry of gradients holds it for good."""
    yield
    registered = ops.gradient_registry._registry
    own = [name for name in registered if name.startswith("CustomGradient-")]
    if len(own) > TRACED:
        for name in own:
            del registered[name]
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc: back to the system
            trim(0)


def fitting(argv: Sequence[str]) -> list[str]:
    """A command line without the flags of SIZES or TINY, with which it begins, that have no effect with the others."""
    base = next((base for base in (TINY, SIZES) if list(argv[: len(base)]) == base), [])
    return fault_injection.fitting(base, list(argv[len(base) :]))


def tiny_config(*flags: str, words: Sequence[str] = TINY) -> Config:
    """The tiny configuration, or that of other `words`, changed by `flags`."""
    return parse(fitting([*words, *flags]))


def train(argv: Sequence[str], makers: program.Makers | None = None) -> int:
    """`main.main(argv)`, by default with the compiled steps of earlier runs of its shape; see above, and `fitting`."""
    return program.main(fitting(argv), makers or MAKERS)


def shared_seqgan(config: Config, spec: TokenSpec, sources: dict | None = None, **given: Any) -> SeqGAN:
    """What `model.build` makes of these arguments, with what was compiled before; see above."""
    objective = given.get("objective")  # one that decodes by its data, or reads batches of it, is made afresh
    if config.g_update == "distil" or (objective and getattr(objective.decode, "__func__", 0) is not Dataset.decode):
        return build(config, spec, sources, **given)
    used = {"references": config.reward == "bleu", "validation": config.trains_discriminator}
    rows = {name: given[name]() for name, needed in used.items() if needed and name in given}  # the same where they are
    oracle = {"oracle": given.get("oracle")} if config.reward_entry.oracle else {}
    texts = repr([sources, objective and objective.source, {name: checksum([each]) for name, each in rows.items()}])
    key = (_compiled_from(config), spec, texts, *oracle.values())
    if key in KEPT:
        KEPT[key] = KEPT.pop(key)  # the newest
    else:
        known = {name: lambda each=each: each for name, each in rows.items()} | oracle
        made: list[tf.Variable] = []

        def create(next_creator, **named):
            made.append(next_creator(**named))
            return made[-1]

        with tf.variable_creator_scope(create):
            seqgan = build(config, spec, sources, objective=objective, **known)
        KEPT[key] = seqgan, [(variable, variable.numpy()) for variable in made]
        for oldest in list(KEPT)[:-SHARED]:
            del KEPT[oldest]
    seqgan, at_first = KEPT[key]
    for variable, value in at_first:  # not only those of its checkpoint, which may lack one
        variable.assign(value)
    return seqgan


def shared_dataset(config: Config, recorded: dict[str, str] | None = None) -> Dataset:
    """What `read_data` reads; an `OracleData` with what was compiled for its flags before."""
    oracle = config.dataset == "LSTM" and not config.oracle_params
    return _oracle_of(_compiled_from(config)) if oracle else read_data(config, recorded)


def _compiled_from(config: Config) -> Config:
    """The flags that a step may depend on: all but those known to be of no account."""
    lengths = () if config.cosine_decay or config.g_update == "fold" else LENGTHS
    return dataclasses.replace(config, **{name: getattr(Config, name) for name in (*NOT_COMPILED, *lengths)})


_oracle_of = functools.lru_cache(maxsize=SHARED)(OracleData)
_measures_of = functools.lru_cache(maxsize=SHARED)(measures_of)
MAKERS = program.Makers(shared_dataset, shared_seqgan, lambda flags, model: _measures_of(_compiled_from(flags), model))
STEPS = ("mle_epoch", "mle_step", "g_step", "d_step", "follow_policy", "begin_adversarial", "adopt_average")


class Watched:
    """A SeqGAN of which `after` is told each step, once it is taken: its name and its arguments."""

    def __init__(self, seqgan: SeqGAN, after: Callable[[str, tuple], None]):
        self._seqgan, self._after = seqgan, after

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._seqgan, name)
        if name not in STEPS:
            return part

        def step(*arguments, **named):
            result = part(*arguments, **named)
            self._after(name, (*arguments, *named.values()))
            return result

        return step


def watching(after: Callable[[str, tuple], None], makers: program.Makers = MAKERS) -> program.Makers:
    """Makers whose run is `Watched`; by default they share what is compiled."""
    return makers._replace(seqgan=lambda *given, **more: Watched(makers.seqgan(*given, **more), after))


def interrupted_at(step: int, makers: program.Makers = MAKERS) -> program.Makers:
    """The makers of a run that is sent SIGTERM during its step of this number, from 1, counted in this process."""
    count = itertools.count(1)

    def after(name: str, arguments: tuple) -> None:
        if name in ("mle_epoch", "mle_step", "g_step", "d_step") and next(count) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return watching(after, makers)


def resumed_alike(folder: Path, words: Sequence[str], *steps: int) -> list[str]:
    """What a run left alone and one that is interrupted, in each process after so many steps, leave otherwise."""

    def run(name: str, makers: program.Makers = MAKERS) -> int:
        return train([*words, *logs_in(folder / name)], makers)

    assert run("whole") == 0
    for step in steps:
        assert run("broken", interrupted_at(step)) == 128 + signal.SIGTERM
    assert run("broken") == 0
    return differing(outcome(folder / "broken"), outcome(folder / "whole"))


def evaluation_of(config: Config, data: Dataset, seqgan: SeqGAN, **more: Any) -> Evaluation:
    """What a run of these flags measures its networks with."""
    measures = measures_of(config, seqgan)
    return Evaluation(evaluator_of(data, config), measures, guidance=seqgan.guidance, **more)


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that Matplotlib draws."""
    from matplotlib.figure import Figure

    figures, real = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, to, **how: figures.append(figure) or real(figure, to, **how))
    return figures


@pytest.fixture(scope="session")
def knowing(tmp_path_factory) -> Path:
    """A run whose discriminator was trained and measured, and knows something."""
    folder = tmp_path_factory.mktemp("knowing")
    words = "--oracle_init normal --pretrain_g_epochs 1 --total_epochs 0 --pretrain_d_epochs 60 --d_lr 0.01"
    words += f" --d_batch_size 64 --d_eval_samples 500 --log_dir {folder}/run --eval_log_dir {folder}/eval"
    assert train([*TINY, *shlex.split(words)]) == 0
    return folder / "run"


def assert_same(one, other, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Checks that pairs of arrays are equal: bit for bit, or up to tolerances."""
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol, atol)
