import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentEndpoint } from "../../src/hypervisor/driver.ts";

/** A guest without a VM: a Unix socket that does with each connection what a test wants. */
export interface FakeGuest extends AsyncDisposable {
  readonly socket: string;
  readonly endpoint: AgentEndpoint;
  /** The same socket, taken for Firecracker's vsock. */
  readonly vsock: AgentEndpoint;
}

export async function useFakeGuest(onConnection: (connection: Socket) => void): Promise<FakeGuest> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-guest-"));
  const socket = join(directory, "agent0.sock");
  const connections = new Set<Socket>();
  const server = createServer((connection) => {
    connections.add(connection);
    connection.on("close", () => connections.delete(connection));
    connection.on("error", () => {});
    onConnection(connection);
  });
  server.listen(socket);
  await once(server, "listening");
  return {
    socket,
    endpoint: { kind: "ports", sockets: [socket] },
    vsock: { kind: "vsock", socket, port: 52 },
    [Symbol.asyncDispose]: async () => {
      for (const connection of connections) connection.destroy();
      server.close();
      await once(server, "close");
      rmSync(directory, { recursive: true });
    },
  };
}

/** A guest whose agent answers HTTP/2 requests as a test wants; see docs/agent-api.md. */
export function useFakeAgent(
  answer: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
): Promise<FakeGuest> {
  const http = createHttp2Server();
  http.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    answer(stream, headers);
  });
  return useFakeGuest((connection) => {
    connection.once("data", (data) => {
      const [, nonce] = /^CONNECT 52 ([0-9a-zA-Z]{1,64})\n/.exec(data.toString("latin1")) ?? [];
      connection.write(`OK ${nonce}\n`);
      http.emit("connection", connection);
    });
  });
}

/** Answers a request with JSON. */
export function answerJson(stream: ServerHttp2Stream, value: unknown, status = 200): void {
  stream.respond({ ":status": status, "content-type": "application/json" });
  stream.end(JSON.stringify(value));
}
