"""support/seeds.py: every random number has a purpose, and every purpose its place."""

import re

import numpy as np
import scipy.stats
import tensorflow as tf
from conftest import ROOT, cases
from enumeration import index_of
from test_generator import chi_square

from data.training_set import TrainingData
from support.config import Config
from support.seeds import Purpose, dropout, key, numpy_rng, permutation, uniforms

PLACES = {
    **{"generator.py": "G_INIT", "discriminator.py": "D_INIT", "oracle.py": "ORACLE_INIT", "reward.py": "REWARD"},
    "model.py": "G_SAMPLE ROLLOUT D_FAKE D_SHUFFLE DROPOUT SCHEDULED_SAMPLING G_DROPOUT",
    "data/oracle.py": "TRAIN_SET MLE_BATCH D_REAL ORACLE_ENTROPY VALIDATION",
    "data/training_set.py": "TRAIN_SET MLE_BATCH MLE_SHUFFLE D_REAL",
    **{"evaluation/policy.py": "EVALUATE TEST_SET", "evaluation/evaluator.py": "EVALUATE"},
    **{"evaluation/discriminator.py": "D_TEST_FAKE RESAMPLE", "evaluation/oracle.py": "IMAGES D_TEST_REAL D_TEST_FAKE"},
    **{"guidance/distilling.py": "G_SAMPLE", "evaluation/text.py": "IMAGES", "evaluation/tunes.py": "IMAGES"},
}


def sources() -> dict[str, str]:
    """The parts that a run is made of: {path: content}."""
    folders = (ROOT / name for name in ("data", "evaluation", "guidance", "runs", "support"))
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    files = [path for path in files if not path.name.startswith("prepare_")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def test_every_purpose_has_its_place():
    """Two places of one purpose are of one kind, such as the data sets, of which a run has one."""
    found = {path: set(re.findall(r"\bPurpose\.([A-Z]\w*)", content)) for path, content in sources().items()}
    found = {path: names for path, names in found.items() if names}
    assert found == {path: set(names.split()) for path, names in PLACES.items()}
    assert set().union(*found.values()) | {"TOOL_SAMPLE"} == {purpose.name for purpose in Purpose}
    assert [purpose.value for purpose in Purpose] == list(range(len(Purpose)))


def test_there_are_no_other_random_numbers():
    made = r"default_rng|SeedSequence|\b(np|numpy|tf|keras)\.random\.[\w.]+\(|^\s*(import|from) (numpy\.)?random\b"
    made += r"|\bstateless_\w+\("
    others = {path for path, content in sources().items() if re.search(made, content, re.MULTILINE)}
    assert others == {"support/seeds.py"}


@cases("shape", [1], [7, 5], [3, 64, 33])
def test_numbers_are_those_of_tensorflow_under_xla(shape):
    """Compiled or not; TensorFlow's own kernel makes others of the same bits."""
    seed, values = key(7, Purpose.ROLLOUT, 2), tf.random.stateless_normal(shape, [1, 2])
    stateless, dropping = tf.random.stateless_uniform, tf.nn.experimental.stateless_dropout
    pairs = [
        (lambda seed: uniforms(shape, seed), lambda seed: stateless(shape, seed, alg="philox")),
        (lambda seed: dropout(values, 0.4, seed), lambda seed: dropping(values, 0.4, seed, rng_alg="philox")),
    ]
    for ours, theirs in pairs:
        expected = tf.function(theirs, jit_compile=True)(seed)
        for draw in (ours, tf.function(ours), tf.function(ours, jit_compile=True)):
            np.testing.assert_array_equal(draw(seed), expected)


def test_keys_give_the_same_numbers_again_and_other_keys_others():
    first = uniforms([1000], key(7, Purpose.ROLLOUT, tf.constant(1), 2))
    np.testing.assert_array_equal(first, uniforms([1000], key(7, Purpose.ROLLOUT, 1, 2)))
    assert scipy.stats.kstest(first, "uniform").pvalue > 1e-3
    keys = [(7, Purpose.ROLLOUT, 2, 1), (7, Purpose.ROLLOUT, 1), (8, Purpose.ROLLOUT, 1, 2), (7, Purpose.DROPOUT, 1, 2)]
    for other in keys:
        assert abs(np.corrcoef(first, uniforms([1000], key(*other)))[0, 1]) < 0.15


def test_permutations_are_permutations_and_uniform():
    draw = tf.function(lambda i: permutation(3, key(1, Purpose.D_SHUFFLE, i)))
    orders = np.array([draw(i).numpy() for i in tf.range(1200)])
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    counts = np.bincount(index_of(orders, 3))
    assert chi_square(counts[counts > 0], np.ones(6)) > 1e-3


def test_the_order_of_a_pass_is_its_own():
    """It was that of epoch 3 that chose the training set, as a sequence of seeds may end with any number of zeros."""
    sequences = np.arange(100, dtype=np.int32)[:, None]
    training = TrainingData(sequences, Config(train_size=100, batch_size=100, seed=7))
    orders = [tuple(training.mle_batches(epoch).numpy().ravel()) for epoch in range(30)]
    others = [tuple(numpy_rng(7, purpose).permutation(100)) for purpose in Purpose if purpose != Purpose.MLE_SHUFFLE]
    assert len(set(orders + others)) == len(orders) + len(others)
