// A server of the second generation of the SDK: 2026-07-28 and older revisions, whatever the client speaks.
//
//   node server_v2.mjs stdio | http
//
// Over HTTP it prints {"port": ...} and ends when its stdin does.

import { createServer } from "node:http";

import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, inputRequired, McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

import { newTraceparent } from "./carrier.mjs";

const text = (value) => ({ content: [{ type: "text", text: value }] });

function build() {
  const server = new McpServer({ name: "server", version: "1.0.0" });
  const tool = (name, shape, handler) => server.registerTool(name, { inputSchema: z.object(shape) }, handler);

  tool("add", { a: z.number(), b: z.number() }, ({ a, b }) => text(String(a + b)));
  tool("fail", { text: z.string() }, (args) => {
    throw new Error(args.text);
  });
  tool("report", {}, (_args, ctx) =>
    text(
      JSON.stringify({ meta: ctx.mcpReq._meta ?? {}, headers: Object.fromEntries(ctx.http?.req?.headers ?? []) }),
    ),
  );
  tool("progress", { steps: z.number() }, async ({ steps }, ctx) => {
    const { progressToken, traceparent } = ctx.mcpReq._meta;
    for (let progress = 1; progress <= steps; progress++) {
      const _meta = { traceparent: newTraceparent(traceparent) };
      const params = { progressToken, progress, total: steps, _meta };
      await ctx.mcpReq.notify({ method: "notifications/progress", params });
    }
    return text("done");
  });
  const question = { message: "Well?", requestedSchema: { type: "object", properties: { answer: { type: "string" } } } };
  tool("elicit", {}, (_args, ctx) => {
    const given = ctx.mcpReq.inputResponses?.asked;
    return given ? text(given.action) : inputRequired({ inputRequests: { asked: inputRequired.elicit(question) } });
  });
  server.registerPrompt("greet", { argsSchema: z.object({ name: z.string() }) }, (args) => ({
    messages: [{ role: "user", content: { type: "text", text: `Say hello to ${args.name}` } }],
  }));
  server.registerResource("greeting", "res://greeting", {}, (uri) => ({ contents: [{ uri: uri.href, text: "hello" }] }));
  return server;
}

if (process.argv[2] === "stdio") {
  serveStdio(build);
} else {
  const listener = createServer(toNodeHandler(createMcpHandler(build)));
  listener.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: listener.address().port })));
  process.stdin.on("end", () => process.exit()).resume();
}
