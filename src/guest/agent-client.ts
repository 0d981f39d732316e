import * as v from "valibot";
import { MvmError, messageOf } from "../core/errors.ts";
import type { AgentEndpoint } from "../hypervisor/driver.ts";
import { type AgentStream, type OpenOptions, openAgentStream } from "./agent-stream.ts";
import {
  AgentErrorSchema,
  type AgentInfo,
  AgentInfoSchema,
  EmptySchema,
  type Health,
  HealthSchema,
  WakeAnswerSchema,
  type WakeRequest,
} from "./agent-types.ts";
import { Http2Session } from "./http2/session.ts";
import type { Http2Stream } from "./http2/stream.ts";

/** The agent answers from memory within milliseconds; a guest that swaps or is emulated gets more. */
const ANSWER_TIMEOUT_MS = 30_000;
/** No answer of the agent's JSON resources comes near this. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
const NOTHING = new Uint8Array(0);

interface RequestOptions {
  readonly body?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** One HTTP/2 session with a guest's agent. Requests may run side by side. */
export class AgentClient implements AsyncDisposable {
  readonly #session: Http2Session;
  readonly #stream: AgentStream;
  #failure: Error | undefined;
  /** Resolves when the connection is over: the guest has stopped, or this client was disposed. */
  readonly ended: Promise<void>;

  private constructor(session: Http2Session, stream: AgentStream) {
    this.#session = session;
    this.#stream = stream;
    session.on("error", (error) => {
      this.#failure = error;
    });
    this.ended = new Promise((resolve) => session.once("close", resolve));
  }

  /** @throws MvmError `AGENT_UNREACHABLE`, `AGENT_BUSY`, or what `checkAlive` throws */
  static async open(endpoint: AgentEndpoint, options: OpenOptions): Promise<AgentClient> {
    const stream = await openAgentStream(endpoint, options);
    return new AgentClient(new Http2Session(stream.socket), stream);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.destroy();
    await this.#stream[Symbol.asyncDispose]();
  }

  info(signal?: AbortSignal): Promise<AgentInfo> {
    return this.#json(AgentInfoSchema, "GET", "/v1/info", { signal });
  }

  /** Waits in the guest, up to `waitMs`, until the status is `healthy` or `failed`. */
  health(waitMs: number, signal?: AbortSignal): Promise<Health> {
    return this.#json(HealthSchema, "GET", `/v1/health?waitMs=${waitMs}`, {
      timeoutMs: waitMs + ANSWER_TIMEOUT_MS,
      signal,
    });
  }

  async wake(request: WakeRequest, signal?: AbortSignal): Promise<void> {
    await this.#json(WakeAnswerSchema, "POST", "/v1/wake", { body: JSON.stringify(request), signal });
  }

  async prepare(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    await this.#json(EmptySchema, "POST", "/v1/prepare", {
      body: JSON.stringify({ timeoutMs }),
      timeoutMs: timeoutMs + ANSWER_TIMEOUT_MS,
      signal,
    });
  }

  async shutdown(timeoutMs: number): Promise<void> {
    await this.#json(EmptySchema, "POST", "/v1/shutdown", { body: JSON.stringify({ timeoutMs }) });
  }

  async restartService(name: string): Promise<void> {
    await this.#json(EmptySchema, "POST", `/v1/services/${encodeURIComponent(name)}/restart`, { body: "{}" });
  }

  /** A stream with a body in both directions, but for a GET's. Its status is checked by `responseOf`. */
  stream(method: string, path: string, headers: Readonly<Record<string, string>> = {}): Http2Stream {
    return this.#request(method, path, headers, method === "GET" ? NOTHING : undefined);
  }

  #request(method: string, path: string, headers: Readonly<Record<string, string>>, body?: Uint8Array): Http2Stream {
    const target = { ":scheme": "http", ":authority": "agent", ":path": path };
    return this.#session.request({ ":method": method, ...target, ...headers }, body);
  }

  /** A stream that is a connection to an address in the guest (RFC 9113, section 8.5). */
  tunnel(authority: string): Http2Stream {
    return this.#session.request({ ":method": "CONNECT", ":authority": authority });
  }

  async #json<T>(
    schema: v.GenericSchema<unknown, T>,
    method: string,
    path: string,
    { body = "", timeoutMs = ANSWER_TIMEOUT_MS, signal }: RequestOptions,
  ): Promise<T> {
    signal?.throwIfAborted();
    const what = `${method} ${path.split("?")[0]}`;
    const stream = this.#request(method, path, {}, Buffer.from(body));
    const cancel = () => stream.destroy();
    signal?.addEventListener("abort", cancel, { once: true });
    const timer = setTimeout(cancel, timeoutMs);
    try {
      // Read from the beginning: a short answer may be over before anybody has looked at its status.
      const [status, text] = await Promise.all([statusOf(stream, what), readBody(stream)]);
      if (status >= 400) throw refusal(status, text, what);
      return v.parse(schema, JSON.parse(text));
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof MvmError) throw error;
      throw agentFailed(what, this.#failure ?? error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }
}

/**
 * Waits for a stream's response headers.
 * @throws MvmError `AGENT_…` with the agent's own code and message for a 4xx or 5xx
 */
export async function responseOf(stream: Http2Stream, what: string): Promise<void> {
  const status = await statusOf(stream, what);
  if (status >= 400) throw refusal(status, await readBody(stream), what);
}

function statusOf(stream: Http2Stream, what: string): Promise<number> {
  return new Promise<number>((resolve, reject) => {
    stream.once("response", resolve);
    stream.once("error", (error) => reject(agentFailed(what, error)));
    stream.once("close", () =>
      reject(agentFailed(what, new Error("the connection ended, or there was no answer in time"))),
    );
  });
}

function refusal(status: number, body: string, what: string): MvmError {
  const parsed = v.safeParse(AgentErrorSchema, parseJson(body));
  if (!parsed.success) return agentFailed(what, new Error(`status ${status}`));
  return new MvmError(`AGENT_${parsed.output.code}`, `the guest's agent refused ${what}: ${parsed.output.message}`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** By events: a stream's iterator takes 3 ms to load, which a `run` would wait for. */
function readBody(stream: Http2Stream): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > MAX_ANSWER_BYTES) stream.destroy(new Error(`its answer is longer than ${MAX_ANSWER_BYTES} bytes`));
    });
    stream.once("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    stream.once("error", reject);
    const cutOff = () => reject(new Error("the connection ended in the middle of the answer"));
    if (stream.closed) cutOff();
    else stream.once("close", cutOff);
  });
}

function agentFailed(what: string, error: unknown): MvmError {
  return new MvmError("AGENT_FAILED", `the guest's agent did not answer ${what}: ${messageOf(error)}`, {
    cause: error,
    hint: "`mvmctl logs NAME --console` shows what the guest said last",
  });
}
