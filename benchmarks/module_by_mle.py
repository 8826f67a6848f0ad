"""An additive discriminator's module, trained by maximum likelihood: python benchmarks/module_by_mle.py LOGDIR.

The control of guidance: G' ∝ G · exp(s), where s has the form and the size of the run's discriminator but learns from
real data alone, with the generator fixed. Each update needs a softmax over the vocabulary, which a discriminator does
without. The learning rate is the one of the least NLL on the validation set after the given seconds.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf

from additive import AdditiveDiscriminator
from data import Dataset, Due
from evaluation import Evaluated
from guided import GuidedGenerator
from model import SeqGAN, discriminator
from support.errors import UsageError
from support.device import configure_tensorflow
from support.parser import Parser, number
from support.seeds import Purpose, key
from tools.temperatures import data_of


def trainer(guided: GuidedGenerator, optimizer: keras.optimizers.Optimizer, seed: int) -> Callable:
    """The compiled update by tokens, int32 [B, T], and its number, int32 scalar: the NLL before, nats per sequence."""
    module = guided.discriminator

    @tf.function(jit_compile=True, autograph=False)
    def update(tokens: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            contexts = module.contexts(tokens, key(seed, Purpose.DROPOUT, number))
            hidden = guided._joined(guided.policy.states(tokens), contexts).hidden
            rows, ordered = tf.reshape(hidden, [-1, guided.hidden_dim]), tf.reshape(tf.transpose(tokens), [-1])
            loss = -tf.reduce_sum(guided._log_probs_after(rows, ordered, guided.projection())) / tokens.shape[0]
        optimizer.apply(tape.gradient(loss, module.trainable_variables), module.trainable_variables)
        return loss

    return update


def main(argv: Sequence[str] | None = None) -> int:
    """The program: prints a line for each learning rate, then the figures of the best one on the test set."""
    parser = Parser(prog="module_by_mle.py", description=__doc__, allow_abbrev=False)
    positive = number(float, 1e-9, 1e9)
    parser.add_argument("logdir", type=Path, metavar="LOGDIR", help="a run with --discriminator bigram or lstm")
    parser.add_argument("--seconds", type=positive, default=60, help="of training, compilation aside (default: 60)")
    parser.add_argument("--rates", type=positive, nargs="+", default=[0.001, 0.003, 0.01], help="learning rates")
    parser.add_argument("--threads", type=number(int, 0, 1024), default=0, help="(default: as many as cores)")
    arguments = parser.parse_args(argv)
    with parser.failing_in_one_line(arguments.logdir):
        configure_tensorflow(arguments.threads)
        model = SeqGAN.restored(arguments.logdir)
        if not isinstance(model.discriminator, AdditiveDiscriminator):
            raise UsageError(f"{arguments.logdir}: its discriminator is not additive")
        tf.config.experimental.enable_tensor_float_32_execution(model.config.tf32)  # as in its evaluations
        compare(model, data_of(arguments.logdir, model.config), arguments.seconds, arguments.rates)
    return 0


def compare(model: SeqGAN, data: Dataset, seconds: float, rates: Sequence[float]) -> None:
    """Trains with each rate for so many seconds, and prints what comes of it; raises UsageError where nothing can."""
    config, validation = model.config, tf.constant(data.validation())
    if not len(validation):
        raise UsageError(f"{data.origin}: no validation set to choose the learning rate on")
    best: tuple[float, dict[str, tuple[float, float]]] = (np.inf, {})
    for rate in rates:
        module = discriminator(config, data.vocab_size, data.start_token, data.end_token)
        assert isinstance(module, AdditiveDiscriminator)
        guided = GuidedGenerator(model.averaged, module, tf.Variable(1.0, trainable=False))
        optimizer = keras.optimizers.Adam(rate, epsilon=1e-8)
        optimizer.build(module.trainable_variables)
        update, measured = trainer(guided, optimizer, config.seed), Evaluated(config, guided)
        number, spent = 0, 0.0
        while spent < seconds:
            batches = data.mle_batches(config.pretrain_g_epochs + number)
            for batch in batches:
                started = time.perf_counter()
                float(update(batch, tf.constant(number)))
                spent += time.perf_counter() - started if number else 0.0  # the first one compiles
                # To 0 at the end, as the discriminator's rate.
                optimizer.learning_rate.assign(rate * 0.5 * (1 + np.cos(np.pi * min(spent / seconds, 1))))
                number += 1
        mask = tf.reduce_sum(guided.mask(validation))
        nll = float(tf.reduce_sum(measured.nll(validation)) / mask)
        print(f"rate {rate:g}: {number} updates in {spent:.0f} s, NLL on the validation set {nll:.4f} nats per token")
        if nll < best[0]:
            best = nll, data.evaluate(measured, 0, Due(True, False, False))
    if not best[1]:
        raise UsageError("--rates: the NLL of the validation set is no number with any of them")
    before = data.evaluate(model, 0, Due(True, False, False))
    for name in ("nll", "nll_valid", "nll_test", "kl_reverse"):
        if name in before:
            print(f"{name}: {before[name][0]:.4f} of the generator, {best[1][name][0]:.4f} with the module")


if __name__ == "__main__":
    sys.exit(main())
