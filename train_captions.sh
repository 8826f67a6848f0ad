#!/usr/bin/env bash
# Makes data/captions from COCO's captions and trains on them. Flags given to this script go on to main.py and win
# over those below. Where the discriminator knows something, captions that it has chosen are in resampled.txt in
# --log_dir. Run it again after an interruption: it goes on from the last checkpoint.
#
#   CAPTIONS=FILE_OR_FOLDER bash train_captions.sh
#
#   CAPTIONS  a folder or a zip with the captions, as docs/text.md says; not needed once data/captions is made
#   PYTHON    the interpreter (default: python)
set -euo pipefail

if [[ -n "${CAPTIONS:-}" && "$CAPTIONS" != /* ]]; then
    CAPTIONS="$PWD/$CAPTIONS" # as the next line would change what it means
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${PYTHON:-python}

"$python" -m data.prepare_captions -o data/captions ${CAPTIONS:+"$CAPTIONS"}

# 24 tokens hold 99.7 % of the captions whole. Pretraining is short and its dropout strong, as the generator memorises
# 100,000 words soon (experiments/captions_mle.toml). Then a bigram discriminator and its expected policy gradient, method
# `kl` of experiments/captions.toml.
source tools/train.sh
train \
    --dataset text --data_dir data/captions --tokens word --min_count 2 --seq_len 24 --batch_size 64 \
    --g_emb_dim 128 --g_hidden_dim 128 --g_dropout_keep_prob 0.4 \
    --g_pretrain_lr 0.005 --g_pretrain_schedule cosine --pretrain_g_epochs 2000 \
    --discriminator bigram --d_draws 115200 --d_epochs 1 --d_batch_size 256 --d_lr 0.003 --dropout_keep_prob 0.7 \
    --g_update expected --reward log_odds --rollout_num 0 --kl_weight 1 --d_steps 0 --total_epochs 200 \
    --g_lr 0.001 --g_schedule cosine \
    --log_dir logs/train/captions --eval_log_dir logs/eval/captions \
    "$@"
choose 100 resampled.txt || earlier resampled.txt
exit $status
