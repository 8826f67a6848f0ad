#!/usr/bin/env bash
# Gets the Nottingham folk tunes, trains on them and leaves songs, sample*.mid, in --log_dir and, when it ends or is
# interrupted, in data/Nottingham as well. Where the discriminator knows something, songs that it has chosen are in
# resampled/ in --log_dir. Flags given to this script go on to main.py and win over those below. Run it again after an
# interruption: it goes on from the last checkpoint.
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
source tools/train.sh
train "${flags[@]}"

# Also after an interruption; not after an error, which may be that the directory is another run's.
if ((status == 0 || status > 128)); then
    for song in "$log_dir"/sample*.mid; do
        [[ -f $song ]] || continue
        cp -- "$song" data/Nottingham/.song.partial
        mv -- data/Nottingham/.song.partial "data/Nottingham/${song##*/}"
    done
fi
choose 5 resampled
exit $status
