// Serve the steps of a Pinrail bundle from Node: one file, no dependencies, Node 18 or later.
//
//     import * as pinrail from "./pinrail_exec.mjs";
//
//     async function answer(step) {
//       const facts = await step.checkpoint("search", () => search(step.input.question));
//       await step.memory.put("user/77/last", step.input.question);
//       return pinrail.done({ answer: facts[0] });
//     }
//
//     pinrail.serve({ answer });
//
// and then
//
//     pinrail worker exec support --bundle v1 -- node agent.mjs
//
// A step may run again after a crash: what stands in a checkpoint or a tool call is not done twice, the rest is. What a
// step throws fails the attempt, and another one follows as the step's policy says; throw Fail with retry: false where
// none can help.

import net from "node:net";

/** The step failed; with retry: false no other attempt is made. after: "30s" until the next one. */
export class Fail extends Error {
  constructor(message, { reason = "", retry = true, after = null } = {}) {
    super(message);
    this.outcome = { fail: { reason, message, retry: retry ? "auto" : "never", after } };
  }
}

/** The cluster did not do what was asked. A LEASE_STALE says that the step goes on elsewhere: stop. */
export class Refused extends Error {
  constructor({ reason, message, retry = "auto" }) {
    super(message);
    this.reason = reason;
    this.outcome = { fail: { reason, message, retry } };
  }
}

/** A tool with side effects and without a stub was not called, because the run repeats what another does, or practises. */
export class Suppressed extends Error {
  constructor(message) {
    super(message);
    this.outcome = { fail: { reason: "TOOL_SUPPRESSED", message, retry: "never" } };
  }
}

/** The run goes on with another step, on the same bundle. */
export const nextStep = (name, input = null) => ({ next: name, input });

/** The run is done with this output. */
export const done = (output = null) => ({ done: output });

/**
 * The run goes on with all of these [step, input] at once; the step `join` gets their outputs in this order, or, with
 * settle, {ok: output} or {error: {reason, message}} for each.
 */
export const allOf = (branches, join, settle = false) =>
  ({ all: branches.map(([next, input]) => ({ next, input })), join, settle });

/** The run waits for a child that begins with the step `entry`, and goes on with the step `then`; see Step.woken. */
export const child = (entry, then, input = null, childInput = null) =>
  ({ child: { entry, input: childInput }, then, input });

/** The run ends and a new one takes its place, with this input. */
export const continueAsNew = (input = null, onLiveBundle = false) =>
  ({ continue: input, on_live_bundle: onLiveBundle });

/** The run waits for a signal, at most so long ("3d"), and goes on with the step `then`; see Step.woken. */
export const wait = (signal, then, input = null, timeout = null) => ({ wait: signal, then, input, timeout });

/** The run goes on with the step `then` after this time ("1h"). */
export const sleep = (time, then, input = null) => ({ sleep: time, then, input });

/** What JSON makes of a value. */
const plain = (value) => (value === undefined ? null : JSON.parse(JSON.stringify(value)));

/**
 * One attempt of one step: input, runId, agentId, name, number, attempt, kind, sideEffects, labels, session, remainingMs, woken,
 * lastProgress, bundle (id, models, prompts, indexes, tools), memory; traceParent, the W3C traceparent for what the step calls;
 * signal, an AbortSignal for what must stop when the step does.
 */
export class Step {
  #connection;
  #recorded;
  #names = new Map();
  #stop = new AbortController();

  constructor(connection, message) {
    this.#connection = connection;
    this.#recorded = message.checkpoints ?? {};
    this.name = message.step;
    this.input = message.input;
    this.runId = message.run_id;
    this.agentId = message.agent_id;
    this.number = message.number;
    this.attempt = message.attempt;
    this.kind = message.kind;
    this.sideEffects = message.side_effects;
    this.labels = message.labels ?? {};
    this.session = message.session;
    this.traceParent = message.trace_parent;
    this.remainingMs = message.remaining_ms;
    this.woken = message.woken;
    this.lastProgress = message.last_progress;
    this.bundle = message.bundle;
    this.memory = new Memory(connection);
    /** Why the step is to stop (requested, max_age, drain_cap, rollback, keep_alive, parent, shutdown), or null. */
    this.cancelled = null;
    connection.onCancel = (reason) => {
      this.cancelled = reason;
      this.#stop.abort(reason);
    };
  }

  get signal() {
    return this.#stop.signal;
  }

