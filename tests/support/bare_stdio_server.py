"""A stdio server that needs nothing but the standard library; its one tool tells what its process was given."""

import json
import os
import sys


def description():
    return {
        "environ": dict(os.environ),
        "path": sys.path,
        "opentelemetry": sorted(name for name in sys.modules if name.startswith("opentelemetry")),
        "sitecustomize": getattr(sys.modules.get("sitecustomize"), "__file__", None),
    }


def answer(method, params):
    if method == "initialize":
        version = {"name": "bare", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": version}
    if method == "tools/list":
        return {"tools": [{"name": "describe", "inputSchema": {"type": "object"}}]}
    return {"content": [{"type": "text", "text": json.dumps(description())}]}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
