"""A service whose tool calls the other service: `shop.py PORT STOCK_URL`. Nothing in here knows about OpenTelemetry."""

import sys

from fastmcp import Client, FastMCP

mcp = FastMCP("shop")


@mcp.tool
async def order(article: str) -> str:
    """Asks the stock before it promises anything."""
    async with Client(sys.argv[2]) as stock:
        left = (await stock.call_tool("available", {"article": article})).data
    return f"ordered, {left} left" if left else "sold out"


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
