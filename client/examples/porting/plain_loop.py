"""A loop of your own: a model and tools take turns until there is an answer.

    pinrail worker exec support --bundle v1 -- python3 plain_loop.py

`loop` is the whole loop as one step: each turn of the model is a checkpoint and each tool call is recorded, so that a retry goes on
where the last attempt was. `turn` hands each turn on as a step of its own: for runs that live longer than a worker, wait in
between, or should be seen turn by turn in `pinrail run steps`.
"""

import pinrail_exec as pinrail

TURNS = 8


def loop(step):
    messages = [{"role": "user", "content": step.input["question"]}]
    for _ in range(TURNS):
        # A name used again gets #2, #3 and so on: the loop needs no counter.
        reply = step.checkpoint("turn", lambda: ask_model(step.bundle, messages))
        messages.append(reply)
        if "tool" not in reply:
            return pinrail.done({"answer": reply["content"]})
        found = step.tool(reply["tool"], reply["arguments"], call_tool)
        messages.append({"role": "tool", "content": found["text"]})
    raise pinrail.Fail("no answer after %d turns" % TURNS, retry=False)


def turn(step):
    messages = step.input.get("messages") or [{"role": "user", "content": step.input["question"]}]
    if len(messages) > 2 * TURNS:
        raise pinrail.Fail("no answer after %d turns" % TURNS, retry=False)
    reply = step.checkpoint("turn", lambda: ask_model(step.bundle, messages))
    if "tool" not in reply:
        return pinrail.done({"answer": reply["content"]})
    found = step.tool(reply["tool"], reply["arguments"], call_tool)
    said = {"role": "tool", "content": found["text"]}
    return pinrail.next_step("turn", {"messages": messages + [reply, said]})


def ask_model(bundle, messages):
    """Stands in for a model: it looks two things up and says them. Ask yours here, with bundle["models"]["default"]."""
    found = [message["content"] for message in messages if message["role"] == "tool"]
    if len(found) < 2:
        query = messages[0]["content"] + "?" * len(found)
        return {"role": "assistant", "content": "", "tool": "search", "arguments": {"query": query}}
    return {"role": "assistant", "content": " and ".join(found)}


def call_tool(arguments, key):
    """Pass the key on to whatever has an effect: it is the same in every attempt."""
    return {"text": "fact about " + arguments["query"]}


if __name__ == "__main__":
    pinrail.serve({"loop": loop, "turn": turn})
