import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZES, assert_same, tiny_config
from test_bad_input import arrays

from data.oracle import OracleData
from oracle import Oracle
from support.parser import parse
from support.seeds import Purpose


def test_a_file_in_the_published_layout_is_that_lstm(tmp_path):
    """Its gates in the order of Keras; test_generator.py has the LSTM's equations."""
    rng = np.random.default_rng(0)
    content = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in arrays().items()}
    np.savez(tmp_path / "oracle.npz", **content)
    oracle = Oracle.from_npz(tmp_path / "oracle.npz", seq_len=3)
    stacked = [np.concatenate([content[f"{kind}_{gate}"] for gate in "ifco"], axis=-1) for kind in "WUb"]
    assert_same(oracle.get_weights(), [content["embedding"], *stacked, content["W_out"], content["b_out"]])
    assert (oracle.start_token, oracle.seq_len, oracle.vocab_size) == (0, 3, 4)


def test_the_published_oracle_gives_its_published_nll(shared_data):
    oracle = Oracle.from_npz(shared_data("reference_oracle.npz"), seq_len=20)
    with np.load(shared_data("reference_oracle_nll.npz"), allow_pickle=False) as reference:
        tokens, token_nll = reference["tokens"].astype(np.int32), reference["token_nll"]
    assert np.abs(-oracle.log_probs(tf.constant(tokens)).numpy() - token_nll).max() < 1e-4
    path = str(shared_data("reference_oracle.npz"))
    data = OracleData(parse([*SIZES, "--oracle_params", path, "--seq_len", "20"]))
    assert data.spec.vocab_size == 5000
    assert data.entropy[0] == pytest.approx(5.75, abs=0.03) and data.entropy[1] < 0.02


def test_the_papers_oracle_is_standard_normal_and_the_defaults_lstm_a_glorot_matrix_with_a_forget_bias():
    assert parse(["--preset", "paper"]).oracle_init == "normal"
    papers = Oracle(1000, 4, 20, 50, seed=32, init="normal").get_weights()
    embedding, kernel, recurrent, bias, *output = Oracle(1000, 4, 20, 50, seed=32).get_weights()
    for values in (*papers, embedding, *output):
        assert values.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * values.size))
    limit = np.sqrt(6 / (20 + 50 + 4 * 50))
    for values in (kernel, recurrent):
        assert 0.99 * limit < np.abs(values).max() <= limit
        assert values.std() == pytest.approx(limit / np.sqrt(3), abs=5 * limit / np.sqrt(values.size))
    assert not np.isin(kernel, recurrent).all()
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 50))  # i, f, c, o
    data = OracleData(parse([]))
    assert data.entropy[0] == pytest.approx(7.65, abs=0.03)
    np.testing.assert_array_equal(data.oracle.cell.kernel, Oracle(5000, 20, 20, 50, seed=32).cell.kernel)


@pytest.mark.parametrize("init", ["glorot", "normal"])
def test_the_oracle_is_seeded_by_its_own_flag(init):
    make = lambda seed: Oracle(1000, 4, 20, 50, seed=seed, init=init).get_weights()  # noqa: E731
    assert all(np.array_equal(a, b) for a, b in zip(make(32), make(32), strict=True))
    same = [np.array_equal(a, b) for a, b in zip(make(32), make(33), strict=True)]
    assert same == [False, False, False, init == "glorot", False, False]  # the constant biases
    one, two = (OracleData(tiny_config("--seed", s, "--oracle_init", init)).oracle.get_weights() for s in "12")
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert Oracle(9, 4, 3, 3, seed=1).trainable_variables == []


def test_purposes_and_epochs_draw_different_data():
    data, other = (OracleData(tiny_config("--vocab_size", "500", "--batch_size", "32", "--seed", n)) for n in "12")
    drawn = [(d.mle_batches(0)[0], d.mle_batches(1)[0], d.real(0), d.real(1), d.valid) for d in (data, other)]
    draws = [np.asarray(d)[:4] for d in sum(drawn, ())]
    for one, other in itertools.combinations(draws, 2):
        assert (one == other).mean() < 0.5
    np.testing.assert_array_equal(data.mle_batches(1)[0][:4], draws[1])
    assert data.sample(300, Purpose.TRAIN_SET).shape == (300, 3)
    assert len(np.unique(data.sample(600, Purpose.TRAIN_SET), axis=0)) > 590  # chunks differ


def test_an_epoch_of_a_training_set_is_one_pass():
    config = tiny_config("--train_size", "10", "--batch_size", "4", "--d_batch_size", "6")
    data = OracleData(config)
    passes, rows = [data.mle_batches(epoch).numpy() for epoch in range(3)], data.references()
    assert {batches.shape for batches in passes} == {(2, 4, 3)}
    known = {tuple(row) for row in rows.tolist()}
    assert {tuple(row) for batches in passes for row in batches.reshape(8, 3).tolist()} <= known
    assert any((passes[0] != other).any() for other in passes[1:])
    np.testing.assert_array_equal(data.real(0), rows)
    np.testing.assert_array_equal(OracleData(config).mle_batches(1), passes[1])
    whole = OracleData(tiny_config("--train_size", "8"))
    every = [np.sort(part, axis=0) for part in (whole.mle_batches(0).numpy().reshape(8, 3), whole.references())]
    np.testing.assert_array_equal(*every)
