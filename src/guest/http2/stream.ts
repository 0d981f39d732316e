import { Duplex } from "node:stream";
import { DEFAULT_WINDOW } from "./frames.ts";

/** What a stream has its session do. */
export interface StreamHost {
  /** Bytes of data that the peer takes on all streams together. */
  readonly sendWindow: number;
  /** Sends data, not more than both windows allow; `done` when the socket took it. */
  sendData(stream: Http2Stream, data: Uint8Array, endStream: boolean, done?: (error?: Error | null) => void): void;
  /** Lets the peer send so many bytes more. */
  allow(stream: Http2Stream, bytes: number): void;
  /** The stream is over on our side. `reset`: it is not yet on the peer's. */
  forget(stream: Http2Stream, reset: boolean): void;
}

/** Read bytes are acknowledged by the half window: each acknowledgement interrupts the guest. */
export const ACKNOWLEDGE_BYTES = 32_768;

interface Unsent {
  readonly data: Uint8Array;
  readonly done: (error?: Error | null) => void;
}

/**
 * One request and its answer: what is written goes into the request's body, and what is read comes out of the answer's. Emits
 * `response` with the answer's status. When the connection is lost it ends and closes, without an error.
 */
export class Http2Stream extends Duplex {
  readonly id: number;
  readonly #host: StreamHost;
  #sendWindow: number;
  #unsent: Unsent | undefined;
  #unacknowledged = 0;
  /** Nothing more is sent: our end of the stream was, or the peer closed it. */
  #sentAll: boolean;
  #readAll = false;
  /** Whether the answer's status is here. */
  isAnswered = false;

  /** @param sentAll the session sends all there is: nothing will be written */
  constructor(host: StreamHost, id: number, sendWindow: number, sentAll: boolean) {
    super({ readableHighWaterMark: DEFAULT_WINDOW, writableHighWaterMark: DEFAULT_WINDOW });
    this.#host = host;
    this.id = id;
    this.#sendWindow = sendWindow;
    this.#sentAll = sentAll;
    // Whoever waits for the answer hears of it; nobody has to.
    this.on("error", () => {});
  }

  override _write(data: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#unsent = { data, done };
    this.sendOn();
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#sentAll) {
      done();
    } else {
      this.#sentAll = true;
      this.#host.sendData(this, Buffer.alloc(0), true, done);
    }
  }

  override _read(): void {
    if (this.#unacknowledged < ACKNOWLEDGE_BYTES || this.#readAll) return;
    this.#host.allow(this, this.#unacknowledged);
    this.#unacknowledged = 0;
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#host.forget(this, !(this.#sentAll && this.#readAll));
    this.push(null);
    done(error);
  }

  /** Sends what waits for the peer's windows, as far as they are open. */
  sendOn(): void {
    if (!this.#unsent) return;
    const { data, done } = this.#unsent;
    if (this.#sentAll) {
      this.#unsent = undefined;
      done();
      return;
    }
    const count = Math.min(data.length, this.#sendWindow, this.#host.sendWindow);
    if (count <= 0 && data.length > 0) return;
    const all = count === data.length;
    this.#unsent = all ? undefined : { data: data.subarray(count), done };
    this.#sendWindow -= count;
    this.#host.sendData(this, data.subarray(0, count), false, all ? done : undefined);
  }

  /** The peer takes so many bytes more. */
  widen(bytes: number): void {
    this.#sendWindow += bytes;
    this.sendOn();
  }

  receiveStatus(status: number): void {
    this.isAnswered = true;
    this.emit("response", status);
  }

  /** @param size what it took of the stream's window */
  receiveData(data: Buffer, size: number): void {
    if (this.destroyed || this.#readAll) return;
    this.#unacknowledged += size;
    this.push(data);
  }

  receiveEnd(): void {
    if (this.#readAll) return;
    this.#readAll = true;
    this.push(null);
  }

  /** The peer is done with this stream: what it sent can still be read, and nothing can be sent. */
  receiveClose(): void {
    this.#sentAll = true;
    this.sendOn();
    this.receiveEnd();
    if (this.readableEnded) this.destroy();
    else this.once("end", () => this.destroy());
  }
}
