"""The flags: one field each, with its meaning, unit, default and bounds; checks across flags."""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

ABOVE_ZERO = "above 0"  # any such value, in a flag's `needs`
ANY = "FILE"  # any value but none
TUNES = "data/Nottingham"


class Needs(NamedTuple):
    """What a reward needs: a trained discriminator, rollouts, an oracle whose density is known."""

    discriminator: bool = False
    rollouts: bool = True
    oracle: bool = False


# The rewards that reward.py makes.
REWARDS = {
    "discriminator": Needs(discriminator=True),
    "log_odds": Needs(discriminator=True),
    "bleu": Needs(),
    "optimal": Needs(oracle=True),
    "log_ratio": Needs(oracle=True),
    "constant": Needs(rollouts=False),
    "random": Needs(rollouts=False),
}


class UsageError(ValueError):
    """Something the user gave can't be used; the message is one line that names the flag or file."""


def flag(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    needs: tuple[Any, ...] = (),
) -> Any:
    """A dataclass field that is a flag.

    Args:
        default: its value where neither the command line nor the preset has one; its type is the flag's.
        help: its meaning, and unit, in a line.
        low: the least number that it may be.
        high: the largest.
        choices: the words that it may be.
        needs: without which it has no effect: another flag and the values of it that will do, such as
            `("dataset", "text")`, `("dataset", "Nottingham", "text")`, `("kl_weight", ABOVE_ZERO)`, or ANY for any but
            none or, with "" or 0 for a flag that must not be given, `("oracle_params", "")`; or several, all of which
            must hold. A flag given on the command line in vain is then refused, naming the flag that would give it an
            effect. The values of presets, which are for several purposes, are not. It is for flags that another one
            turns on, not for those of a phase or step of which there happen to be none.
    """
    if needs and isinstance(needs[0], str):
        needs = (needs,)
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "needs": needs}
    return dataclasses.field(default=default, metadata=metadata)


RANDOM_ORACLE = (("dataset", "LSTM"), ("oracle_params", ""))  # what the flags of its weights need
ADDITIVE = ("bigram", "lstm")  # the discriminators whose log-odds are a sum over positions
TRAINED = ("reward", *(name for name, needs in REWARDS.items() if needs.discriminator))  # what those of D need
GRADIENT = ("g_update", "sampled", "expected")  # what those of the policy gradient need
CNN = (TRAINED, ("discriminator", "cnn"))


class Updates(NamedTuple):
    """Updates of a whole run, by optimizer."""

    mle_pretraining: int
    g: int
    mle: int
    d: int


