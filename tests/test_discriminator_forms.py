"""benchmarks/discriminator_forms.py: what its forms see, and its table of a run."""

import shlex

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZES, all_sequences, random_generator, train
from test_controls import on_alternating_tunes
from test_guided import without, without_cnn

from benchmarks import discriminator_forms as forms
from benchmarks import module_by_mle
from data.music.dataset import NottinghamData
from model import SeqGAN

OTHERS = {"units": 4, "dropout_keep_prob": 1.0, "l2": 0.0, "seed": 1}


@pytest.mark.parametrize("end_token", [None, 2], ids=["one length", "unequal lengths"])
def test_surprise_sees_what_the_generator_finds_likely(end_token):
    """log G of each token, and the entropy of the prediction that it follows, by the probabilities of all tokens."""
    policy, tokens = random_generator(3, 3, end_token=end_token), all_sequences(3, 3, end_token)
    seen = forms.Surprise(3, 3, 5, (1,), (2,), padded=end_token is not None, **OTHERS)
    seen.policy = lambda: policy
    embedded = seen.embedded(tf.constant(tokens)).numpy()
    for row, sequence in zip(embedded, tokens, strict=True):
        state = policy.first_state(1)
        for channels, token in zip(row[:, -2:], sequence, strict=True):
            if token == 3:  # padding
                np.testing.assert_array_equal(channels, 0)
                continue
            p = tf.nn.softmax(policy.logits(state.hidden)).numpy()[0].astype(np.float64)
            np.testing.assert_allclose(channels / forms.SCALE, [np.log(p[token]), -(p @ np.log(p))], atol=1e-5)
            state = policy.next_state(tf.constant([token]), state)


def test_two_directions_read_from_both_ends():
    """One reads the sequence, the other one its mirror image."""
    form = forms.Bidirectional(3, 3, 5, (2,), (7,), padded=False, **OTHERS)
    for lstm in form.lstms:
        lstm.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in lstm.weights])
    tokens = all_sequences(3, 3)
    there, back = (form.features(tf.constant(rows)).numpy() for rows in (tokens, tokens[:, ::-1]))
    swapped = np.concatenate([back[:, 4:8], back[:, :4], back[:, 12:], back[:, 8:12]], axis=1)
    np.testing.assert_allclose(there, swapped, atol=1e-6)
    assert np.abs(there[:, :4] - there[:, 4:8]).max() > 0.01


def test_a_pair_is_two_discriminators():
    pair, tokens = forms.Pair(3, 3, 5, (1, 2), (2, 2), padded=False, **OTHERS), tf.constant(all_sequences(3, 3))
    odds = [part.log_odds(tokens).numpy() for part in pair.parts]
    np.testing.assert_allclose(pair.log_odds(tokens), np.mean(odds, axis=0), atol=1e-6)
    assert np.abs(odds[0] - odds[1]).max() > 1e-4
    labels = tf.constant([0, 1] * 13 + [0])
    losses = [part.loss(tokens, labels, None)[0].numpy() for part in pair.parts]
    assert pair.loss(tokens, labels, None)[0].numpy() == pytest.approx(sum(losses))


def test_the_table_of_a_run(tmp_path, capsys):
    """The run's own form, trained anew, knows exactly what the run's discriminator knows."""
    pooled = "--discriminator pooled --d_hidden_dim 4 --pretrain_d_epochs 20 --pretrain_g_epochs 5"
    words = on_alternating_tunes(tmp_path, pooled)
    logdir = tmp_path / "train"
    assert train([*words, "--log_dir", str(logdir), "--eval_log_dir", str(tmp_path / "eval")]) == 0
    capsys.readouterr()
    assert forms.main([str(logdir)]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["pooled", "surprise", "bidirectional", "pair"]
    model = SeqGAN.restored(logdir)
    known = NottinghamData(model.config).evaluate_discriminator(model, 0)
    for cell, name in zip(rows[2][1:3], ("d_gain_valid", "d_gain"), strict=True):
        assert cell == "{:.4f} ± {:.4f}".format(*known[name])
    assert rows[3][1] != rows[2][1] != rows[5][1]
    assert forms.main([str(tmp_path / "tunes")]) == 2
    assert "no run" in capsys.readouterr().err


def test_other_data_than_the_run_has_read_are_refused(tmp_path, capsys):
    """By this program and by the module by maximum likelihood; and a discriminator that was not measured."""
    (tmp_path / "lines").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / "lines" / f"{name}.txt").write_text("abc\ncba\nbac\n" * 8)
    words = [*without_cnn(SIZES), "--dataset", "text", "--data_dir", str(tmp_path / "lines"), "--no-jit"]
    words += shlex.split("--vocab_size 9 --total_epochs 0 --d_draws 8 --no-evaluate")
    bigram, pooled = shlex.split("--discriminator bigram"), shlex.split("--discriminator pooled --pretrain_d")
    pooled += shlex.split("--d_filter_sizes 1 2 --d_num_filters 2 2")
    for name, more in (("bigram", bigram), ("pooled", pooled)):
        assert train([*without(words, "--rollout_num", 1), *more, "--log_dir", str(tmp_path / name)]) == 0
    with pytest.raises(SystemExit) as stopped:
        module_by_mle.main([str(tmp_path / "bigram"), "--seconds", "nan"])
    assert stopped.value.code == 2
    capsys.readouterr()
    assert forms.main([str(tmp_path / "pooled")]) == 2 and "not measured" in capsys.readouterr().err
    (tmp_path / "lines" / "valid.txt").write_text("aaa\n" * 8)
    with pytest.raises(SystemExit) as stopped:
        module_by_mle.main([str(tmp_path / "bigram")])
    assert stopped.value.code == 2 and "other data" in capsys.readouterr().err
