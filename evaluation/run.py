"""What is measured of a run: its policy, the guided one, the discriminator, an objective."""

import math
from typing import Any, NamedTuple

import numpy as np

from data.real import Dataset
from data.training_set import spread
from evaluation.discriminator import MeasuredDiscriminator
from evaluation.evaluator import Due, Evaluator
from evaluation.metrics import column, guided_columns, parse, resampled_columns
from evaluation.oracle import OracleEvaluator
from evaluation.policy import MeasuredPolicy
from evaluation.text import TextEvaluator
from evaluation.tunes import TuneEvaluator
from generator import Policy
from guidance.guided import Guidance
from runs.logs import RunLog
from runs.schedule import Phase, Schedule
from support.config import Config
from support.objective import Objective
from support.statistics import Figures, mean_and_error

EVALUATORS = {"oracle": OracleEvaluator, "text": TextEvaluator, "music": TuneEvaluator}  # by kind of data


def evaluator_of(data: Dataset, config: Config) -> Evaluator:
    """What measures on a data set, by its kind."""
    return EVALUATORS.get(data.kind, Evaluator)(data, config)


class Measures(NamedTuple):
    """A run's networks as evaluation sees them: the policy and, where there are any, the others."""

    policy: MeasuredPolicy
    guided: MeasuredPolicy | None
    discriminator: MeasuredDiscriminator | None
    teacher: MeasuredPolicy | None = None  # of --g_update distil


def measures_of(config: Config, seqgan: Any) -> Measures:
    """What is measured of the networks of a `model.SeqGAN`, by the flags."""
    policy = MeasuredPolicy(seqgan.policy, config.seed, config.jit)
    guided = MeasuredPolicy(seqgan.guidance.guided, config.seed, config.jit) if seqgan.guidance else None
    discriminator = None if seqgan.discriminator is None else MeasuredDiscriminator(seqgan.discriminator, policy)
    teacher = seqgan.teacher and (guided or MeasuredPolicy(seqgan.teacher, config.seed, config.jit))
    return Measures(policy, guided, discriminator, teacher)


class Evaluation:
    """Measures a run's networks, which it follows and leaves as they are."""

    def __init__(
        self,
        evaluator: Evaluator,
        measures: Measures,
        *,
        guidance: Guidance | None = None,
        objective: Objective | None = None,
        pretrained: Policy | None = None,
    ):
        """`guidance` has η of the guided policy; `pretrained` is G₀, which `kl_to_pretrained` is from."""
        self.evaluator, self.guidance, self.objective, self.pretrained = evaluator, guidance, objective, pretrained
        self.policy, self.guided, discriminator, self.teacher = measures
        self.discriminator = discriminator if evaluator.config.d_eval_samples else None
        self._of_real: Figures = {}
        if objective and len(real := spread(evaluator.data.valid, evaluator.config.eval_samples)):
            self._of_real = {column("objective", "real"): mean_and_error(objective.score(real))}

    @property
    def columns(self) -> tuple[str, ...]:
        """All figures that `measure` may return; raises KeyError: METRICS lacks one."""
        columns = own = self.evaluator.columns
        columns += ("objective", column("objective", "real"), "kl_to_pretrained") if self.objective else ()
        columns += guided_columns(columns) if self.guided else ()
        columns += resampled_columns(own) if self.discriminator and self.evaluator.config.candidates else ()
        columns += ("kl_of_teacher",) if self.teacher else ()
        for name in columns:
            parse(name)
        return columns

    def measure(
        self, epoch: int, due: Due, of_policy: bool = True, of_discriminator: bool = True, since_pretrained: bool = True
    ) -> Figures:
        """The figures of the networks, {name: (value, standard error)}; `epoch` picks random numbers.

        `of_policy` False leaves out the policy's own, as where it has not changed; `of_discriminator` False those of a
        discriminator that is not trained yet, and of what it guides; `since_pretrained` False the divergence from G₀.
        """
        evaluator, discriminator = self.evaluator, self.discriminator if of_discriminator else None
        figures: Figures = {}
        if of_policy:
            figures = self._of(self.policy, epoch, due, since_pretrained)
        elif discriminator and evaluator.config.candidates:
            figures = evaluator.of_policy(self.policy, epoch, Due(True, False, False))  # what candidates begin from
        if discriminator:
            known = evaluator.of_discriminator(discriminator, epoch, figures)
            figures = figures | known if of_policy else known
        if self.guided and self.guidance and of_discriminator:
            figures["guide_eta"] = float(self.guidance.eta.numpy()), math.nan
            of_guided = self._of(self.guided, epoch, due, since_pretrained)
            own = guided_columns(of_guided)
            figures |= {f"{name}_guided": pair for name, pair in of_guided.items() if f"{name}_guided" in own}
        if self.teacher and (of_discriminator or not self.guided):
            _, nats = self.teacher.divergence(self.policy.policy, evaluator.config.eval_samples, epoch)
            figures["kl_of_teacher"] = mean_and_error(nats)
        return figures

    def after_epoch(self, schedule: Schedule, phase: Phase, epoch: int, taken: int, log: RunLog) -> Figures | None:
        """The figures after an epoch of a phase, `taken` steps into the run; shows samples where they are due.

        {} with --no-evaluate; None where no evaluation is due. `log` is where samples are shown.
        """
        at, config = (phase, epoch), self.evaluator.config
        due = Due(schedule.evaluation_due(*at), schedule.due(config.sample_every, *at), schedule.ends(*at))
        figures: Figures | None = {} if due.evaluation else None
        if due.evaluation and config.evaluate:
            # D's pretraining leaves the generator as it is: measured once more where D's figures are the last ones.
            again = phase is not schedule.pretrain_d or self.guided is not None or not config.total_epochs
            of_d = phase is not schedule.pretrain_g and not schedule.begins_anew(taken)
            figures = self.measure(schedule.g_epoch(*at), due, again, of_d, phase is schedule.adversarial)
        if phase is not schedule.pretrain_d:
            self.evaluator.show(self.policy, schedule.axis(*at), due, log)
        return figures

    def after_steps(self, schedule: Schedule, taken: int) -> Figures:
        """All figures of the networks of a run's checkpoint, `taken` steps into it."""
        trained = taken > schedule.pretrain_g.end and (not self.guidance or taken >= schedule.pretrain_d.end)
        of_d, moved = trained and not schedule.begins_anew(taken), taken > schedule.pretrain_d.end
        return self.measure(0, Due(True, True, True), of_discriminator=of_d, since_pretrained=moved)

    def _of(self, policy: MeasuredPolicy, epoch: int, due: Due, since_pretrained: bool) -> Figures:
        """The figures of a policy, and of an objective along the same samples; raises UsageError: that fails."""
        with np.errstate(all="ignore"):
            figures = self.evaluator.of_policy(policy, epoch, due)
        if self.objective:
            tokens, nats = policy.divergence(self.pretrained, self.evaluator.config.eval_samples, epoch)
            figures["objective"] = mean_and_error(self.objective.score(tokens))
            figures |= {"kl_to_pretrained": mean_and_error(nats)} if since_pretrained else {}
        return figures | self._of_real
