"""The order of training: the phases of a run, their steps, and what an epoch is due for."""

from typing import NamedTuple

from support.config import Config


class Phase(NamedTuple):
    """A loop of Algorithm 1: so many `epochs`, each of so many `steps` by their kind, after `begin` earlier steps."""

    name: str
    epochs: int
    steps: dict[str, int]
    begin: int

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return sum(self.steps.values())

    @property
    def end(self) -> int:
        """Steps of the run when the phase is over."""
        return self.begin + self.epochs * self.per_epoch

    def numbers(self, epoch: int, kind: str) -> range:
        """The numbers, counted from the first step of the run, of an epoch's steps of a kind."""
        kinds = list(self.steps)
        first = self.begin + epoch * self.per_epoch + sum(self.steps[k] for k in kinds[: kinds.index(kind)])
        return range(first, first + self.steps[kind])


class Schedule:
    """The phases of a run: the generator's pretraining, the discriminator's, then both in turn."""

    def __init__(self, config: Config):
        self.config = config
        trained = config.trains_discriminator
        self.pretrain_g = Phase("pretrain_g", config.pretrain_g_epochs, {"mle": 1}, 0)
        self.pretrain_d = Phase("pretrain_d", config.pretrain_d_epochs if trained else 0, {"d": 1}, self.pretrain_g.end)
        steps = {"g": config.g_steps, "mle": config.mle_steps, "d": config.d_steps if trained else 0}
        self.adversarial = Phase("adversarial", config.total_epochs, steps, self.pretrain_d.end)
        self.phases = (self.pretrain_g, self.pretrain_d, self.adversarial)

    def __len__(self) -> int:
        return self.adversarial.end

    def taken_of(self, taken: int) -> dict[str, int]:
        """How many of the first so many steps are of each phase and kind, as "phase kind"."""
        counts = {}
        for phase in self.phases:
            epochs, rest = divmod(min(max(taken - phase.begin, 0), phase.end - phase.begin), max(phase.per_epoch, 1))
            for kind, steps in phase.steps.items():
                counts[f"{phase.name} {kind}"] = epochs * steps + min(max(rest, 0), steps)
                rest -= steps
        return {kind: count for kind, count in counts.items() if count}

    def renews_guide(self, taken: int, copied: bool) -> bool:
        """Whether a run that stops after so many steps chooses η and, if it is a copy, the guided policy anew.

        A copy is the teacher of a round's g-steps, and changes only once d-steps have followed these.
        """
        of_round = (taken - self.adversarial.begin) % max(self.adversarial.per_epoch, 1)
        d_began = of_round > self.adversarial.per_epoch - self.adversarial.steps["d"]
        return self.config.d_steps > 0 and self.pretrain_d.end < taken < len(self) and (d_began or not copied)

    def begins_anew(self, taken: int) -> bool:
        """Whether --g_update fold has put a discriminator in place that no d-step has trained yet."""
        of_round = (taken - self.adversarial.begin) % max(self.adversarial.per_epoch, 1)
        trained = self.config.d_steps and not 0 < of_round <= self.config.g_steps
        return self.config.g_update == "fold" and taken > self.adversarial.begin and not trained

    def ends(self, phase: Phase, epoch: int) -> bool:
        """Whether the epoch is the last of its phase."""
        return epoch == phase.epochs - 1

    def evaluation_due(self, phase: Phase, epoch: int) -> bool:
        """The first and the last epoch of a phase, and every --eval_every-th; of D's pretraining the last alone."""
        if phase is self.pretrain_d:
            return self.ends(phase, epoch)
        return epoch == 0 or self.due(self.config.eval_every, phase, epoch)

    def due(self, every: int, phase: Phase, epoch: int) -> bool:
        """The last epoch of a phase, and each whose number is a multiple of `every`, counted from 1."""
        return self.ends(phase, epoch) or (epoch + 1) % every == 0

    def place(self, taken: int) -> str:
        """The epoch that ended with so many steps, in words."""
        phase = next(phase for phase in self.phases if taken <= phase.end)
        epoch = (taken - phase.begin) // phase.per_epoch
        return f"epoch {epoch:,} of {phase.epochs:,}" + f" of {phase.name}" * (phase is not self.pretrain_g)

    def axis(self, phase: Phase, epoch: int) -> int:
        """The epoch that the curves show: adversarial epochs follow those of the generator's pretraining."""
        return epoch + (self.pretrain_g.epochs if phase is self.adversarial else 0)

    def g_epoch(self, phase: Phase, epoch: int) -> int:
        """The epoch of the generator as it is after an epoch, on the axis of the curves; -1: it is untrained."""
        return self.pretrain_g.epochs - 1 if phase is self.pretrain_d else self.axis(phase, epoch)