@dataclass(frozen=True)
class Config:
    """The configuration of a run. A default is the paper's or the authors' value unless its help text says why not."""

    preset: str = flag(
        "default", "set of values that the other flags start from", choices=("default", "paper", "quick", "music")
    )

    # the run
    seed: int = flag(1, "seed of every random draw but the oracle's weights", low=0, high=2**31 - 1)
    is_train: bool = flag(True, "train; without it, evaluate the weights saved in --log_dir and stop")
    evaluate: bool = flag(True, "measure NLL and entropy during the run, into --eval_log_dir")
    jit: bool = flag(
        True,
        "compile the steps with XLA; False: sums are rounded otherwise, so that for one seed a few samples, and a few "
        "of the oracle's, are others",
    )
    compile_cache: bool = flag(
        True,
        "keep what XLA compiles for the next start, 1 GiB at most, in the user's cache directory (on Linux)",
        needs=("jit", True),
    )
    deterministic: bool = flag(
        True,
        "have TensorFlow repeat each operation bit for bit; False: bitwise repeatability is lost, and two runs of one "
        "command may differ",
    )
    tf32: bool = flag(
        False,
        "on NVIDIA GPUs since Ampere: round the factors of float32 products to 10 bits (TF32), which is faster; "
        "log-probabilities are then not exactly normalised",
    )
    threads: int = flag(
        0,
        "threads that share the work of a step, on which its rounding depends; 0: as many as there are cores",
        low=0,
        high=1024,
    )
    log_dir: str = flag("logs/train/default", "directory of the training curves, the configuration and the weights")
    eval_log_dir: str = flag("logs/eval/default", "directory of the evaluation curves")
    pretrained: str = flag(
        "",
        "--log_dir of another run, whose pretraining of the generator is copied instead of repeated; the flags of what "
        "comes after may differ",
    )
    log_generation: bool = flag(
        False, "LSTM: log pictures of real and generated batches at each evaluation", needs=("dataset", "LSTM")
    )
    eval_every: int = flag(50, "epochs between evaluations; the first and last epoch of a phase always count", low=1)
    eval_samples: int = flag(256, "sequences an evaluation draws from generator and oracle each", low=2)
    d_eval_samples: int = flag(
        1024,
        "real sequences that training never saw, and as many generated ones, that choose how much to trust the "
        "discriminator, and as many again that measure what it knows; 0: it is not measured",
        low=0,
        needs=TRAINED,
    )
    candidates: int = flag(
        16,
        "n: evaluations also tell what would come of keeping one of n samples, chosen by the discriminator (it takes "
        "256·n samples); 0: not measured",
        low=0,
        high=1024,
        needs=(TRAINED, ("d_eval_samples", ABOVE_ZERO)),
    )
    checkpoint_every: int = flag(200, "epochs between checkpoints; the end of a phase always has one", low=1)
    keep_checkpoints: int = flag(
        3,
        "newest checkpoints kept; besides them that of the end of the generator's pretraining and, on real data, the "
        "one of least NLL of valid",
        low=1,
    )
    overwrite: bool = flag(False, "remove an earlier run's files from the log directories and start afresh")
    debug: bool = flag(False, "show the traceback of an error")

    # data
    dataset: str = flag(
        "LSTM",
        "real data: samples of the oracle LSTM, folk tunes, or lines of text",
        choices=("LSTM", "Nottingham", "text"),
    )
    seq_len: int = flag(
        20,
        "T, tokens a sequence, or with text at most so many; 1000 at most, as a reward pass takes some T² steps",
        low=2,
        high=1000,
    )
    vocab_size: int = flag(
        5000,
        "V, number of tokens, or with text at most so many, unknown and end among them (Nottingham and --oracle_params "
        "bring their own)",
        low=2,
        needs=(("dataset", "LSTM", "text"), ("oracle_params", "")),
    )
    train_size: int = flag(
        0, "size of a fixed training set, an epoch being a pass over it; 0: each epoch is a fresh batch", low=0
    )
    data_dir: str = flag(
        TUNES,
        "Nottingham: folder of MIDI files, in train, valid and test or not; text: UTF-8 file, a sequence a line, or "
        "folder of train.txt and, if you like, valid.txt and test.txt",
        needs=("dataset", "Nottingham", "text"),
    )
    tokens: str = flag(
        "char",
        "text: what a token is, a character or a word between spaces",
        choices=("char", "word"),
        needs=("dataset", "text"),
    )
    min_count: int = flag(
        1,
        "text: how often a token must occur in the training lines not to be unknown",
        low=1,
        needs=("dataset", "text"),
    )
    long_lines: str = flag(
        "truncate",
        "text: what is done with lines of more than --seq_len tokens",
        choices=("truncate", "drop"),
        needs=("dataset", "text"),
    )
    split_seed: int = flag(
        0,
        "text: seed of the rule that splits a single file in three",
        low=0,
        high=2**31 - 1,
        needs=("dataset", "text"),
    )
    frame_seconds: float = flag(
        0.4,
        "Nottingham: duration of a token, seconds",
        low=0.01,
        high=10,
        needs=(("dataset", "Nottingham"), ("frame_beats", 0.0)),
    )
    frame_beats: float = flag(
        0.0,
        "Nottingham: instead of --frame_seconds, a token's duration in beats of each file's own tempo, from 0.0625 to "
        "4: an eighth is 0.5; 0: by the second",
        low=0,
        high=4,
        needs=("dataset", "Nottingham"),
    )
    onsets: bool = flag(
        False,
        "Nottingham: tokens tell where notes begin, so that a note may be struck again at the same pitch",
        needs=("dataset", "Nottingham"),
    )
    window_stride: int = flag(
        1,
        "Nottingham: tokens between the starts of training windows; 1, so that training sees every place in a bar, as "
        "the windows of the test split begin anywhere",
        low=1,
        needs=("dataset", "Nottingham"),
    )
    sample_every: int = flag(
        100,
        "Nottingham: epochs of a phase between samples one can see, hear and open; text: to read",
        low=1,
        needs=("dataset", "Nottingham", "text"),
    )
    save_media: bool = flag(
        False,
        "Nottingham: also write these samples as PNG and WAV, to media/ in --log_dir",
        needs=("dataset", "Nottingham"),
    )

    # schedule
    batch_size: int = flag(32, "B, sequences a generator batch", low=1)
    pretrain_g_epochs: int = flag(1000, "epochs of maximum-likelihood pretraining of the generator", low=0)
    pretrain_d_epochs: int = flag(50, "d-steps of discriminator pretraining", low=0, needs=TRAINED)
    pretrain_d: bool = flag(
        False,
        "pretrain the discriminator though no adversarial phase follows, to choose among samples",
        needs=TRAINED,
    )
    total_epochs: int = flag(1000, "adversarial epochs, each of --g_steps and --d_steps", low=0)
    g_steps: int = flag(1, "policy-gradient updates an adversarial epoch", low=1)
    mle_steps: int = flag(
        0, "maximum-likelihood updates after the g-steps of an adversarial epoch, a batch each", low=0
    )
    d_steps: int = flag(5, "d-steps an adversarial epoch; each draws fresh generated sequences", low=0, needs=TRAINED)
    d_epochs: int = flag(3, "passes over the sequences of a d-step", low=1, needs=TRAINED)
    d_draws: int = flag(
        0,
        "real sequences that a d-step draws, and as many generated ones; 0: half a minibatch, with --train_size all",
        low=0,
        needs=(TRAINED, ("train_size", 0)),
    )

    # generator
    g_emb_dim: int = flag(32, "size of the generator's token embedding", low=1)
    g_hidden_dim: int = flag(50, "H, LSTM units of the generator", low=1)
    g_dropout_keep_prob: float = flag(
        1.0,
        "share kept by the generator's dropout, on the embedding and on what the LSTM hands to the output layer, in "
        "maximum-likelihood updates alone",
        low=0.01,
        high=1,
    )
    g_pretrain_lr: float = flag(0.01, "Adam's learning rate in pretraining", low=0)
    g_pretrain_schedule: str = flag(
        "constant",
        "the rate of pretraining stays as it is, or falls to 0 along a cosine over --pretrain_g_epochs",
        choices=("constant", "cosine"),
    )
    scheduled_sampling: float = flag(
        0.0,
        "share of own tokens, instead of real ones, that the generator reads in pretraining: grows by so much an epoch "
        "(the paper's scheduled sampling: 0.002)",
        low=0,
        high=1,
    )
    g_lr: float = flag(0.01, "Adam's learning rate of the policy gradient", low=0, needs=GRADIENT)
    mle_lr: float = flag(0.01, "Adam's learning rate of --mle_steps", low=0, needs=("mle_steps", ABOVE_ZERO))
    g_schedule: str = flag(
        "constant",
        "--g_lr and --mle_lr stay as they are, or fall to 0 along a cosine over --total_epochs",
        choices=("constant", "cosine"),
    )
    average: float = flag(
        0.0,
        "decay of a moving average of the generator's weights, over about the last 1 / (1 - decay) updates, which "
        "evaluation and samples use; 0: none",
        low=0,
        high=0.999999,
    )
    grad_clip: float = flag(5.0, "largest global norm of a generator gradient", low=1e-12)

    # rewards
    reward: str = flag(
        "discriminator",
        "what a generated sequence Y is paid: D(Y); the log-odds of D; BLEU-3 against the training set; with LSTM what "
        "the best discriminator would pay, D*(Y) or its log-odds; a constant, 1; or a random number in 0..1",
        choices=tuple(REWARDS),
    )
    kl_weight: float = flag(
        0.0, "β: the reward less β times log G(Y) - log G0(Y), where G0 is the pretrained policy", low=0
    )
    objective: str = flag(
        "",
        "FILE.py:FUNCTION, a Python function that scores finished sequences: it is given a list of them (text; MIDI "
        "pitches, 0 for a rest; or token ids) and returns as many numbers",
        needs=("g_update", "sampled"),
    )
    objective_weight: float = flag(
        1.0,
        "λ: the reward is (1 - λ) times that of --reward and λ times --objective; with 1 no discriminator is trained",
        low=0,
        high=1,
        needs=("objective", ANY),
    )
    reference_every: int = flag(
        0,
        "adversarial epochs after which the policy becomes G0 anew; 0: never",
        low=0,
        needs=("kl_weight", ABOVE_ZERO),
    )
    g_update: str = flag(
        "sampled",
        "what a g-step does: the paper's policy gradient, of the tokens that were drawn; the same summed over all next "
        "tokens, with --rollout_num 0 without what follows them; or fold: the guided generator becomes the generator, "
        "and the discriminator begins anew (2 epochs of one d-step unless they are given)",
        choices=("sampled", "expected", "fold"),
    )
    rollout_num: int = flag(
        16,
        "N, Monte-Carlo rollouts a prefix; 0: an action's value is its sample's reward; with --reward bleu 1 unless it "
        "is given",
        low=0,
        needs=GRADIENT,
    )
    rollout_lag: float = flag(
        0.0,
        "share of its old weights that the rollout policy keeps after the g-steps of an epoch",
        low=0,
        high=1,
        needs=(GRADIENT, ("rollout_num", ABOVE_ZERO)),
    )
    baseline: str = flag(
        "none",
        "subtracted from the reward of a token: nothing, the mean of the batch's others in that place, or the value of "
        "the prefix before the token, from that prefix's rollouts",
        choices=("none", "batch", "prefix"),
        needs=GRADIENT,
    )

    # discriminator
    discriminator: str = flag(
        "cnn",
        "the paper's convolutions, or scores that add up over positions: of a token after the one before (bigram) or "
        "after all before (lstm). The latter two also guide the generator token by token; other defaults of the flags "
        "below and of --pretrain_d_epochs go with them",
        choices=("cnn", *ADDITIVE),
        needs=TRAINED,
    )
    guide_eta: float = flag(
        0.0,
        "η, the weight of the discriminator's scores in the guided generator; 0: of least NLL on the validation set",
        low=0,
        high=100,
        needs=("discriminator", *ADDITIVE),
    )
    d_emb_dim: int = flag(
        32,
        "size of the discriminator's token embedding; with bigram and lstm also of its contexts",
        low=1,
        needs=TRAINED,
    )
    d_hidden_dim: int = flag(64, "LSTM units of the discriminator", low=1, needs=("discriminator", "lstm"))
    d_filter_sizes: tuple[int, ...] = flag((3, 5, 5, 5), "widths of the convolutions, tokens", low=1, needs=CNN)
    d_num_filters: tuple[int, ...] = flag((50, 80, 80, 100), "filters of each convolution", low=1, needs=CNN)
    dropout_keep_prob: float = flag(
        0.75,
        "share kept by the discriminator's dropout: of features, with bigram and lstm of what is read and of contexts",
        low=1e-12,
        high=1,
        needs=TRAINED,
    )
    d_l2: float = flag(
        0.2,
        "weight of the L2 penalty on the discriminator's output layer, with bigram and lstm on what makes a score",
        low=0,
        needs=TRAINED,
    )
    d_lr: float = flag(1e-4, "Adam's learning rate of the discriminator", low=0, needs=TRAINED)
    d_schedule: str = flag(
        "constant",
        "--d_lr stays as it is, or falls to 0 along a cosine over all d-steps, those of pretraining included",
        choices=("constant", "cosine"),
        needs=TRAINED,
    )
    d_batch_size: int = flag(
        64, "sequences a discriminator minibatch, half of them real (an even number)", low=2, needs=TRAINED
    )

    # oracle
    oracle_seed: int = flag(32, "seed of the oracle's weights", low=0, high=2**31 - 1, needs=RANDOM_ORACLE)
    oracle_emb_dim: int = flag(20, "size of the oracle's token embedding", low=1, needs=RANDOM_ORACLE)
    oracle_hidden_dim: int = flag(50, "LSTM units of the oracle", low=1, needs=RANDOM_ORACLE)
    oracle_init: str = flag(
        "glorot",
        "the oracle's weights: glorot, from N(0, 1) but for its LSTM, which is Glorot-uniform with a forget bias of 1; "
        "normal, all from N(0, 1), as in the paper",
        choices=("glorot", "normal"),
        needs=RANDOM_ORACLE,
    )
    oracle_params: str = flag(
        "", "an .npz file with the oracle's weights, instead of random ones", needs=("dataset", "LSTM")
    )

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
    def trains_discriminator(self) -> bool:
        """Whether the reward needs one."""
        return REWARDS[self.reward].discriminator and self.objective_share < 1

    @property
    def measures_discriminator(self) -> bool:
        """Whether evaluations tell what a discriminator knows."""
        return self.trains_discriminator and self.d_eval_samples > 0

    @property
    def guides(self) -> bool:
        """Whether a discriminator is trained whose scores guide the generator token by token."""
        return self.trains_discriminator and self.discriminator in ADDITIVE

    @property
    def rollouts_drawn(self) -> int:
        """Rollouts a prefix: none where nothing tells one completion from another."""
        if self.g_update == "fold":
            return 0
        return self.rollout_num if REWARDS[self.reward].rollouts or self.kl_weight or self.objective_share else 0

    @property
    def objective_share(self) -> float:
        """λ, the share of the objective in the reward; 0 where there is none."""
        return self.objective_weight if self.objective else 0.0


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# The groups of --help: {title: its first flag}; those after it belong to it, too.
SECTIONS = {
    "the run": "preset",
    "data": "dataset",
    "schedule": "batch_size",
    "generator": "g_emb_dim",
    "rewards": "reward",
    "discriminator": "discriminator",
    "oracle": "oracle_seed",
}


