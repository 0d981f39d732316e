/**
 * HTTP/2's header compression (RFC 7541), without any: we send every header as it is, and of an answer's headers we read the
 * first one alone, which is its status. A peer that was told that our table has no room refers to the static table only.
 */

/** Header names are lower case; the pseudo-headers come first. */
export function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of Object.entries(headers)) parts.push(LITERAL, encodeText(name), encodeText(value));
  return Buffer.concat(parts);
}

/** A literal field without indexing, with its name as text (section 6.2.2). */
const LITERAL = Buffer.from([0]);

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  return Buffer.concat([encodeInteger(bytes.length, 7), bytes]);
}

/** Section 5.1: what does not fit into the first byte's bits follows in groups of seven, the lowest first. */
function encodeInteger(value: number, bits: number): Buffer {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.from([value]);
  const bytes = [most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push(128 + (rest % 128));
  return Buffer.from([...bytes, rest]);
}

function decodeInteger(block: Buffer, at: number, bits: number): { value: number; next: number } {
  const most = 2 ** bits - 1;
  let value = (block[at] ?? 0) & most;
  let next = at + 1;
  if (value < most) return { value, next };
  for (let factor = 1; ; factor *= 128) {
    const byte = block[next];
    if (byte === undefined || factor > 2 ** 28) throw new Error("headers with an endless number");
    next++;
    value += (byte & 127) * factor;
    if (byte < 128) return { value, next };
  }
}

/** Entries 8 to 14 of the static table (appendix A) are `:status` with these values. */
const FIRST_STATUS_INDEX = 8;
const STATUSES = [200, 204, 206, 304, 400, 404, 500];

/** The status of an answer. @throws Error when its headers do not begin with one */
export function decodeStatus(block: Buffer): number {
  let at = 0;
  // The peer says how small its table is now (section 6.3).
  while (at < block.length && (block[at]! & 0xe0) === 0x20) at = decodeInteger(block, at, 5).next;
  const first = block[at] ?? 0;
  if (first & 0x80) {
    const status = STATUSES[decodeInteger(block, at, 7).value - FIRST_STATUS_INDEX];
    if (status !== undefined) return status;
  } else {
    const name = decodeInteger(block, at, first & 0x40 ? 6 : 4);
    const isStatus = STATUSES[name.value - FIRST_STATUS_INDEX] !== undefined;
    const length = decodeInteger(block, name.next, 7);
    const text = block.subarray(length.next, length.next + length.value);
    const digits = (block[name.next] ?? 0) & 0x80 ? huffmanDigits(text) : text.toString("latin1");
    if (isStatus && /^\d{3}$/.test(digits)) return Number(digits);
  }
  throw new Error("headers that do not begin with a status");
}

/** The digits of a Huffman-coded text (appendix B): 0 to 2 have codes of five bits, 3 to 9 of six. */
function huffmanDigits(text: Buffer): string {
  const bits = [...text].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  let digits = "";
  for (let at = 0; ; ) {
    const five = Number.parseInt(bits.slice(at, at + 5), 2);
    const six = Number.parseInt(bits.slice(at, at + 6), 2);
    if (bits.length - at < 5 || five > 0x0f) return digits;
    digits += five <= 2 ? five : six - 0x19 + 3;
    at += five <= 2 ? 5 : 6;
  }
}
