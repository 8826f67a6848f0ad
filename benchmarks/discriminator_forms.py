"""Which discriminator knows most of a run's data: python benchmarks/discriminator_forms.py LOGDIR [--forms FORM ...].

Each form is trained as the run's own discriminator, with the run's flags, against the run's generator as it is. Some
are no part of the program: this table is why.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import keras
import tensorflow as tf

from data import Dataset
from discriminator import PooledDiscriminator
from generator import Policy, run_lstm
from model import SeqGAN, adam, rate
from support.errors import UsageError
from support.device import configure_tensorflow
from support.seeds import Purpose, variable_seed
from tools.plot_curves import markdown
from tools.temperatures import data_of

SCALE = 0.1  # of what a generator finds surprising, nats, beside embeddings that begin within ±0.05


class Surprise(PooledDiscriminator):
    """The pooled discriminator with two more input channels: log G(y_t | y_<t), and the entropy of that prediction."""

    policy: Callable[[], Policy]  # not the policy itself, which Keras would take for a part of this and train

    def embedded(self, tokens: tf.Tensor) -> tf.Tensor:
        """As in `Discriminator`; the last two channels are the policy's, 0 for padding."""
        policy = self.policy()
        log_probs = tf.nn.log_softmax(policy.logits(policy.states(tokens).hidden))  # [T, B, V]
        entropy = tf.transpose(-tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1))
        real = tf.cast(tokens != self.vocab_size, tf.float32)
        channels = SCALE * tf.stop_gradient(tf.stack([policy.log_probs(tokens), entropy * real], axis=-1))
        return tf.concat([super().embedded(tokens)[..., :-2], channels], axis=-1)


class Bidirectional(PooledDiscriminator):
    """Two LSTMs, one of which reads from the end; max and mean over time of both; then as the pooled discriminator."""

    def __init__(self, *arguments: Any, units: int, seed: int, **others: Any):
        """As in `PooledDiscriminator`, without its convolutions."""
        super().__init__(*arguments[:3], (), (), units=units, seed=seed, **others)
        seeds = itertools.starmap(variable_seed, ((seed, Purpose.D_INIT, index) for index in itertools.count(100)))
        self.lstms = tuple(
            keras.layers.LSTMCell(
                units,
                kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
                recurrent_initializer=keras.initializers.Orthogonal(seed=next(seeds)),
            )
            for _ in range(2)
        )
        for lstm in self.lstms:
            lstm.build((None, self.emb_dim))

    def _add_head(self, features: int, seeds: Iterator[int]) -> None:
        super()._add_head(2 * self.units, seeds)

    def features(self, tokens: tf.Tensor) -> tf.Tensor:
        """Max and mean over time of both LSTMs' states: int32 [B, T] → float32 [B, 4 · units]."""
        inputs = tf.transpose(self.embedded(tokens), [1, 0, 2])
        there = run_lstm(self.lstms[0], inputs).hidden
        back = run_lstm(self.lstms[1], inputs[::-1]).hidden[::-1]
        states = tf.concat([there, back], axis=2)  # [T, B, 2 · units]
        return tf.concat([tf.reduce_max(states, axis=0), tf.reduce_mean(states, axis=0)], axis=1)


class Pair(keras.layers.Layer):
    """Two pooled discriminators of other first weights, which learn apart; the mean of their log-odds."""

    def __init__(self, *arguments: Any, seed: int, **others: Any):
        """As in `PooledDiscriminator`."""
        super().__init__()
        self.parts = tuple(PooledDiscriminator(*arguments, seed=seed + i, **others) for i in range(2))
        self.built = True

    def log_odds(self, tokens: tf.Tensor) -> tf.Tensor:
        """As in `Discriminator`."""
        return tf.add_n([part.log_odds(tokens) for part in self.parts]) / 2

    def loss(self, *arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of both losses, and the mean accuracy."""
        losses, accuracies = zip(*(part.loss(*arguments) for part in self.parts), strict=True)
        return tf.add_n(losses), tf.add_n(accuracies) / 2


GAINS = ("d_gain_valid", "d_gain")
FORMS: dict[str, type] = {
    "pooled": PooledDiscriminator,
    "surprise": Surprise,
    "bidirectional": Bidirectional,
    "pair": Pair,
}


def measured(form: str, model: SeqGAN, data: Dataset) -> tuple[str, ...]:
    """Trains a discriminator of this form, and returns the row of the table."""
    config, generator = model.config, model.generator
    another = SeqGAN(config, generator.vocab_size, generator.start_token, generator.end_token)
    another.averaged = model.averaged
    sizes = generator.vocab_size, config.seq_len, config.d_emb_dim + 2 * (form == "surprise")
    others: dict[str, Any] = {"units": config.d_hidden_dim, "dropout_keep_prob": config.dropout_keep_prob}
    others |= {"l2": config.d_l2, "seed": config.seed, "padded": generator.end_token is not None}
    network: Any = FORMS[form](*sizes, config.d_filter_sizes, config.d_num_filters, **others)
    network.policy = lambda: model.averaged
    another.discriminator = network
    another.d_optimizer = adam(rate(config.d_lr, config.d_schedule, config.updates.d), network)
    started = time.perf_counter()
    for step in range(config.pretrain_d_epochs):
        another.d_step(data.real(step), tf.constant(step))
        started = started if step else time.perf_counter()  # the first one compiles
    seconds = (time.perf_counter() - started) * config.pretrain_d_epochs / max(config.pretrain_d_epochs - 1, 1)
    known = SimpleNamespace(sample=model.sample, log_odds=another.log_odds)
    figures = data.evaluate_discriminator(known, 0)
    gains = ("{:.4f} ± {:.4f}".format(*figures[name]) if name in figures else "" for name in GAINS)
    return form, *gains, f"{seconds:.0f}" if config.pretrain_d_epochs > 1 else "not measured"


def main(argv: Sequence[str] | None = None) -> int:
    """The program: prints a table of the forms; the exit status is 2 where the run can't be used."""
    parser = argparse.ArgumentParser(prog="discriminator_forms.py", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "logdir", type=Path, metavar="LOGDIR", help="a run on tunes or text with --discriminator pooled"
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM", help="(default: all)")
    arguments = parser.parse_args(argv)
    try:
        model = SeqGAN.restored(arguments.logdir)
        if model.config.discriminator != "pooled" or model.config.dataset == "LSTM":
            raise UsageError(f"{arguments.logdir}: no run on tunes or text with --discriminator pooled")
        if not model.config.measures_discriminator or not model.config.pretrain_d_epochs:
            raise UsageError(f"{arguments.logdir}: its discriminator was not pretrained, or not measured")
        configure_tensorflow()
        data = data_of(arguments.logdir, model.config)
        rows = [measured(form, model, data) for form in arguments.forms]
    except (UsageError, OSError) as error:
        print(f"discriminator_forms.py: error: {error}", file=sys.stderr)
        return 2
    print(markdown([("form", "d_gain_valid ± standard error", "d_gain ± standard error", "seconds"), *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
