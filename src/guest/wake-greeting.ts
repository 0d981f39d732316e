import { MvmError } from "../core/errors.ts";
import { newNonce, type OpenOptions, openPort, readUntil } from "./agent-stream.ts";
import type { WakeRequest } from "./agent-types.ts";

/**
 * Waking a guest by the first line it reads: docs/agent-api.md, "Waking by the greeting". A restored guest has yet to translate or
 * to fault in whatever it runs, and answers this without its HTTP/2 server.
 */
export interface WokenGuest extends AsyncDisposable {
  /** Resolves once with what the guest says of its health, when that is final; with `ended` when the connection is over before. */
  readonly settled: Promise<"healthy" | "failed" | "ended">;
}

/** What the agent reads as a greeting (MAX_LENGTH_DIGITS in agent/src/transport/framing.rs). */
const MAX_REQUEST_BYTES = 99_999;

/** Whether a request is short enough for a greeting. */
export function fitsGreeting(request: WakeRequest): boolean {
  return Buffer.byteLength(JSON.stringify(request)) <= MAX_REQUEST_BYTES;
}

/**
 * @param request is asked for at the last moment, and again for each repetition: it says what time it is
 * @throws MvmError `AGENT_UNREACHABLE`, `AGENT_BUSY`, `AGENT_FAILED` when the guest can't do as it is told, or what `checkAlive` throws
 */
export async function wakeByGreeting(
  sockets: readonly string[],
  request: () => WakeRequest,
  options: OpenOptions,
): Promise<WokenGuest> {
  const nonce = newNonce();
  const greeting = {
    request: () => {
      const body = JSON.stringify(request());
      return `WAKE 52 ${nonce} ${Buffer.byteLength(body)}\n${body}`;
    },
    answer: new RegExp(`(AWAKE|REFUSED) ${nonce} [^\\n]*\\n`),
    repeatable: true,
  };
  const stream = await openPort(sockets, greeting, options);
  // What goes wrong with it from now on is that the guest says no more.
  stream.socket.on("error", () => {});
  const [word, , ...why] = stream.answer.split(" ");
  if (word === "REFUSED") {
    await stream[Symbol.asyncDispose]();
    throw new MvmError("AGENT_FAILED", `the guest's agent refused to wake the guest: ${why.join(" ")}`, {
      hint: "a volume that can't be put where -v says, or a postRestore hook of the image that fails, is why",
    });
  }
  const settled = readUntil(stream.socket, new RegExp(`HEALTH ${nonce} (healthy|failed)\\n`)).then((end) => {
    if (end === "ended") return end;
    return end.answer.endsWith(" healthy") ? "healthy" : "failed";
  });
  return { settled, [Symbol.asyncDispose]: () => stream[Symbol.asyncDispose]() };
}
