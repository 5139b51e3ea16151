"""The steps of the agent {{agent}}: plan -> answer.

    pinrail worker exec {{agent}} --bundle v1 -- python3 agent.py

The bundle comes with each step, so one program serves any bundle of the same code. pinrail_exec.py beside it is the whole
library: one file, no dependencies.
"""

import pinrail_exec as pinrail

FACTS = {"refund": "A refund takes five days.", "open": "We are open from 9 to 5."}


def plan(step):
    # A tool is called once, however often the step is tried. What goes in and out is held to the schemas in tools/.
    found = step.tool("search", {"query": step.input["question"]}, search)
    return pinrail.next_step("answer", {"question": step.input["question"], "facts": found["facts"]})


def search(query, key):
    words = query["query"].lower()
    return {"facts": [fact for word, fact in FACTS.items() if word in words]}


def answer(step):
    # What stands in a checkpoint is done once too: a retried step does not ask the model again.
    reply = step.checkpoint("reply", lambda: ask_model(step.bundle, step.input))
    step.usage(input_tokens=reply["input_tokens"], output_tokens=reply["output_tokens"])
    # Memory belongs to the bundle: a rollback brings back what its runs knew.
    step.memory.put("last/question", step.input["question"])
    return pinrail.done({"answer": reply["text"], "bundle": step.bundle["id"]})


def ask_model(bundle, draft):
    """Stands in for a model, so that this runs without one: it repeats its prompt and what was found. Ask yours here; which
    one is in bundle["models"]["default"]."""
    prompt = bundle["prompts"]["system"]["text"].strip()
    text = " ".join([prompt, *(draft["facts"] or ["I do not know."])])
    return {"text": text, "input_tokens": len(prompt.split()), "output_tokens": len(text.split())}


if __name__ == "__main__":
    pinrail.serve({"plan": plan, "answer": answer})
