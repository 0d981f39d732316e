import type { Socket } from "node:net";
import { MvmError, messageOf } from "../core/errors.ts";

type Reply = { return: unknown } | { error: { class: string; desc: string } };

/** A client of the QEMU Machine Protocol (docs/interop/qmp-spec in QEMU): JSON lines, one command at a time. */
export class QmpClient implements Disposable {
  readonly #socket: Socket;
  #buffer = "";
  #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  #closed: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("QEMU closed its control socket")));
  }

  /** Negotiates on a fresh connection. QEMU's greeting needs no waiting for: the first reply follows it. */
  static async open(socket: Socket, timeoutMs: number): Promise<QmpClient> {
    const client = new QmpClient(socket);
    await client.execute("qmp_capabilities", {}, timeoutMs);
    return client;
  }

  /** @throws MvmError `HYPERVISOR_FAILED` if QEMU refuses, ends, or does not answer in time */
  async execute<T = unknown>(command: string, args: Record<string, unknown> = {}, timeoutMs = 10_000): Promise<T> {
    if (this.#closed) throw failed(command, this.#closed.message);
    const answered = new Promise<Reply>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    const timer = setTimeout(() => this.#fail(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    try {
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
      this.#waiting?.resolve(message as Reply);
      this.#waiting = undefined;
    }
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    this.#waiting?.reject(this.#closed);
    this.#waiting = undefined;
  }
}

function failed(command: string, why: string): MvmError {
  return new MvmError("HYPERVISOR_FAILED", `QEMU could not carry out '${command}': ${why}`, {
    hint: "`mvmctl logs NAME --hypervisor` shows what QEMU said",
  });
}
