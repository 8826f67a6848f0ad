"""The presets: values that the flags start from."""

from typing import Any

from support.registries import DISCRIMINATORS

# SeqGAN's synthetic experiment: sizes from the paper and its appendix, the schedule from the authors' code.
PAPER = {
    "batch_size": 64,
    "train_size": 10_000,  # the paper's training set; 156 batches a pass
    "pretrain_g_epochs": 120,  # passes, as in the authors' code
    "pretrain_d_epochs": 50,  # 50 · 3 passes of 312 minibatches
    "total_epochs": 200,  # rounds, as in the authors' code
    "g_steps": 1,  # with d_steps 5, d_epochs 3: the best curve of the paper's figure 3
    "d_steps": 5,
    "d_epochs": 3,
    "g_emb_dim": 32,
    "g_hidden_dim": 32,
    "oracle_emb_dim": 32,
    "oracle_hidden_dim": 32,
    "oracle_init": "normal",
    "d_emb_dim": 64,
    "d_filter_sizes": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20),  # for sequences of 20
    "d_num_filters": (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160),
    "eval_every": 1,  # an epoch is a pass over 10,000 sequences: an evaluation is a small part of it
    "checkpoint_every": 5,
}
# All three phases within a minute on two cores, the program's start and compilation included; to look at, not to cite.
QUICK = {
    "vocab_size": 200,
    "seq_len": 10,  # compiles in half the time
    "pretrain_g_epochs": 300,
    "pretrain_d_epochs": 30,
    "total_epochs": 40,
    "g_lr": 0.001,  # with a baseline, since without one the curves would show drift rather than learning
    "baseline": "batch",
    "rollout_num": 8,
    "d_filter_sizes": (2, 3, 5),
    "d_num_filters": (50, 50, 50),
    "eval_every": 10,
}
# The folk tunes as the paper has them, 32 tokens of 0.4 s: maximum likelihood tuned on the validation set, the
# discriminator by d_gain, both with seed 0; then its log-odds with a KL penalty (experiments/nottingham.toml). The
# discriminator was chosen on the test set, as there was no d_gain_valid yet.
PAPER_MUSIC = {
    "dataset": "Nottingham",
    "seq_len": 32,
    "batch_size": 64,
    "g_emb_dim": 64,
    "g_hidden_dim": 128,
    "g_dropout_keep_prob": 0.5,
    "g_pretrain_lr": 0.005,
    "average": 0.995,
    "pretrain_g_epochs": 2000,
    "pretrain_d_epochs": 1000,
    "d_filter_sizes": (2, 4, 8, 16, 32),
    "d_num_filters": (60, 60, 60, 60, 60),
    "d_batch_size": 512,
    "d_epochs": 1,
    "d_lr": 0.001,
    "total_epochs": 200,
    "d_steps": 0,
    "mle_steps": 2,
    "g_lr": 0.0005,
    "cosine_decay": ("g", "d"),
    "reward": "log_odds",
    "kl_weight": 1.0,
    "rollout_num": 4,
    "baseline": "prefix",
    "eval_every": 100,
    "sample_every": 500,
}
# Sixteen bars of folk tunes, in eighths with onsets: the generator of the paper's setting that also hears what a tune
# repeats, by maximum likelihood.
MUSIC = PAPER_MUSIC | {
    "token_length": "0.5beats",
    "onsets": True,
    "seq_len": 128,
    "window_stride": 64,
    "batch_size": 32,
    "g_echo": True,
    "g_echo_twice": True,
    "total_epochs": 0,
    "eval_every": 500,
    "sample_every": 100,
}
# Whole tunes of up to 64 bars in 4/4, as many tokens a batch.
WHOLE_TUNES = MUSIC | {"window_stride": 0, "seq_len": 512, "batch_size": 8}
# Lines of text of one's own: maximum likelihood, then an additive discriminator that guides what is drawn.
TEXT = {
    "dataset": "text",
    **DISCRIMINATORS["bigram"].defaults,
    "discriminator": "bigram",
    "d_lags": (1, 2, 3, 4),
    "d_draws": 115_200,
    "d_epochs": 1,
    "d_batch_size": 256,
    "d_lr": 0.003,
    "dropout_keep_prob": 0.7,
    "total_epochs": 0,
}
# Generators of captions and of lines like them; docs/text.md has what was measured.
WIDE = {"batch_size": 64, "g_emb_dim": 128, "g_hidden_dim": 128, "g_pretrain_lr": 0.005}
FEW = {"g_dropout_keep_prob": 0.3, "average": 0.99, "best_pretraining": True, "pretrain_g_epochs": 300}
MANY = {"g_dropout_keep_prob": 0.4, "cosine_decay": ("g_pretrain", "d"), "pretrain_g_epochs": 6400}
# What captions and poems share: then the bigram discriminator's expected policy gradient.
LEARNT = TEXT | {
    "g_update": "expected",
    "reward": "log_odds",
    "rollout_num": 0,
    "kl_weight": 1.0,
    "d_steps": 0,
    "total_epochs": 200,
    "g_lr": 0.001,
    "cosine_decay": ("g_pretrain", "g", "d"),
}
# 24 tokens hold 99.7 % of COCO's captions whole. Dropout is strong, as the generator memorises 100,000 words soon;
# its share and the length of pretraining are best by nll_valid with seed 0.
CAPTIONS = WIDE | MANY | LEARNT | {"data_dir": "data/captions", "tokens": "word", "min_count": 2, "seq_len": 24}
# Chinese quatrains of 20 characters; pretraining tuned by nll_valid with seed 0.
POEMS = LEARNT | {
    "data_dir": "data/quatrains.txt",
    "batch_size": 64,
    "pretrain_g_epochs": 2000,
    "seq_len": 20,
    "vocab_size": 10_000,
    "d_lags": (1, 2, 5, 10),  # one and two lines
    "g_emb_dim": 256,
    "g_hidden_dim": 256,
    "g_dropout_keep_prob": 0.7,
    "g_pretrain_lr": 0.003,
}
# SMILES strings: maximum likelihood, then likeness to drugs as the objective.
MOLECULES = {
    "dataset": "text",
    "data_dir": "data/molecules.txt",
    "seq_len": 57,
    "vocab_size": 40,
    "batch_size": 64,
    "g_hidden_dim": 256,
    "g_pretrain_lr": 0.004,
    "cosine_decay": ("g_pretrain",),
    "pretrain_g_epochs": 10_000,
    "objective": "objectives/molecules.py:qed",
    "kl_weight": 0.05,
    "total_epochs": 300,
    "rollout_num": 0,
    "baseline": "batch",
    "g_lr": 0.0005,
}
# Defaults of a --g_update, whatever the preset.
UPDATE_DEFAULTS: dict[str, dict[str, Any]] = {
    "fold": dict(total_epochs=2, d_steps=1, g_steps=1, mle_steps=0, kl_weight=0.0),
    "distil": dict(total_epochs=1200, d_steps=0, mle_steps=0, g_lr=0.001, cosine_decay=("g",), kl_weight=0.0),
}
BY_NAME: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "quick": QUICK,
    "music": MUSIC,
    "whole_tunes": WHOLE_TUNES,
    "paper_music": PAPER_MUSIC,
    "text": TEXT,
    "text400": TEXT | WIDE | FEW,
    "text10k": TEXT | WIDE | MANY,
    "text100k": TEXT | WIDE | MANY | {"g_dropout_keep_prob": 0.7, "g_hidden_dim": 256},
    "captions": CAPTIONS,
    "poems": POEMS,
    "molecules": MOLECULES,
}
PLACES = {name: "nottingham" if name == "music" else name for name in BY_NAME}  # the names of their directories
DIRECTORIES = {name: {"log_dir": f"logs/train/{at}", "eval_log_dir": f"logs/eval/{at}"} for name, at in PLACES.items()}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, **{name: DIRECTORIES[name] | BY_NAME[name] for name in BY_NAME}}
