import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A proxy that stands in front of a real S3 server and makes scripted faults. Requests go on with their Host header as it is,
 * so that signatures hold.
 *
 * ```ts
 * await using server = await startS3rver();
 * await using proxy = await startFaultProxy(server.options.endpoint);
 * proxy.on({ method: "GET", path: /blobs/, nth: 2 }, { kind: "cut", after: 1000 });   // the second such GET
 * proxy.on({ path: /tags/, times: Infinity }, { kind: "answer", status: 503 });       // all of them
 * const env = server.env(proxy.endpoint.href);
 * ```
 */
export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: URL;
  /** Every request so far, faulty or not, in the order they came. */
  readonly requests: readonly SeenRequest[];
  /** Adds a rule. Of several that match a request, the first added that is not used up makes its fault. */
  on(match: Match, fault: Fault): Rule;
  /** Takes all rules away. */
  clear(): void;
}

export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Bytes of the answer's body that were written so far. */
  bytesSent: number;
}

export interface Match {
  readonly method?: string;
  /** Tested on path and query. */
  readonly path?: RegExp;
  /** The first matching request that gets the fault, counted from 1, which is the default. */
  readonly nth?: number;
  /** How many get it from there on: 1 unless told, `Infinity` for all. */
  readonly times?: number;
}

export interface Rule {
  /** How many requests matched so far. */
  readonly matched: number;
  /** How many of them got the fault. */
  readonly used: number;
}

export type Fault =
  /** Sends the real head and the first `after` bytes of the body, and closes the connection. 0 cuts before the body. */
  | { readonly kind: "cut"; readonly after: number }
  /** The same, but keeps the connection open and silent. Without `after`, not even the head is sent. */
  | { readonly kind: "stall"; readonly after?: number }
  /** Turns one bit of the body over: the lowest of the byte at `offset` of the body as it is sent. */
  | { readonly kind: "flip"; readonly offset: number }
  /** Sends the body, and `extra` bytes more, with a head that declares only the body's length. */
  | { readonly kind: "excess"; readonly extra: number }
  /** Sends a head that declares no length, and the first `after` bytes of the body: their end looks like the body's. */
  | { readonly kind: "undeclared"; readonly after: number }
  /** Sends a head that declares no length, and bytes until the client closes the connection. */
  | { readonly kind: "endless" }
  /** Instead of the body sends this one, with the real head except for the length. */
  | { readonly kind: "replace"; readonly body: Uint8Array | string }
  /** Answers itself; the server never sees the request. */
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly body?: Uint8Array | string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** Answers with a redirect to an absolute URL. */
  | { readonly kind: "redirect"; readonly to: string; readonly status?: number }
  /** Closes the connection without an answer; with `afterServer`, when the server has done what was asked. */
  | { readonly kind: "drop"; readonly afterServer?: boolean }
  /** Waits until `until` is fulfilled, and goes on as if nothing was. */
  | { readonly kind: "hold"; readonly until: Promise<unknown> };

interface ActiveRule extends Rule {
  matched: number;
  used: number;
  readonly match: Match;
  readonly fault: Fault;
}

