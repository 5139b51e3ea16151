"""An agent of the OpenAI Agents SDK as one step.

    pip install openai-agents
    pinrail worker exec support --bundle v1 -- python3 openai_agent.py

Each answer of the model is a checkpoint and each tool call is recorded, so a retry repeats neither. The conversation is the run's
session: runs of one session begin one after the other, on one bundle.
"""

import asyncio

import pinrail_exec as pinrail
from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pinrail_agents import PinrailSession, Recorded

# Its own traces go to OpenAI; Pinrail's have the bundle on them.
set_tracing_disabled(True)


def agent(step):
    @function_tool
    def search(query: str) -> str:
        """Looks a fact up."""
        found = step.tool("search", {"query": query}, lambda query, key: {"text": "fact about " + query["query"]})
        return found["text"]

    prompt = step.bundle["prompts"].get("system", {}).get("text")
    return Agent(name=step.agent_id, instructions=prompt, model=Recorded(step, StandIn()), tools=[search])


def chat(step):
    session = PinrailSession(step, step.session or step.run_id)
    result = asyncio.run(Runner.run(agent(step), step.input["question"], session=session))
    session.keep()
    return pinrail.done({"answer": result.final_output})


class StandIn(Model):
    """Stands in for a model: it looks the last question up, and says what it found and how many questions there were. Yours is
    OpenAIResponsesModel(step.bundle["models"]["default"]["name"], AsyncOpenAI()), say."""

    async def get_response(self, system_instructions, input, *args, **kwargs):
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        asked = [item["content"] for item in items if item.get("role") == "user"]
        if items[-1].get("type") == "function_call_output":
            text = "%s, question %d" % (items[-1]["output"], len(asked))
            part = ResponseOutputText(type="output_text", text=text, annotations=[])
            said = ResponseOutputMessage(
                type="message", id="m%d" % len(items), role="assistant", status="completed", content=[part]
            )
        else:
            said = ResponseFunctionToolCall(
                type="function_call",
                call_id="c%d" % len(items),
                name="search",
                arguments='{"query": "%s"}' % asked[-1],
            )
        usage = Usage(requests=1, input_tokens=len(items), output_tokens=1, total_tokens=len(items) + 1)
        return ModelResponse(output=[said], usage=usage, response_id=None)

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


if __name__ == "__main__":
    pinrail.serve({"chat": chat})
