#!/bin/sh
# A small agent in POSIX shell: plan -> answer. It counts words once, and its visitors in memory.
#
#     pinrail worker exec support --bundle v1 --per-step -- ./agent.sh
#
# The step object comes on stdin, the last line of stdout is the outcome, and every other line is a log. What it needs in
# the middle of a step it asks for with `pinrail worker call`. Its reading of JSON is as simple as its input, an object
# of numbers and of texts without quotes; a program that reads more has jq, or another language.
set -eu

step=$(cat)

call() {
    "${PINRAIL:-pinrail}" worker call "$@"
}

# text NAME, number NAME: a field of the step's input.
text() {
    printf '%s\n' "$step" | sed -n "s/.*\"input\":{[^}]*\"$1\":\"\([^\"]*\)\".*/\1/p"
}
number() {
    printf '%s\n' "$step" | sed -n "s/.*\"input\":{[^}]*\"$1\":\([0-9][0-9]*\).*/\1/p"
}

# quote TEXT: as JSON has it.
quote() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# once NAME COMMAND…: what the command printed, in whichever attempt came so far.
once() {
    name=$1
    shift
    if [ "$(call checkpoint.get "name=$name" --field found)" = true ]; then
        call checkpoint.get "name=$name" --field value
        return
    fi
    value=$("$@")
    call checkpoint "name=$name" "value=$value" >/dev/null
    printf '%s\n' "$value"
}

count() {
    [ -z "${NOTE_FILE:-}" ] || echo counted >>"$NOTE_FILE"
    printf '%s\n' "$1" | wc -w | tr -d ' '
}

# For the tests: dies by SIGKILL at this place in the first attempt, as a machine would.
crash_once() {
    [ "${CRASH:-}" != "$1" ] || [ "$PINRAIL_ATTEMPT" != 1 ] || kill -9 $$
}

case $PINRAIL_STEP in
plan)
    echo planning
    words=$(once words count "$(text question)")
    crash_once after-checkpoint
    printf '{"next":"answer","input":{"words":%s}}\n' "$words"
    ;;
answer)
    words=$(number words)
    visits=$(call memory.get key=visits --field value)
    [ "$visits" != null ] || visits=0
    visits=$((visits + 1))
    call memory.put key=visits "value:=$visits" >/dev/null
    call usage "input_tokens:=$words" output_tokens:=1 cost_micros:=5 >/dev/null
    printf '{"done":%s}\n' "$(quote "$words words, visit $visits")"
    ;;
*)
    echo "no step $PINRAIL_STEP here" >&2
    exit 1
    ;;
esac
