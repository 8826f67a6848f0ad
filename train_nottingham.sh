#!/usr/bin/env bash
# Gets the Nottingham folk tunes, trains on them and leaves songs, sample*.mid, in --log_dir and in data/Nottingham, where
# they are written anew every 100 epochs. At the end 20 tunes are in tunes/ in --log_dir: MIDI, ABC, and a page to see and
# hear them, tunes.html. Flags given to this script go on to main.py and win over the preset. Run it again after an
# interruption: it goes on from the last checkpoint.
#
#   PYTHON          the interpreter (default: python)
#   NOTTINGHAM_ZIP  a zip of tunes to use instead of a download
set -euo pipefail
[[ ${NOTTINGHAM_ZIP:-/} == /* ]] || NOTTINGHAM_ZIP=$PWD/$NOTTINGHAM_ZIP # before the folder changes
python=${PYTHON:-python}
[[ $python != */* || $python == /* ]] || python=$PWD/$python
export CALLED_FROM=$PWD # for what flags may mean
cd "$(dirname "${BASH_SOURCE[0]}")"

[[ " $* " == *" --data_dir"* ]] || "$python" -m data.fetch_nottingham
exec "$python" -m tools.train_and_choose 20 tunes --preset music "$@" # docs/flags.md has what the preset holds
