"""Additive discriminators with the offset q(y_<t), though trained by sequences: for experiments/losses.toml."""

from experiments import no_offset


class Bigram(no_offset.Bigram):
    """`BigramDiscriminator` with an offset."""

    has_offset = True


class LSTM(no_offset.LSTM):
    """`LSTMDiscriminator` with an offset."""

    has_offset = True


class Echo(no_offset.Echo):
    """`EchoDiscriminator` with an offset."""

    has_offset = True
