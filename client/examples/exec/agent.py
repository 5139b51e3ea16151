"""A small agent: plan -> look -> answer. It counts its visitors in memory and calls one tool.

    pinrail worker exec support --bundle v1 -- python3 agent.py
"""

import os
import signal
import urllib.request

import pinrail_exec as pinrail


def plan(step):
    print("planning", flush=True)
    words = step.checkpoint("words", lambda: step.input["question"].lower().split())
    return pinrail.next_step("look", {"words": words})


def look(step):
    def call(request, key):
        url = os.environ["COUNT_URL"] + "?key=" + key
        with urllib.request.urlopen(url, data=b"") as answer:
            seen = int(answer.read())
        crash_once("in-tool", step)
        return {"seen": seen}

    found = step.tool("count", {"words": step.input["words"]}, call) if "COUNT_URL" in os.environ else {"seen": 0}
    noted = step.checkpoint("note", lambda: note("noted"))
    crash_once("after-checkpoint", step)
    return pinrail.next_step("answer", {"words": step.input["words"], "seen": found["seen"], "noted": noted})


def answer(step):
    visits = step.memory.get("visits", 0) + 1
    step.memory.put("visits", visits)
    step.usage(input_tokens=len(step.input["words"]), output_tokens=1, cost_micros=5)
    greeting = step.bundle["prompts"].get("greeting", {}).get("text", "Hello")
    text = "%s: %d words, visit %d" % (greeting, len(step.input["words"]), visits)
    return pinrail.done({"text": text, "bundle": step.bundle["id"], "seen": step.input["seen"], "noted": step.input["noted"]})


def note(text):
    if "NOTE_FILE" in os.environ:
        with open(os.environ["NOTE_FILE"], "a") as file:
            file.write(text + "\n")
    return text


def crash_once(where, step):
    """For the tests: dies by SIGKILL at this place in the first attempt, as a machine would."""
    if os.environ.get("CRASH") == where and step.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


STEPS = {"plan": plan, "look": look, "answer": answer}

if __name__ == "__main__":
    pinrail.serve(STEPS)
