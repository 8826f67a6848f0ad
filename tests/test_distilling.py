"""Distilling: the gradient by enumeration, padding, and what a g-step and a round do."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIGRAM, all_sequences, fitting, probabilities, random_generator, train
from fault_injection import timeless_rows
from test_model import flat
from test_token_loss import ENDS, made

from guidance.additive import BigramDiscriminator
from guidance.distilling import Distillation, divergence
from guidance.guided import GuidedPolicy
from support.parser import parse
from tools.restored import restore


@ENDS
def test_the_gradient_along_the_teachers_sequences_is_that_of_the_divergence(end_token):
    """Every sequence is weighed by its probability under the teacher."""
    student, base = (random_generator(seed=seed, end_token=end_token) for seed in (1, 2))
    teacher = GuidedPolicy(base, made(BigramDiscriminator, end_token=end_token), tf.Variable(0.7))
    tokens, t = tf.constant(all_sequences(4, 3, end_token)), probabilities(teacher)
    with tf.GradientTape() as tape:
        crossed, apart = divergence(student, teacher, tokens)
        loss = tf.reduce_sum(crossed * t[:, None])
    with tf.GradientTape() as exact:
        log_g = tf.reduce_sum(student.log_probs(tokens), axis=1)
        kl = tf.reduce_sum(t * (np.log(t) - log_g))
    assert float(tf.reduce_sum(apart * t[:, None])) == pytest.approx(float(kl), rel=1e-4)
    assert (crossed.numpy()[tokens.numpy() == 4] == 0).all() and (apart.numpy() >= -1e-6).all()
    variables = student.trainable_variables
    found, wanted = flat(tape.gradient(loss, variables)), flat(exact.gradient(kl, variables))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.linalg.norm(wanted) > 0.05


@ENDS
def test_a_student_that_is_its_teacher_has_no_gradient(end_token):
    student = random_generator(end_token=end_token)
    tokens = tf.constant(all_sequences(4, 3, end_token)[::3])
    with tf.GradientTape() as tape:
        crossed, apart = divergence(student, student, tokens)
    np.testing.assert_allclose(apart, np.zeros(apart.shape), atol=1e-6)
    for gradient in tape.gradient(crossed, student.trainable_variables):
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=1e-5)


def test_real_sequences_are_those_of_the_passes_after_pretraining(eagerly):
    words = [
        *BIGRAM[:-2],
        "--g_update",
        "distil",
        "--batch_size",
        "4",
        "--train_size",
        "12",
        "--pretrain_g_epochs",
        "2",
    ]
    config, student = parse(fitting(words)), random_generator()
    batches = tf.random.stateless_uniform([9, 3, 4, 3], [1, 2], 0, 4, tf.int32)  # by pass and place
    distil = Distillation(config, student, student, lambda epoch: batches[epoch], lambda gradients: None)
    for step in range(7):
        tokens = distil.step(tf.constant(step))[3]
        np.testing.assert_array_equal(tokens[:2], batches[2 + step // 3, step % 3, :2])
        assert tokens.shape == [4, 3] and not np.array_equal(tokens[2:], batches[2 + step // 3, step % 3, 2:])


@pytest.mark.parametrize("d_steps", [0, 1])
def test_the_generator_learns_the_guided_one_which_a_new_discriminator_makes_anew(tmp_path, eagerly, d_steps):
    """Without d-steps the teacher stays, and the divergence from it falls; with them it takes the student in."""
    epochs = 3 if d_steps else 30
    words = (
        f"--g_update distil --total_epochs {epochs} --d_steps {d_steps} --g_lr 0.05 --d_lr 0.3 --pretrain_d_epochs 20"
    )
    more = "--eval_every 30 --guide_eta 1 --distil_real 0.25 --batch_size 16"
    more += f" --log_dir {tmp_path}/train --eval_log_dir {tmp_path}/eval"
    assert train([*BIGRAM, *words.split(), *more.split()]) == 0
    divergences = [float(row["kl_of_teacher"]) for row in timeless_rows(tmp_path / "eval") if row["kl_of_teacher"]]
    seqgan, before = (restore(tmp_path / "train", *which).seqgan for which in ((), ("pretrained",)))
    teacher, student = probabilities(seqgan.guidance.copy), probabilities(seqgan.generator)
    if d_steps:
        np.testing.assert_array_equal(teacher, student)
    else:
        np.testing.assert_array_equal(teacher, probabilities(before.generator))
        assert divergences[-1] < 0.3 * divergences[0]
        kl = [float((t := probabilities(seqgan.guidance.guided)) @ np.log(t / g)) for g in (teacher, student)]
        assert divergences[-1] == pytest.approx(kl[1], rel=0.3) and kl[1] < 0.3 * kl[0]
