"""The flags: one field each, with its meaning, unit, default and bounds; checks across flags."""

import dataclasses
import math
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from support import own_code
from support.errors import UsageError, first_line
from support.presets import PRESETS
from support.registries import (
    DATASETS,
    DISCRIMINATORS,
    G_UPDATES,
    REWARDS,
    DiscriminatorEntry,
    RewardEntry,
    explained,
)

__all__ = ["FIELDS", "Config", "UsageError", "first_line"]
ABOVE_ZERO = "above 0"  # any such value, in a flag's `needs`
ANY = "FILE"  # any value but none
OWN = "FILE.py:NAME"  # any value that names a user's own code
TUNES = "data/Nottingham"


def flag(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
    own: str = "",
    needs: tuple[Any, ...] = (),
) -> Any:
    """A dataclass field that is a flag; its type is the default's, its meaning and unit are in `help`.

    `low` and `high` are the ends of a number's range, `choices` the words that it may be; with `own`, such as
    "FILE.py:CLASS", it may also name a user's own code. `needs` is another flag and the values of it that give this one
    an effect, such as `("dataset", "text")`, `("kl_weight", ABOVE_ZERO)`,
    `("objective", ANY)`, or `("oracle_params", "")` for a flag that must not be given; or several, all of which must
    hold. A flag that is given on the command line without what it needs is refused.
    """
    if needs and isinstance(needs[0], str):
        needs = (needs,)
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "own": own, "needs": needs}
    return dataclasses.field(default=default, metadata=metadata)


ORACLE, MUSIC, TEXT = ("dataset", "LSTM"), ("dataset", "Nottingham"), ("dataset", "text")
FILES = ("dataset", *(name for name in DATASETS if name != "LSTM"), OWN)  # what --data_dir needs
COUNTED = ("dataset", *(name for name in DATASETS if name != "Nottingham"), OWN)  # what --vocab_size needs
RANDOM_ORACLE = (ORACLE, ("oracle_params", ""))  # what the flags of its weights need
TRAINED = ("reward", *(name for name, entry in REWARDS.items() if entry.discriminator))  # what those of D need
GRADIENT = ("g_update", "sampled", "expected")  # what those of the policy gradient need
RATES = ("g_pretrain", "g", "d")  # the learning rates that may decay
TOKEN_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|beats?)")


class Updates(NamedTuple):
    """Updates of a whole run, by optimizer."""

    mle_pretraining: int
    g: int
    mle: int
    d: int


