// A server whose tools report what reached them, and ask the client.
//
//   node server.mjs stdio | http | http-stateless
//
// Over HTTP it prints {"port": ...} and ends when its stdin does.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { completable } from "@modelcontextprotocol/sdk/server/completable.js";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import {
  CreateMessageResultSchema,
  ElicitResultSchema,
  EmptyResultSchema,
  ListRootsResultSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

import { Carrier } from "./carrier.mjs";

const text = (value) => ({ content: [{ type: "text", text: value }] });

function build() {
  const server = new McpServer(
    { name: "typescript-server", version: "1.0.0" },
    { capabilities: { logging: {} }, instructions: "none" },
  );
  const tool = (name, inputSchema, handler) => server.registerTool(name, { inputSchema }, handler);

  tool("add", { a: z.number(), b: z.number() }, ({ a, b }) => text(String(a + b)));
  tool("fail", { text: z.string() }, (args) => {
    throw new Error(args.text);
  });
  tool("report", {}, (_args, extra) =>
    text(JSON.stringify({ meta: extra._meta ?? {}, headers: extra.requestInfo?.headers ?? {} })),
  );
  tool("sample", {}, async (_args, extra) => {
    const messages = [{ role: "user", content: { type: "text", text: "hello?" } }];
    const request = { method: "sampling/createMessage", params: { messages, maxTokens: 10 } };
    return text((await extra.sendRequest(request, CreateMessageResultSchema)).content.text);
  });
  tool("roots", {}, async (_args, extra) =>
    text(String((await extra.sendRequest({ method: "roots/list" }, ListRootsResultSchema)).roots.length)),
  );
  tool("elicit", {}, async (_args, extra) => {
    const requestedSchema = { type: "object", properties: { answer: { type: "string" } } };
    const request = { method: "elicitation/create", params: { message: "Well?", requestedSchema } };
    return text((await extra.sendRequest(request, ElicitResultSchema)).action);
  });
  tool("ping_client", {}, async (_args, extra) => {
    await extra.sendRequest({ method: "ping" }, EmptyResultSchema);
    return text("pong");
  });
  tool("progress", { steps: z.number() }, async ({ steps }, extra) => {
    const progressToken = extra._meta?.progressToken;
    for (let progress = 1; progress <= steps; progress++) {
      await extra.sendNotification({
        method: "notifications/progress",
        params: { progressToken, progress, total: steps },
      });
    }
    return text("done");
  });
  tool("log", {}, async (_args, extra) => {
    await extra.sendNotification({ method: "notifications/message", params: { level: "info", data: "a line" } });
    return text("logged");
  });

  const name = completable(z.string(), (start) => ["Ada", "Alan", "Grace"].filter((one) => one.startsWith(start)));
  server.registerPrompt("greet", { argsSchema: { name } }, (args) => ({
    messages: [{ role: "user", content: { type: "text", text: `Say hello to ${args.name}` } }],
  }));
  server.registerResource("greeting", "res://greeting", {}, (uri) => ({
    contents: [{ uri: uri.href, text: "hello" }],
  }));
  server.registerResource("item", new ResourceTemplate("res://items/{id}", { list: undefined }), {}, (uri, { id }) => ({
    contents: [{ uri: uri.href, text: `item ${id}` }],
  }));
  return server;
}

async function connect(transport) {
  await build().connect(new Carrier(transport, { stamps: true }));
  return transport;
}

function serveHttp(stateless) {
  const sessions = new Map();

  async function transportOf(request) {
    const id = request.headers["mcp-session-id"];
    if (id !== undefined) return sessions.get(id);
    if (stateless) return connect(new StreamableHTTPServerTransport({ sessionIdGenerator: undefined }));
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    return connect(transport);
  }

  const listener = createServer(async (request, response) => {
    const transport = stateless && request.method !== "POST" ? undefined : await transportOf(request);
    if (transport) await transport.handleRequest(request, response);
    else response.writeHead(stateless ? 405 : 404).end();
  });
  listener.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: listener.address().port })));
  process.stdin.on("end", () => process.exit()).resume();
}

const kind = process.argv[2];
if (kind === "stdio") await connect(new StdioServerTransport());
else serveHttp(kind === "http-stateless");
