"""Serve the steps of a Pinrail bundle from Python: one file, no dependencies.

    import pinrail_exec as pinrail

    def answer(step):
        facts = step.checkpoint("search", lambda: search(step.input["question"]))
        step.memory.put("user/77/last", step.input["question"])
        return pinrail.done({"answer": facts[0]})

    pinrail.serve({"answer": answer})

and then

    pinrail worker exec support --bundle v1 -- python3 agent.py

A step may run again after a crash: what stands in a checkpoint or a tool call is not done twice, the rest is. An exception
fails the attempt, and another one follows as the step's policy says; raise Fail(..., retry=False) where none can help.
"""

import json
import os
import socket
import sys
import threading
import traceback


class Fail(Exception):
    """The step failed; with retry=False no other attempt is made. after: "30s" until the next one."""

    def __init__(self, message, reason="", retry=True, after=None):
        super().__init__(message)
        self.outcome = {
            "fail": {
                "reason": reason,
                "message": message,
                "retry": "auto" if retry else "never",
                "after": after,
            }
        }


class Refused(Exception):
    """The cluster did not do what was asked. A LEASE_STALE says that the step goes on elsewhere: stop."""

    def __init__(self, reason, message, retry="auto"):
        super().__init__(message)
        self.reason = reason
        self.outcome = {"fail": {"reason": reason, "message": message, "retry": retry}}


class HostGone(SystemExit):
    """Nobody hears this program any more."""

    def __init__(self):
        super().__init__("the worker host is gone")


class Suppressed(Exception):
    """A tool with side effects and without a stub was not called, because the run repeats what another does, or practises."""

    def __init__(self, message):
        super().__init__(message)
        self.outcome = {"fail": {"reason": "TOOL_SUPPRESSED", "message": message, "retry": "never"}}


def next_step(name, input=None):
    """The run goes on with another step, on the same bundle."""
    return {"next": name, "input": input}


def done(output=None):
    """The run is done with this output."""
    return {"done": output}


def all_of(branches, join, settle=False):
    """The run goes on with all of these (step, input) at once; the step `join` gets their outputs in this order, or, with
    settle, {"ok": output} or {"error": {"reason", "message"}} for each."""
    steps = [{"next": name, "input": input} for name, input in branches]
    return {"all": steps, "join": join, "settle": settle}


def child(entry, then, input=None, child_input=None):
    """The run waits for a child that begins with the step `entry`, and goes on with the step `then`; see Step.woken."""
    return {"child": {"entry": entry, "input": child_input}, "then": then, "input": input}


def continue_as_new(input=None, on_live_bundle=False):
    """The run ends and a new one takes its place, with this input."""
    return {"continue": input, "on_live_bundle": on_live_bundle}


def wait(signal, then, input=None, timeout=None):
    """The run waits for a signal, at most so long ("3d"), and goes on with the step `then`; see Step.woken."""
    outcome = {"wait": signal, "then": then, "input": input}
    if timeout is not None:
        outcome["timeout"] = timeout
    return outcome


def sleep(time, then, input=None):
    """The run goes on with the step `then` after this time ("1h")."""
    return {"sleep": time, "then": then, "input": input}


class Step:
    """One attempt of one step. Its fields: input, run_id, agent_id, name, number, attempt, kind, side_effects, labels,
    session, remaining_ms, woken, last_progress, bundle (id, models, prompts, indexes, tools), and trace_parent, the W3C
    traceparent for what the step calls."""

    def __init__(self, connection, message):
        self._connection = connection
        self._recorded = message.get("checkpoints", {})
        self._names = {}
        self.name = message["step"]
        self.input = message.get("input")
        self.run_id = message["run_id"]
        self.agent_id = message["agent_id"]
        self.number = message["number"]
        self.attempt = message["attempt"]
        self.kind = message["kind"]
        self.side_effects = message["side_effects"]
        self.labels = message.get("labels", {})
        self.session = message.get("session")
        self.trace_parent = message.get("trace_parent")
        self.remaining_ms = message.get("remaining_ms")
        self.woken = message.get("woken")
        self.last_progress = message.get("last_progress")
        self.bundle = message["bundle"]
        self.memory = Memory(connection)

    @property
    def cancelled(self):
        """Why the step is to stop (requested, max_age, drain_cap, rollback, keep_alive, parent, shutdown), or None."""
        return self._connection.cancelled

    def checkpoint(self, name, make):
        """What make() gave, in whichever attempt came so far. A name used again gets #2, #3 and so on."""
        name = self._unique(name)
        return self._recorded[name] if name in self._recorded else self._record(name, make())

    async def checkpoint_async(self, name, make):
        """As checkpoint, of a coroutine function."""
        name = self._unique(name)
        return self._recorded[name] if name in self._recorded else self._record(name, await make())

    def _unique(self, name):
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        return name if count == 1 else "%s#%d" % (name, count)

    def _record(self, name, value):
        self._connection.ask("checkpoint", name=name, value=value)
        # Through JSON in the first attempt too: it must not see more than a later one would.
        return json.loads(json.dumps(value))

    def tool(self, name, input, call):
        """Calls a tool of the bundle once: call(input, key). The key is the same in every attempt."""
        answer = self._connection.ask("tool.begin", name=name, input=input)
        if answer["do"] == "replay":
            return answer["output"]
        if answer["do"] == "suppress":
            raise Suppressed("tool %s has side effects and no stub" % name)
        output = call(input, answer["key"])
        self._connection.ask("tool.end", name=name, key=answer["key"], output=output)
        return output

    def start_run(self, agent, input=None):
        """Starts a run of another agent, once however often the step is tried, and gives its id. It waits for nothing."""
        return self._connection.ask("run.start", agent=agent, input=input)["run_id"]

    def usage(self, **used):
        """What a model used: model, served_model, input_tokens, output_tokens, cost_micros. Adds up."""
        self._connection.send({"type": "usage", **used})

    def emit(self, text):
        """Says something to those who watch the run: a token of a model's answer, say. Not recorded; at most 64 KiB."""
        self._connection.send({"type": "emit", "value": text})

    def sees_tools(self, tools):
        """Tools as they really are by now: {name: {"input": schema, "output": schema}}, or None for one that is not there."""
        self._connection.send({"type": "tools", "tools": tools})

    def progress(self, value):
        """How far the step is; the next attempt finds it in last_progress. At most 16 KiB."""
        self._connection.send({"type": "progress", "value": value})


