"""Adam, its learning rate constant or with cosine decay."""

import keras


def adam(rate: float, network: keras.layers.Layer, decay: int = 0) -> keras.optimizers.Optimizer:
    """Adam with the epsilon of the authors' TensorFlow, its slots made at once so that a checkpoint can fill them.

    Its `rate` is constant, or falls to 0 by a cosine over `decay` updates.
    """
    falling = keras.optimizers.schedules.CosineDecay(rate, decay) if decay else rate
    optimizer = keras.optimizers.Adam(falling, epsilon=1e-8)
    optimizer.build(network.trainable_variables)
    return optimizer
