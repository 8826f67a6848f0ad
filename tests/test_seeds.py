"""support/seeds.py: every random number has a purpose, and every purpose its place."""

import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from data.training_set import TrainingSet
from support.seeds import Purpose, dropout, key, numpy_rng, uniforms

DATA_SETS = "oracle.py data/music/dataset.py data/text.py"
PLACES = {
    **{"G_INIT": "generator.py", "D_INIT": "additive.py discriminator.py", "ORACLE_INIT": "oracle.py"},
    **{"TRAIN_SET": "oracle.py data/training_set.py", "TEST_SET": "evaluation.py", "ORACLE_ENTROPY": "oracle.py"},
    **{"MLE_BATCH": "oracle.py data/training_set.py", "MLE_SHUFFLE": "data/training_set.py"},
    **dict.fromkeys(("G_SAMPLE", "ROLLOUT", "SCHEDULED_SAMPLING", "G_DROPOUT"), "model.py"),
    **dict.fromkeys(("D_FAKE", "D_SHUFFLE", "DROPOUT"), "model.py"),
    **{"D_REAL": "oracle.py data/training_set.py", "REWARD": "reward.py"},
    **{
        "EVALUATE": "evaluation.py data/music/dataset.py data/text.py",
        "IMAGES": DATA_SETS,
        "TOOL_SAMPLE": "tools/sample.py",
    },
    **{"D_TEST_REAL": "oracle.py", "VALIDATION": "oracle.py", "D_TEST_FAKE": "oracle.py data/held_out.py"},
    "RESAMPLE": "model.py tools/controls.py tools/sample.py",
}


def sources() -> dict[str, str]:
    """The program: {path: content}; without tests and what no run is: benchmarks, and data/prepare_*.py."""
    folders = (ROOT / name for name in ("data", "runs", "support", "tools"))
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    files = [path for path in files if not path.name.startswith("prepare_")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def test_every_purpose_has_its_place():
    """Two places of one purpose are of one kind, such as the data sets, of which a run has one."""
    found: dict[str, set[str]] = {purpose.name: set() for purpose in Purpose}
    for path, content in sources().items():
        for name in re.findall(r"\bPurpose\.([A-Z]\w*)", content):
            found[name].add(path)
    assert found == {name: set(places.split()) for name, places in PLACES.items()}
    assert [purpose.value for purpose in Purpose] == list(range(len(Purpose)))


def test_there_are_no_other_random_numbers():
    made = r"default_rng|SeedSequence|\b(np|numpy|tf|keras)\.random\.[\w.]+\(|^\s*(import|from) (numpy\.)?random\b"
    made += r"|\bstateless_\w+\("
    others = {path for path, content in sources().items() if re.search(made, content, re.MULTILINE)}
    assert others == {"support/seeds.py"}


@pytest.mark.parametrize("shape", [[1], [7, 5], [3, 64, 33]])
def test_numbers_are_those_of_tensorflow_under_xla(shape):
    """Compiled or not; TensorFlow's own kernel makes others of the same bits."""
    seed, values = key(7, Purpose.ROLLOUT, 2), tf.random.stateless_normal(shape, [1, 2])
    pairs = [
        (lambda seed: uniforms(shape, seed), lambda seed: tf.random.stateless_uniform(shape, seed, alg="philox")),
        (
            lambda seed: dropout(values, 0.4, seed),
            lambda seed: tf.nn.experimental.stateless_dropout(values, 0.4, seed, rng_alg="philox"),
        ),
    ]
    for ours, theirs in pairs:
        expected = tf.function(theirs, jit_compile=True)(seed)
        for draw in (ours, tf.function(ours), tf.function(ours, jit_compile=True)):
            np.testing.assert_array_equal(draw(seed), expected)


def test_the_order_of_a_pass_is_its_own():
    """It was that of epoch 3 that chose the training set, as a sequence of seeds may end with any number of zeros."""
    sequences = np.arange(100, dtype=np.int32)[:, None]
    orders = [tuple(TrainingSet(sequences, 100, seed=7).mle_batches(epoch).numpy().ravel()) for epoch in range(30)]
    others = [tuple(numpy_rng(7, purpose).permutation(100)) for purpose in Purpose if purpose != Purpose.MLE_SHUFFLE]
    assert len(set(orders + others)) == len(orders) + len(others)