def check(config: Config) -> None:
    """Checks what no single flag shows.

    Raises:
        UsageError: two flags contradict each other.
    """
    if config.trains_discriminator:
        check_discriminator(config)
    if config.g_update != "sampled":
        check_update(config)
    if config.baseline == "prefix" and not config.rollout_num:
        raise UsageError("--baseline prefix needs a --rollout_num of 1 or more")
    if REWARDS[config.reward].oracle and config.dataset != "LSTM":
        raise UsageError(f"--reward {config.reward} needs --dataset LSTM, whose density is known")
    if config.reward == "bleu" and config.dataset == "LSTM" and not config.train_size:
        raise UsageError("--reward bleu compares with the training set: with --dataset LSTM give a --train_size")
    if config.baseline != "none" and config.batch_size < 2:
        raise UsageError(f"--baseline {config.baseline} needs a --batch_size of 2 or more")
    least = max(config.batch_size, config.d_batch_size // 2 if config.trains_discriminator else 0)
    if config.train_size and config.train_size < least:
        raise UsageError(f"--train_size: {config.train_size} is less than one batch ({least})")
    if config.objective:
        check_name(config.objective)
    for name in ("log_dir", "eval_log_dir", "data_dir", "oracle_params", "objective"):
        value = getattr(config, name)
        if not value and name not in ("oracle_params", "objective"):
            raise UsageError(f"--{name} is empty")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # what argv has in place of such bytes
            raise UsageError(f"--{name}: {value!r} is not UTF-8")
    if 0 < config.frame_beats < 0.0625:
        raise UsageError(f"--frame_beats: {config.frame_beats:g} is neither 0 nor 0.0625 or more")
    if config.dataset == "text" and config.data_dir == TUNES:
        raise UsageError("--dataset text: --data_dir must name a file of text, or a folder with train.txt")
    if config.evaluate and os.path.realpath(config.log_dir) == os.path.realpath(config.eval_log_dir):
        raise UsageError(f"--log_dir and --eval_log_dir are both {config.log_dir}")
    if config.is_train and not config.pretrain_g_epochs and not config.total_epochs:
        raise UsageError("--pretrain_g_epochs and --total_epochs are both 0: nothing to do")


def check_name(objective: str) -> None:
    """Checks the form of FILE.py:FUNCTION; raises UsageError."""
    if not all(objective.rpartition(":")):
        raise UsageError(f"--objective {objective}: not a FILE.py:FUNCTION")


def check_effect(config: Config, given: Iterable[str]) -> None:
    """Checks that each flag of the command line has an effect, by the flags' `needs`.

    Raises:
        UsageError: one has none; the message names the flag that would give it one.
    """
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
        useless = not (REWARDS[config.reward].rollouts or config.kl_weight or config.objective_share)
        if name in ("rollout_num", "rollout_lag") and useless:
            raise UsageError(f"--{name} has no effect with --reward {config.reward} and without --kl_weight above 0")


def meets(value: Any, wanted: Any) -> bool:
    """Whether the value of a flag is what another flag's `needs` has."""
    return bool(value) if wanted is ANY else value > 0 if wanted is ABOVE_ZERO else value == wanted


def check_update(config: Config) -> None:
    """Checks a --g_update that needs an additive discriminator.

    Raises:
        UsageError: another flag contradicts it.
    """
    update = f"--g_update {config.g_update}"
    if not config.guides:
        raise UsageError(f"{update} needs --discriminator {' or '.join(ADDITIVE)}, and a reward that is its own")
    if config.g_update == "expected" and config.reward != "log_odds":
        raise UsageError(f"{update} needs --reward log_odds, whose part for each next token is known")
    if config.g_update == "fold" and (config.g_steps > 1 or config.mle_steps or config.kl_weight):
        raise UsageError(f"{update} changes no weight of the generator: --g_steps is 1, --mle_steps and --kl_weight 0")


def check_discriminator(config: Config) -> None:
    """Checks the flags of the discriminator, where one is trained.

    Raises:
        UsageError: two flags contradict each other.
    """
    sizes, filters = config.d_filter_sizes, config.d_num_filters
    if config.discriminator == "cnn" and len(sizes) != len(filters):
        raise UsageError(f"--d_filter_sizes has {len(sizes)} entries and --d_num_filters {len(filters)}")
    if config.discriminator == "cnn" and max(sizes) > config.seq_len:
        raise UsageError(f"--d_filter_sizes: a filter of width {max(sizes)} is wider than --seq_len {config.seq_len}")
    if not config.train_size and config.real_draws < config.d_batch_size // 2:
        raise UsageError(f"--d_draws: {config.d_draws} is less than half a --d_batch_size of {config.d_batch_size}")
    if config.d_batch_size % 2:
        raise UsageError(f"--d_batch_size: {config.d_batch_size} is odd, and half of a minibatch is real")
    if config.d_eval_samples == 1:
        raise UsageError("--d_eval_samples: 1 has no standard error; 2 or more, or 0")
