"""The flags: one field each, with its meaning, unit, default and bounds; checks across flags."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from support import own_code
from support.errors import UsageError
from support.presets import PRESETS
from support.registries import DATASETS, DISCRIMINATORS, G_UPDATES, REWARDS, DiscriminatorEntry, RewardEntry, explained

TUNES, VOCABULARY = "data/Nottingham", "vocabulary.json"  # VOCABULARY: in --data_dir or --log_dir, of text
RATES = ("g_pretrain", "g", "d")  # the learning rates that may decay: those of --g_pretrain_lr, --g_lr, --d_lr
TOKEN_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|beats?)")


class Updates(NamedTuple):
    """Updates of a whole run, by optimizer."""

    mle_pretraining: int
    g: int
    mle: int
    d: int


class Need(NamedTuple):
    """What a flag must have beside it for an effect; `words` say after "has no effect" what it lacks."""

    words: str  # may have {0.NAME} for the value of a flag
    met: Callable[["Config"], Any]


def on(flag: str, *values: str) -> Need:
    """Needs another flag to have one of these values."""
    return Need(f"without --{flag} {' or '.join(values)}", lambda c: getattr(c, flag) in values)


def flag(default: Any, help: str, *needs: Need, low: float = 0, high: Any = None, choices: Any = None, own: str = ""):
    """A dataclass field that is a flag; its type is the default's, its meaning and unit are in `help`.

    `low` and `high` are the ends of a number's range, `choices` the words that it may be; with `own`, such as
    "FILE.py:CLASS", it may also name a user's own code. Given on the command line without all `needs`, it is refused.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "own": own, "needs": needs}
    return dataclasses.field(default=default, metadata=metadata)


ORACLE, MUSIC, TEXT = on("dataset", "LSTM"), on("dataset", "Nottingham"), on("dataset", "text")
COUNTING = Need(  # which a file of another run's vocabulary saves
    f"with {{0.data_dir}}/{VOCABULARY}",
    lambda c: c.dataset != "text" or not os.path.isfile(Path(c.data_dir, VOCABULARY)),
)
FILES = Need("with --dataset LSTM", lambda c: c.dataset != "LSTM")
COUNTED = Need("with --dataset Nottingham", lambda c: c.dataset != "Nottingham")  # whose tokens follow from the flags
RANDOM = Need("with --oracle_params {0.oracle_params}", lambda c: not c.oracle_params)
PRETRAINED = Need("with --pretrain_g_epochs 0", lambda c: c.pretrain_g_epochs)
ADVERSARIAL = Need("with --total_epochs 0", lambda c: c.total_epochs)
GRADIENT = (ADVERSARIAL, on("g_update", "sampled", "expected"))  # what the flags of the policy gradient need
MEASURED = Need("with --no-evaluate", lambda c: c.evaluate or not c.is_train)
SCORED = (
    Need("with --total_epochs 0 and --no-evaluate", lambda c: c.total_epochs or MEASURED.met(c)),
    Need("with --teacher and --no-evaluate", lambda c: not c.teacher or MEASURED.met(c)),
)
MLE = Need("with --pretrain_g_epochs 0 and --mle_steps 0", lambda c: c.updates.mle_pretraining or c.updates.mle)
ROLLOUTS = Need(
    "with --reward {0.reward} and --kl_weight 0", lambda c: c.reward_entry.rollouts or c.kl_weight or c.objective_share
)
BASELINE = Need(
    "with --g_update expected and without rollouts",  # it sums over all next tokens, with Q = s
    lambda c: c.baseline == "none" or c.g_update != "expected" or c.rollouts_drawn,
)
WEIGHED = Need(
    "with --g_update fold, or expected and without rollouts",
    lambda c: c.g_update != "fold" and (c.g_update != "expected" or c.rollouts_drawn),
)
PART = Need("with --objective and without --objective_weight below 1", lambda c: c.objective_share < 1)
ECHOING = Need("without --g_echo", lambda c: c.g_echo)
ENDLESS = Need("with --train_size {0.train_size}", lambda c: not c.train_size)
LEARNING = on("g_update", "sampled", "expected", "distil")
SCORING, DISTIL = on("g_update", "sampled", "distil"), on("g_update", "distil")
AIMED = Need("without --objective", lambda c: c.objective)
LEAST_DRAWS = 20  # with fewer, neither η nor the log-mean-exp of draws can be told
D_MEASURED = Need("without --d_eval_samples of at least 20", lambda c: c.d_eval_samples >= LEAST_DRAWS)
DRAWN = Need("without --rollout_num above 0", lambda c: c.rollout_num)
REWARDED = Need("with --g_update {0.g_update}", lambda c: c.g_update not in ("fold", "distil"))
UNTAUGHT = Need("with --teacher", lambda c: not c.teacher)
FOR_D = (UNTAUGHT, PART, on("reward", *(name for name, entry in REWARDS.items() if entry.discriminator)))
USED = Need("with --total_epochs and --pretrain_d_epochs 0", lambda c: c.total_epochs or c.pretrain_d_epochs)
PENALISED = Need("with --d_loss {0.d_loss}", lambda c: not c.by_token or c.d_loss == "token")
WEIGHING = (AIMED, USED, UNTAUGHT, WEIGHED)
OF_D = (*FOR_D, USED)  # what the flags of the discriminator need, but for its filters, which must fit --seq_len
TRAINED = (*OF_D, Need("with --pretrain_d_epochs and --d_steps 0", lambda c: c.updates.d))  # and of its training
# What measuring one of --candidates needs; --g_update distil may choose one without.
CHOOSING = [
    Need(words, lambda c, met=met: c.best_of_candidates or met(c))  # type: ignore[misc]
    for words, met in (MEASURED, *OF_D, D_MEASURED)
]


