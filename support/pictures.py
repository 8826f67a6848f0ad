"""Pictures of token sequences for TensorBoard."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def likelihoods(batches: Mapping[str, np.ndarray], vocab_size: int) -> np.ndarray:
    """Draws batches of sequences beside each other, a row a sequence, each token in the colour of its log-probability.

    The scale is the same for every epoch and batch: from 0 down to three times that of a uniform choice.

    `batches`: {title: log-probabilities [B, T] of a batch's tokens given those before them, nats}. `vocab_size`: V.
    Returns uint8 [height, width, 3], red, green and blue.
    """
    uniform = -math.log(vocab_size)
    figure = Figure(figsize=(4 * len(batches) + 1.5, 5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(batches), squeeze=False)[0]
    for panel, (title, log_probs) in zip(panels, batches.items(), strict=True):
        image = panel.imshow(log_probs, cmap="viridis", vmin=3 * uniform, vmax=0, aspect="auto", interpolation="none")
        panel.set(title=f"{title}: {-log_probs.mean():.2f} nats per token", xlabel="place in the sequence")
        panel.set_xticks([0, log_probs.shape[1] - 1], ["1", str(log_probs.shape[1])])
        panel.set_yticks([])
    legend = figure.colorbar(image, ax=panels, label="log-probability of the token under the oracle, nats")
    legend.ax.axhline(uniform, color="white")
    legend.ax.text(0.5, uniform, "uniform", color="white", ha="center", va="bottom", fontsize="small")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