/** Starts a proxy on a free port of loopback. @param upstream an `http:` address */
export async function startFaultProxy(upstream: URL): Promise<FaultProxy> {
  const rules: ActiveRule[] = [];
  const requests: SeenRequest[] = [];
  const server = createServer((incoming, outgoing) => {
    const { method = "", url = "", headers } = incoming;
    const seen: SeenRequest = { method, path: url, headers, bytesSent: 0 };
    requests.push(seen);
    incoming.on("error", () => {});
    outgoing.on("error", () => {});
    serve(upstream, incoming, outgoing, seen, takeRule(rules, seen)?.fault).catch(() => outgoing.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: new URL(`http://127.0.0.1:${port}`),
    requests,
    on: (match, fault) => {
      const rule = { match, fault, matched: 0, used: 0 };
      rules.push(rule);
      return rule;
    },
    clear: () => {
      rules.length = 0;
    },
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function takeRule(rules: readonly ActiveRule[], { method, path }: SeenRequest): ActiveRule | undefined {
  let taken: ActiveRule | undefined;
  for (const rule of rules) {
    const { match } = rule;
    if (match.method !== undefined && match.method !== method) continue;
    if (match.path && !match.path.test(path)) continue;
    rule.matched++;
    const first = match.nth ?? 1;
    if (taken || rule.matched < first || rule.matched >= first + (match.times ?? 1)) continue;
    rule.used++;
    taken = rule;
  }
  return taken;
}

async function serve(
  upstream: URL,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  seen: SeenRequest,
  fault: Fault | undefined,
): Promise<void> {
  if (fault?.kind === "hold") await fault.until;
  if (fault?.kind === "answer" || fault?.kind === "redirect") {
    incoming.resume();
    await once(incoming, "end");
    const headers = fault.kind === "redirect" ? { location: fault.to } : fault.headers;
    outgoing.writeHead(fault.status ?? 307, headers);
    outgoing.end(fault.kind === "answer" ? fault.body : undefined);
    return;
  }
  if (fault?.kind === "stall" && fault.after === undefined) return void incoming.resume();
  if (fault?.kind === "drop" && !fault.afterServer) return void incoming.socket.destroy();
  const answer = await forward(upstream, incoming);
  if (fault?.kind === "drop") return void incoming.socket.destroy();
  await sendBack(answer, outgoing, seen, fault);
}

interface ServerAnswer {
  readonly status: number;
  /** Names and values in turn, as they were sent. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
}

/** Asks the server. Bodies are kept whole: tests are small, and faults need positions in them. */
async function forward(upstream: URL, incoming: IncomingMessage): Promise<ServerAnswer> {
  const { method, url, rawHeaders } = incoming;
  const { hostname, port } = upstream;
  const onward = request({ hostname, port, method, path: url, headers: rawHeaders as never, setHost: false });
  incoming.pipe(onward);
  const [answer] = (await once(onward, "response")) as [IncomingMessage];
  const body = Buffer.concat(await answer.toArray());
  return { status: answer.statusCode ?? 502, rawHeaders: answer.rawHeaders, body };
}

async function sendBack(
  { status, rawHeaders, body }: ServerAnswer,
  outgoing: ServerResponse,
  seen: SeenRequest,
  fault: Fault | undefined,
): Promise<void> {
  // What is written goes past Node's own framing, which would not let a length be wrong.
  const socket = outgoing.socket!;
  const isHead = seen.method === "HEAD";
  const write = (data: Uint8Array | string) => new Promise<void>((resolve) => socket.write(data, () => resolve()));
  const send = async (data: Uint8Array) => {
    if (isHead) return;
    await write(data);
    seen.bytesSent += data.length;
  };
  const head = (extra: readonly string[], without: readonly string[] = []) => {
    const dropped = ["connection", "keep-alive", "transfer-encoding", ...without];
    const lines = [`HTTP/1.1 ${status} Answer`, ...extra, "Connection: close"];
    for (let at = 0; at < rawHeaders.length; at += 2) {
      if (!dropped.includes(rawHeaders[at]!.toLowerCase())) lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`);
    }
    return write(`${lines.join("\r\n")}\r\n\r\n`);
  };
  const withLength = (length: number) =>
    isHead || status === 204 ? head([]) : head([`Content-Length: ${length}`], ["content-length"]);
  switch (fault?.kind) {
    case "cut":
      await withLength(body.length);
      await send(body.subarray(0, fault.after));
      socket.destroy();
      return;
    case "stall":
      await withLength(body.length);
      await send(body.subarray(0, fault.after));
      return; // until the client closes, or the proxy ends
    case "flip": {
      const flipped = Buffer.from(body);
      if (fault.offset < flipped.length) flipped[fault.offset] = flipped[fault.offset]! ^ 1;
      await withLength(body.length);
      await send(flipped);
      break;
    }
    case "excess":
      await withLength(body.length);
      await send(Buffer.concat([body, Buffer.alloc(fault.extra, 0x78)]));
      break;
    case "replace": {
      const other = Buffer.from(fault.body);
      await withLength(other.length);
      await send(other);
      break;
    }
    case "undeclared":
      await head([], ["content-length"]);
      await send(body.subarray(0, fault.after));
      break;
    case "endless": {
      await head(["Transfer-Encoding: chunked"], ["content-length"]);
      const filler = Buffer.alloc(64 * 1024, 0x78);
      while (!socket.destroyed) {
        await write(`${filler.length.toString(16)}\r\n`);
        await send(filler);
        await write("\r\n");
      }
      return;
    }
    default:
      await withLength(body.length);
      await send(body);
  }
  socket.end();
}
