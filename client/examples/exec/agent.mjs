// A small agent: plan -> look -> answer. It counts its visitors in memory and calls one tool.
//
//     pinrail worker exec support --bundle v1 -- node agent.mjs

import fs from "node:fs";

import * as pinrail from "./pinrail_exec.mjs";

async function plan(step) {
  console.log("planning");
  const words = await step.checkpoint("words", () => step.input.question.toLowerCase().split(/\s+/));
  return pinrail.nextStep("look", { words });
}

async function look(step) {
  const { words } = step.input;
  const found = await step.tool("count", { words }, async (request, key) => {
    const answer = await fetch(`${process.env.COUNT_URL}?key=${key}`, { method: "POST", signal: step.signal });
    const seen = Number(await answer.text());
    crashOnce("in-tool", step);
    return { seen };
  });
  const noted = await step.checkpoint("note", () => note("noted"));
  crashOnce("after-checkpoint", step);
  return pinrail.nextStep("answer", { words, seen: found.seen, noted });
}

async function answer(step) {
  const { words, seen, noted } = step.input;
  const visits = (await step.memory.get("visits", 0)) + 1;
  await step.memory.put("visits", visits);
  step.usage({ input_tokens: words.length, output_tokens: 1, cost_micros: 5 });
  const greeting = step.bundle.prompts.greeting?.text ?? "Hello";
  const text = `${greeting}: ${words.length} words, visit ${visits}`;
  return pinrail.done({ text, bundle: step.bundle.id, seen, noted });
}

function note(text) {
  if (process.env.NOTE_FILE) fs.appendFileSync(process.env.NOTE_FILE, `${text}\n`);
  return text;
}

/** For the tests: dies by SIGKILL at this place in the first attempt, as a machine would. */
function crashOnce(where, step) {
  if (process.env.CRASH === where && step.attempt === 1) process.kill(process.pid, "SIGKILL");
}

pinrail.serve({ plan, look, answer });
