#!/usr/bin/env bash
# Makes data/captions from COCO's captions and trains on them. At the end 100 captions, chosen and ranked by the
# discriminator, are in samples.txt in --log_dir. Flags given to this script go on to main.py and win over the preset.
# Run it again after an interruption: it goes on from the last checkpoint.
#
#   CAPTIONS=FILE_OR_FOLDER bash train_captions.sh
#
#   CAPTIONS  a folder or a zip with the captions, as docs/text.md says; not needed once data/captions is made
#   PYTHON    the interpreter (default: python)
set -euo pipefail
[[ ${CAPTIONS:-/} == /* ]] || CAPTIONS=$PWD/$CAPTIONS # before the folder changes
python=${PYTHON:-python}
[[ $python != */* || $python == /* ]] || python=$PWD/$python
export CALLED_FROM=$PWD # for what flags may mean
cd "$(dirname "${BASH_SOURCE[0]}")"

"$python" -m data.prepare_captions -o data/captions ${CAPTIONS:+"$CAPTIONS"}
exec "$python" -m tools.train_and_choose 100 samples.txt --preset captions "$@"