class Memory:
    """The agent's memory as the run's bundle sees it. Keys are paths: "user/77/prefs"."""

    def __init__(self, connection):
        self._connection = connection

    def get(self, key, default=None):
        value = self._connection.ask("memory.get", key=key)
        return value["value"] if value["revision"] else default

    def entry(self, key):
        """(value, revision); the revision of what is not there is 0."""
        answer = self._connection.ask("memory.get", key=key)
        return answer["value"], answer["revision"]

    def put(self, key, value, expected_revision=None):
        ask = {"key": key, "value": value}
        if expected_revision is not None:
            ask["expected_revision"] = expected_revision
        return self._connection.ask("memory.put", **ask)["revision"]

    def delete(self, key):
        self._connection.ask("memory.delete", key=key)

    def list(self, prefix=""):
        """{key: value} of everything below a prefix."""
        entries = self._connection.ask("memory.list", path=prefix)["entries"]
        return {entry["key"]: entry["value"] for entry in entries}


class _Connection:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\n")
        self._id = 0
        # Frameworks call tools and savers from threads of their own: one question at a time.
        self._lock = threading.RLock()
        self.cancelled = None

    def send(self, message):
        line = (json.dumps(message) + "\n").encode("utf-8")
        with self._lock:
            self._socket.sendall(line)

    def close(self):
        self._lines.close()
        self._socket.close()

    def receive(self):
        line = self._lines.readline()
        return json.loads(line) if line else None

    def ask(self, type, **fields):
        with self._lock:
            self._id += 1
            self.send({"id": self._id, "type": type, **fields})
            while True:
                message = self.receive()
                if message is None:
                    raise HostGone()
                if message.get("id") == self._id:
                    if "error" in message:
                        raise Refused(**message["error"])
                    return message
                if message.get("type") == "cancel":
                    self.cancelled = message.get("reason")


def serve(steps, shadow_safe=False, tools=None):
    """Serves steps, {name: function of a Step}, until the host ends. shadow_safe promises that every effect goes through
    Step.tool or Step.checkpoint. tools are the tools as they really are, {name: {"input": schema, "output": schema}}, or None
    for one that is not there: the cluster compares them with what the bundle says."""
    connection = _Connection(os.environ["PINRAIL_SOCKET"])
    hello = {"type": "hello", "protocol": 1, "steps": sorted(steps), "shadow_safe": shadow_safe}
    connection.send({**hello, "tools": tools or {}})
    while True:
        message = connection.receive()
        if message is None or message.get("type") == "shutdown":
            return
        if message.get("type") != "step":
            continue
        connection.cancelled = None
        connection.send({"type": "outcome", **_outcome(steps, Step(connection, message))})


_running = {}


def respond(steps, message):
    """For a server behind `worker http`: what to answer a POSTed message with. Steps may be served in several threads."""
    key = (message.get("run_id"), message.get("number"), message.get("attempt"))
    if message.get("type") == "cancel" and key in _running:
        _running[key].cancelled = message.get("reason")
    if message.get("type") != "step":
        return {}
    connection = _Connection(message["socket"])
    _running[key] = connection
    try:
        return _outcome(steps, Step(connection, message))
    finally:
        _running.pop(key, None)
        connection.close()


def _outcome(steps, step):
    try:
        if step.name not in steps:
            raise Fail("there is no step %s here" % step.name)
        outcome = steps[step.name](step)
        if not isinstance(outcome, dict) or not {"next", "done", "all", "child", "continue", "wait", "sleep"} & outcome.keys():
            raise Fail("the step %s returned no outcome: use done(), next_step(), all_of(), child(), continue_as_new(), wait() or sleep()" % step.name)
        return outcome
    except (Fail, Suppressed) as fail:
        return fail.outcome
    except Refused as refused:
        traceback.print_exc(file=sys.stderr)
        return refused.outcome
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"fail": {"message": "%s: %s" % (type(error).__name__, error)}}
