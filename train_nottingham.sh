#!/usr/bin/env bash
# Gets the Nottingham folk tunes, trains on them and leaves songs, sample*.mid, in --log_dir and in data/Nottingham, where
# they are written anew every 100 epochs. At the end 20 tunes, chosen and ranked by the discriminator, are in tunes/ in
# --log_dir: MIDI, ABC, and a page to see and hear them, tunes.html. Flags given to this script go on to main.py and win
# over those below. Run it again after an interruption: it goes on from the last checkpoint.
#
#   PYTHON          the interpreter (default: python)
#   NOTTINGHAM_ZIP  a Nottingham.zip to use instead of a download
set -euo pipefail

if [[ -n "${NOTTINGHAM_ZIP:-}" && "$NOTTINGHAM_ZIP" != /* ]]; then
    export NOTTINGHAM_ZIP="$PWD/$NOTTINGHAM_ZIP" # as the next line would change what it means
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${PYTHON:-python}

"$python" -m data.fetch_nottingham

# docs/flags.md has what the preset holds, RESULTS.md why.
flags=(--preset music "$@")
dataset=$("$python" -c "import sys, support.parser as p; print(p.parse(sys.argv[1:]).dataset)" "${flags[@]}")
[[ $dataset != Nottingham ]] || flags=(--songs_dir data/Nottingham "${flags[@]}")
source tools/train.sh
train "${flags[@]}"
# Plain samples where the discriminator can't choose.
choose 20 tunes --abc || "$python" tools/sample.py "$log_dir" -n 20 -o "$log_dir/tunes" --abc || true
exit $status