@dataclass(frozen=True)
class Config:
    """The configuration of a run. A default is the paper's or the authors' value unless its help text says why not."""

    preset: str = flag("default", "the set of values that the other flags start from", choices=PRESETS)

    # the run
    seed: int = flag(1, "seed of every random draw but the oracle's weights", low=0, high=2**31 - 1)
    is_train: bool = flag(True, "train; --no-is_train evaluates the weights saved in --log_dir and stops")
    evaluate: bool = flag(True, "measure NLL and entropy during the run, into --eval_log_dir")
    jit: bool = flag(
        True, "compile the steps with XLA; False: sums are rounded differently, so a few samples differ for one seed"
    )
    deterministic: bool = flag(
        True,
        "repeat each operation bit for bit; False: on GPUs faster, with float32 products rounded to 10 bits (TF32)",
    )
    threads: int = flag(
        0, "threads that share a step's work, on which its rounding depends; 0: all cores", low=0, high=1024
    )
    log_dir: str = flag("logs/train/default", "directory of the training curves, the configuration and the weights")
    eval_log_dir: str = flag("logs/eval/default", "directory of the evaluation curves")
    pretrained: str = flag(
        "", "--log_dir of another run whose pretraining of the generator is copied instead of repeated"
    )
    checkpoint_every: int = flag(200, "epochs between checkpoints; the end of a phase always has one", low=1)
    overwrite: bool = flag(False, "remove an earlier run's files from the log directories and start afresh")

    # evaluation
    eval_every: int = flag(
        50,
        "epochs between evaluations, beside the first and last of a phase (of D's pretraining the last alone)",
        low=1,
    )
    eval_samples: int = flag(256, "sequences that an evaluation draws from the generator, and from the oracle", low=2)
    d_eval_samples: int = flag(
        1024, "held-out sequences, and as many generated, that measure the discriminator; 0: none", low=0, needs=TRAINED
    )
    candidates: int = flag(
        16,
        "n: evaluations measure keeping one of n samples by the discriminator; 0: they do not",
        low=0,
        high=1024,
        needs=(TRAINED, ("d_eval_samples", ABOVE_ZERO)),
    )
    sample_every: int = flag(
        100, "music and text: epochs of a phase between samples to hear or read", low=1, needs=FILES
    )
    log_generation: bool = flag(
        False,
        "LSTM: pictures of real and generated batches at each evaluation; music: samples as PNG and WAV in media/",
        needs=("dataset", "LSTM", "Nottingham"),
    )
    songs_dir: str = flag(
        "", "music: folder that gets a copy of sample*.mid; other programs' files are not replaced", needs=MUSIC
    )

    # data
    dataset: str = flag("LSTM", f"real data; {explained(DATASETS)}", choices=DATASETS, own="FILE.py:CLASS")
    seq_len: int = flag(
        20, "T, tokens per sequence (text: at most); a reward pass takes some T² steps", low=2, high=1000
    )
    vocab_size: int = flag(
        5000,
        "V, number of tokens (text: at most); music and --oracle_params bring their own",
        low=2,
        needs=(COUNTED, ("oracle_params", "")),
    )
    train_size: int = flag(
        0, "size of a fixed training set, over which an epoch is a pass; 0: each epoch is a fresh batch", low=0
    )
    data_dir: str = flag(
        TUNES, "music: folder of MIDI files, or of train, valid, test; text: file, or folder of train.txt", needs=FILES
    )
    tokens: str = flag(
        "char", "text: what a token is, a character or a word between spaces", choices=("char", "word"), needs=TEXT
    )
    min_count: int = flag(
        1, "text: minimum count in the training lines for a token to enter the vocabulary", low=1, needs=TEXT
    )
    long_lines: str = flag(
        "truncate",
        "text: what to do with lines of more than --seq_len tokens",
        choices=("truncate", "drop"),
        needs=TEXT,
    )
    token_length: str = flag(
        "0.4s", "music: duration of a token: 0.01s to 10s, or 0.0625beats to 4beats of the file", needs=MUSIC
    )
    onsets: bool = flag(False, "music: tokens tell where notes begin, so that a note may be struck again", needs=MUSIC)
    window_stride: int = flag(1, "music: tokens between the starts of training windows", low=1, needs=MUSIC)

    # schedule
    batch_size: int = flag(32, "B, sequences per generator batch", low=1)
    pretrain_g_epochs: int = flag(1000, "epochs of maximum-likelihood pretraining of the generator", low=0)
    pretrain_d_epochs: int = flag(
        50,
        "d-steps of discriminator pretraining; 0 unless given where no adversarial phase follows",
        low=0,
        needs=TRAINED,
    )
    total_epochs: int = flag(1000, "adversarial epochs, each of --g_steps and --d_steps", low=0)
    g_steps: int = flag(1, "policy-gradient updates per adversarial epoch", low=1)
    mle_steps: int = flag(
        0, "maximum-likelihood updates, a batch each, after the g-steps of an adversarial epoch", low=0
    )
    d_steps: int = flag(5, "d-steps per adversarial epoch; each draws fresh generated sequences", low=0, needs=TRAINED)
    d_epochs: int = flag(3, "passes over the sequences of a d-step", low=1, needs=TRAINED)
    d_draws: int = flag(
        0,
        "real sequences of a d-step, and as many generated; 0: half a minibatch, or all of --train_size",
        low=0,
        needs=(TRAINED, ("train_size", 0)),
    )
    cosine_decay: tuple[str, ...] = flag(
        (), "learning rates that decay to 0 by a cosine over all their updates: any of g_pretrain, g, d", choices=RATES
    )

    # generator
    g_emb_dim: int = flag(32, "size of the generator's token embedding", low=1)
    g_hidden_dim: int = flag(50, "H, LSTM units of the generator", low=1)
    g_dropout_keep_prob: float = flag(
        1.0, "share kept by the generator's dropout, in maximum-likelihood updates", low=0.01, high=1
    )
    g_pretrain_lr: float = flag(0.01, "Adam's learning rate in pretraining", low=0)
    scheduled_sampling: float = flag(
        0.0, "growth per epoch of the share of own tokens read in pretraining (paper: 0.002)", low=0, high=1
    )
    g_lr: float = flag(0.01, "Adam's learning rate of the policy gradient, and of --mle_steps", low=0)
    average: float = flag(
        0.0, "decay of a moving average of the generator's weights, which is evaluated; 0: none", low=0, high=0.999999
    )

    # rewards
    reward: str = flag(
        "discriminator",
        f"reward of a sequence; {explained(REWARDS)}; or a function of yours in TensorFlow",
        choices=REWARDS,
        own="FILE.py:FUNCTION",
    )
    kl_weight: float = flag(
        0.0, "β, weight of the KL penalty to the pretrained policy G0: β (log G(Y) - log G0(Y)) off the reward", low=0
    )
    objective: str = flag(
        "", "FILE.py:FUNCTION that scores lists of sequences: text, pitches or token ids", needs=("g_update", "sampled")
    )
    objective_weight: float = flag(
        1.0, "λ: the reward is (1 - λ) times --reward plus λ times --objective", low=0, high=1, needs=("objective", ANY)
    )
    g_update: str = flag("sampled", f"g-step; {explained(G_UPDATES)}", choices=G_UPDATES)
    rollout_num: int = flag(
        16, "N, rollouts per prefix; 0: the reward of the sample itself; bleu: 1 unless given", low=0, needs=GRADIENT
    )
    rollout_lag: float = flag(
        0.0,
        "share of its old weights that the rollout policy keeps in an epoch",
        low=0,
        high=1,
        needs=(GRADIENT, ("rollout_num", ABOVE_ZERO)),
    )
    baseline: str = flag(
        "none",
        "subtracted from a token's reward: nothing, the batch's mean, or the value of the prefix",
        choices=("none", "batch", "prefix"),
        needs=GRADIENT,
    )

    # discriminator
    discriminator: str = flag(
        "cnn", explained(DISCRIMINATORS), choices=DISCRIMINATORS, own="FILE.py:CLASS", needs=TRAINED
    )
    guide_eta: float = flag(
        0.0,
        "η, weight of the scores in the guided generator; 0: that of 0 to 4 with the least NLL on the validation set",
        low=0,
        high=100,
        needs=TRAINED,
    )
    d_emb_dim: int = flag(
        32, "size of the discriminator's token embedding; additive: also of its contexts", low=1, needs=TRAINED
    )
    d_hidden_dim: int = flag(
        64, "units of the discriminator's LSTM or, with pooled, of its dense layer", low=1, needs=TRAINED
    )
    d_filter_sizes: tuple[int, ...] = flag((3, 5, 5, 5), "widths of the convolutions, tokens", low=1, needs=TRAINED)
    d_num_filters: tuple[int, ...] = flag((50, 80, 80, 100), "filters of each convolution", low=1, needs=TRAINED)
    dropout_keep_prob: float = flag(0.75, "share kept by the discriminator's dropout", low=1e-12, high=1, needs=TRAINED)
    d_l2: float = flag(
        0.2, "weight of the L2 penalty on the discriminator's output layer, or additive scores", low=0, needs=TRAINED
    )
    d_lr: float = flag(1e-4, "Adam's learning rate of the discriminator", low=0, needs=TRAINED)
    d_batch_size: int = flag(
        64, "sequences per discriminator minibatch, half of them real (an even number)", low=2, needs=TRAINED
    )

    # oracle
    oracle_seed: int = flag(32, "seed of the oracle's weights", low=0, high=2**31 - 1, needs=RANDOM_ORACLE)
    oracle_emb_dim: int = flag(20, "size of the oracle's token embedding", low=1, needs=RANDOM_ORACLE)
    oracle_hidden_dim: int = flag(50, "LSTM units of the oracle", low=1, needs=RANDOM_ORACLE)
    oracle_init: str = flag(
        "glorot",
        "the oracle's weights: N(0, 1) but for a Glorot-uniform LSTM, or all N(0, 1)",
        choices=("glorot", "normal"),
        needs=RANDOM_ORACLE,
    )
    oracle_params: str = flag("", "an .npz file with the oracle's weights, instead of random ones", needs=ORACLE)

    @property
    def mle_batches(self) -> int:
        """Batches that an epoch of maximum likelihood reads: those of a pass over a fixed training set, or one."""
        return max(self.train_size // self.batch_size, 1)

    @property
    def real_draws(self) -> int:
        """Real sequences of a d-step."""
        return self.train_size or self.d_draws or self.d_batch_size // 2

    @property
    def updates(self) -> Updates:
        """How often each optimizer updates in the whole run."""
        half = self.d_batch_size // 2
        d_steps = self.pretrain_d_epochs + self.total_epochs * self.d_steps
        if self.g_update == "fold":
            d_steps = max(self.pretrain_d_epochs, self.d_steps)  # of one discriminator
        return Updates(
            mle_pretraining=self.pretrain_g_epochs * self.mle_batches,
            g=self.total_epochs * self.g_steps,
            mle=self.total_epochs * self.mle_steps,
            d=d_steps * self.d_epochs * max(self.real_draws // half, 1),
        )

    @property
    def reward_entry(self) -> RewardEntry:
        """What --reward needs; a user's own needs rollouts alone."""
        return REWARDS.get(self.reward, RewardEntry(self.reward, ""))

    @property
    def trains_discriminator(self) -> bool:
        """Whether the reward needs one."""
        return self.reward_entry.discriminator and self.objective_share < 1

    @property
    def measures_discriminator(self) -> bool:
        """Whether evaluations tell what a discriminator knows."""
        return self.trains_discriminator and self.d_eval_samples > 0

    @property
    def rollouts_drawn(self) -> int:
        """Rollouts a prefix: none where nothing tells one completion from another."""
        if self.g_update == "fold":
            return 0
        return self.rollout_num if self.reward_entry.rollouts or self.kl_weight or self.objective_share else 0

    @property
    def objective_share(self) -> float:
        """λ, the share of the objective in the reward; 0 where there is none."""
        return self.objective_weight if self.objective else 0.0

    @property
    def frame(self) -> tuple[float, float]:
        """The duration of a token of music: (seconds, 0) or (0.4, beats of the file)."""
        found = TOKEN_LENGTH.fullmatch(self.token_length)
        value = float(found[1]) if found else math.nan
        return (0.4, value or math.nan) if found and found[2] != "s" else (value, 0.0)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# The groups of --help: {title: its first flag}; those after it belong to it, too.
SECTIONS = {
    "the run": "preset",
    "evaluation": "eval_every",
    "data": "dataset",
    "schedule": "batch_size",
    "generator": "g_emb_dim",
    "rewards": "reward",
    "discriminator": "discriminator",
    "oracle": "oracle_seed",
}


def discriminator_entry(name: str) -> DiscriminatorEntry:
    """What the registry, or a user's class of its own, says of a --discriminator.

    Raises UsageError: FILE.py:CLASS can't be loaded.
    """
    if not own_code.is_own(name):
        return DISCRIMINATORS[name]
    found = own_code.load("--discriminator", name)
    of_some = {flag for entry in DISCRIMINATORS.values() for flag in entry.flags}
    additive = bool(getattr(found, "additive", False))
    return DiscriminatorEntry(name, "", tuple(of_some), dict(getattr(found, "defaults", {})), additive)


def own_sources(config: Config) -> dict[str, dict[str, str]]:
    """The texts of a user's own code that the flags name, {flag: source}; raises UsageError: one can't be read."""
    named = {flag: getattr(config, flag) for flag in ("objective", "dataset", "reward", "discriminator")}
    return {flag: own_code.read_source(f"--{flag}", name) for flag, name in named.items() if own_code.is_own(name)}


def check(config: Config) -> None:
    """Checks what no single flag shows. Raises UsageError: two flags contradict each other."""
    if config.trains_discriminator:
        check_discriminator(config)
    if config.g_update != "sampled":
        check_update(config)
    if config.baseline == "prefix" and not config.rollout_num:
        raise UsageError("--baseline prefix needs a --rollout_num of 1 or more")
    if config.reward_entry.oracle and config.dataset != "LSTM":
        raise UsageError(f"--reward {config.reward} needs --dataset LSTM, whose density is known")
    if config.reward == "bleu" and config.dataset == "LSTM" and not config.train_size:
        raise UsageError("--reward bleu compares with the training set: with --dataset LSTM give a --train_size")
    if config.baseline != "none" and config.batch_size < 2:
        raise UsageError(f"--baseline {config.baseline} needs a --batch_size of 2 or more")
    least = max(config.batch_size, config.d_batch_size // 2 if config.trains_discriminator else 0)
    if config.train_size and config.train_size < least:
        raise UsageError(f"--train_size: {config.train_size} is less than one batch ({least})")
    if config.objective:
        own_code.check_name("--objective", config.objective)
    for name in ("log_dir", "eval_log_dir", "data_dir", "songs_dir", "oracle_params", "objective"):
        value = getattr(config, name)
        if not value and name not in ("songs_dir", "oracle_params", "objective"):
            raise UsageError(f"--{name} is empty")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # what argv has in place of such bytes
            raise UsageError(f"--{name}: {value!r} is not UTF-8")
    seconds, beats = config.frame
    if not (0.0625 <= beats <= 4 if beats else 0.01 <= seconds <= 10):
        raise UsageError(f"--token_length {config.token_length}: not 0.01s to 10s, nor 0.0625beats to 4beats")
    if config.dataset == "text" and config.data_dir == TUNES:
        raise UsageError("--dataset text: --data_dir must name a file of text, or a folder with train.txt")
    if config.evaluate and os.path.realpath(config.log_dir) == os.path.realpath(config.eval_log_dir):
        raise UsageError(f"--log_dir and --eval_log_dir are both {config.log_dir}")
    if config.songs_dir and os.path.realpath(config.log_dir) == os.path.realpath(config.songs_dir):
        raise UsageError(f"--log_dir and --songs_dir are both {config.log_dir}")
    if config.is_train and not config.pretrain_g_epochs and not config.total_epochs:
        raise UsageError("--pretrain_g_epochs and --total_epochs are both 0: nothing to do")


def check_effect(config: Config, given: Iterable[str]) -> None:
    """Checks that each flag of the command line has an effect, by the flags' `needs` and the discriminator's `flags`.

    Raises UsageError: one has none; the message names the flag that would give it one.
    """
    of_some = {name: kind for kind, entry in DISCRIMINATORS.items() for name in entry.flags}
    for name in given:
        needs = FIELDS[name].metadata["needs"]
        if config.objective_share == 1 and (name == "reward" or TRAINED in needs):
            raise UsageError(f"--{name} has no effect with --objective and without --objective_weight below 1")
        for other, *values in needs:
            value = getattr(config, other)
            if not any(meets(value, wanted) for wanted in values):
                lacking = "without" if any(values) else "with"
                shown = " or ".join(str(wanted) for wanted in (values if any(values) else [value]))
                raise UsageError(f"--{name} has no effect {lacking} --{other} {shown}")
        if name in of_some and name not in discriminator_entry(config.discriminator).flags:
            kinds = " or ".join(kind for kind, entry in DISCRIMINATORS.items() if name in entry.flags)
            raise UsageError(f"--{name} has no effect without --discriminator {kinds}")
        useless = not (config.reward_entry.rollouts or config.kl_weight or config.objective_share)
        if name in ("rollout_num", "rollout_lag") and useless:
            raise UsageError(f"--{name} has no effect with --reward {config.reward} and without --kl_weight above 0")
        summed = config.g_update == "expected" and not config.rollouts_drawn  # over all next tokens, with Q = s
        if name == "baseline" and config.baseline != "none" and summed:
            raise UsageError(f"--{name} has no effect with --g_update expected and without rollouts")
        if name in ("g_lr", "baseline") and config.g_update == "fold":
            raise UsageError(f"--{name} has no effect with --g_update fold")


def meets(value: Any, wanted: Any) -> bool:
    """Whether the value of a flag is what another flag's `needs` has."""
    if wanted is OWN:
        return own_code.is_own(value)
    return bool(value) if wanted is ANY else value > 0 if wanted is ABOVE_ZERO else value == wanted


def check_update(config: Config) -> None:
    """Checks a --g_update that needs an additive discriminator. Raises UsageError: another flag contradicts it."""
    update = f"--g_update {config.g_update}"
    if not (config.trains_discriminator and discriminator_entry(config.discriminator).additive):
        additive = " or ".join(name for name, entry in DISCRIMINATORS.items() if entry.additive)
        raise UsageError(f"{update} needs --discriminator {additive}, and a reward that is its own")
    if config.g_update == "expected" and config.reward != "log_odds":
        raise UsageError(f"{update} needs --reward log_odds, whose part for each next token is known")
    if config.g_update == "fold" and not (config.pretrain_d_epochs and (config.d_steps or config.total_epochs == 1)):
        raise UsageError(f"{update} trains a discriminator a round: --pretrain_d_epochs and --d_steps are 1 or more")
    if config.g_update == "fold" and (config.g_steps > 1 or config.mle_steps or config.kl_weight):
        raise UsageError(f"{update} changes no weight of the generator: --g_steps is 1, --mle_steps and --kl_weight 0")


def check_discriminator(config: Config) -> None:
    """Checks the flags of a discriminator that is trained. Raises UsageError: two contradict each other."""
    sizes, filters = config.d_filter_sizes, config.d_num_filters
    if "d_filter_sizes" in discriminator_entry(config.discriminator).flags:
        if len(sizes) != len(filters):
            raise UsageError(f"--d_filter_sizes has {len(sizes)} entries and --d_num_filters {len(filters)}")
        if max(sizes) > config.seq_len and not own_code.is_own(config.discriminator):
            what = f"a filter of width {max(sizes)} is wider than --seq_len {config.seq_len}"
            raise UsageError(f"--d_filter_sizes: {what}")
    if not config.train_size and config.real_draws < config.d_batch_size // 2:
        raise UsageError(f"--d_draws: {config.d_draws} is less than half a --d_batch_size of {config.d_batch_size}")
    if config.d_batch_size % 2:
        raise UsageError(f"--d_batch_size: {config.d_batch_size} is odd, and half of a minibatch is real")
    if config.d_eval_samples == 1:
        raise UsageError("--d_eval_samples: 1 has no standard error; 2 or more, or 0")
