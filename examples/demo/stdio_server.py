"""A notes server over stdio, started by the client. Nothing in here knows about OpenTelemetry."""

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import SamplingMessage, TextContent

NOTES = "Lisbon: hills, old trams, the river path to Belem is flat and good for cycling."

server = MCPServer("files")


@server.resource("notes://lisbon")
async def notes() -> str:
    """What the user wrote down about Lisbon."""
    await anyio.sleep(0.01)
    return NOTES


@server.prompt()
def packing_list(city: str) -> str:
    """A prompt template."""
    return f"What should I pack for a day on a bicycle in {city}?"


@server.tool()
async def summarize_notes(ctx: Context) -> str:
    """Has no model of its own: it asks the client's one (`sampling/createMessage`, server to client)."""
    question = SamplingMessage(role="user", content=TextContent(type="text", text=f"Summarize: {NOTES}"))
    answer = await ctx.session.create_message(
        [question], max_tokens=100, related_request_id=ctx.request_context.request_id
    )
    return answer.content.text if isinstance(answer.content, TextContent) else ""


if __name__ == "__main__":
    server.run()  # stdio; ends when the client closes stdin
