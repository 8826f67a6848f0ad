"""Additive discriminators with the offset q(y_<t) where --d_loss has none, and without it where it has one.

Controls of experiments/losses.toml: with it by --d_loss sequence, without it by --d_loss token.
"""

from dataclasses import replace

from discriminator import Options
from generator import TokenSpec
from guidance.additive import AdditiveDiscriminator, BigramDiscriminator, EchoDiscriminator, LSTMDiscriminator
from support.registries import ADDITIVE_DEFAULTS


class _OtherOffset(AdditiveDiscriminator):
    defaults = ADDITIVE_DEFAULTS

    def __init__(self, spec: TokenSpec, options: Options):
        super().__init__(spec, replace(options, offset=not options.offset))


class Bigram(_OtherOffset, BigramDiscriminator):
    """`BigramDiscriminator` with an offset where --d_loss has none, without it where it has one."""


class LSTM(_OtherOffset, LSTMDiscriminator):
    """`LSTMDiscriminator` with an offset where --d_loss has none, without it where it has one."""


class Echo(_OtherOffset, EchoDiscriminator):
    """`EchoDiscriminator` with an offset where --d_loss has none, without it where it has one."""