  /** What make() gave, in whichever attempt came so far. A name used again gets #2, #3 and so on. */
  async checkpoint(name, make) {
    const count = (this.#names.get(name) ?? 0) + 1;
    this.#names.set(name, count);
    const unique = count === 1 ? name : `${name}#${count}`;
    if (Object.hasOwn(this.#recorded, unique)) return this.#recorded[unique];
    // Through JSON in the first attempt too: it must not see more than a later one would.
    const value = plain(await make());
    await this.#connection.ask("checkpoint", { name: unique, value });
    return value;
  }

  /** Calls a tool of the bundle once: call(input, key). The key is the same in every attempt. */
  async tool(name, input, call) {
    const answer = await this.#connection.ask("tool.begin", { name, input: plain(input) });
    if (answer.do === "replay") return answer.output;
    if (answer.do === "suppress") {
      throw new Suppressed(`tool ${name} has side effects and no stub`);
    }
    const output = plain(await call(input, answer.key));
    await this.#connection.ask("tool.end", { name, key: answer.key, output });
    return output;
  }

  /** Starts a run of another agent, once however often the step is tried, and gives its id. It waits for nothing. */
  async startRun(agent, input = null) {
    return (await this.#connection.ask("run.start", { agent, input: plain(input) })).run_id;
  }

  /** What a model used: model, served_model, input_tokens, output_tokens, cost_micros. Adds up. */
  usage(used) {
    this.#connection.send({ type: "usage", ...used });
  }

  /** Says something to those who watch the run: a token of a model's answer, say. Not recorded; at most 64 KiB. */
  emit(text) {
    this.#connection.send({ type: "emit", value: plain(text) });
  }

  /** Tools as they really are by now: {name: {input, output}}, or null for one that is not there. */
  seesTools(tools) {
    this.#connection.send({ type: "tools", tools });
  }

  /** How far the step is; the next attempt finds it in lastProgress. At most 16 KiB. */
  progress(value) {
    this.#connection.send({ type: "progress", value: plain(value) });
  }
}

/** The agent's memory as the run's bundle sees it. Keys are paths: "user/77/prefs". */
class Memory {
  #connection;

  constructor(connection) {
    this.#connection = connection;
  }

  async get(key, otherwise = null) {
    const { value, revision } = await this.entry(key);
    return revision === 0 ? otherwise : value;
  }

  /** {value, revision}; the revision of what is not there is 0. */
  async entry(key) {
    const { value, revision } = await this.#connection.ask("memory.get", { key });
    return { value, revision };
  }

  async put(key, value, expectedRevision) {
    const ask = { key, value: plain(value) };
    if (expectedRevision !== undefined) ask.expected_revision = expectedRevision;
    return (await this.#connection.ask("memory.put", ask)).revision;
  }

  async delete(key) {
    await this.#connection.ask("memory.delete", { key });
  }

  /** A Map of everything below a prefix. */
  async list(prefix = "") {
    const { entries } = await this.#connection.ask("memory.list", { path: prefix });
    return new Map(entries.map((entry) => [entry.key, entry.value]));
  }
}

class Connection {
  #socket;
  #text = "";
  #id = 0;
  #asked = new Map();

  constructor(path, onMessage) {
    this.onCancel = () => {};
    this.closed = new Promise((resolve) => {
      this.#socket = net.createConnection(path, () => {});
      this.#socket.setEncoding("utf8");
      this.#socket.on("data", (text) => this.#read(text, onMessage));
      // What went wrong is told by the close that follows.
      this.#socket.on("error", () => {});
      this.#socket.on("close", resolve);
    });
    this.closed.then(() => {
      for (const { reject } of this.#asked.values()) reject(new Error("the worker host is gone"));
    });
  }

  send(message) {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  ask(type, fields) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) throw new Error("the worker host is gone");
      this.#asked.set(id, { resolve, reject });
      this.send({ id, type, ...fields });
    });
  }

  end() {
    this.#socket.end();
  }

  #read(text, onMessage) {
    const lines = text.split("\n");
    lines[0] = this.#text + lines[0];
    this.#text = lines.pop();
    for (const line of lines) {
      const message = JSON.parse(line);
      const asked = this.#asked.get(message.id);
      if (asked) {
        this.#asked.delete(message.id);
        if (message.error) asked.reject(new Refused(message.error));
        else asked.resolve(message);
      } else if (message.type === "cancel") {
        this.onCancel(message.reason);
      } else {
        onMessage(message);
      }
    }
  }
}

/**
 * Serves steps, {name: function of a Step}, until the host ends; then ends the process. shadowSafe promises that every
 * effect goes through Step.tool or Step.checkpoint. tools are the tools as they really are, {name: {input: schema, output:
 * schema}}, or null for one that is not there: the cluster compares them with what the bundle says.
 */
export function serve(steps, { shadowSafe = false, tools = {} } = {}) {
  const connection = new Connection(process.env.PINRAIL_SOCKET, async (message) => {
    if (message.type === "shutdown") return process.exit(0);
    if (message.type !== "step") return;
    const outcome = await outcomeOf(steps, new Step(connection, message));
    connection.send({ type: "outcome", ...outcome });
  });
  connection.closed.then(() => process.exit(1));
  const hello = { type: "hello", protocol: 1, steps: Object.keys(steps).sort(), shadow_safe: shadowSafe };
  connection.send({ ...hello, tools });
}

const running = new Map();

/** For a server behind `worker http`: what to answer a POSTed message with. */
export async function respond(steps, message) {
  const key = `${message.run_id}/${message.number}/${message.attempt}`;
  if (message.type === "cancel") running.get(key)?.onCancel(message.reason);
  if (message.type !== "step") return {};
  const connection = new Connection(message.socket, () => {});
  running.set(key, connection);
  try {
    return await outcomeOf(steps, new Step(connection, message));
  } finally {
    running.delete(key);
    connection.end();
  }
}

async function outcomeOf(steps, step) {
  try {
    if (!Object.hasOwn(steps, step.name)) throw new Fail(`there is no step ${step.name} here`);
    const outcome = await steps[step.name](step);
    if (!["next", "done", "all", "child", "continue", "wait", "sleep"].some((kind) => outcome?.[kind] !== undefined)) {
      throw new Fail(`the step ${step.name} returned no outcome: use done(), nextStep(), allOf(), child(), continueAsNew(), wait() or sleep()`);
    }
    return outcome;
  } catch (error) {
    if (error instanceof Fail || error instanceof Suppressed) return error.outcome;
    console.error(error);
    if (error instanceof Refused) return error.outcome;
    return { fail: { message: String(error) } };
  }
}
