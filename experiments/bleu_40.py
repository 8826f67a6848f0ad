"""PG-BLEU with the references of the authors' program, a reward of experiments/table1.toml."""

import tensorflow as tf

from oracle import Oracle
from reward import Bleu
from support.seeds import Purpose, key, uniforms

REFERENCES, SEQ_LEN = 4000, 20  # 40 % of the paper's 10,000 training sequences

oracle = Oracle.from_npz("data/oracle.npz", SEQ_LEN)
references = oracle.sample(uniforms([SEQ_LEN, REFERENCES], key(0, Purpose.TRAIN_SET))).numpy()
score = Bleu(references, oracle.vocab_size, None).score


def bleu_40(tokens: tf.Tensor) -> tf.Tensor:
    """BLEU-3 against 4,000 sequences of the authors' oracle, drawn with seed 0: int32 [n, T] → float32 [n]."""
    return score(tokens)
