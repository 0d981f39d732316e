#!/bin/bash
# A stand-in for limactl, on Linux, where the "VM" is this very machine. Like the real one it joins the command into one
# line for a login shell over there, asks for a terminal there if and only if its standard output is one, and a signal
# that ends it without a terminal does not reach the command. State is in the directory $LIMA_STAND_IN: list.json (with
# the word STATUS in it), status, home and bin of the "VM", and calls, a line for each call.
set -u
state=$LIMA_STAND_IN
printf '%s\n' "${*@Q}" >> "$state/calls"
command=$1
shift
case $command in
  list)
    if [ -e "$state/status" ]; then sed "s/STATUS/$(cat "$state/status")/" "$state/list.json"; fi
    ;;
  create) echo Stopped > "$state/status" ;;
  start)
    if [ -e "$state/start-fails" ]; then echo 'level=fatal msg="exiting, status={Running:false}"' >&2; exit 1; fi
    echo 'time="2026-01-01T00:00:00Z" level=info msg="Starting the \"instance\""' >&2
    echo Running > "$state/status"
    ;;
  stop) echo Stopped > "$state/status" ;;
  shell)
    [ "$1" = --workdir ] && [ "$3" = mvmctl ] && [ "$4" = -- ] || { echo "stand-in: unexpected: $*" >&2; exit 99; }
    workdir=$2
    shift 4
    script="cd ${workdir@Q} || exit 1 ; exec \"\$SHELL\" -c $(printf '%q' "${*@Q}")"
    guest=(env -i HOME="$state/home" PATH="$state/bin:/usr/bin:/bin" SHELL=/bin/bash TERM="${TERM:-dumb}" bash -c "$script")
    if [ -t 1 ]; then exec "${guest[@]}"; fi
    # The cat is ssh: what it does not pass on is lost.
    setsid --wait "${guest[@]}" <&0 | cat
    exit "${PIPESTATUS[0]}"
    ;;
  *) echo "stand-in: unknown command $command" >&2; exit 99 ;;
esac
