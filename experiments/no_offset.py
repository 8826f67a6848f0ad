"""Additive discriminators without the offset q(y_<t), a control of experiments/losses.toml and form.toml."""

from dataclasses import replace

from discriminator import Options
from generator import TokenSpec
from guidance.additive import AdditiveDiscriminator, BigramDiscriminator, LSTMDiscriminator
from guidance.echo import EchoDiscriminator
from support.registries import ADDITIVE_DEFAULTS


class _NoOffset(AdditiveDiscriminator):
    defaults = ADDITIVE_DEFAULTS
    has_offset = False

    def __init__(self, spec: TokenSpec, options: Options):
        super().__init__(spec, replace(options, offset=self.has_offset))


class Bigram(_NoOffset, BigramDiscriminator):
    """`BigramDiscriminator` without an offset."""


class LSTM(_NoOffset, LSTMDiscriminator):
    """`LSTMDiscriminator` without an offset."""


class Echo(_NoOffset, EchoDiscriminator):
    """`EchoDiscriminator` without an offset."""
