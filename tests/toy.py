"""A run of hardly a tensor, for `main.main(argv, makers)`: each step changes the only weights by its number."""

import numpy as np
import tensorflow as tf

import main
from data.real import Dataset
from evaluation.evaluator import Evaluator
from evaluation.run import EVALUATORS, Measures
from generator import TokenSpec
from model import PolicyGradientStep


class ToyData(Dataset):
    """No data: batches are the numbers of their epochs."""

    kind, origin, spec = "toy", "--toy", TokenSpec(2, 3)

    def __init__(self, config, *_):
        pass

    def digests(self) -> dict[str, str]:
        return {"toys": "0"}

    def files(self) -> dict[str, str]:
        return {"vocabulary.json": "toy\n"}

    def mle_batches(self, epoch: int) -> tf.Tensor:
        return tf.constant([epoch])

    def real(self, step: int) -> None:
        return None

    valid = np.zeros([0, 3], np.int32)


class ToySeqGAN:
    """Stands for model.SeqGAN; a step depends on its number, its place and all steps before."""

    guidance = pretrained = None

    def __init__(self, config, spec, sources, **given):
        self.weights = tf.Variable([0.1, 0.2, 0.3])
        self.diverges = config.g_lr > 1e37

    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(weights=self.weights)

    pretrained_state = checkpoint

    def _step(self, number, scale: float) -> tf.Tensor:
        self.weights.assign(tf.sin(self.weights * scale + tf.cast(number, tf.float32)))
        return tf.reduce_sum(self.weights)

    def mle_epoch(self, batches, epoch) -> tf.Tensor:
        return self._step(batches[0] + epoch, 1.1)

    def mle_step(self, tokens, epoch, place) -> tf.Tensor:
        return self._step(tokens, 1.2)

    def begin_adversarial(self) -> None:
        self._step(0, 2.1)

    def g_step(self, number) -> PolicyGradientStep:
        loss, rewards = self._step(number, 1.3), tf.reshape(self.weights, [1, 3])
        if self.diverges and number == 1:
            self.weights.assign(self.weights * float("inf"))
        tokens, mask = tf.zeros([1, 3], tf.int32), tf.ones_like(rewards)
        return PolicyGradientStep(loss, tf.reduce_mean(rewards), rewards, tokens, mask)

    def d_step(self, real, number) -> tuple[tf.Tensor, tf.Tensor]:
        return self._step(number, 1.7), self._step(number, 1.9)

    def follow_policy(self, lag: float) -> None:
        self._step(0, 2.3)

    def is_finite(self) -> bool:
        return bool(tf.reduce_all(tf.math.is_finite(self.weights)))


class ToyEvaluator(Evaluator):
    """Tells the weights; and, of `ValidData`, an nll_valid that is least after epoch 6, of the first five after 2."""

    columns = ("nll", "nll_valid", "d_gain")

    def of_policy(self, policy, epoch: int, due) -> dict[str, tuple[float, float]]:
        figures = {"nll": (float(policy.weights[0]), 0.5)}
        if self.data.kind == "valid toy":
            figures["nll_valid"] = (1.5 if epoch == 2 else abs(epoch - 6.0), 0.5)
        return figures

    def of_discriminator(self, discriminator, epoch: int, beside=None) -> dict[str, tuple[float, float]]:
        return {"d_gain": (float(discriminator.weights[1]), 0.5)}


class ValidData(ToyData):
    """Has a validation set."""

    kind = "valid toy"


def makers(valid: bool) -> main.Makers:
    """What makes the parts of a toy run; with `valid` its epoch 6 is the best."""
    EVALUATORS.update({kind: ToyEvaluator for kind in ("toy", "valid toy")})
    measures = lambda config, seqgan: Measures(seqgan, None, seqgan if config.d_eval_samples else None)  # noqa: E731
    return main.Makers(ValidData if valid else ToyData, ToySeqGAN, measures)
