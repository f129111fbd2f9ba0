#!/bin/sh
# A client of libgearman, the `gearman` program: the arguments are HOST:PORT, the function and the
# payload. It takes data from standard input, as what looks like an option can't be an argument.
# When it has no connection it says so, but its exit status is 0: here it is not.
submit() {
    gearman -h "${1%:*}" -p "${1##*:}" -f "$2" 2>&1 >&3
}

exec 3>&1
if [ "$3" = - ]; then
    errors=$(submit "$@")
else
    errors=$(printf %s "$3" | submit "$@")
fi
status=$?
if [ -n "$errors" ]; then
    printf '%s\n' "$errors" >&2
fi
case $errors in
*"gearman: "*) exit 1 ;;
esac
exit "$status"
