"""A LangGraph graph as one step, with its thread in the agent's memory.

    pip install langgraph
    pinrail worker exec support --bundle v1 -- python3 langgraph_agent.py

A retried step goes on behind the last node that was saved. An interrupt() of the graph becomes a wait of the run, which
holds no worker; `pinrail run signal RUN approved --value '…'` answers it.
"""

import operator
from typing import Annotated, TypedDict

import pinrail_exec as pinrail
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pinrail_saver import PinrailSaver


class State(TypedDict):
    question: str
    facts: Annotated[list, operator.add]
    answer: str


def graph(step):
    def look(state):
        found = step.tool("search", {"query": state["question"]}, lambda query, key: {"text": "fact about " + query["query"]})
        return {"facts": [found["text"]]}

    def write(state):
        return {"answer": " and ".join(state["facts"])}

    def approve(state):
        if "refund" not in state["question"]:
            return {}
        return {"answer": state["answer"] + ", " + interrupt({"approve": state["answer"]})}

    builder = StateGraph(State)
    for name, node in [("look", look), ("write", write), ("approve", approve)]:
        builder.add_node(name, node)
    builder.add_edge(START, "look")
    builder.add_edge("look", "write")
    builder.add_edge("write", "approve")
    builder.add_edge("approve", END)
    return builder.compile(checkpointer=PinrailSaver(step.memory))


def run(step):
    app = graph(step)
    # A session is a conversation: its runs share a thread, and begin one after the other.
    config = {"configurable": {"thread_id": step.session or step.run_id}, "metadata": {"run": step.run_id}}
    state = app.get_state(config)
    begun = (state.metadata or {}).get("run") == step.run_id
    if begun and not state.next:
        return finish(state.values)
    if not begun:
        todo = {"question": step.input["question"]}
    elif state.interrupts and step.woken:
        todo = Command(resume=step.woken["value"])
    else:
        todo = None
    # "sync": a node's result is saved before the next one begins.
    values = app.invoke(todo, config, durability="sync")
    if "__interrupt__" in values:
        return pinrail.wait("approved", then="run", input=step.input)
    return finish(values)


def finish(values):
    return pinrail.done({"answer": values["answer"], "facts": len(values["facts"])})


if __name__ == "__main__":
    pinrail.serve({"run": run})
