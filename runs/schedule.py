"""The order of training: every step of a run, and what its epochs are due for."""

from collections.abc import Sequence
from typing import NamedTuple

from runs.directories import PRETRAINED
from support.config import Config

PRETRAIN_G, PRETRAIN_D, ADVERSARIAL = "pretrain_g", "pretrain_d", "adversarial"


class Step(NamedTuple):
    """One update in the order of training; a run can be resumed between any two."""

    phase: str
    epoch: int  # within the phase
    kind: str  # mle, d or g
    number: int  # counts the steps of this kind, the mle-steps of adversarial epochs from 0 again
    last: bool  # of its epoch
    policy_done: bool = False  # the last of an adversarial epoch that changes the policy

    def __str__(self) -> str:
        return f"{self.phase} epoch {self.epoch}, {self.kind}-step {self.number}"


class Schedule(Sequence[Step]):
    """All steps of a run: MLE pretraining, discriminator pretraining, then g-steps, mle-steps and d-steps in turn."""

    def __init__(self, config: Config):
        """Works the steps out when they are asked for: a long run has millions."""
        self.config = config
        self.epochs = {PRETRAIN_G: config.pretrain_g_epochs, PRETRAIN_D: config.pretrain_d_epochs}
        self.epochs[ADVERSARIAL] = config.total_epochs
        # Without an adversarial phase a discriminator is of no use, unless it guides or chooses.
        trained = (config.total_epochs or config.guides or config.pretrain_d) and config.trains_discriminator
        self.pretraining = config.pretrain_g_epochs + (config.pretrain_d_epochs if trained else 0)
        self.policy_steps = config.g_steps + config.mle_steps  # of an adversarial epoch
        self.per_epoch = self.policy_steps + (config.d_steps if trained else 0)

    def __len__(self) -> int:
        return self.pretraining + self.config.total_epochs * self.per_epoch

    def __getitem__(self, i: int) -> Step:  # type: ignore[override]  # no slices
        if not 0 <= i < len(self):
            raise IndexError(i)
        config, pretrain_g = self.config, self.config.pretrain_g_epochs
        if i < pretrain_g:
            return Step(PRETRAIN_G, i, "mle", i, True)
        if i < self.pretraining:
            return Step(PRETRAIN_D, i - pretrain_g, "d", i - pretrain_g, True)
        epoch, turn = divmod(i - self.pretraining, self.per_epoch)
        last, policy_done = turn == self.per_epoch - 1, turn == self.policy_steps - 1
        if turn < config.g_steps:
            return Step(ADVERSARIAL, epoch, "g", epoch * config.g_steps + turn, last, policy_done)
        if turn < self.policy_steps:
            return Step(ADVERSARIAL, epoch, "mle", epoch * config.mle_steps + turn - config.g_steps, last, policy_done)
        number = config.pretrain_d_epochs + epoch * config.d_steps + turn - self.policy_steps
        return Step(ADVERSARIAL, epoch, "d", number, last)

    def kinds(self, taken: int) -> dict[str, int]:
        """How many of the first so many steps are of each phase and kind, as "phase kind"."""
        pretrained, more = min(taken, self.config.pretrain_g_epochs), max(taken - self.pretraining, 0)
        counts = {f"{PRETRAIN_G} mle": pretrained, f"{PRETRAIN_D} d": min(taken, self.pretraining) - pretrained}
        epochs, turns = divmod(more, self.per_epoch)
        ends = {"g": self.config.g_steps, "mle": self.policy_steps, "d": self.per_epoch}
        first = 0
        for kind, end in ends.items():
            counts[f"{ADVERSARIAL} {kind}"] = epochs * (end - first) + min(max(turns - first, 0), end - first)
            first = end
        return {kind: count for kind, count in counts.items() if count}

    @property
    def all_epochs(self) -> int:
        """Epochs of all phases: rows of the training log."""
        return self.pretraining + self.config.total_epochs

    def ends_phase(self, step: Step) -> bool:
        """Whether the step's epoch is the last of its phase."""
        return step.epoch == self.epochs[step.phase] - 1

    def evaluation_due(self, step: Step) -> bool:
        """The first and the last epoch of a phase, and every --eval_every-th; of D's pretraining the last alone."""
        if step.phase == PRETRAIN_D:
            return self.ends_phase(step)
        return step.epoch == 0 or self.ends_phase(step) or (step.epoch + 1) % self.config.eval_every == 0

    def samples_due(self, step: Step) -> bool:
        """The last epoch of a phase, and every --sample_every-th."""
        return self.ends_phase(step) or (step.epoch + 1) % self.config.sample_every == 0

    def checkpoint_due(self, step: Step) -> bool:
        """Every --checkpoint_every-th epoch of a phase; the end of a phase, which always has one, is not meant here."""
        return not self.ends_phase(step) and (step.epoch + 1) % self.config.checkpoint_every == 0

    def reference_due(self, step: Step) -> bool:
        """With --kl_weight, the first adversarial step and, with --reference_every K, that of each K-th epoch after."""
        config = self.config
        if not config.kl_weight or step.kind != "g" or step.number % config.g_steps:
            return False
        return step.epoch == 0 or (config.reference_every > 0 and step.epoch % config.reference_every == 0)

    def axis(self, step: Step) -> int:
        """The epoch that the curves show: adversarial epochs follow those of pretraining."""
        return step.epoch + (self.config.pretrain_g_epochs if step.phase == ADVERSARIAL else 0)

    def g_epoch(self, step: Step) -> int:
        """The epoch of the generator as it is after the step, on the axis of the curves; -1: it is untrained."""
        return self.config.pretrain_g_epochs - 1 if step.phase == PRETRAIN_D else self.axis(step)

    def marks(self, taken: int) -> dict[str, int]:
        """The checkpoints to keep for good once so many steps were taken, {name: steps taken then}."""
        pretrained = self.config.pretrain_g_epochs
        return {PRETRAINED: pretrained} if 0 < pretrained <= taken else {}
