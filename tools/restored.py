"""A run as a checkpoint has it: its networks and its data, for tools."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from data.music.folder import tune_files
from data.real import Dataset, read_data
from data.text import SPLITS, WORDS, Vocabulary
from discriminator import Discriminator
from generator import Averaged, Policy, TokenSpec
from model import SeqGAN, build
from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, lost_weights
from runs.schedule import Schedule
from support.config import FIELDS, LEAST_DRAWS, VOCABULARY, Config, own_names
from support.config_file import CONFIG, PUBLISHED, from_flags, read_config, read_same
from support.errors import NoGain, UsageError
from support.own_code import is_own
from support.statistics import Figures

HOW = "main.py --pretrain_d_epochs N trains and measures one where no adversarial phase does"


def replaces(output: Path | None, read: Path) -> bool:
    """Whether an output would replace a file that is read, or a tune in a folder that is read."""
    if not output or not output.exists():
        return False
    return any(output.samefile(path) for path in (tune_files([read], None) if read.is_dir() else [read]))


class Restored(NamedTuple):
    """The networks of a run after `taken` steps; `recorded` is the newest evaluation until then."""

    logdir: Path
    config: Config
    content: dict[str, Any]  # of config.json
    seqgan: SeqGAN
    taken: int
    recorded: Figures

    def as_in_its_evaluations(self) -> None:
        """Makes matrix products of what follows as precise as those of the run's evaluations."""
        tf.config.experimental.enable_tensor_float_32_execution(not self.config.deterministic)

    def data(self) -> Dataset:
        """The data of the run. Raises UsageError: they are not what they were. Raises OSError: one can't be read."""
        data = read_data(self.config, self.content["data"])
        kept = all((self.logdir / name).read_bytes() == text.encode() for name, text in data.files().items())
        if not kept or not read_same(self.content, data.digests(), self.config):
            raise UsageError(f"{self.logdir}: the run has read other data than {data.origin} has now")
        return data

    def vocabulary(self) -> Vocabulary:
        """The vocabulary of a run on text. Raises UsageError: it is another. Raises OSError: it can't be read."""
        path = self.logdir / VOCABULARY
        found = Vocabulary.read(path)
        recorded = self.content["data"].get(WORDS, found.digest())
        if (found.size, found.digest()) != (self.seqgan.policy.vocab_size, recorded):
            raise UsageError(f"{path}: not this run's vocabulary")
        return found

    def spare(self, outputs: Sequence[Path | None], read: Sequence[Path] = ()) -> None:
        """Raises UsageError: an output would replace a file of `read`, or one that the run has read."""
        data, config = Path(self.config.data_dir), self.config
        of_data = [data, *(data / name for name in (VOCABULARY, *(f"{split}.txt" for split in SPLITS)))]
        code = [Path(name.rpartition(":")[0]) for name in own_names(config).values()]
        files = filter(Path.is_file, [*of_data, Path(config.oracle_params), *code, *read])
        for path in [*files, *([data] if data.is_dir() else [])]:
            if found := [output for output in outputs if replaces(output, path)]:
                raise UsageError(f"{found[0]}: is read")

    def trained(self) -> bool:
        """Whether the discriminator was trained by then; one that --g_update fold has just put in place was not."""
        schedule = Schedule(self.config)
        steps = any(name.endswith(" d") for name in schedule.taken_of(self.taken))
        return steps and not schedule.begins_anew(self.taken)

    def guided(self) -> bool:
        """Whether a discriminator guides the policy, whose pretraining has ended: η is chosen then."""
        chosen = self.taken >= Schedule(self.config).pretrain_d.end
        return self.seqgan.guidance is not None and self.trained() and chosen

    def policy(self, guide: bool = False) -> Policy:
        """The run's policy or the one that its discriminator guides; raises UsageError: there is none, or none yet."""
        if not guide:
            return self.seqgan.policy
        if not self.seqgan.guidance:
            raise UsageError("--guide: the run's discriminator is not an additive one, such as bigram or lstm")
        if not self.guided():
            raise UsageError("--guide: at this checkpoint the discriminator is not trained yet")
        return self.seqgan.guidance.guided

    def teaches(self) -> Policy:
        """What --teacher learns from: the policy, guided where its discriminator was trained against it as it is.

        A student is not guided, nor is what a policy gradient has moved since. Raises UsageError: D is not trained yet.
        """
        config, phase = self.config, Schedule(self.config).adversarial
        of_round = (self.taken - phase.begin) % max(phase.per_epoch, 1)
        if self.seqgan.guidance and config.g_update != "distil" and self.taken < phase.begin:
            raise UsageError(f"{self.logdir}: its discriminator is not trained yet")
        # A discriminator of the adversarial phase is trained against the generator, not against its average.
        trained = config.d_steps and not config.average and not 0 < of_round <= config.g_steps + config.mle_steps
        moved = self.taken > phase.begin and not trained
        learns = config.g_update in ("sampled", "expected")
        return self.policy(guide=self.guided() and config.g_update != "distil" and not (learns and moved))

    def chooser(self, flag: str, gain: bool = True) -> Discriminator:
        """The discriminator, which was found to have a gain by the newest evaluation, if that is asked for.

        Raises NoGain: there is none, it is not trained, its gain was not measured, or is at most two standard errors.
        """
        plain = f"without {flag} plain samples are drawn"
        if self.seqgan.discriminator is None:
            raise NoGain(f"{flag}: {self.logdir} has no discriminator; {plain}")
        if not self.trained():
            why = f"at this checkpoint of {self.logdir} the discriminator is not trained"
            raise NoGain(f"{flag}: {why}; {plain}; {HOW}")
        name = "d_gain_valid"  # nothing is chosen on the test set
        if gain and name not in self.recorded:
            why = f"no evaluation of {self.logdir} up to this checkpoint has {name}, which takes {2 * LEAST_DRAWS}"
            raise NoGain(f"{flag}: {why} validation sequences; {plain}; {HOW}")
        if gain and not self.recorded[name][0] > 2 * self.recorded[name][1]:
            why = "has no gain beyond its error, {} {:.4f} ± {:.4f}".format(name, *self.recorded[name])
            raise NoGain(f"{flag}: the discriminator of {self.logdir} {why}; {plain}")
        return self.seqgan.discriminator


