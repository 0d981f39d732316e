import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import {
  CANCEL,
  DEFAULT_MAX_FRAME,
  DEFAULT_WINDOW,
  decodeSettings,
  encodeFrame,
  encodeSettings,
  FLAG,
  FRAME,
  type Frame,
  FrameReader,
  PREFACE,
  SETTING,
  uint32,
} from "./frames.ts";
import { decodeStatus, encodeHeaders } from "./headers.ts";
import { ACKNOWLEDGE_BYTES, Http2Stream, type StreamHost } from "./stream.ts";

/** No answer of an agent has headers that come near this. */
const MAX_HEADER_BYTES = 65_536;

/**
 * The client's side of an HTTP/2 connection (RFC 9113): requests with bodies in both directions, flow control, nothing that a
 * guest's agent never does (push, priorities, huge headers). Node's own takes 20 ms to load, a tenth of a restore:
 * docs/decisions/0009. Emits `error` at most once, and then or otherwise `close`.
 */
export class Http2Session extends EventEmitter<{ error: [Error]; close: [] }> implements StreamHost {
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #streams = new Map<number, Http2Stream>();
  /** Headers that come in several frames. */
  #headers: { readonly stream: number; readonly flags: number; parts: Buffer[]; bytes: number } | undefined;
  #nextId = 1;
  #closed = false;
  #initialWindow = DEFAULT_WINDOW;
  #corked = false;
  /** Of the connection's window. */
  #unacknowledged = 0;
  sendWindow = DEFAULT_WINDOW;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => this.#receive(bytes));
    socket.on("error", (error) => this.destroy(error));
    socket.on("end", () => this.destroy());
    socket.on("close", () => this.destroy());
    socket.resume();
    this.#send(Buffer.from(PREFACE, "latin1"));
    const settings = encodeSettings([
      [SETTING.headerTableSize, 0],
      [SETTING.enablePush, 0],
    ]);
    this.#send(encodeFrame(FRAME.settings, 0, 0, settings));
  }

  /**
   * Begins a request. On a connection that is over, its stream closes without an answer.
   * @param body all of it, which may be empty; without one the stream is open for writing
   */
  request(headers: Readonly<Record<string, string>>, body?: Uint8Array): Http2Stream {
    // What fits into one frame leaves with its headers, at once: the guest has nothing else to do.
    const isSmall = body !== undefined && this.#fitsIntoOneFrame(body);
    const stream = new Http2Stream(this, this.#nextId, this.#initialWindow, isSmall);
    this.#nextId += 2;
    if (this.#closed) {
      stream.destroy();
      return stream;
    }
    this.#streams.set(stream.id, stream);
    this.#sendHeaders(stream, encodeHeaders(headers), body?.length === 0);
    if (isSmall && body.length > 0) this.sendData(stream, body, true);
    if (isSmall) this.#flush();
    if (body) stream.end(isSmall ? undefined : body);
    return stream;
  }

  #fitsIntoOneFrame({ length }: Uint8Array): boolean {
    return length === 0 || length <= Math.min(DEFAULT_MAX_FRAME, this.#initialWindow, this.sendWindow);
  }

  #sendHeaders(stream: Http2Stream, block: Buffer, endStream: boolean): void {
    for (let at = 0; at === 0 || at < block.length; at += DEFAULT_MAX_FRAME) {
      const type = at === 0 ? FRAME.headers : FRAME.continuation;
      const end = at + DEFAULT_MAX_FRAME >= block.length ? FLAG.endHeaders : 0;
      const flags = end | (at === 0 && endStream ? FLAG.endStream : 0);
      this.#send(encodeFrame(type, flags, stream.id, block.subarray(at, at + DEFAULT_MAX_FRAME)));
    }
  }

  /** Ends the connection and all streams. Does nothing a second time. */
  destroy(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    for (const stream of [...this.#streams.values()]) stream.destroy();
    if (error) this.emit("error", error);
    this.emit("close");
  }

  sendData(stream: Http2Stream, data: Uint8Array, endStream: boolean, done?: (error?: Error | null) => void): void {
    this.sendWindow -= data.length;
    for (let at = 0; at === 0 || at < data.length; at += DEFAULT_MAX_FRAME) {
      const part = data.subarray(at, at + DEFAULT_MAX_FRAME);
      const last = at + part.length >= data.length;
      this.#send(
        encodeFrame(FRAME.data, last && endStream ? FLAG.endStream : 0, stream.id, part),
        last ? done : undefined,
      );
    }
  }

  allow(stream: Http2Stream, bytes: number): void {
    this.#send(encodeFrame(FRAME.windowUpdate, 0, stream.id, uint32(bytes)));
  }

  forget(stream: Http2Stream, reset: boolean): void {
    if (this.#streams.delete(stream.id) && reset)
      this.#send(encodeFrame(FRAME.rstStream, 0, stream.id, uint32(CANCEL)));
  }

  /** What is sent in one go arrives in one go: a guest wakes up once for it. */
  #send(bytes: Buffer, done?: (error?: Error | null) => void): void {
    if (this.#closed) {
      done?.(new Error("the connection is over"));
      return;
    }
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => this.#flush());
    }
    this.#socket.write(bytes, done);
  }

  #flush(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  #receive(bytes: Buffer): void {
    try {
      for (const frame of this.#reader.read(bytes)) {
        if (this.#closed) return;
        this.#handle(frame);
      }
    } catch (error) {
      this.destroy(error as Error);
    }
  }

  #handle(frame: Frame): void {
    const { type, flags, payload } = frame;
    const stream = this.#streams.get(frame.stream);
    if (type === FRAME.data) this.#handleData(frame, stream);
    else if (type === FRAME.headers) {
      this.#headers = { stream: frame.stream, flags, parts: [], bytes: 0 };
      this.#handleHeaders(frame);
    } else if (type === FRAME.continuation) this.#handleHeaders(frame);
    else if (type === FRAME.rstStream) handleReset(stream, payload);
    else if (type === FRAME.settings && !(flags & FLAG.ack)) this.#handleSettings(payload);
    else if (type === FRAME.ping && !(flags & FLAG.ack)) this.#send(encodeFrame(FRAME.ping, FLAG.ack, 0, payload));
    else if (type === FRAME.goaway && payload.readUInt32BE(4) !== 0)
      throw new Error(`it ended the connection with code ${payload.readUInt32BE(4)}`);
    else if (type === FRAME.windowUpdate) this.#handleWindowUpdate(frame.stream, payload.readUInt32BE(0), stream);
  }

  #handleData({ flags, payload, size }: Frame, stream: Http2Stream | undefined): void {
    // Each stream keeps its sender waiting when it is not read; none keeps the others waiting.
    this.#unacknowledged += size;
    if (this.#unacknowledged >= ACKNOWLEDGE_BYTES) {
      this.#send(encodeFrame(FRAME.windowUpdate, 0, 0, uint32(this.#unacknowledged)));
      this.#unacknowledged = 0;
    }
    stream?.receiveData(payload, size);
    if (flags & FLAG.endStream) stream?.receiveEnd();
  }

  #handleHeaders({ flags, payload, stream: id }: Frame): void {
    const headers = this.#headers;
    if (headers?.stream !== id) throw new Error("headers that go on without a beginning");
    headers.parts.push(payload);
    headers.bytes += payload.length;
    if (headers.bytes > MAX_HEADER_BYTES) throw new Error("endless headers");
    if (!(flags & FLAG.endHeaders)) return;
    this.#headers = undefined;
    const stream = this.#streams.get(id);
    if (!stream) return;
    if (!stream.isAnswered) {
      const status = decodeStatus(Buffer.concat(headers.parts));
      // 1xx announces an answer (RFC 9110, section 15.2).
      if (status >= 200) stream.receiveStatus(status);
    }
    if (headers.flags & FLAG.endStream) stream.receiveEnd();
  }

  #handleSettings(payload: Buffer): void {
    for (const [name, value] of decodeSettings(payload)) {
      if (name !== SETTING.initialWindowSize) continue;
      const change = value - this.#initialWindow;
      this.#initialWindow = value;
      for (const stream of this.#streams.values()) stream.widen(change);
    }
    this.#send(encodeFrame(FRAME.settings, FLAG.ack, 0));
  }

  #handleWindowUpdate(id: number, bytes: number, stream: Http2Stream | undefined): void {
    stream?.widen(bytes);
    if (id !== 0) return;
    this.sendWindow += bytes;
    for (const waiting of this.#streams.values()) waiting.sendOn();
  }
}

/** NO_ERROR and CANCEL end an answer early; every other code is the agent's failure (section 7). */
function handleReset(stream: Http2Stream | undefined, payload: Buffer): void {
  const code = payload.readUInt32BE(0);
  if (code === 0 || code === CANCEL) stream?.receiveClose();
  else stream?.destroy(new Error(`it ended the answer with code ${code}`));
}
