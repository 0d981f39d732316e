import type { Socket } from "node:net";
import { MvmError, messageOf } from "../core/errors.ts";

type Reply = { return: unknown } | { error: { class: string; desc: string } };

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A client of the QEMU Machine Protocol (docs/interop/qmp-spec in QEMU): JSON, a line each. QEMU carries out commands in their order, and
 * the next may be sent before the last is answered; up to 8 wait (QMP_REQ_QUEUE_LEN_MAX in monitor/monitor-internal.h).
 */
export class QmpClient implements Disposable {
  readonly #socket: Socket;
  #buffer = "";
  /** Those whose answers are still to come, in the order of their commands. */
  readonly #waiting: Waiting[] = [];
  #closed: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("QEMU closed its control socket")));
  }

  /** Negotiates on a fresh connection. QEMU's greeting needs no waiting for, nor does its answer: what it refuses, it refuses all. */
  static open(socket: Socket, timeoutMs: number): QmpClient {
    const client = new QmpClient(socket);
    // A failure closes the client, and the next command says so.
    client.execute("qmp_capabilities", undefined, timeoutMs).catch((error) => client.#fail(error));
    return client;
  }

  /** @throws MvmError `HYPERVISOR_FAILED` if QEMU refuses, ends, or does not answer in time */
  async execute<T = unknown>(command: string, args?: Record<string, unknown>, timeoutMs = 10_000): Promise<T> {
    if (this.#closed) throw failed(command, this.#closed.message);
    const answered = new Promise<Reply>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
    const timer = setTimeout(() => this.#fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    try {
      // QEMU reads one byte at a time: what is left out is time saved.
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
      const reply = await answered;
      if ("error" in reply) throw failed(command, reply.error.desc);
      return reply.return as T;
    } catch (error) {
      throw error instanceof MvmError ? error : failed(command, messageOf(error));
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    this.#buffer += text;
    const lines = this.#buffer.split("\n");
    this.#buffer = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() === "") continue;
      const message = JSON.parse(line) as Record<string, unknown>;
      if (!("return" in message || "error" in message)) continue; // the greeting and events
      this.#waiting.shift()?.resolve(message as Reply);
    }
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#closed);
  }
}

function failed(command: string, why: string): MvmError {
  return new MvmError("HYPERVISOR_FAILED", `QEMU could not carry out '${command}': ${why}`, {
    hint: "`mvmctl logs NAME --hypervisor` shows what QEMU said",
  });
}
