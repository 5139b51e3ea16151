"""What the OpenAI Agents SDK needs to run inside a Pinrail step: copy it beside pinrail_exec.py.

Recorded wraps a model, so that each of its answers is a checkpoint; PinrailSession keeps a conversation in memory.
"""

from agents import Model, ModelResponse
from agents.memory import SessionABC
from pydantic import TypeAdapter

_RESPONSE = TypeAdapter(ModelResponse)


class Recorded(Model):
    """Any model: a retried step gets the answers that were recorded, and asks for the rest. Not for streams."""

    def __init__(self, step, model):
        self.step = step
        self.model = model

    async def get_response(self, *args, **kwargs):
        async def ask():
            response = await self.model.get_response(*args, **kwargs)
            return _RESPONSE.dump_python(response, mode="json", exclude_unset=True)

        response = _RESPONSE.validate_python(await self.step.checkpoint_async("turn", ask))
        self.step.usage(input_tokens=response.usage.input_tokens, output_tokens=response.usage.output_tokens)
        return response

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError("a stream cannot be recorded: use Runner.run")


class PinrailSession(SessionABC):
    """A conversation at session/ID in the agent's memory. What a step adds is written by keep(), at its end: once, however often
    the step is tried. A value is at most 2 MiB."""

    def __init__(self, step, session_id):
        self.session_id = session_id
        self._memory = step.memory
        self._key = "session/" + session_id
        self._by = [step.run_id, step.number]
        kept = self._memory.get(self._key) or {"items": [], "before": 0, "by": None}
        # An earlier attempt of this step may have come as far as keep().
        self._items = kept["items"][: kept["before"]] if kept["by"] == self._by else kept["items"]
        self._before = len(self._items)

    def keep(self):
        self._memory.put(self._key, {"items": self._items, "before": self._before, "by": self._by})

    async def get_items(self, limit=None):
        return list(self._items if limit is None else self._items[max(0, len(self._items) - limit):])

    async def add_items(self, items):
        self._items = self._items + list(items)

    async def pop_item(self):
        if not self._items:
            return None
        *self._items, last = self._items
        return last

    async def clear_session(self):
        self._items = []
