"""What the tests share: a small world in which everything can be enumerated, and the real data where it is present."""

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import itertools
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from generator import Generator
from support.config import parse

tf.get_logger().setLevel("ERROR")  # it warns of retracing, which many small models in one process are bound to cause

ROOT = Path(__file__).resolve().parent.parent
TINY = shlex.split(
    "--vocab_size 4 --seq_len 3 --batch_size 4 --g_emb_dim 3 --g_hidden_dim 5 --rollout_num 2 --d_emb_dim 3 "
    "--d_filter_sizes 1 3 --d_num_filters 4 3 --d_batch_size 8 --oracle_emb_dim 3 --oracle_hidden_dim 4 "
    "--pretrain_g_epochs 4 --pretrain_d_epochs 2 --total_epochs 3 --d_steps 2 --d_epochs 2 --eval_samples 16 "
    "--eval_every 2"
)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data, or a skip that says where it would be."""
    folder = Path(os.environ.get("SEQGAN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (SEQGAN_SHARED_DATA names another place)")
    return folder


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
    generator = Generator(vocab_size, seq_len, sizes.get("emb_dim", 3), sizes.get("hidden_dim", 5), seed=0)
    randomise(generator, seed)
    return generator


def all_sequences(vocab_size: int, seq_len: int) -> np.ndarray:
    """Every sequence, int32 [V^T, T], in the order of their numbers in base V."""
    return np.array(list(itertools.product(range(vocab_size), repeat=seq_len)), np.int32)


def index_of(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """The place of each sequence in `all_sequences`."""
    return np.asarray(tokens) @ (vocab_size ** np.arange(tokens.shape[-1])[::-1])


def probabilities(generator: Generator) -> np.ndarray:
    """The exact probability of every sequence, float64 [V^T]."""
    sequences = all_sequences(generator.vocab_size, generator.seq_len)
    return np.exp(generator.log_probs(tf.constant(sequences)).numpy().astype(np.float64).sum(axis=1))


def action_values(generator: Generator, scores: np.ndarray) -> np.ndarray:
    """The exact Q(t) of every sequence, [V^T, T]: the mean score given its first t tokens."""
    probs, vocab_size, seq_len = probabilities(generator), generator.vocab_size, generator.seq_len
    values = np.empty([len(probs), seq_len])
    for t in range(1, seq_len + 1):
        groups = probs.reshape(vocab_size**t, -1), scores.reshape(vocab_size**t, -1)
        mean = (groups[0] * groups[1]).sum(axis=1) / groups[0].sum(axis=1)
        values[:, t - 1] = mean.repeat(vocab_size ** (seq_len - t))
    return values
