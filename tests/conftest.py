"""What the tests share: a small world in which everything can be enumerated, and the real data where it is present."""

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import itertools
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data import Due
from generator import Generator
from support.config import parse

tf.get_logger().setLevel("ERROR")  # it warns of retracing, which many small models in one process are bound to cause

NOW, END = Due(evaluation=True, samples=False, last=False), Due(evaluation=True, samples=True, last=True)
ROOT = Path(__file__).resolve().parent.parent
SIZES = shlex.split(
    "--seq_len 3 --batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 "
    "--d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8 "
    "--pretrain_g_epochs 4 --pretrain_d_epochs 2 --total_epochs 3 --d_steps 2 --d_epochs 2 --eval_samples 16 "
    "--eval_every 2"
)
TINY = [*SIZES, *shlex.split("--vocab_size 4 --oracle_emb_dim 3 --oracle_hidden_dim 4")]


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function that finds a file of real data by its name, or skips, saying where it would be."""
    folder = Path(os.environ.get("SEQGAN_SHARED_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"no real data: {folder / name} is absent (SEQGAN_SHARED_DATA names another folder)")
        return folder / name

    return find


def tiny_config(*flags: str):
    """The tiny configuration, changed by `flags`."""
    return parse([*TINY, *flags])


def randomise(network, seed: int, stddev: float = 1.0) -> None:
    """Gives every weight a value from N(0, stddev²), so that the network's law is far from uniform."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(rng.normal(0.0, stddev, weight.shape))


def random_generator(vocab_size: int = 4, seq_len: int = 3, seed: int = 0, **sizes) -> Generator:
    """A generator whose law is far from uniform."""
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
