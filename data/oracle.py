"""The synthetic experiment's real data: samples of an oracle."""

import functools

import numpy as np
import tensorflow as tf

from data import checksum
from data.real import Dataset
from data.training_set import TrainingData
from generator import SAMPLE_ROWS, TokenSpec, sample_many
from oracle import Oracle
from support.config import Config
from support.seeds import Purpose, key, uniforms
from support.statistics import mean_and_error

ENTROPY_SAMPLES = 1024


class OracleData(Dataset):
    """Samples of an oracle: fresh ones in each epoch, or with --train_size a fixed set."""

    kind = "oracle"

    def __init__(self, config: Config):
        """Makes the oracle of the flags and draws the training set; raises UsageError: --oracle_params is unusable."""
        self.config = config
        if config.oracle_params:
            self.oracle: Oracle = Oracle.from_npz(config.oracle_params, config.seq_len)
            self.origin = f"--oracle_params {config.oracle_params}"
        else:
            sizes = (config.vocab_size, config.seq_len, config.oracle_emb_dim, config.oracle_hidden_dim)
            self.oracle = Oracle(*sizes, seed=config.oracle_seed, init=config.oracle_init)
            self.origin = f"--oracle_seed {config.oracle_seed}"
        self.spec = TokenSpec(self.oracle.vocab_size, config.seq_len)

        def entropies(rows: int, seed: tf.Tensor) -> tf.Tensor:
            return self.oracle.sample_and_compare(uniforms([config.seq_len, rows], seed))[1] / config.seq_len

        compiled = functools.partial(tf.function, jit_compile=config.jit, autograph=False)
        self.log_probs, self._entropies = compiled(self.oracle.log_probs), compiled(entropies)
        self._draw = compiled(lambda rows, seed: self.oracle.sample(uniforms([config.seq_len, rows], seed)))
        self._draw_many = compiled(functools.partial(sample_many, self.oracle))
        if config.train_size:
            self.training = TrainingData(self.sample(config.train_size, Purpose.TRAIN_SET), config)
        # Mean and standard error, nats per token, from the same sequences in every run.
        chunks = range(ENTROPY_SAMPLES // SAMPLE_ROWS)
        parts = [self._entropies(SAMPLE_ROWS, key(0, Purpose.ORACLE_ENTROPY, chunk)).numpy() for chunk in chunks]
        self.entropy = mean_and_error(np.concatenate(parts))

    def sample(self, size: int, purpose: Purpose) -> np.ndarray:
        """`size` sequences drawn for `purpose`, int32 [size, T]."""
        chunks = range(-(-size // SAMPLE_ROWS))
        parts = [self._draw(SAMPLE_ROWS, key(self.config.seed, purpose, chunk)).numpy() for chunk in chunks]
        return np.concatenate(parts)[:size]

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """As in `Dataset`: n = 1 unless there is a training set."""
        if self.config.train_size:
            return super().mle_batches(epoch)
        return self._draw(self.config.batch_size, key(self.config.seed, Purpose.MLE_BATCH, epoch))[None]

    def real(self, step: int) -> tf.Tensor:
        """As in `Dataset`."""
        if self.config.train_size:
            return super().real(step)
        seed, size = key(self.config.seed, Purpose.D_REAL, step), self.config.d_draws
        return self._draw_many(size, seed) if size else self._draw(self.config.d_batch_size // 2, seed)

    @functools.cached_property
    def valid(self) -> np.ndarray:  # type: ignore[override]
        """As many sequences as an estimate of the entropy takes, int32 [n, T]; always the same ones."""
        return self.sample(ENTROPY_SAMPLES, Purpose.VALIDATION)

    def digests(self) -> dict[str, str]:
        """The checksum of the weights that --oracle_params names; random ones follow from the flags."""
        return {"the oracle's weights": checksum(self.oracle.get_weights())} if self.config.oracle_params else {}

    def introduction(self) -> str:
        """The line a run begins with."""
        sizes = f"{self.spec.vocab_size} tokens, sequences of {self.spec.seq_len}"
        entropy, error = self.entropy
        return f"oracle: {sizes}; entropy {entropy:.3f} ± {error:.3f} nats per token: the floor of nll_test"
