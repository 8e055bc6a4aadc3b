// A client that does all a client can do, and prints as JSON what came of it.
//
//   node client.mjs '{"transport": "stdio", "command": [...], "env": {...}, "context": "meta"}'
//
// transport: stdio, http or sse (with url). context: where its messages name a trace context - meta, headers, both or
// none. asks: whether the server can ask something back. given: the _meta of one more call.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  EmptyResultSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";

import { Carrier, newTraceparent } from "./carrier.mjs";

const options = JSON.parse(process.argv[2]);
const { asks, context, given } = options;

function transport() {
  if (options.transport === "stdio") {
    const [command, ...args] = options.command;
    return new StdioClientTransport({ command, args, env: options.env });
  }
  const fetchWithContext = (url, init) => {
    const headers = new Headers(init?.headers);
    headers.set("traceparent", newTraceparent());
    return fetch(url, { ...init, headers });
  };
  const Kind = options.transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  return new Kind(new URL(options.url), ["headers", "both"].includes(context) ? { fetch: fetchWithContext } : {});
}

const received = [];
const results = {};
const client = new Client(
  { name: "typescript-client", version: "1.0.0" },
  { capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } } },
);
client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
  role: "assistant",
  model: "m",
  content: { type: "text", text: `sampled: ${params.messages[0].content.text}` },
}));
client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: "file:///tmp", name: "tmp" }] }));
client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: { answer: "yes" } }));
client.setNotificationHandler(LoggingMessageNotificationSchema, () => {});

async function step(name, action) {
  try {
    results[name] = await action();
  } catch (error) {
    results[name] = { code: error.code ?? null, message: error.message };
  }
}

const call = (name, args = {}, extra = {}) => client.callTool({ name, arguments: args, ...extra });

const steps = {
  "list tools": () => client.listTools(),
  "list resources": () => client.listResources(),
  "list templates": () => client.listResourceTemplates(),
  "list prompts": () => client.listPrompts(),
  "tool": () => call("add", { a: 1, b: 2 }),
  "tool error": () => call("fail", { text: "lost" }),
  "unknown tool": () => call("no-such-tool"),
  "bad arguments": () => call("add", { a: "one" }),
  "read": () => client.readResource({ uri: "res://greeting" }),
  "read unknown": () => client.readResource({ uri: "res://no-such-resource" }),
  "prompt": () => client.getPrompt({ name: "greet", arguments: { name: "Ada" } }),
  "unknown prompt": () => client.getPrompt({ name: "no-such-prompt" }),
  "complete": () =>
    client.complete({ ref: { type: "ref/prompt", name: "greet" }, argument: { name: "name", value: "A" } }),
  "ping": () => client.ping(),
  "unknown method": () => client.request({ method: "example/unknown", params: {} }, EmptyResultSchema),
  "concurrent": () => Promise.all([1, 2, 3, 4, 5].map((a) => call("add", { a, b: a }))),
  "progress": () => {
    // Which of them reach the callback depends on time: the SDK drops those that come in one read with the answer.
    const onprogress = () => {};
    return client.callTool({ name: "progress", arguments: { steps: 2 } }, undefined, { onprogress });
  },
  "log": () => call("log"),
};
const stepsOfServersThatAsk = {
  "sample": () => call("sample"),
  "roots": () => call("roots"),
  "elicit": () => call("elicit"),
  "ping client": () => call("ping_client"),
  "roots changed": () => client.sendRootsListChanged(),
  "after the change": () => call("add", { a: 3, b: 4 }),
};

await client.connect(new Carrier(transport(), { stamps: ["meta", "both"].includes(context), received }));
results["server"] = [client.getServerVersion(), client.getServerCapabilities(), client.getInstructions() ?? null];
for (const [name, action] of Object.entries({ ...steps, ...(asks ? stepsOfServersThatAsk : {}) })) {
  await step(name, action);
}
let contextOfHandler = null;
if (given) {
  // What a program without an instrumentation can do: hand the context over as `_meta` itself.
  const { content } = await call("context", {}, { _meta: given });
  contextOfHandler = JSON.parse(content[0].text);
}
await client.close();
console.log(JSON.stringify({ results, received, contextOfHandler }));
