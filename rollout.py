"""Monte-Carlo rollouts: the action value Q(t) of each token of a finished sample (SeqGAN, equation 4)."""

from collections.abc import Callable

import tensorflow as tf

from generator import PolicyCopy, Scorer, State, sample_tokens
from support.lookup import looped, with_row
from support.seeds import fold, uniforms

# Completions of the prefixes of a batch: how many tokens are kept, 1..T-1, an int32 scalar → int32 [N, B, T].
Completions = Callable[[tf.Tensor], tf.Tensor]

BLOCK_ROWS = 128  # rows whose tokens are drawn at once: their logits then stay in cache


class RolloutPolicy(PolicyCopy):
    """The rollout policy G_β: a copy of the policy that completes its prefixes and may lag behind it."""

    def complete(self, tokens: tf.Tensor, states: State, prefix_len: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Completes the first `prefix_len` tokens of each sequence N times; the prefix is kept as it is.

        A sequence whose prefix holds its end token is finished: its completions are all itself.

        int32 [B, T] → int32 [N, B, T]; `states` are `self.states(tokens)`, and `prefix_len` is 0..T-1, an int32 scalar.
        Entry [t] of `uniforms`, float32 [T, N, B] in [0, 1), draws token t; those of the prefix are not used.
        """
        seq_len, rollout_num, batch_size = uniforms.shape
        rows, projection = rollout_num * batch_size, self.projection()
        rollouts = tf.tile(tf.transpose(tokens)[:, None], [1, rollout_num, 1])  # [T, N, B]
        last = tf.where(prefix_len > 0, tokens[:, tf.maximum(prefix_len - 1, 0)], self.start_token)  # [B]
        # The N siblings share the distribution of their first token: one softmax for B rows, not for N·B.
        token = sample_tokens(self.logits(states.hidden[prefix_len], projection), uniforms[prefix_len])  # [N, B]
        token = self.after(last, token)
        rollouts = with_row(rollouts, prefix_len, token)
        tiled = State(*(tf.tile(s[prefix_len], [rollout_num, 1]) for s in states))  # [N·B, H]

        def step(t, token, state, rollouts):
            state = self.next_state(tf.reshape(token, [rows]), state)
            drawn = self.draw(state.hidden, projection, tf.reshape(uniforms[t], [rows]))
            token = self.after(token, tf.reshape(drawn, [rollout_num, batch_size]))
            return token, state, with_row(rollouts, t, token)

        _, _, rollouts = looped(step, token, tiled, rollouts, since=prefix_len + 1, until=seq_len)
        return tf.transpose(rollouts, [1, 2, 0])

    def draw(self, hidden: tf.Tensor, projection: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Draws a token a row, BLOCK_ROWS rows at a time.

        At once, the 1,024 rows of a batch of the paper's size took 1.9 times as long (2 busy cores).
        float32 [R, H], the projection of `projection()`, and float32 [R] in [0, 1) → int32 [R].
        """
        rows = uniforms.shape[0]
        blocks = -(-rows // BLOCK_ROWS)
        if blocks == 1:
            return sample_tokens(self.logits(hidden, projection), uniforms)
        size = -(-rows // blocks)
        more = blocks * size - rows  # rows without a meaning, fewer than `blocks`
        hidden = tf.reshape(tf.pad(hidden, [[0, more], [0, 0]]), [blocks, size, self.hidden_dim])
        uniforms = tf.reshape(tf.pad(uniforms, [[0, more]]), [blocks, size])

        def block(each: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return sample_tokens(self.logits(each[0], projection), each[1])

        return tf.reshape(tf.map_fn(block, (hidden, uniforms), fn_output_signature=tf.int32), [blocks * size])[:rows]

    def completions(self, tokens: tf.Tensor, rollout_num: int, seed: tf.Tensor) -> Completions:
        """N = `rollout_num` completions of each prefix of samples, int32 [B, T], by a key; with 0 the sample itself."""
        batch_size, seq_len = tokens.shape
        states = self.states(tokens)

        def drawn(prefix_len):
            if not rollout_num:
                return tokens[None]
            numbers = uniforms([seq_len, rollout_num, batch_size], fold(seed, prefix_len))
            return self.complete(tokens, states, prefix_len, numbers)

        return drawn

    def all_completions(self, tokens: tf.Tensor, rollout_num: int, seed: tf.Tensor) -> tf.Tensor:
        """`completions` of each prefix of 1..T-1 tokens, int32 [T - 1, N, B, T]; with N = 0 once, [1, 1, B, T]."""
        prefixes = tf.range(1, tokens.shape[1] if rollout_num else 2)
        return tf.map_fn(self.completions(tokens, rollout_num, seed), prefixes)

    def rewards(self, tokens: tf.Tensor, scorer: Scorer, rollout_num: int, seed: tf.Tensor) -> tf.Tensor:
        """The `action_values`, [B, T], of samples whose completions are drawn here; arguments as of `completions`."""
        return action_values(tokens, scorer, self.completions(tokens, rollout_num, seed))


def action_values(tokens: tf.Tensor, scorer: Scorer, completions: Completions) -> tf.Tensor:
    """The action values of finished samples, by Monte-Carlo search.

    Q(t) of a sample is the mean score of N completions of y_1..y_t for t < T, and that of Y itself for t = T. From its
    end token on, the value of a finished sequence is its score.
    `tokens`: the samples, int32 [B, T]. `scorer`: the reward of whole sequences, as `reward.Reward` makes it for these
    tokens. `completions`: those of the samples' prefixes. Returns float32 [B, T]; column t - 1 holds Q(t).
    """
    batch_size, seq_len = tokens.shape

    def value(prefix_len, values):
        mean = tf.reduce_mean(scorer(completions(prefix_len), prefix_len), axis=0)
        return (with_row(values, prefix_len - 1, mean),)

    values = with_row(tf.zeros([seq_len, batch_size]), seq_len - 1, scorer(tokens[None], tf.constant(seq_len))[0])
    return tf.transpose(looped(value, values, since=1, until=seq_len)[0])


def advantages_of(rewards: tf.Tensor, baseline: str) -> tf.Tensor:
    """Action values less a baseline: float32 [B, T] → float32 [B, T].

    The `batch` baseline of a token is the mean, in its place, over the batch's other samples, a finished one counting
    with its score. The `prefix` baseline is the value of the prefix that the token follows, Q(t - 1), by other
    rollouts; that of the first token is the batch's. Neither depends on the token once its prefix is given, so the
    gradient's expectation stays as it is; a constant reward gives exactly zero.
    """
    if baseline == "none":
        return rewards
    batch_size = rewards.shape[0]
    shifted = rewards - rewards[:1]  # exactly 0 where all are equal, which a mean of equal numbers need not be
    centred = shifted - tf.reduce_mean(shifted, axis=0)
    against_batch = centred * (batch_size / max(batch_size - 1, 1))  # = rewards - mean of the others
    if baseline == "batch":
        return against_batch
    return tf.concat([against_batch[:, :1], rewards[:, 1:] - rewards[:, :-1]], axis=1)
