#!/usr/bin/env bash
# Makes data/quatrains.txt and trains on these Chinese poems. At the end 100 poems, chosen and ranked by the
# discriminator, are in samples.txt in --log_dir. Flags given to this script go on to main.py and win over the preset.
# Run it again after an interruption: it goes on from the last checkpoint. Three seeds:
#
#   for seed in 1 2 3; do
#       bash train_poems.sh --seed $seed --log_dir logs/train/poems_$seed --eval_log_dir logs/eval/poems_$seed
#   done
#
#   PYTHON         the interpreter (default: python)
#   QUATRAINS_TGZ  the package's .tgz file, to use instead of fetching it with npm
set -euo pipefail
[[ ${QUATRAINS_TGZ:-/} == /* ]] || QUATRAINS_TGZ=$PWD/$QUATRAINS_TGZ # before the folder changes
python=${PYTHON:-python}
[[ $python != */* || $python == /* ]] || python=$PWD/$python
export CALLED_FROM=$PWD # for what flags may mean
cd "$(dirname "${BASH_SOURCE[0]}")"

"$python" -m data.prepare_quatrains -o data/quatrains.txt ${QUATRAINS_TGZ:+--tgz "$QUATRAINS_TGZ"}
exec "$python" -m tools.train_and_choose 100 samples.txt --preset poems "$@"
