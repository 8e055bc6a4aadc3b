// What an instrumented TypeScript peer does to messages, without its spans: every message it sends names a context
// of its own in `params._meta`, of the same trace as the message that is being handled.

import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";

const handled = new AsyncLocalStorage();

export function newTraceparent(parent) {
  const traceId = parent?.split("-")[1] ?? randomBytes(16).toString("hex");
  return `00-${traceId}-${randomBytes(8).toString("hex")}-01`;
}

/** A transport around another one: notes what comes in, and names a context in what goes out if `stamps`. */
export class Carrier {
  constructor(inner, { stamps, received = [] }) {
    this.inner = inner;
    this.stamps = stamps;
    this.received = received;
  }

  get sessionId() {
    return this.inner.sessionId;
  }

  setProtocolVersion(version) {
    this.inner.setProtocolVersion?.(version);
  }

  async start() {
    this.inner.onclose = () => this.onclose?.();
    this.inner.onerror = (error) => this.onerror?.(error);
    this.inner.onmessage = (message, extra) => {
      if (message.method) this.received.push({ method: message.method, meta: message.params?._meta ?? {} });
      handled.run(message.params?._meta?.traceparent, () => this.onmessage?.(message, extra));
    };
    await this.inner.start();
  }

  async send(message, options) {
    const known = message.params?._meta;
    if (this.stamps && message.method && !known?.traceparent) {
      const _meta = { ...known, traceparent: newTraceparent(handled.getStore()) };
      message = { ...message, params: { ...message.params, _meta } };
    }
    return this.inner.send(message, options);
  }

  async close() {
    await this.inner.close();
  }
}
