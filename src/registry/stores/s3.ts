import { sha256 } from "../../core/digests.ts";
import { MiB } from "../../core/sizes.ts";
import type { ObjectInfo, PutOptions, Store, StoredObject } from "../store.ts";
import { conflict, objectMissing, objectTooLarge, objectTooShort } from "./failures.ts";
import { checkKey, checkKeyPrefix, isKey } from "./keys.ts";
import { type Receive, S3Client, type S3Options, type S3Request } from "./s3/client.ts";
import { type Answer, BrokenOff, Stalled } from "./s3/exchange.ts";
import { Refusal } from "./s3/refusal.ts";
import { type ListAnswer, readListAnswer } from "./s3/xml.ts";

export type { S3Credentials, S3Options } from "./s3/client.ts";

/** A thousand keys of at most 1 KiB, and what stands around them. */
const MAX_LIST_BYTES = 8 * MiB;
const PAGE_KEYS = 1000;

/** Answers without a body that matters have next to none. */
const MAX_IGNORED_BYTES = MiB / 16;

/** A registry in a bucket of any server that speaks S3. */
export class S3Store implements Store {
  readonly description: string;
  readonly identity: string;
  readonly #client: S3Client;

  constructor(options: S3Options) {
    this.#client = new S3Client(options);
    this.description = this.#client.description;
    this.identity = this.#client.identity;
  }

