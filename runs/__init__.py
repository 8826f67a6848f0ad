"""How a run is kept: its directories and identity, schedule, checkpoints, logs and records."""
