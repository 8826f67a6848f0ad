"""What the tests share: a small world in which everything can be enumerated, and the real data where it is present.

XLA takes some 20 seconds to compile the steps of one model, however small. So where it is not the compiling that is
tested:

- `train(argv)` is `main.main(argv)`, but runs of one shape (of the same flags, lengths and directories aside) share
  their compiled steps;
- `shared_model(config, vocab_size)` is `SeqGAN(config, vocab_size)` as it is made from these arguments, with what was
  compiled for them before. Not where a part of the model is to be replaced, nor for two of the same arguments at once;
- `--no-jit` does without XLA: the first run of a shape takes 7 seconds;
- `--d_eval_samples 0`, of the flags that all share: what the discriminator knows takes 5 more;
- what XLA has compiled is kept for the session in a folder that all its processes share, so that of many programs of
  the same flags one compiles. Not where numbers of threads are compared, as TensorFlow's cache takes no note of them;
- XLA leaves out the passes of its backend that make a program fast and its compilation twice as long, unless there is
  an XLA_FLAGS in the environment; with `XLA_FLAGS=--xla_backend_optimization_level=3` it compiles as it does for users.

Each worker of pytest-xdist takes whole files and is renewed when it has grown, as compiled programs stay in memory.
"""

import atexit
import gc
import os
import shutil
import tempfile

if "TF_XLA_FLAGS" not in os.environ:  # set by the first process, before its TensorFlow begins; the others inherit it
    COMPILED = tempfile.mkdtemp(prefix="compiled-")
    os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={COMPILED}"
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
QUICK_XLA = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ.setdefault("XLA_FLAGS", QUICK_XLA)

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import dataclasses
import functools
import itertools
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tensorflow as tf
from fault_injection import Trainer

import main as program
from data import Due
from data.music.midi import read_melody
from data.music.tokens import KEYS, REST, Grid, begins
from generator import Generator
from model import SeqGAN
from oracle import OracleData
from support.config import Config
from support.device import configure_tensorflow
from support.parser import parse

configure_tensorflow()  # as main.py does, lest what is compiled before and after differ in their rounding
gc.freeze()  # collections need not pass over what the imports made: a traced run takes a tenth less
tf.get_logger().setLevel("ERROR")  # it warns of retracing, which many small models in one process are bound to cause

NOW, END = Due(evaluation=True, samples=False, last=False), Due(evaluation=True, samples=True, last=True)
ROOT = Path(__file__).resolve().parent.parent
SIZES = shlex.split(
    "--seq_len 3 --batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 "
    "--d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8 "
    "--pretrain_g_epochs 4 --pretrain_d_epochs 2 --total_epochs 3 --d_steps 2 --d_epochs 2 --eval_samples 16 "
    "--eval_every 2 --d_eval_samples 0"
)
TINY = [*SIZES, *shlex.split("--vocab_size 4 --oracle_emb_dim 3 --oracle_hidden_dim 4")]
# When, where and how often: what no step is compiled from.
NOT_COMPILED = (
    *("is_train", "evaluate", "log_dir", "eval_log_dir", "log_generation", "eval_every", "checkpoint_every"),
    *("keep_checkpoints", "overwrite", "debug", "sample_every", "save_media", "data_dir", "frame_beats"),
)
LENGTHS = ("pretrain_g_epochs", "pretrain_d_epochs", "total_epochs")


# Files that take long; the first to start, so that no worker is left with one at the end.
LONGEST = (
    *("program", "main", "kills", "sweep", "model", "text", "nottingham", "training", "sample", "benchmarks"),
    *("compile_cache", "temperatures", "reward", "objective", "versions", "resume", "pretrained", "discriminator"),
    *("rollout", "generator", "midi"),
)
# Files that take seconds, for `-m quick`.
QUICK = (
    *("bad_input", "checkpoints", "discriminator", "fetch_nottingham", "metrics", "midi", "oracle"),
    *("prepare_quatrains", "readme", "seeds"),
)
WORKERS = 8  # at most: each may take 2 GiB
# Files whose tests go to the workers one by one, as all of them would fill one.
DIVIDED = ("kills", "program", "model")
FULL = 1.2e9  # bytes of a worker's memory from which on it gets no other file but these, which need none of it
LIGHT = ("kills", "prepare_captions", "prepare_molecules", "prepare_quatrains", "resume", "sweep")
MEMORY: dict[object, float] = {}  # a worker's, bytes


