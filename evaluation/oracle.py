"""What is measured where the truth is known: likelihoods, entropies and divergences against the oracle."""

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.discriminator import MeasuredDiscriminator, balanced_accuracy, resampled, what_d_knows
from evaluation.evaluator import Due, Evaluator, nats
from evaluation.metrics import D_FIGURES
from evaluation.ngrams import distinct
from evaluation.policy import COMPARED, MeasuredPolicy
from guidance.choosing import GROUPS, Groups
from runs.logs import RunLog
from support.seeds import Purpose
from support.statistics import Figures, mean_and_error


class OracleEvaluator(Evaluator):
    """Measures against an oracle, whose density is known."""

    generator_figures = ("nll", "nll_test", "g_entropy", "oracle_entropy", "kl_forward", "kl_reverse", "distinct2")

    @property
    def columns(self) -> tuple[str, ...]:
        """As in `Evaluator`."""
        return (*self.generator_figures, *(metric.name for metric in self._own), *D_FIGURES, "d_optimal_acc")

    def of_policy(self, policy: MeasuredPolicy, epoch: int, due: Due) -> Figures:
        """(value, standard error) over --eval_samples sequences; `epoch` picks them, and `due` changes nothing.

        They are `oracle_entropy` as estimated at the start, `distinct2` and those of COMPARED; KL(oracle ‖ G) and
        KL(G ‖ oracle) are differences along the same sequences, so their errors are small.
        """
        *found, generated = policy.compare_with(self.data.oracle, self.config.eval_samples, epoch)
        figures = {name: mean_and_error(values) for name, values in zip(COMPARED, found, strict=True)}
        return figures | {"oracle_entropy": self.data.entropy} | self.compare(generated)

    def compare(self, rows: np.ndarray) -> Figures:
        """`distinct2` and metrics of one's own of sequences, int32 [n, T]."""
        return {"distinct2": distinct(rows)} | super().compare(rows)

    @cached_property
    def _unseen(self) -> np.ndarray:
        return self.data.sample(2 * self.config.d_eval_samples, Purpose.D_TEST_REAL)

    def of_discriminator(self, discriminator: MeasuredDiscriminator, epoch: int, own: Figures | None = None) -> Figures:
        """What a discriminator knows of two times --d_eval_samples sequences of the oracle, always the same ones.

        The first half stands for the validation set, the other for the test set. Beside the figures of `Evaluator`
        there is `d_optimal_acc`: the accuracy, on the same sequences, of the optimal discriminator, D* = p / (p + G).
        """
        choosing, measuring = np.split(self._unseen, 2)
        candidates = self.config.candidates if own else 0
        known = what_d_knows(discriminator, choosing, measuring, epoch, self.data.spec.vocab_size, candidates)
        sequences = np.concatenate([measuring, known.fakes, known.pool])
        optimal = discriminator.optimal_log_odds(self.data.oracle, tf.constant(sequences)).numpy()  # log p - log G
        real, fake, of_pool = np.split(optimal, [len(measuring), 2 * len(measuring)])
        figures = {"d_optimal_acc": balanced_accuracy(real, fake)}
        if known.groups and own:
            figures |= resampled(own, self._changes(discriminator.policy, known.groups, known.pool, of_pool))
        return known.on_test(own or {}) | figures

    def choose_optimally(self, discriminator: MeasuredDiscriminator, epoch: int, own: Figures, count: int) -> Figures:
        """What would come of keeping one of `count` samples by D*, with η = 1: the figures of `resampled`."""
        real = self.data.sample(max(self.config.d_eval_samples, 2), Purpose.D_TEST_REAL)
        policy = discriminator.policy
        pool = policy.sample(GROUPS * count, Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
        optimal = discriminator.optimal_log_odds(self.data.oracle, tf.constant(np.concatenate([real, pool]))).numpy()
        groups = Groups(optimal[len(real) :].reshape(GROUPS, count))
        gain, error = groups.gain(optimal[: len(real)], np.full(len(real), self.data.spec.seq_len))
        changes = dict.fromkeys(("nll_test", "kl_forward"), (-gain, error))
        return resampled(own, changes | self._changes(policy, groups, pool, optimal[len(real) :]))

    def _changes(self, policy: MeasuredPolicy, groups: Groups, pool: np.ndarray, log_ratios: np.ndarray) -> Figures:
        """By how much choosing changes NLL_oracle, entropy and KL(G ‖ oracle), by a pool and its log p - log G."""
        own = nats(policy, pool)
        values = {"nll": (own - log_ratios, 0.0), "g_entropy": (own, -1.0), "kl_reverse": (-log_ratios, 1.0)}
        shape, length = groups.log_weights.shape, self.data.spec.seq_len
        changes = {name: groups.change(f.reshape(shape), slope) for name, (f, slope) in values.items()}
        return {name: (change / length, error / length) for name, (change, error) in changes.items()}

    def show(self, policy: MeasuredPolicy, epoch: int, due: Due, log: RunLog) -> None:
        """With --log_generation, at evaluations: the oracle's likelihoods of a generated and a real batch."""
        if self.config.log_generation and due.evaluation:
            generated = policy.sample(self.config.batch_size, Purpose.IMAGES, tf.constant(epoch))
            batches = {"generated": generated, "real": self.data.mle_batches(epoch)[0]}
            log_probs = {name: self.data.log_probs(tokens).numpy() for name, tokens in batches.items()}
            log.image(epoch, "samples/likelihoods", likelihoods(log_probs, self.data.spec.vocab_size))


def likelihoods(batches: Mapping[str, np.ndarray], vocab_size: int) -> np.ndarray:
    """Draws batches beside each other, a row a sequence, each token in the colour of its log-probability, on one scale.

    `batches`: {title: log-probabilities [B, T], nats}. Returns uint8 [height, width, 3], red, green and blue.
    """
    uniform = -math.log(vocab_size)
    figure = Figure(figsize=(4 * len(batches) + 1.5, 5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(batches), squeeze=False)[0]
    for panel, (title, log_probs) in zip(panels, batches.items(), strict=True):
        image = panel.imshow(log_probs, cmap="viridis", vmin=3 * uniform, vmax=0, aspect="auto", interpolation="none")
        panel.set(title=f"{title}: {-log_probs.mean():.2f} nats per token", xlabel="place in the sequence")
        panel.set_xticks([0, log_probs.shape[1] - 1], ["1", str(log_probs.shape[1])])
        panel.set_yticks([])
    legend = figure.colorbar(image, ax=panels, label="log-probability of the token under the oracle, nats")
    legend.ax.axhline(uniform, color="white")
    legend.ax.text(0.5, uniform, "uniform", color="white", ha="center", va="bottom", fontsize="small")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
