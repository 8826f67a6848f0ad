"""Sums of rows by token: both forms, that for a GPU and that for a CPU, are one sum; and no step for a GPU scatters."""

import functools
import math
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from conftest import cases, shared_seqgan, tiny_config

from generator import TokenSpec
from support import lookup
from support.config_file import FREE_TO_CHANGE, differences, from_flags
from support.device import configure_tensorflow

FORMS = cases("form", "GPU", "CPU")
COMPILED = cases("jit", True, False, None, ids=["XLA", "graph", "eager"])
TOKENS = np.array([[3, 0, 3], [6, 3, 0], [3, 6, 6]], np.int32)  # of 7; some often, some never


def take(monkeypatch, form: str) -> None:
    """Has rows summed in the form for a GPU, or in that for a CPU, which is there."""
    monkeypatch.setattr(lookup, "by_product", lambda: form == "GPU")


def made(function: Callable, jit: bool | None) -> Callable:
    return function if jit is None else tf.function(function, jit_compile=jit, autograph=False)


def add_up(rows: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    total = np.zeros((vocab_size, rows.shape[-1]))
    np.add.at(total, tokens.ravel(), rows.reshape(-1, rows.shape[-1]))
    return total


@FORMS
@COMPILED
@cases("count, vocab_size, emb_dim", (9, 7, 2), (1, 1, 1), (300, 40, 5))
def test_rows_are_summed_by_token(monkeypatch, form, jit, count, vocab_size, emb_dim):
    take(monkeypatch, form)
    rng = np.random.default_rng(count)
    rows, tokens = rng.normal(size=(count, emb_dim)).astype(np.float32), rng.integers(0, vocab_size, count, np.int32)
    found = made(lambda rows, tokens: lookup.summed_by_token(rows, tokens, vocab_size), jit)(rows, tokens)
    np.testing.assert_allclose(found, add_up(rows, tokens, vocab_size), rtol=1e-5, atol=1e-5)
    assert found.shape == (vocab_size, emb_dim)


@FORMS
@COMPILED
def test_a_look_up_is_the_layer_and_its_gradient_is_whole(monkeypatch, form, jit):
    take(monkeypatch, form)
    layer = keras.layers.Embedding(7, 4)
    layer.build()
    pulls = np.random.default_rng(0).normal(size=(*TOKENS.shape, 4)).astype(np.float32)

    def looked_up(tokens):
        with tf.GradientTape() as tape:
            rows = lookup.look_up(layer, tokens)
            pulled = tf.reduce_sum(rows * pulls)
        return rows, tape.gradient(pulled, layer.trainable_variables)[0]

    rows, gradient = made(looked_up, jit)(tf.constant(TOKENS))
    np.testing.assert_array_equal(rows, layer(TOKENS))
    assert isinstance(gradient, tf.Tensor)
    np.testing.assert_allclose(gradient, add_up(pulls, TOKENS, 7), rtol=1e-5, atol=1e-6)


@cases("devices, form", ([], "CPU"), (["a GPU"], "GPU"))
def test_the_form_is_that_for_the_device(monkeypatch, devices, form):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices if kind == "GPU" else ["a CPU"])
    assert lookup.by_product() == (form == "GPU")


def scattered(hlo: str) -> list[int]:
    """How many rows each scatter of a program writes."""
    counts = []
    for operands, attributes in re.findall(r" scatter\((.*?)\), (.*)", hlo):
        shapes = [[int(n) for n in sizes.split(",") if n] for sizes in re.findall(r"\w+\[([\d,]*)\]", operands)]
        indices = shapes[len(shapes) // 2]  # between the operands and as many updates
        along = int(re.search(r"index_vector_dim=(\d+)", attributes)[1])
        counts.append(math.prod(size for dim, size in enumerate(indices) if dim != along))
    assert len(counts) == len(re.findall(r"\bscatter\(", hlo))
    return counts


@cases("form, end_token, of_g, of_d", ("GPU", 2, [], []), ("CPU", None, [12, 12], [24]))
def test_no_step_for_a_gpu_scatters_more_than_a_row(monkeypatch, form, end_token, of_g, of_d):
    """For a CPU, twice a batch's tokens in an update of the generator, and once a minibatch's in one of D."""
    model, step = shared_seqgan(tiny_config(), TokenSpec(4, 3, end_token=end_token)), tf.constant(0)
    take(monkeypatch, form)
    steps = {
        "mle_epoch": (model._mle_epoch, tf.zeros([2, 4, 3], tf.int32), step),
        "g_step": (model._sampled_step, step),
        "d_step": (model._d_step, tf.zeros([8, 3], tf.int32), step),
    }
    compiled, found = functools.partial(tf.function, jit_compile=True, autograph=False), {}
    tf.random.set_seed(1)  # TensorFlow asks a random op for the device, which needs a seed once ops are deterministic
    for name, (function, *arguments) in steps.items():  # as it is given to XLA for the CPU, which alone is there
        found[name] = scattered(compiled(function).experimental_get_compiler_ir(*arguments)(stage="hlo"))
    assert found["g_step"]  # single rows, in loops
    many = {name: [rows for rows in counts if rows > 1] for name, counts in found.items()}
    assert many == {"mle_epoch": of_g, "g_step": of_g, "d_step": of_d}


@cases("deterministic", True, False)
def test_operations_repeat_as_the_flag_says(monkeypatch, deterministic):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(True))
    configure_tensorflow(deterministic=deterministic)
    assert calls == [True] * deterministic


def test_a_run_keeps_to_the_flag_and_an_older_one_repeats():
    older, other = from_flags({}), from_flags({"deterministic": False})
    assert older.deterministic and not other.deterministic
    assert differences(older, other, FREE_TO_CHANGE) == ["--deterministic True, not False"]