@dataclass(frozen=True)
class Config:
    """The configuration of a run. docs/faithfulness.md says where a default is not the paper's."""

    preset: str = flag("default", "the set of values that the other flags start from", choices=PRESETS)

    seed: int = flag(1, "seed of every random draw but the oracle's weights", high=2**31 - 1)
    is_train: bool = flag(True, "train; --no-is_train evaluates the weights saved in --log_dir and stops")
    evaluate: bool = flag(True, "measure NLL and entropy during the run, into --eval_log_dir")
    jit: bool = flag(True, "compile the steps with XLA; False: sums are rounded otherwise, so a few samples differ")
    deterministic: bool = flag(
        True,
        "repeat operations bit for bit; False: maybe faster on GPUs, with float32 products rounded to 10 bits (TF32)",
    )
    threads: int = flag(0, "threads of a step, on which its rounding depends; 0: all cores", high=1024)
    log_dir: str = flag("logs/train/default", "directory of the training curves, the configuration and the weights")
    eval_log_dir: str = flag("logs/eval/default", "directory of the evaluation curves")
    pretrained: str = flag("", "--log_dir of a run whose pretraining of the generator is copied", PRETRAINED)
    checkpoint_every: int = flag(200, "epochs between checkpoints; the end of a phase always has one", low=1)
    overwrite: bool = flag(False, "remove an earlier run's files from the log directories and start afresh")

    eval_every: int = flag(
        50, "epochs between evaluations, beside the first and last of a phase (of D's pretraining the last)", low=1
    )
    eval_samples: int = flag(256, "sequences an evaluation draws from the generator and the oracle", MEASURED, low=2)
    d_eval_samples: int = flag(
        1024, "held-out and as many generated sequences that measure the discriminator; 0: none", MEASURED, *OF_D
    )
    candidates: int = flag(
        16, "n: measure, or distil, keeping one of n samples by D or --objective; 0: do not", *CHOOSING, high=1024
    )
    sample_every: int = flag(100, "music and text: epochs of a phase between samples to hear or read", FILES, low=1)
    log_generation: bool = flag(
        False,
        "LSTM: pictures of real and generated batches at each evaluation; music: samples as PNG and WAV in media/",
        on("dataset", "LSTM", "Nottingham"),
    )
    songs_dir: str = flag("", "music: folder that gets a copy of sample*.mid; others' files are not replaced", MUSIC)

    dataset: str = flag("LSTM", f"real data; {explained(DATASETS)}", choices=DATASETS, own="FILE.py:CLASS")
    seq_len: int = flag(
        20, "T, tokens per sequence (text, whole tunes: at most); a reward pass has some T² steps", low=2, high=1000
    )
    vocab_size: int = flag(
        5000, "V, tokens (text: at most); music and --oracle_params bring their own", COUNTED, RANDOM, COUNTING, low=2
    )
    train_size: int = flag(0, "size of a fixed training set; an epoch is a pass over it, with 0 a fresh batch")
    data_dir: str = flag(
        TUNES, "music: folder of MIDI or ABC files, or of train, valid, test; text: file, or folder of train.txt", FILES
    )
    tokens: str = flag("char", "text: tokens are characters or words between spaces", TEXT, choices=("char", "word"))
    min_count: int = flag(1, "text: least count in training lines of a token of the vocabulary", TEXT, COUNTING, low=1)
    long_lines: str = flag("truncate", "text: lines of more than --seq_len tokens", TEXT, choices=("truncate", "drop"))
    token_length: str = flag("0.4s", "music: token duration, 0.01s to 10s or 0.0625beats to 4beats of the file", MUSIC)
    onsets: bool = flag(False, "music: tokens tell where notes begin, so that a note may be struck again", MUSIC)
    transpose: str = flag(
        "none",
        "music: moves no tune; each to a key without sharps or flats; or the training tunes to all twelve keys",
        MUSIC,
        choices=("none", "key", "all"),
    )
    window_stride: int = flag(
        1, "music: tokens between the starts of training windows; 0: whole tunes with an end token", MUSIC
    )

    batch_size: int = flag(32, "B, sequences per generator batch", low=1)
    pretrain_g_epochs: int = flag(1000, "epochs of maximum-likelihood pretraining of the generator")
    pretrain_d_epochs: int = flag(
        50, "d-steps of pretraining; with --total_epochs 0 none unless given or D is additive", *FOR_D
    )
    total_epochs: int = flag(1000, "adversarial epochs, each of --g_steps and --d_steps")
    g_steps: int = flag(1, "generator updates per adversarial epoch", ADVERSARIAL, low=1)
    mle_steps: int = flag(0, "maximum-likelihood updates after an adversarial epoch's g-steps", ADVERSARIAL)
    d_steps: int = flag(5, "d-steps per adversarial epoch; each draws fresh sequences", *FOR_D, ADVERSARIAL)
    d_epochs: int = flag(3, "passes over the sequences of a d-step", *TRAINED, low=1)
    d_draws: int = flag(
        0,
        "real sequences per d-step; --d_loss sequence: as many fakes; 0: half a minibatch, or all of --train_size",
        *TRAINED,
        ENDLESS,
    )
    cosine_decay: tuple[str, ...] = flag(
        (), "learning rates that decay to 0 by a cosine over all their updates: any of g_pretrain, g, d", choices=RATES
    )

    g_emb_dim: int = flag(32, "size of the generator's token embedding", low=1)
    g_hidden_dim: int = flag(50, "H, LSTM units of the generator", low=1)
    g_echo: bool = flag(
        False, "the generator also sees which of its last tokens repeat earlier ones, as --discriminator echo does"
    )
    g_echo_twice: bool = flag(False, "--g_echo also sees what is a repeat already, so that tunes loop less", ECHOING)
    g_dropout_keep_prob: float = flag(1.0, "share kept by the generator's dropout in MLE", MLE, low=0.01, high=1)
    g_pretrain_lr: float = flag(0.01, "Adam's learning rate in pretraining", PRETRAINED)
    scheduled_sampling: float = flag(
        0.0, "growth per epoch of the share of own tokens read in pretraining (paper: 0.002)", PRETRAINED, high=1
    )
    g_lr: float = flag(0.01, "Adam's learning rate after pretraining, and of --mle_steps", ADVERSARIAL, LEARNING)
    best_pretraining: bool = flag(
        False, "what follows pretraining begins from its least nll_valid, not from its end", PRETRAINED, FILES, MEASURED
    )
    average: float = flag(0.0, "decay of a moving average of weights that is evaluated; 0: none", high=0.999999)

    reward: str = flag(
        "discriminator",
        f"reward of a sequence; {explained(REWARDS)}; or a function of yours in TensorFlow",
        *(REWARDED, PART),
        choices=REWARDS,
        own="FILE.py:FUNCTION",
    )
    kl_weight: float = flag(
        0.0, "weight β of a KL penalty to the pretrained G₀: the reward less β (log G(Y) - log G₀(Y))", ADVERSARIAL
    )
    objective: str = flag("", "FILE.py:FUNCTION that scores lists of text, pitches or token ids", SCORING, *SCORED)
    objective_weight: float = flag(
        1.0, "λ: the reward is (1 - λ) times --reward plus λ times --objective", *WEIGHING, high=1
    )
    g_update: str = flag("sampled", f"g-step; {explained(G_UPDATES)}", ADVERSARIAL, choices=G_UPDATES)
    distil_real: float = flag(0.5, "share of real sequences in a batch; the teacher draws the others", DISTIL, high=1)
    teacher: tuple[str, ...] = flag(
        (),
        "--log_dir of runs to learn from: of several their average; each guided by an additive D trained against it",
        DISTIL,
    )
    rollout_num: int = flag(
        16, "N, rollouts per prefix; 0: the sample itself is scored; bleu: 1 unless given", *GRADIENT, ROLLOUTS
    )
    rollout_lag: float = flag(0.0, "share of old weights in the rollout policy", *GRADIENT, ROLLOUTS, DRAWN, high=1)
    baseline: str = flag(
        "none",
        "subtracted from a token's value: nothing, the mean of the batch's others, or the value of the prefix",
        *GRADIENT,
        BASELINE,
        choices=("none", "batch", "prefix"),
    )

    discriminator: str = flag("cnn", explained(DISCRIMINATORS), *OF_D, choices=DISCRIMINATORS, own="FILE.py:CLASS")
    guide_eta: float = flag(0.0, "η of guidance; 0: that of 0 to 64 with the least NLL_valid", *OF_D, high=100)
    d_loss: str = flag(
        "sequence",
        "additive: D tells sequences from generated ones, each token from one drawn in its place, or from all in "
        "expectation; likelihood, a control: maximum likelihood of the guided generator",
        *TRAINED,
        choices=("sequence", "token", "expected", "likelihood"),
    )
    d_lags: tuple[int, ...] = flag((1,), "bigram, echo: how many places back the context's tokens stand", *OF_D, low=1)
    d_init: str = flag(
        "authors",
        "initial weights of the CNN: truncated normal 0.1 and embedding ±1, or Glorot and embedding ±0.05",
        *OF_D,
        choices=("authors", "keras"),
    )
    d_emb_dim: int = flag(32, "size of the discriminator's token embedding; additive: of contexts, too", *OF_D, low=1)
    d_hidden_dim: int = flag(64, "units of the discriminator's LSTM or, with pooled, of its dense layer", *OF_D, low=1)
    d_filter_sizes: tuple[int, ...] = flag((3, 5, 5, 5), "widths of the convolutions, tokens", *FOR_D, low=1)
    d_num_filters: tuple[int, ...] = flag((50, 80, 80, 100), "filters of each convolution", *FOR_D, low=1)
    dropout_keep_prob: float = flag(0.75, "share kept by the discriminator's dropout", *TRAINED, low=0.01, high=1)
    d_l2: float = flag(0.2, "L2 penalty on the discriminator's output layer, or additive scores", *TRAINED, PENALISED)
    d_lr: float = flag(1e-4, "Adam's learning rate of the discriminator", *TRAINED)
    d_batch_size: int = flag(64, "twice the real sequences of a discriminator minibatch (even)", *TRAINED, low=2)

    oracle_seed: int = flag(32, "seed of the oracle's weights", ORACLE, RANDOM, high=2**31 - 1)
    oracle_emb_dim: int = flag(20, "size of the oracle's token embedding", ORACLE, RANDOM, low=1)
    oracle_hidden_dim: int = flag(50, "LSTM units of the oracle", ORACLE, RANDOM, low=1)
    oracle_init: str = flag(
        "glorot", "N(0, 1) weights but for a Glorot-uniform LSTM, or all", ORACLE, RANDOM, choices=("glorot", "normal")
    )
    oracle_params: str = flag("", "an .npz file with the oracle's weights, instead of random ones", ORACLE)

    @property
    def mle_batches(self) -> int:
        """Batches that an epoch of maximum likelihood reads: those of a pass over a fixed training set, or one."""
        return max(self.train_size // self.batch_size, 1)

    @property
    def by_token(self) -> bool:
        """Whether the discriminator learns from real sequences alone, token by token; only additive ones can."""
        return self.d_loss != "sequence" and discriminator_entry(self.discriminator).additive

    @property
    def real_draws(self) -> int:
        """Real sequences of a d-step."""
        return self.train_size or self.d_draws or self.d_batch_size // 2

    @property
    def updates(self) -> Updates:
        """How often each optimizer updates in the whole run."""
        d_steps = self.pretrain_d_epochs + self.total_epochs * self.d_steps
        if self.g_update == "fold":
            d_steps = max(self.pretrain_d_epochs, self.d_steps)  # of one discriminator
        d = d_steps * self.d_epochs * max(self.real_draws // (self.d_batch_size // 2), 1)
        g, mle = self.total_epochs * self.g_steps, self.total_epochs * self.mle_steps
        return Updates(self.pretrain_g_epochs * self.mle_batches, g, mle, d)

    @property
    def reward_entry(self) -> RewardEntry:
        """What --reward needs; a user's own needs rollouts alone."""
        return REWARDS.get(self.reward, RewardEntry(self.reward, ""))

    @property
    def trains_discriminator(self) -> bool:
        """Whether the run makes a discriminator."""
        return self.reward_entry.discriminator and self.objective_share < 1 and not self.teacher

    @property
    def best_of_candidates(self) -> bool:
        """Whether --g_update distil learns one of --candidates, chosen by the objective or a D that is not additive."""
        if self.g_update != "distil" or self.teacher:
            return False
        return not (self.trains_discriminator and discriminator_entry(self.discriminator).additive)

    @property
    def rollouts_drawn(self) -> int:
        """Rollouts a prefix: none where nothing tells one completion from another."""
        if self.g_update in ("fold", "distil"):
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
OWN_CODE = ("objective", "dataset", "reward", "discriminator")  # flags that may name FILE.py:NAME
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


def shown(value: Any) -> str:
    """A flag's value as one types it; "none" for an empty one."""
    return (" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)) or "none"


def discriminator_entry(name: str) -> DiscriminatorEntry:
    """What the registry or a user's class says of a --discriminator; raises UsageError: it can't be loaded."""
    if not own_code.is_own(name):
        return DISCRIMINATORS[name]
    found = own_code.load("--discriminator", name)
    additive, defaults = bool(getattr(found, "additive", False)), getattr(found, "defaults", {})
    if not isinstance(defaults, dict):
        raise UsageError(f"--discriminator {name}: defaults are {defaults!r}, not values by the names of flags")
    of_some = {flag for entry in DISCRIMINATORS.values() if additive >= entry.additive for flag in entry.flags}
    return DiscriminatorEntry(name, "", tuple(of_some), dict(defaults), additive)


def own_names(config: Config) -> dict[str, str]:
    """The user's own code that the flags name, {flag: FILE.py:NAME}."""
    named = {flag: getattr(config, flag) for flag in OWN_CODE}
    return {flag: name for flag, name in named.items() if own_code.is_own(name)}


def own_sources(config: Config) -> dict[str, dict[str, str]]:
    """The texts of a user's own code that the flags name, {flag: source}; raises UsageError: one can't be read."""
    return {flag: own_code.read_source(f"--{flag}", name) for flag, name in own_names(config).items()}


def check(config: Config) -> None:
    """Checks what no single flag shows. Raises UsageError: two flags contradict each other."""
    if config.trains_discriminator:
        check_discriminator(config)
    if config.g_update != "sampled":
        check_update(config)
    rewarded = not lacking(config, "baseline")
    if rewarded and config.baseline == "prefix" and not config.rollout_num:
        raise UsageError("--baseline prefix needs a --rollout_num of 1 or more")
    if config.reward_entry.oracle and config.dataset != "LSTM":
        raise UsageError(f"--reward {config.reward} needs --dataset LSTM, whose density is known")
    if config.reward == "bleu" and config.dataset == "LSTM" and not config.train_size:
        raise UsageError("--reward bleu compares with the training set: with --dataset LSTM give a --train_size")
    if rewarded and config.baseline != "none" and config.batch_size < 2:
        raise UsageError(f"--baseline {config.baseline} needs a --batch_size of 2 or more")
    if config.reward == "permuted" and config.batch_size < 2:
        raise UsageError("--reward permuted needs a --batch_size of 2 or more")
    least = max(config.batch_size, config.d_batch_size // 2 if config.trains_discriminator and config.updates.d else 0)
    if config.train_size and config.train_size < least:
        raise UsageError(f"--train_size: {config.train_size} is less than one batch ({least})")
    if config.objective:
        own_code.check_name("--objective", config.objective)
    maybe = "songs_dir", "oracle_params", "objective", "pretrained"
    for name in ("log_dir", "eval_log_dir", "data_dir", *maybe):
        value = getattr(config, name)
        if not value and name not in maybe:
            raise UsageError(f"--{name} is empty")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # what argv has in place of such bytes
            raise UsageError(f"--{name}: {value!r} is not UTF-8")
    seconds, beats = config.frame
    if not (0.0625 <= beats <= 4 if beats else 0.01 <= seconds <= 10):
        raise UsageError(f"--token_length {config.token_length}: not 0.01s to 10s, nor 0.0625beats to 4beats")
    if config.dataset == "text" and config.data_dir == TUNES:
        raise UsageError("--dataset text: --data_dir must name a file of text, or a folder with train.txt")
    log_dir = os.path.realpath(config.log_dir)
    if config.evaluate and log_dir == os.path.realpath(config.eval_log_dir):
        raise UsageError(f"--log_dir and --eval_log_dir are both {config.log_dir}")
    if config.overwrite and config.pretrained and log_dir == os.path.realpath(config.pretrained):
        raise UsageError(f"--pretrained {config.pretrained}: is the --log_dir that --overwrite empties")
    if config.songs_dir and log_dir == os.path.realpath(config.songs_dir):
        raise UsageError(f"--log_dir and --songs_dir are both {config.log_dir}")
    if config.is_train and config.best_pretraining and config.pretrain_g_epochs and not config.evaluate:
        raise UsageError("--no-evaluate: --best_pretraining chooses by evaluations; --no-best_pretraining would do")
    if config.is_train and not config.pretrain_g_epochs and not config.total_epochs:
        raise UsageError("--pretrain_g_epochs and --total_epochs are both 0: nothing to do")


def lacking(config: Config, name: str) -> str:
    """What a flag lacks for an effect, in words, by its `needs` and the discriminator's `flags`; "" if it has one."""
    unmet = [need.words.format(config) for need in FIELDS[name].metadata["needs"] if not need.met(config)]
    kinds = [kind for kind, entry in DISCRIMINATORS.items() if name in entry.flags]
    if kinds and name not in discriminator_entry(config.discriminator).flags:
        unmet.append(f"without --discriminator {' or '.join(kinds)}")
    return unmet[0] if unmet else ""


def check_effect(config: Config, given: Iterable[str]) -> None:
    """Raises UsageError: a flag of the command line has no effect; the message names the flag that would give one."""
    if "pretrained" in given and not config.pretrained:
        raise UsageError("--pretrained is empty")
    for name in given:
        rates = config.cosine_decay if name == "cosine_decay" else ()
        for shown, decides in [(name, name), *((f"{name} {rate}", f"{rate}_lr") for rate in rates)]:
            if what := lacking(config, decides):
                raise UsageError(f"--{shown} has no effect {what}")


def check_update(config: Config) -> None:
    """Checks a --g_update that needs an additive discriminator. Raises UsageError: another flag contradicts it."""
    update = f"--g_update {config.g_update}"
    if config.g_update == "distil":
        return check_distilling(config)
    if not (config.trains_discriminator and discriminator_entry(config.discriminator).additive):
        additive = " or ".join(name for name, entry in DISCRIMINATORS.items() if entry.additive)
        raise UsageError(f"{update} needs --discriminator {additive}, and a reward that is its own")
    if config.g_update == "expected" and config.reward != "log_odds":
        raise UsageError(f"{update} needs --reward log_odds, whose part for each next token is known")
    if config.g_update == "fold" and not (config.pretrain_d_epochs and (config.d_steps or config.total_epochs == 1)):
        raise UsageError(f"{update} trains a discriminator a round: --pretrain_d_epochs and --d_steps are 1 or more")
    if config.g_update == "fold" and (config.g_steps > 1 or config.mle_steps or config.kl_weight):
        raise UsageError(f"{update} changes no weight of the generator: --g_steps is 1, --mle_steps and --kl_weight 0")


def check_distilling(config: Config) -> None:
    """Checks --g_update distil. Raises UsageError: another flag contradicts it."""
    update = "--g_update distil"
    if not (config.teacher or config.objective or config.trains_discriminator):
        raise UsageError(f"{update} needs a teacher: --teacher, --objective, or a --reward with a discriminator")
    if config.objective and not config.teacher and config.objective_share < 1:
        raise UsageError(f"{update} learns from the objective alone: --objective_weight is 1")
    if config.trains_discriminator and not config.pretrain_d_epochs:
        raise UsageError(f"{update} learns from what a discriminator says: --pretrain_d_epochs is 1 or more")
    if config.kl_weight:
        raise UsageError(f"{update} has no reward: --kl_weight is 0")
    if config.mle_steps:
        raise UsageError(f"{update} learns from the batches of --mle_steps, which is 0")
    real = round(config.distil_real * config.batch_size)
    if (config.distil_real > 0) > (real > 0):
        raise UsageError(f"--distil_real: {config.distil_real} of a --batch_size of {config.batch_size} is no sequence")
    if real == config.batch_size and (config.distil_real < 1 or config.best_of_candidates):
        raise UsageError(f"--distil_real {config.distil_real} leaves none of a --batch_size of {real} to draw")
    if config.best_of_candidates and config.candidates < 2:
        raise UsageError(f"{update} keeps one of --candidates: they are 2 or more")
    if config.best_of_candidates and config.trains_discriminator and config.d_steps:
        raise UsageError(f"{update} chooses among candidates of the pretrained generator: --d_steps is 0")
    names = [os.path.realpath(name) for name in (config.log_dir, *config.teacher)]
    if not all(config.teacher) or len(set(names)) < len(names):
        raise UsageError("--teacher: a name is empty, there twice, or that of --log_dir")


def check_discriminator(config: Config) -> None:
    """Checks the flags of a discriminator that is trained. Raises UsageError: two contradict each other."""
    sizes, filters = config.d_filter_sizes, config.d_num_filters
    if "d_filter_sizes" in discriminator_entry(config.discriminator).flags:
        if len(sizes) != len(filters):
            raise UsageError(f"--d_filter_sizes has {len(sizes)} entries and --d_num_filters {len(filters)}")
        if max(sizes) > config.seq_len and not own_code.is_own(config.discriminator):
            fit = [(size, n) for size, n in zip(sizes, filters, strict=True) if size <= config.seq_len]
            widths, counts = (" ".join(map(str, each)) for each in zip(*fit or [(config.seq_len, 100)], strict=True))
            advice = f"--d_filter_sizes {widths} --d_num_filters {counts} would do"
            what = f"a filter of width {max(sizes)} is wider than --seq_len {config.seq_len}"
            raise UsageError(f"--d_filter_sizes: {what}; {advice}")
    wrong = max(config.d_lags) > config.seq_len or len(set(config.d_lags)) < len(config.d_lags)
    if "d_lags" in discriminator_entry(config.discriminator).flags and wrong:
        given = " ".join(map(str, config.d_lags))
        raise UsageError(f"--d_lags {given}: each is another number, and at most --seq_len {config.seq_len}")
    if not config.train_size and config.real_draws < config.d_batch_size // 2:
        raise UsageError(f"--d_draws: {config.d_draws} is less than half a --d_batch_size of {config.d_batch_size}")
    if config.d_batch_size % 2:
        raise UsageError(f"--d_batch_size: {config.d_batch_size} is odd, and half of a minibatch is real")
    learnt = config.g_update == "sampled" or (config.g_update == "expected" and config.rollouts_drawn)
    if config.by_token and config.d_loss == "likelihood" and config.total_epochs and learnt:
        raise UsageError("--d_loss likelihood gives log-odds of no known level: they guide, and are no reward")
    if config.d_eval_samples == 1:
        raise UsageError("--d_eval_samples: 1 has no standard error; 2 or more, or 0")
