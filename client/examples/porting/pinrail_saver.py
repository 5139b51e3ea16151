"""A LangGraph checkpointer over the memory of a Pinrail step: copy it beside pinrail_exec.py.

The newest checkpoint of a thread is at thread/ID/NAMESPACE, with the writes that its open tasks made already; older ones are
in the history of that key, for as long as the agent's policy keeps versions. Memory belongs to the bundle, so a rollback takes threads
back to what the old bundle knew. A value is at most 2 MiB.
"""

import base64
import threading

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)


class PinrailSaver(BaseCheckpointSaver):
    """Of one attempt of a step: PinrailSaver(step.memory)."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory
        # LangGraph saves from several threads, and a save of writes reads what is there first.
        self._lock = threading.RLock()

    def get_tuple(self, config):
        kept = self.memory.get(_key(config))
        asked = get_checkpoint_id(config)
        if kept is None or (asked and asked != kept["id"]):
            return None
        return CheckpointTuple(
            config=_named(config, kept["id"]),
            checkpoint=self._unpack(kept["checkpoint"]),
            metadata=self._unpack(kept["metadata"]),
            parent_config=_named(config, kept["parent"]) if kept["parent"] else None,
            pending_writes=[(task, channel, self._unpack(value)) for task, _, channel, value in kept["writes"]],
        )

    def list(self, config, *, filter=None, before=None, limit=None):
        newest = config and self.get_tuple(config)
        if newest and all(newest.metadata.get(key) == value for key, value in (filter or {}).items()):
            yield newest

    def put(self, config, checkpoint, metadata, new_versions):
        kept = {
            "id": checkpoint["id"],
            "parent": get_checkpoint_id(config),
            "checkpoint": self._pack(checkpoint),
            "metadata": self._pack(get_checkpoint_metadata(config, metadata)),
            "writes": [],
        }
        with self._lock:
            self.memory.put(_key(config), kept)
        return _named(config, checkpoint["id"])

    def put_writes(self, config, writes, task_id, task_path=""):
        with self._lock:
            kept = self.memory.get(_key(config))
            if kept is None or kept["id"] != get_checkpoint_id(config):
                return
            known = {(task, index): write for write in kept["writes"] for task, index, *_ in [write]}
            for index, (channel, value) in enumerate(writes):
                at = (task_id, WRITES_IDX_MAP.get(channel, index))
                # What a task wrote stands; only errors and interrupts are said anew.
                if at[1] < 0 or at not in known:
                    known[at] = [*at, channel, self._pack(value)]
            self.memory.put(_key(config), {**kept, "writes": list(known.values())})

    def delete_thread(self, thread_id):
        for key in self.memory.list("thread/%s/" % thread_id):
            self.memory.delete(key)

    async def aget_tuple(self, config):
        return self.get_tuple(config)

    async def alist(self, config, *, filter=None, before=None, limit=None):
        for kept in self.list(config, filter=filter, before=before, limit=limit):
            yield kept

    async def aput(self, config, checkpoint, metadata, new_versions):
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(self, config, writes, task_id, task_path=""):
        self.put_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id):
        self.delete_thread(thread_id)

    def _pack(self, value):
        kind, data = self.serde.dumps_typed(value)
        return [kind, base64.b64encode(data).decode("ascii")]

    def _unpack(self, packed):
        kind, data = packed
        return self.serde.loads_typed((kind, base64.b64decode(data)))


def _key(config):
    place = config["configurable"]
    return "thread/%s/%s" % (place["thread_id"], place.get("checkpoint_ns") or "-")


def _named(config, checkpoint_id):
    place = config["configurable"]
    return {
        "configurable": {
            "thread_id": place["thread_id"],
            "checkpoint_ns": place.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint_id,
        }
    }
