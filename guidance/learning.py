"""The policy gradient summed over all next tokens (SeqGAN, equation 6), where the score of each of them is known.

REINFORCE sees only the drawn token's reward, and so is noisy. Of an additive discriminator
s(a | y_<t) is known for every a. So Σ_a ∇G(a | y_<t) · s(a | y_<t) is taken in full; only the prefixes are drawn.
"""

import tensorflow as tf

from generator import Policy
from guidance.additive import AdditiveDiscriminator


def surrogate(
    policy: Policy,
    discriminator: AdditiveDiscriminator,
    tokens: tf.Tensor,
    *,
    reference: Policy | None = None,
    kl_weight: float = 0.0,
    advantages: tf.Tensor | None = None,
) -> tf.Tensor:
    """What has the policy gradient of E[r(Y)] - β·KL(G ‖ G₀) as its gradient, along drawn sequences.

    With v(a) = s(a | y_<t) - β·(log G(a | y_<t) - log G₀(a | y_<t)) held constant it is

        Σ_t [ Σ_a G(a | y_<t) · v(a) + log G(y_t | y_<t) · A_t ],

    where A_t is what follows y_t: its advantage by rollouts less v(y_t) - Σ_a G(a | y_<t) · v(a), which is in the first
    term. Without `advantages` A_t is 0: what a token does for the scores of later ones is left out. That is a bias, but
    spares the rollouts.

    `tokens`, int32 [B, T], are drawn from the policy G; the discriminator gives s, `reference` is G₀ (None where β, the
    `kl_weight`, is 0), and `advantages`, float32 [B, T], are of the drawn tokens, for the reward
    r(Y) - β·(log G(Y) - log G₀(Y)). Returns float32 [B], nats.
    """
    states = policy.states(tokens).hidden  # [T, B, H]
    log_probs = tf.nn.log_softmax(policy.logits(states))  # [T, B, V]
    value = discriminator.next_scores(discriminator.contexts(tokens).hidden)
    if reference is not None:
        ratio = log_probs - tf.nn.log_softmax(reference.logits(reference.states(tokens).hidden))
        value -= kl_weight * ratio
    value, mask = tf.stop_gradient(value), tf.transpose(policy.mask(tokens))  # [T, B, V], [T, B]
    expected = tf.reduce_sum(tf.exp(log_probs) * value, axis=2)  # [T, B]
    if advantages is None:
        return tf.reduce_sum(expected * mask, axis=0)
    chosen = tf.where(mask > 0, tf.transpose(tokens), 0)
    known = tf.gather(value, chosen, batch_dims=2) - expected
    follows = tf.stop_gradient(tf.transpose(advantages) - known) * mask
    return tf.reduce_sum(expected * mask + tf.gather(log_probs, chosen, batch_dims=2) * follows, axis=0)