def read_tokens(path, frame_seconds: float = 0.4, frame_beats: float = 0.0, onsets: bool = False) -> np.ndarray:
    """The melody of a MIDI file, int32 [frames]."""
    return read_melody(path, Grid(frame_seconds, frame_beats, onsets).check())[0]


def canonical(tokens: np.ndarray, onsets: bool) -> np.ndarray:
    """What reading the written tune gives: a pitch goes on only after itself."""
    goes_on = onsets & (tokens != REST) & ~begins(tokens, onsets)
    return np.where(tokens == REST, REST, (tokens - 1) % KEYS + 1 + KEYS * goes_on).astype(np.int32)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker a core and one more, as some tests wait; none where one file is asked for, which then begins sooner."""
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, WORKERS)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first and marks the quick ones."""
    for item in items:
        if subject(item.nodeid) in QUICK:
            item.add_marker("quick")
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(subject(item.nodeid), len(place)))


def subject(nodeid: str) -> str:
    """The `main` of tests/test_main.py::test_what."""
    return Path(nodeid.split("::")[0]).stem.removeprefix("test_")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Has each test say how much memory its process has needed by then, bytes."""
    report = yield
    unit = 1 if sys.platform == "darwin" else 1024
    report.user_properties.append(("memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps, where the work is shared out, how much memory each worker has needed."""
    if hasattr(report, "node"):
        MEMORY[report.node] = dict(report.user_properties)["memory"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Whole files to a worker, or parts of the largest, until its memory is full."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("[" if subject(nodeid) in DIVIDED else "::")[0]

        def _assign_work_unit(self, node) -> None:
            full = MEMORY.get(node, 0) >= FULL
            unit = next((u for u in self.workqueue if not full or subject(u) in LIGHT), None)
            if unit is None:
                node.shutdown()  # once it has done what it was given
            else:
                self.workqueue.move_to_end(unit, last=False)
                super()._assign_work_unit(node)

        def _reschedule(self, node) -> None:
            if node in self.registered_collections:  # and not a new one that is still collecting
                super()._reschedule(node)

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error: object | None) -> None:
    """Renews a worker that ended while files are left."""
    session = node.config.pluginmanager.get_plugin("dsession")
    if error is None and session.sched.workqueue and not session.shouldstop and not session.shuttingdown:
        session._clone_node(node)


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
    trainer = Trainer()
    yield trainer
    trainer.close()


def compiled_quickly() -> bool:
    """Whether XLA leaves out what it does for users; see above."""
    return os.environ["XLA_FLAGS"] == QUICK_XLA


def compiled_as_by_users(test: str) -> None:
    """Takes a test, by its id, in a process in which XLA leaves nothing out."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=3",
        "TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-o", "addopts=", test]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and " passed in" in done.stdout, done.stdout


def tiny_config(*flags: str):
    """The tiny configuration, changed by `flags`."""
    return parse([*TINY, *flags])


def train(argv: Sequence[str]) -> int:
    """`main.main(argv)` with the compiled steps of earlier runs of its shape; see above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "SeqGAN", shared_model)
        patch.setitem(program.DATASETS, "LSTM", shared_oracle)
        return program.main(argv)


@pytest.fixture(scope="session")
def knowing(tmp_path_factory) -> Path:
    """A run whose discriminator was trained and measured, and knows something."""
    folder = tmp_path_factory.mktemp("knowing")
    words = [*SIZES, *shlex.split("--vocab_size 4 --oracle_emb_dim 3 --oracle_hidden_dim 4 --pretrain_g_epochs 1")]
    words += shlex.split("--total_epochs 0 --pretrain_d --pretrain_d_epochs 60 --d_lr 0.01 --d_batch_size 64 --no-jit")
    words += ["--d_eval_samples", "500", "--log_dir", str(folder / "run"), "--eval_log_dir", str(folder / "eval")]
    words += ["--oracle_init", "normal"]
    assert train(words) == 0
    return folder / "run"


