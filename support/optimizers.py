"""Adam, its learning rate constant or with cosine decay."""

import keras


def rate(start: float, decays: bool, updates: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that stays at `start`, or decays to 0 by a cosine over so many updates."""
    if not decays:
        return start
    return keras.optimizers.schedules.CosineDecay(start, max(updates, 1))


def adam(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, network: keras.layers.Layer
) -> keras.optimizers.Optimizer:
    """Adam with the epsilon of the authors' TensorFlow, its slots made at once so that a checkpoint can fill them."""
    optimizer = keras.optimizers.Adam(learning_rate, epsilon=1e-8)
    optimizer.build(network.trainable_variables)
    return optimizer
