"""A calculator over stdio. Nothing in here, and nothing in the client that starts it, knows about OpenTelemetry."""

from mcp.server.mcpserver import MCPServer  # SDK 1.x: from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int) -> int:
    return a + b


if __name__ == "__main__":
    server.run("stdio")
