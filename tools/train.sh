# shellcheck shell=bash
# For the scripts that train, which set `python` and go to the folder of main.py.

# train FLAG...: runs main.py; sets `log_dir` and `status`, its exit status. Signals to the script are meant for the
# training, which saves and ends. Ctrl-C reaches both without help.
train() {
    case " $* " in *" --help "* | *" -h "* | *" --version "*) exec "$python" main.py "$@" ;; esac
    log_dir=$("$python" -c "import sys, support.parser as p; print(p.parse(sys.argv[1:]).log_dir)" "$@")
    "$python" main.py "$@" &
    training=$!
    trap 'kill -TERM $training 2>/dev/null || true' TERM
    trap 'kill -HUP $training 2>/dev/null || true' HUP
    trap : INT
    status=0
    wait $training || status=$?
    while kill -0 $training 2>/dev/null; do # a signal has ended the wait, not the training
        status=0
        wait $training || status=$?
    done
}

# choose NUMBER NAME FLAG...: so many samples, each chosen of 16 candidates by the discriminator, to NAME in the run's
# directory. Where its gain is not beyond its error, a line says so, there are none, and the exit status is not 0.
choose() {
    ((status == 0)) || return 0
    "$python" tools/sample.py "$log_dir" --candidates 16 --rank -n "$1" -o "$log_dir/$2" "${@:3}"
}

# earlier NAME: says so where NAME is in the run's directory though this run has not written it.
earlier() {
    [[ ! -e $log_dir/$1 ]] || echo "$log_dir/$1: not of this run, but of an earlier one" >&2
}