def drawn_from(seqgan: SeqGAN) -> tf.train.Checkpoint:
    """The part of a run's state that its samples depend on: the generator, or its average, and what guides it."""
    state = {"discriminator": seqgan.discriminator} | (seqgan.guidance.state() if seqgan.guidance else {})
    state |= {"averaged": seqgan.average} if seqgan.average else {"generator": seqgan.generator}
    return tf.train.Checkpoint(**{name: part for name, part in state.items() if part is not None})


def teacher_of(
    config: Config, spec: TokenSpec, digests: dict[str, str], recorded: dict[str, Any]
) -> tuple[Policy | None, dict[str, Any]]:
    """The policy that --teacher names, None where it names none; and what config.json has on record of it.

    Of several runs it is the average of what each of them `teaches`. The run that learns from it has the flags
    `config`, tokens `spec`, data with the checksums `digests`, and maybe a config.json, `recorded`. An
    unfinished one is warned of. Raises UsageError: a directory holds no run, one of other tokens, data or sizes, or
    another than is on record. Raises OSError: it can't be read.
    """
    if not config.teacher:
        return None, {}
    policies: list[Policy] = []
    record: list[dict[str, Any]] = []
    names = [] if is_own(config.dataset) else ["dataset"]  # its code is among the checksums, as weights of a file are
    drawn = config.dataset == "LSTM" and not config.oracle_params
    names += [name for name in FIELDS if name.startswith("oracle") and drawn]
    for logdir in config.teacher:
        try:
            found = restore(Path(logdir))
            policy = found.teaches()
        except UsageError as error:
            raise UsageError(f"--teacher {error}") from None
        own = TokenSpec(policy.vocab_size, policy.seq_len, policy.start_token, policy.end_token)
        differing = [f"--{name}" for name in names if getattr(found.config, name) != getattr(config, name)]
        differing += ["tokens"] * (own != spec) + ["data"] * (not read_same(found.content, digests, config))
        if differing:
            raise UsageError(f"--teacher {logdir}: that run has other {differing[0]}")
        if found.taken < (steps := len(Schedule(found.config))):
            print(f"warning: --teacher {logdir}: unfinished, after {found.taken} of {steps} steps", file=sys.stderr)
        policies.append(policy)
        record.append({"run": found.content["run"], "steps": found.taken})
    if recorded.get("teacher", record) != record:
        raise UsageError("--teacher: the run in --log_dir learns from another run, or another checkpoint of it")
    if len({tuple(part.shape[1] for part in each.first_state(1)) for each in policies}) > 1:
        raise UsageError("--teacher: the average needs runs of one size")
    return Averaged(policies) if len(policies) > 1 else policies[0], {"teacher": record}


def restore(logdir: Path, which: str | int = "newest") -> Restored:
    """The run in a --log_dir as one of its checkpoints has it; the run may be under way.

    `which` is the `newest` good checkpoint, a marked one (`best`, of least NLL on the validation set, or just
    `pretrained`), or that after so many steps. Raises UsageError: the directory holds no run, no good checkpoint, or a
    run of another version. Raises OSError: it can't be read.
    """
    path = logdir / CONFIG
    if not path.is_file():
        raise UsageError(f"{logdir}: no run (there is no {CONFIG})")
    try:
        content = read_config(path, published=True)
        try:
            config = from_flags(content["flags"])
            spec = TokenSpec(**{"seq_len": config.seq_len} | content["tokens"])
            seqgan = build(config, spec, {flag: content[flag] for flag in content.keys() & {"reward", "discriminator"}})
        except (KeyError, TypeError, ValueError) as error:  # a UsageError is one
            raise UsageError(f"{path}: {error}") from None
        state = drawn_from(seqgan) if content.get(PUBLISHED) else seqgan.checkpoint()
        found = Checkpoints(logdir / CHECKPOINTS, state, keep=1).look(which)
    except UsageError as error:  # whose advice is to someone who trains
        raise UsageError(str(error).removesuffix("; --overwrite starts afresh")) from None
    if not found:
        raise UsageError(f"{logdir}: {lost_weights(logdir, content) or 'the run has no checkpoint yet'}")
    return Restored(logdir, config, content, seqgan, found[0], found[1].get("evaluation", {}))