  async get(key: string, maxBytes: number, signal: AbortSignal): Promise<StoredObject | undefined> {
    checkKey(key);
    const request: S3Request = { method: "GET", key, doing: `read ${key}` };
    try {
      return await this.#client.retry(signal, async () => {
        const body = this.#collector(key, maxBytes);
        const { headers } = await this.#client.sendOnce(request, body.receive, signal);
        return { bytes: body.bytes(), etag: etagOf(headers) };
      });
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw this.#client.failure(error, request);
    }
  }

  async getRange(key: string, offset: number, length: number, signal: AbortSignal): Promise<Buffer> {
    checkKey(key);
    signal.throwIfAborted();
    const doing = `read ${length} bytes at ${offset} of ${key}`;
    const range = Buffer.allocUnsafe(length);
    let filled = 0;
    const attempt = () => {
      const start = offset + filled;
      const request: S3Request = {
        method: "GET",
        key,
        doing,
        headers: { range: `bytes=${start}-${offset + length - 1}` },
      };
      const receive = (answer: Answer) => {
        this.#checkRange(answer, key, start, length - filled);
        return (piece: Buffer) => {
          if (piece.length > length - filled)
            throw this.#client.senseless(doing, "it sent more bytes than were asked for");
          piece.copy(range, filled);
          filled += piece.length;
        };
      };
      return this.#client.sendOnce(request, receive, signal);
    };
    if (length === 0) return range;
    try {
      await this.#client.retry(
        signal,
        async () => {
          try {
            await attempt();
          } catch (error) {
            const brokeOff = error instanceof BrokenOff || error instanceof Stalled;
            if (!brokeOff || filled < length) throw error; // all we asked for was there before it broke off
          }
          if (filled < length) throw new BrokenOff();
        },
        () => filled,
      );
      return range;
    } catch (error) {
      if (isMissing(error)) throw objectMissing(this.description, key);
      if (error instanceof Refusal && error.status === 416) {
        throw objectTooShort(this.description, key, offset, length);
      }
      throw this.#client.failure(error, { doing });
    }
  }

  async put(
    key: string,
    body: Uint8Array,
    { sha256: known, condition }: PutOptions,
    signal: AbortSignal,
  ): Promise<{ readonly etag: string }> {
    checkKey(key);
    signal.throwIfAborted();
    const request: S3Request = {
      method: "PUT",
      key,
      doing: `write ${key}`,
      body,
      bodySha256: known ?? sha256(body),
      headers: {
        "content-length": String(body.length),
        "content-type": "application/octet-stream",
        ...when(condition),
      },
    };
    let again = false;
    try {
      return await this.#client.retry(signal, async (isAgain) => {
        again = isAgain;
        return { etag: etagOf((await this.#client.sendOnce(request, this.#ignoreBody(request), signal)).headers) };
      });
    } catch (error) {
      const lost = condition && error instanceof Refusal && isConflict(error);
      if (!lost) throw this.#client.failure(error, request);
      // The condition may fail because our first attempt worked, and only its answer was lost.
      const there = again ? await this.get(key, body.length, signal).catch(() => undefined) : undefined;
      if (there?.bytes.equals(body)) return { etag: there.etag };
      throw conflict(this.description, key);
    }
  }

  async head(key: string, signal: AbortSignal): Promise<ObjectInfo | undefined> {
    checkKey(key);
    const request: S3Request = { method: "HEAD", key, doing: `look at ${key}` };
    try {
      const { headers } = await this.#client.send(request, this.#ignoreBody(request), signal);
      const size = Number(headers["content-length"] ?? Number.NaN);
      if (!Number.isSafeInteger(size) || size < 0) throw this.#client.senseless(request.doing, "it sent no length");
      return { key, size, modifiedMs: Date.parse(headers["last-modified"] ?? "") || 0 };
    } catch (error) {
      if (isMissing(error, "HEAD")) return undefined;
      throw this.#client.failure(error, request);
    }
  }

  async delete(key: string, signal: AbortSignal): Promise<void> {
    checkKey(key);
    const request: S3Request = { method: "DELETE", key, doing: `delete ${key}` };
    try {
      await this.#client.send(request, this.#ignoreBody(request), signal);
    } catch (error) {
      if (!isMissing(error)) throw this.#client.failure(error, request);
    }
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    checkKeyPrefix(prefix);
    const before = this.#client.prefix;
    for (let token: string | undefined; ; ) {
      const page: ListAnswer = await this.#listPage(before + prefix, token, signal);
      for (const { key, size, modifiedMs } of page.objects) {
        const own = key.startsWith(before + prefix) ? key.slice(before.length) : "";
        if (isKey(own)) yield { key: own, size, modifiedMs }; // what is no key is somebody else's
      }
      if (page.nextToken === undefined) return;
      if (page.nextToken === token) throw this.#client.senseless("list", "its pages go round in circles");
      token = page.nextToken;
    }
  }

  async #listPage(prefix: string, token: string | undefined, signal: AbortSignal): Promise<ListAnswer> {
    const request: S3Request = {
      method: "GET",
      doing: `list ${prefix || "everything"}`,
      query: {
        "list-type": "2",
        "max-keys": String(PAGE_KEYS),
        prefix,
        ...(token === undefined ? {} : { "continuation-token": token }),
      },
    };
    try {
      const text = await this.#client.retry(signal, async () => {
        const body = this.#collector("a list of objects", MAX_LIST_BYTES);
        await this.#client.sendOnce(request, body.receive, signal);
        return body.bytes().toString("utf8");
      });
      const page = readListAnswer(text);
      if (!page) throw this.#client.senseless(request.doing, "what it sent is no list of objects");
      return page;
    } catch (error) {
      throw this.#client.failure(error, request);
    }
  }

  #ignoreBody({ doing }: S3Request): Receive {
    return () => {
      let total = 0;
      return (piece) => {
        total += piece.length;
        if (total > MAX_IGNORED_BYTES) throw this.#client.senseless(doing, "its answer does not end");
      };
    };
  }

  #collector(what: string, maxBytes: number): { receive: Receive; bytes: () => Buffer } {
    const pieces: Buffer[] = [];
    let total = 0;
    const take = (piece: Buffer) => {
      total += piece.length;
      if (total > maxBytes) throw objectTooLarge(this.description, what, maxBytes);
      pieces.push(piece);
    };
    return {
      receive: ({ headers }) => {
        if (Number(headers["content-length"]) > maxBytes) throw objectTooLarge(this.description, what, maxBytes);
        return take;
      },
      bytes: () => Buffer.concat(pieces),
    };
  }

  #checkRange({ status, headers }: Answer, key: string, start: number, length: number): void {
    const doing = `read ${key}`;
    const [, first, last] = /^bytes (\d+)-(\d+)\//.exec(headers["content-range"] ?? "") ?? [];
    if (status !== 206 || Number(first) !== start)
      throw this.#client.senseless(doing, "it sent another range than was asked for");
    if (Number(last) < start + length - 1) throw objectTooShort(this.description, key, start, length);
    const declared = headers["content-length"];
    if (Number(last) > start + length - 1 || (declared !== undefined && Number(declared) > length)) {
      throw this.#client.senseless(doing, "it sent more bytes than were asked for");
    }
  }
}

/** No such object, rather than no such bucket, or no S3 server at all. HEAD's answers have no body that would tell. */
function isMissing(error: unknown, method = "GET"): boolean {
  return error instanceof Refusal && error.status === 404 && (error.s3Code === "NoSuchKey" || method === "HEAD");
}

/** S3 answers 404 to If-Match where nothing is, and 409 where two writes meet. */
function isConflict(refusal: Refusal): boolean {
  return refusal.status === 412 || refusal.status === 409 || isMissing(refusal);
}

function when(condition: PutOptions["condition"]): Record<string, string> {
  if (!condition) return {};
  return "ifAbsent" in condition ? { "if-none-match": "*" } : { "if-match": condition.ifMatch };
}

function etagOf(headers: Answer["headers"]): string {
  return headers.etag ?? "";
}
