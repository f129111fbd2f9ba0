#!/bin/sh
# A worker of libgearman, the `gearman` program: the argument is HOST:PORT. A signal ends it.
#
# It runs the same command for all its functions, so each function has a process of its own. It does
# not read before it has written all, so the commands do not write before they have read all. They
# can't send WORK_STATUS, or WORK_DATA that is not a line of the result: there is no `progress`.
work() {
    function=$1
    shift
    gearman -w -h "$host" -p "$port" -f "$function" -- "$@" &
    workers="$workers $!"
}

host=${1%:*}
port=${1##*:}
workers=
trap 'kill $workers; exit' TERM INT
work reverse perl -0777 -e 'binmode STDIN; print scalar reverse scalar <STDIN> // ""'
work fail sh -c 'cat >/dev/null; exit 1'
work slow perl -0777 -e '$_ = <STDIN> // ""; select undef, undef, undef, 0.5; print'
wait
