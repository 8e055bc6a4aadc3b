// A client of the second generation of the SDK, at the revision that it and the server agree on.
//
//   node client_v2.mjs '{"url": "http://...", "mode": "auto"}'
//
// mode: auto (2026-07-28 where the server has it) or legacy.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

import { newTraceparent } from "./carrier.mjs";

const options = JSON.parse(process.argv[2]);
const results = {};
const client = new Client({ name: "client", version: "1.0.0" }, { versionNegotiation: { mode: options.mode } });

// What a program can do: hand over a context in the `_meta` of each request.
function traced(params = {}) {
  return { ...params, _meta: { traceparent: newTraceparent(), baggage: "user.tier=gold" } };
}

async function step(name, action) {
  try {
    results[name] = await action();
  } catch (error) {
    results[name] = { code: error.code ?? null, message: error.message };
  }
}

await client.connect(new StreamableHTTPClientTransport(new URL(options.url)));
await step("list tools", () => client.listTools(traced()));
await step("tool", () => client.callTool(traced({ name: "add", arguments: { a: 1, b: 2 } })));
await step("tool error", () => client.callTool(traced({ name: "fail", arguments: { text: "lost" } })));
await step("unknown tool", () => client.callTool(traced({ name: "no-such-tool", arguments: {} })));
await step("progress", () =>
  client.callTool(traced({ name: "progress", arguments: { steps: 2 } }), { onprogress: () => {} }),
);
await step("read", () => client.readResource(traced({ uri: "res://greeting" })));
await step("prompt", () => client.getPrompt(traced({ name: "greet", arguments: { name: "Ada" } })));
await step("untraced", () => client.callTool({ name: "add", arguments: { a: 3, b: 4 } }));
const context = await client.callTool(traced({ name: "context", arguments: {} }));
await client.close();
console.log(JSON.stringify({ results, contextOfHandler: JSON.parse(context.content[0].text), received: [] }));
