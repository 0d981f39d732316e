import { lookup } from "node:dns";
import * as http from "node:http";
import * as https from "node:https";
import { Readable } from "node:stream";
import { getCACertificates } from "node:tls";
import { MiB } from "../../../core/sizes.ts";

/** Where requests go. Connections are kept, and used again. */
export interface Connection {
  readonly secure: boolean;
  readonly hostname: string;
  readonly port: number;
  readonly agent: http.Agent;
  /** How long a request may pass without a byte in either direction. */
  readonly idleMs: number;
}

/** More requests than this at a time wait for a connection. */
const MAX_CONNECTIONS = 64;
/** Bodies are written in pieces, so that a slow connection is told from a dead one. */
const PIECE_BYTES = MiB / 4;

/** @param ca PEM text of a certificate authority that is trusted beside the system's */
export function openConnection(endpoint: URL, hostname: string, ca: string | undefined, idleMs: number): Connection {
  const secure = endpoint.protocol === "https:";
  const options = { keepAlive: true, maxSockets: MAX_CONNECTIONS, scheduling: "lifo", lookup: lookUp } as const;
  const trusted = ca === undefined ? {} : { ca: [...getCACertificates("default"), ca] };
  return {
    secure,
    hostname,
    port: Number(endpoint.port) || (secure ? 443 : 80),
    agent: secure ? new https.Agent({ ...options, ...trusted }) : new http.Agent(options),
    idleMs,
  };
}

/** Names below `localhost` are this machine (RFC 6761, 6.3), which many resolvers do not know: buckets of a local server. */
const lookUp: typeof lookup = ((name: string, options: object, callback: () => void) =>
  lookup(name.endsWith(".localhost") ? "localhost" : name, options, callback)) as typeof lookup;

export interface Request {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
}

/** Takes a body piece by piece. What it throws ends the exchange. */
export type Sink = (piece: Buffer) => void;

/** Nothing came or went for `idleMs`. */
export class Stalled extends Error {
  constructor(idleMs: number) {
    super(`nothing was heard for ${idleMs / 1000} s`);
  }
}

/** The body ended before its declared length, or has no declared length. */
export class BrokenOff extends Error {
  constructor() {
    super("the answer broke off");
  }
}

/**
 * One request and its whole answer. `receive` looks at the answer's head and says where the body goes; it may throw to refuse it.
 * Never follows a redirect.
 * @throws Stalled, BrokenOff, what `receive` and its sink throw, the signal's reason, Node's network errors
 */
export function exchange(
  connection: Connection,
  request: Request,
  receive: (answer: Answer) => Sink,
  signal: AbortSignal,
): Promise<Answer> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const { agent, hostname, port, secure, idleMs } = connection;
    const { method, path, headers } = request;
    const outgoing = (secure ? https : http).request({ agent, hostname, port, method, path, headers, setHost: false });
    let timer: NodeJS.Timeout | undefined;
    const onAbort = () => fail(signal.reason);
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    };
    const fail = (error: unknown) => {
      settle();
      reject(error);
      outgoing.destroy();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    outgoing.on("error", fail);
    // Not before: a request may wait for one of the connections to be free.
    outgoing.on("socket", () => {
      if (!outgoing.destroyed) timer = setTimeout(() => fail(new Stalled(idleMs)), idleMs);
    });
    outgoing.on("response", (incoming) => {
      incoming.on("error", () => fail(new BrokenOff()));
      const answer = { status: incoming.statusCode ?? 0, headers: incoming.headers };
      try {
        const sink = receive(answer);
        incoming.on("data", (piece: Buffer) => {
          timer?.refresh();
          try {
            sink(piece);
          } catch (error) {
            fail(error);
          }
        });
      } catch (error) {
        return fail(error);
      }
      incoming.on("close", () => {
        if (!incoming.complete || !isSelfDelimiting(method, incoming)) return fail(new BrokenOff());
        settle();
        resolve(answer);
        if (!outgoing.writableFinished) outgoing.destroy(); // answered before it had read our body
      });
    });
    if (request.body) Readable.from(pieces(request.body, () => timer?.refresh())).pipe(outgoing);
    else outgoing.end();
  });
}

/** Without a length and without chunks a body ends when the connection does, and a cut one looks whole. */
function isSelfDelimiting(method: string, incoming: http.IncomingMessage): boolean {
  const status = incoming.statusCode ?? 0;
  if (method === "HEAD" || status === 204 || status >= 300) return true; // there is no body, or it is only for people
  const { "content-length": length, "transfer-encoding": encoding } = incoming.headers;
  return length !== undefined || (encoding?.includes("chunked") ?? false);
}

function* pieces(body: Uint8Array, onPiece: () => void): Generator<Uint8Array> {
  for (let at = 0; at < body.length; at += PIECE_BYTES) {
    onPiece();
    yield body.subarray(at, at + PIECE_BYTES);
  }
}
