"""What can be chosen by name, and where it is, so that reading a command line imports no TensorFlow."""

import pkgutil
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A class or function that a flag names: `place` is "module:name", for updates a label; `words` are for --help."""

    place: str
    words: str

    def load(self) -> Any:
        """The class or function; imports its module."""
        return pkgutil.resolve_name(self.place)


@dataclass(frozen=True)
class DiscriminatorEntry(Entry):
    """A subclass of `discriminator.Discriminator`."""

    flags: tuple[str, ...] = ()  # those of its own that it reads
    defaults: dict[str, Any] = field(default_factory=dict)  # values of flags that come with it
    additive: bool = False  # whether its log-odds are a sum over positions, so that it can guide the generator


@dataclass(frozen=True)
class RewardEntry(Entry):
    """A function of `reward.py`, and its needs: a trained `discriminator`, `rollouts`, an `oracle` of known density."""

    discriminator: bool = False
    rollouts: bool = True
    oracle: bool = False


ADDITIVE_DEFAULTS = {  # three passes over 262,144 real sequences
    "d_loss": "token",
    "pretrain_d_epochs": 1,
    "d_draws": 262_144,
    "d_epochs": 3,
    "d_batch_size": 1024,
    "d_lr": 0.005,
    "cosine_decay": ("d",),
    "d_l2": 0.0,
    "dropout_keep_prob": 1.0,
}
POOLED_DEFAULTS = {  # by d_gain_valid of folk tunes, seed 0
    "d_loss": "sequence",
    "d_hidden_dim": 128,
    "d_batch_size": 256,
    "d_lr": 0.001,
    "cosine_decay": ("d",),
    "d_l2": 0.0,
    "dropout_keep_prob": 0.6,
}
FILTERS = ("d_filter_sizes", "d_num_filters")


def additive(kind: str, words: str, own: str) -> DiscriminatorEntry:
    """The entry of an additive discriminator of guidance/ that also reads the flag `own`."""
    flags = ("guide_eta", "d_loss", own)
    return DiscriminatorEntry(f"guidance.{kind}", f"additive, {words}", flags, ADDITIVE_DEFAULTS, additive=True)


DISCRIMINATORS = {
    "cnn": DiscriminatorEntry("discriminator:ConvolutionalDiscriminator", "the paper's CNN", (*FILTERS, "d_init")),
    "pooled": DiscriminatorEntry(
        "discriminator:PooledDiscriminator",
        "a CNN with max- and mean-pooling",
        (*FILTERS, "d_hidden_dim"),
        POOLED_DEFAULTS,
    ),
    "bigram": additive("additive:BigramDiscriminator", "scores each token after those at --d_lags", "d_lags"),
    "lstm": additive("additive:LSTMDiscriminator", "scores each token after all before", "d_hidden_dim"),
    "echo": additive("additive:EchoDiscriminator", "also scores what repeats earlier tokens", "d_lags"),
}
REWARDS = {
    "discriminator": RewardEntry("reward:discriminator", "D(Y)", discriminator=True),
    "permuted": RewardEntry(
        "reward:permuted", "D(Y) of the batch's samples in a random order, a control", discriminator=True
    ),
    "log_odds": RewardEntry("reward:log_odds", "log D(Y) - log(1 - D(Y))", discriminator=True),
    "bleu": RewardEntry("reward:bleu", "BLEU-3 against the training set"),
    "optimal": RewardEntry("reward:optimal", "D*(Y) of the optimal discriminator (LSTM)", oracle=True),
    "log_ratio": RewardEntry("reward:log_ratio_to_oracle", "the log-odds of D* (LSTM)", oracle=True),
    "constant": RewardEntry("reward:constant", "1", rollouts=False),
    "random": RewardEntry("reward:random", "a random number in [0, 1)", rollouts=False),
}
DATASETS = {
    "LSTM": Entry("data.oracle:OracleData", "samples of the oracle"),
    "Nottingham": Entry("data.music.dataset:NottinghamData", "folk tunes, or other MIDI and ABC files"),
    "text": Entry("data.text:TextData", "lines of text"),
}
G_UPDATES = {
    "sampled": Entry("model:SeqGAN._sampled_step", "the paper's policy gradient"),
    "expected": Entry("model:SeqGAN._sampled_step", "its sum over all next tokens"),
    "fold": Entry("model:SeqGAN._fold", "the guided generator becomes the generator"),
    "distil": Entry("guidance.distilling:Distillation", "the generator learns a teacher, such as the guided one"),
}


def explained(registry: dict[str, Any]) -> str:
    """The names of a registry with their words, for a help text."""
    return "; ".join(f"{name}: {entry.words}" for name, entry in registry.items())
