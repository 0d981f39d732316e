import { MvmError } from "../core/errors.ts";
import { formatBytes } from "../core/sizes.ts";

/** A record of this size describes some 40 GiB of content, holes not counted; a larger one is not even read. */
export const MAX_RECORD_BYTES = 16 * 1024 * 1024;
/** As 16 MiB of chunks with zeros between them have. As many bytes of the shortest values take ten seconds and a GiB of memory to read. */
const MAX_VALUES = 2 ** 20;
/** Ten of the record, and a few of each file and signature. */
const MAX_KEYS = 1024;
/** The record, its files, a file, its chunks, a chunk. */
const MAX_DEPTH = 5;

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * What makes a text of JSON too costly to be parsed, or undefined. Looks at every byte once and keeps nothing: values are
 * commas and opening brackets outside of strings.
 */
export function excessOf(text: Uint8Array): string | undefined {
  let values = 0;
  let keys = 0;
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const byte = text[at];
    if (inString) {
      if (byte === BACKSLASH) at++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === COMMA) values++;
    else if (byte === COLON) keys++;
    else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) depth--;
    else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
      values++;
      if (++depth > MAX_DEPTH) return `it is nested deeper than ${MAX_DEPTH} levels`;
    }
    if (keys > MAX_KEYS) return `it has more than ${MAX_KEYS} keys`;
    if (values > MAX_VALUES) return `it has more than ${MAX_VALUES} values`;
  }
  return undefined;
}

/**
 * Refuses to write what no reader would take.
 * @throws MvmError `RECORD_TOO_LARGE`
 */
export function requireReadable(record: Buffer, what: string): void {
  const excess =
    record.length > MAX_RECORD_BYTES
      ? `it has ${formatBytes(record.length)} instead of ${formatBytes(MAX_RECORD_BYTES)} at most`
      : excessOf(record);
  if (excess === undefined) return;
  throw new MvmError("RECORD_TOO_LARGE", `${what} is too large for a registry: its record is too long, as ${excess}`, {
    hint: "some 40 GiB of content fit in a revision, and in a snapshot: push it with --no-snapshot if the snapshot is too large, or build it smaller",
  });
}
