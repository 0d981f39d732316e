/**
 * Reads the few elements we need of S3's answers: flat lists of elements without attributes that matter, made by machines. Anything
 * odd in them reads as "not there", which every caller checks for.
 */

export interface ErrorAnswer {
  /** `NoSuchKey`, `AccessDenied`, …; empty if the body holds no such thing. */
  readonly code: string;
  readonly message: string;
}

/** The code and the message of an error's body. */
export function readErrorAnswer(xml: string): ErrorAnswer {
  const error = elements(xml, "Error").next().value ?? "";
  return { code: textOf(error, "Code") ?? "", message: textOf(error, "Message") ?? "" };
}

export interface ListAnswer {
  readonly objects: readonly { readonly key: string; readonly size: number; readonly modifiedMs: number }[];
  /** To ask for the next page with; undefined on the last one. */
  readonly nextToken: string | undefined;
}

/** A page of ListObjectsV2, or undefined if the text is none. */
export function readListAnswer(xml: string): ListAnswer | undefined {
  const result = elements(xml, "ListBucketResult").next().value;
  if (result === undefined) return undefined;
  const contents = [...elements(result, "Contents")];
  const objects = contents.map((content) => ({
    key: textOf(content, "Key") ?? "",
    size: Number(textOf(content, "Size") ?? Number.NaN),
    modifiedMs: Date.parse(textOf(content, "LastModified") ?? ""),
  }));
  if (objects.some(({ size, modifiedMs }) => !Number.isSafeInteger(size) || size < 0 || Number.isNaN(modifiedMs))) {
    return undefined;
  }
  const truncated = textOf(result, "IsTruncated") === "true";
  const nextToken = textOf(result, "NextContinuationToken");
  if (truncated && !nextToken) return undefined;
  return { objects, nextToken: truncated ? nextToken : undefined };
}

/** What is between `<name …>` and `</name>`, one after another. */
function* elements(xml: string, name: string): Generator<string, undefined> {
  for (let at = 0; ; ) {
    const open = xml.indexOf(`<${name}`, at);
    if (open < 0) return;
    at = open + name.length + 1;
    if (!/[\s>]/.test(xml.charAt(at))) continue; // a longer name
    const start = xml.indexOf(">", at) + 1;
    if (start === 0) return;
    const end = xml.indexOf(`</${name}>`, start);
    if (end < 0) return;
    yield xml.slice(start, end);
    at = end + name.length + 3;
  }
}

function textOf(xml: string, name: string): string | undefined {
  const content = elements(xml, name).next().value;
  return content?.replace(/&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));/g, unescapeEntity);
}

const NAMED: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescapeEntity(_all: string, decimal?: string, hexadecimal?: string, named?: string): string {
  if (named) return NAMED[named]!;
  const code = decimal ? Number(decimal) : Number.parseInt(hexadecimal!, 16);
  return code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
}
