"""Additive discriminators with the offset q(y_<t), though trained by sequences: for experiments/losses.toml."""

from dataclasses import replace

from discriminator import Options
from generator import TokenSpec
from guidance.additive import AdditiveDiscriminator, BigramDiscriminator, LSTMDiscriminator
from guidance.echo import EchoDiscriminator
from support.registries import ADDITIVE_DEFAULTS


class _WithOffset(AdditiveDiscriminator):
    defaults = ADDITIVE_DEFAULTS

    def __init__(self, spec: TokenSpec, options: Options):
        super().__init__(spec, replace(options, offset=True))


class Bigram(_WithOffset, BigramDiscriminator):
    """`BigramDiscriminator` with an offset."""


class LSTM(_WithOffset, LSTMDiscriminator):
    """`LSTMDiscriminator` with an offset."""


class Echo(_WithOffset, EchoDiscriminator):
    """`EchoDiscriminator` with an offset."""
