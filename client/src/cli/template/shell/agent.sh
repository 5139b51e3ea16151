#!/bin/sh
# The steps of the agent {{agent}} in POSIX shell: plan -> answer.
#
#     pinrail worker exec {{agent}} --bundle v1 --per-step -- ./agent.sh
#
# The step comes on stdin as JSON, the last line of stdout is the outcome, and every other line is a log. What a step needs
# in its middle it asks for with `pinrail worker call`. This script reads JSON only as far as texts without quotes go; a
# program that reads more has jq, or another language.
set -eu

step=$(cat)

call() {
    "${PINRAIL:-pinrail}" worker call "$@"
}

# text BEFORE NAME: the text of this name behind BEFORE, in the same object.
text() {
    printf '%s\n' "$step" | sed -n "s/.*$1{[^}]*\"$2\":\"\([^\"]*\)\".*/\1/p" | sed 's/\(\\n\)*$//'
}

# quote TEXT: as JSON has it.
quote() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# once NAME COMMAND…: what the command printed, in whichever attempt came so far: a retried step does not do it again.
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

search() {
    case $1 in
    *refund*) echo "A refund takes five days." ;;
    *open*) echo "We are open from 9 to 5." ;;
    *) echo "I do not know." ;;
    esac
}

# Stands in for a model, so that this runs without one: it repeats its prompt and what was found. Ask yours here.
ask_model() {
    printf '%s %s\n' "$1" "$2"
}

question=$(text '"input":' question)

case $PINRAIL_STEP in
plan)
    fact=$(once search search "$question")
    printf '{"next":"answer","input":{"question":%s,"fact":%s}}\n' "$(quote "$question")" "$(quote "$fact")"
    ;;
answer)
    prompt=$(text '"prompts":{"system":' text)
    reply=$(once reply ask_model "$prompt" "$(text '"input":' fact)")
    call usage "output_tokens:=$(printf '%s\n' "$reply" | wc -w)" >/dev/null
    # Memory belongs to the bundle: a rollback brings back what its runs knew.
    call memory.put key=last/question "value=$question" >/dev/null
    printf '{"done":{"answer":%s,"bundle":%s}}\n' "$(quote "$reply")" "$(quote "$PINRAIL_BUNDLE")"
    ;;
*)
    echo "there is no step $PINRAIL_STEP here" >&2
    exit 1
    ;;
esac