def shared_model(
    config: Config, vocab_size: int, start_token: int = 0, end_token: int | None = None, *, oracle=None, **sequences
) -> SeqGAN:
    """A `SeqGAN` as these arguments make it, with what was compiled for them before; see above."""
    known = {"oracle": oracle} if config.reward in ("optimal", "log_ratio") else {}
    known |= {"references": sequences["references"]} if config.reward == "bleu" else {}
    known |= {"validation": sequences["validation"]} if config.guides else {}
    model, parts, folder = _model_of(_compiled_from(config), vocab_size, start_token, end_token, **known)
    own = ("config", "objective")
    changed = [name for name, part in vars(model).items() if name not in own and parts.get(name) is not part]
    assert not changed, f"a shared model was changed: {changed}"
    model.config, model.objective = config, sequences.get("objective")
    model.checkpoint().read(f"{folder.name}/first").assert_consumed()
    return model


def shared_oracle(config: Config) -> OracleData:
    """An `OracleData` of these flags, with what was compiled for them before; afresh where it depends on a file."""
    if config.oracle_params:
        return OracleData(config)
    data = _oracle_of(_compiled_from(config))
    data.config = config
    return data


def _compiled_from(config: Config) -> Config:
    """The flags that a step may depend on: all but those known to be of no account."""
    constant = {config.g_pretrain_schedule, config.g_schedule, config.d_schedule} == {"constant"}
    free = (*NOT_COMPILED, *(LENGTHS if constant else ()))  # a rate falls over the length of its phase
    return dataclasses.replace(config, **{name: getattr(Config, name) for name in free})


@functools.cache
def _model_of(*arguments, **known) -> tuple[SeqGAN, dict[str, object], TemporaryDirectory]:
    """A model, its parts, and where it is saved as it was at first."""
    model, folder = SeqGAN(*arguments, **known), TemporaryDirectory()
    model.checkpoint().write(f"{folder.name}/first")
    return model, dict(vars(model)), folder


@functools.cache
def _oracle_of(config: Config) -> OracleData:
    return OracleData(config)


def randomise(network, seed: int, stddev: float = 1.0) -> None:
    """Gives every weight a value from N(0, stddev²), so that the network's distribution is far from uniform."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(rng.normal(0.0, stddev, weight.shape))


def random_generator(vocab_size: int = 4, seq_len: int = 3, seed: int = 0, **sizes) -> Generator:
    """A generator whose distribution is far from uniform."""
    emb_dim, hidden_dim = sizes.pop("emb_dim", 3), sizes.pop("hidden_dim", 5)
    generator = Generator(vocab_size, seq_len, emb_dim, hidden_dim, seed=0, **sizes)
    randomise(generator, seed)
    return generator


def all_sequences(vocab_size: int, seq_len: int, end_token: int | None = None) -> np.ndarray:
    """Every sequence, int32 [n, T], in the order of their numbers in base V + 1; what follows an end is padding, V."""
    rows = np.array(list(itertools.product(range(vocab_size), repeat=seq_len)), np.int32)
    if end_token is None:
        return rows
    ended = np.cumsum(rows == end_token, axis=1) - (rows == end_token) > 0
    return np.unique(np.where(ended, vocab_size, rows), axis=0).astype(np.int32)


def index_of(tokens: np.ndarray, vocab_size: int, end_token: int | None = None) -> np.ndarray:
    """The place of each sequence in `all_sequences`."""
    powers = (vocab_size + 1) ** np.arange(tokens.shape[-1])[::-1]
    numbers, found = all_sequences(vocab_size, tokens.shape[-1], end_token) @ powers, np.asarray(tokens) @ powers
    places = np.searchsorted(numbers, found)
    np.testing.assert_array_equal(numbers[places], found)
    return places


def probabilities(generator: Generator) -> np.ndarray:
    """The exact probability of every sequence, float64 [n]."""
    sequences = all_sequences(generator.vocab_size, generator.seq_len, generator.end_token)
    return np.exp(generator.log_probs(tf.constant(sequences)).numpy().astype(np.float64).sum(axis=1))


def action_values(generator: Generator, scores: np.ndarray) -> np.ndarray:
    """The exact Q(t) of every sequence, [n, T]: the mean score given its first t tokens."""
    sequences = all_sequences(generator.vocab_size, generator.seq_len, generator.end_token)
    probs, values = probabilities(generator), np.empty(sequences.shape)
    for t in range(1, generator.seq_len + 1):
        _, prefix = np.unique(sequences[:, :t], axis=0, return_inverse=True)
        mean = np.bincount(prefix, probs * scores) / np.bincount(prefix, probs)
        values[:, t - 1] = mean[prefix]
    return values
