// Preloaded into servers that are not ours: they listen on a free port of the loopback interface, print {"port": ...},
// and end when their stdin does.

import { Server } from "node:net";

const listen = Server.prototype.listen;

Server.prototype.listen = function (_port, ...rest) {
  this.once("listening", () => console.log(JSON.stringify({ port: this.address().port })));
  return listen.call(this, { port: 0, host: "127.0.0.1" }, ...rest.filter((one) => typeof one === "function"));
};
process.stdin.on("end", () => process.exit()).resume();
