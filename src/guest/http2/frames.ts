/** HTTP/2's frames (RFC 9113, section 4 and 6), as many as a client needs. */

export const FRAME = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const FLAG = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;

export const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/** What a frame's payload and a window are until settings say something else (section 6.5.2). */
export const DEFAULT_MAX_FRAME = 16_384;
export const DEFAULT_WINDOW = 65_535;

export const SETTING = { headerTableSize: 1, enablePush: 2, initialWindowSize: 4, maxFrameSize: 5 } as const;

export const CANCEL = 8;

const HEADER_BYTES = 9;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
  /** Bytes that it takes of the windows: the payload with its padding. */
  readonly size: number;
}

export function encodeFrame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  frame.writeUIntBE(payload.length, 0, 3);
  frame.writeUInt8(type, 3);
  frame.writeUInt8(flags, 4);
  frame.writeUInt32BE(stream, 5);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** A SETTINGS payload: 2 bytes of name, 4 of value each. */
export function encodeSettings(settings: readonly (readonly [name: number, value: number])[]): Buffer {
  const bytes = Buffer.allocUnsafe(6 * settings.length);
  for (const [index, [name, value]] of settings.entries()) {
    bytes.writeUInt16BE(name, 6 * index);
    bytes.writeUInt32BE(value, 6 * index + 2);
  }
  return bytes;
}

export function* decodeSettings(payload: Buffer): Generator<[name: number, value: number]> {
  for (let at = 0; at + 6 <= payload.length; at += 6) yield [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
}

/** Finds where frames begin and end in a stream of bytes. */
export class FrameReader {
  #bytes: Buffer = Buffer.alloc(0);

  /** The frames that are whole with these bytes. @throws Error when one is longer than we said we take */
  *read(bytes: Buffer): Generator<Frame> {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    while (this.#bytes.length >= HEADER_BYTES) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (length > DEFAULT_MAX_FRAME) throw new Error(`a frame of ${length} bytes`);
      if (this.#bytes.length < HEADER_BYTES + length) return;
      const frame = {
        type: this.#bytes.readUInt8(3),
        flags: this.#bytes.readUInt8(4),
        stream: this.#bytes.readUInt32BE(5) & 0x7fffffff,
        payload: withoutPadding(
          this.#bytes.readUInt8(3),
          this.#bytes.readUInt8(4),
          this.#bytes.subarray(9, 9 + length),
        ),
        size: length,
      };
      this.#bytes = this.#bytes.subarray(HEADER_BYTES + length);
      yield frame;
    }
  }
}

/** DATA and HEADERS may be padded, and HEADERS may have a priority before them (sections 6.1 and 6.2). */
function withoutPadding(type: number, flags: number, payload: Buffer): Buffer {
  if (type !== FRAME.data && type !== FRAME.headers) return payload;
  const padded = (flags & FLAG.padded) !== 0;
  const padding = padded ? (payload[0] ?? 0) : 0;
  const start = (padded ? 1 : 0) + (type === FRAME.headers && flags & FLAG.priority ? 5 : 0);
  if (start + padding > payload.length) throw new Error("a frame with more padding than bytes");
  return payload.subarray(start, payload.length - padding);
}
