import aws4 from "aws4";
import { sha256 } from "../../core/digests.ts";
import { MvmError } from "../../core/errors.ts";
import { MiB } from "../../core/sizes.ts";
import type { ObjectInfo, PutOptions, Store, StoredObject } from "../store.ts";
import { conflict, objectMissing, objectTooLarge, objectTooShort } from "./failures.ts";
import { checkKey, checkKeyPrefix, isKey } from "./keys.ts";
import {
  type Answer,
  BrokenOff,
  type Connection,
  exchange,
  openConnection,
  type Sink,
  Stalled,
} from "./s3/exchange.ts";
import { s3Failure } from "./s3/failures.ts";
import { Refusal } from "./s3/refusal.ts";
import { DEFAULT_RETRIES, type RetryPolicy, withRetries } from "./s3/retry.ts";
import { type ListAnswer, readListAnswer } from "./s3/xml.ts";

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

export interface S3Options {
  /** `http` or `https`, without credentials. */
  readonly endpoint: URL;
  readonly bucket: string;
  readonly region: string;
  /** Before every key, without slashes at its ends; may be empty. */
  readonly prefix: string;
  readonly addressing: "path" | "virtual-host";
  /** PEM text of an authority that is trusted beside the system's. */
  readonly ca?: string;
  /** Asked before every request, since some credentials end. */
  readonly credentials: () => Promise<S3Credentials>;
  /** 30 s, if it is not given. */
  readonly idleMs?: number;
  readonly retries?: Partial<RetryPolicy>;
}

const DEFAULT_IDLE_MS = 30_000;
/** Of an error's body no more is read: it holds a code and a sentence. */
const MAX_ERROR_BYTES = MiB / 16;
/** A thousand keys of at most 1 KiB, and what stands around them. */
const MAX_LIST_BYTES = 8 * MiB;
const PAGE_KEYS = 1000;

interface S3Request {
  readonly method: "GET" | "PUT" | "HEAD" | "DELETE";
  /** Of the store, without its prefix; none for the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly bodySha256?: string;
  /** For messages: `read v1/x`. */
  readonly doing: string;
}

type Receive = (answer: Answer) => Sink;

/** A registry in a bucket of any server that speaks S3. */
export class S3Store implements Store {
  readonly description: string;
  readonly identity: string;
  readonly #options: S3Options;
  readonly #connection: Connection;
  readonly #retries: RetryPolicy;
  /** The Host header, which is signed. */
  readonly #host: string;
  /** What stands before a key in the request's path. */
  readonly #base: string;

  constructor(options: S3Options) {
    const { endpoint, bucket, prefix, addressing } = options;
    const inPath = addressing === "path";
    const hostname = inPath ? endpoint.hostname : `${bucket}.${endpoint.hostname}`;
    this.#host = inPath ? endpoint.host : `${bucket}.${endpoint.host}`;
    this.#base = `${endpoint.pathname.replace(/\/+$/, "")}/${inPath ? `${bucket}/` : ""}`;
    // A literal IPv6 address stands in brackets in URLs only.
    this.#connection = openConnection(
      endpoint,
      hostname.replace(/^\[(.*)\]$/, "$1"),
      options.ca,
      options.idleMs ?? DEFAULT_IDLE_MS,
    );
    this.#options = { ...options, prefix: prefix && `${prefix}/` };
    this.#retries = { ...DEFAULT_RETRIES, ...options.retries };
    this.description = `s3://${[bucket, prefix].filter(Boolean).join("/")} on ${endpoint.host}`;
    this.identity = `${endpoint.protocol}//${this.#host}${this.#base}${this.#options.prefix}`;
  }

  async get(key: string, maxBytes: number, signal: AbortSignal): Promise<StoredObject | undefined> {
    checkKey(key);
    const request: S3Request = { method: "GET", key, doing: `read ${key}` };
    try {
      return await withRetries(this.#retries, signal, async () => {
        const body = this.#collector(key, maxBytes);
        const { headers } = await this.#send(request, body.receive, signal);
        return { bytes: body.bytes(), etag: etagOf(headers) };
      });
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw await this.#failure(error, request);
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
          if (piece.length > length - filled) throw this.#senseless(doing, "it sent more bytes than were asked for");
          piece.copy(range, filled);
          filled += piece.length;
        };
      };
      return this.#send(request, receive, signal);
    };
    if (length === 0) return range;
    try {
      await withRetries(
        this.#retries,
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
      throw await this.#failure(error, { doing });
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
      return await withRetries(this.#retries, signal, async (isAgain) => {
        again = isAgain;
        return { etag: etagOf((await this.#send(request, ignoreBody, signal)).headers) };
      });
    } catch (error) {
      const lost = condition && error instanceof Refusal && isConflict(error);
      if (!lost) throw await this.#failure(error, request);
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
      const { headers } = await withRetries(this.#retries, signal, () => this.#send(request, ignoreBody, signal));
      const size = Number(headers["content-length"] ?? Number.NaN);
      if (!Number.isSafeInteger(size) || size < 0) throw this.#senseless(request.doing, "it sent no length");
      return { key, size, modifiedMs: Date.parse(headers["last-modified"] ?? "") || 0 };
    } catch (error) {
      if (isMissing(error, "HEAD")) return undefined;
      throw await this.#failure(error, request);
    }
  }

  async delete(key: string, signal: AbortSignal): Promise<void> {
    checkKey(key);
    const request: S3Request = { method: "DELETE", key, doing: `delete ${key}` };
    try {
      await withRetries(this.#retries, signal, () => this.#send(request, ignoreBody, signal));
    } catch (error) {
      if (!isMissing(error)) throw await this.#failure(error, request);
    }
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    checkKeyPrefix(prefix);
    const before = this.#options.prefix;
    for (let token: string | undefined; ; ) {
      const page: ListAnswer = await this.#listPage(before + prefix, token, signal);
      for (const { key, size, modifiedMs } of page.objects) {
        const own = key.startsWith(before + prefix) ? key.slice(before.length) : "";
        if (isKey(own)) yield { key: own, size, modifiedMs }; // what is no key is somebody else's
      }
      if (page.nextToken === undefined) return;
      if (page.nextToken === token) throw this.#senseless("list", "its pages go round in circles");
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
      const text = await withRetries(this.#retries, signal, async () => {
        const body = this.#collector("a list of objects", MAX_LIST_BYTES);
        await this.#send(request, body.receive, signal);
        return body.bytes().toString("utf8");
      });
      const page = readListAnswer(text);
      if (!page) throw this.#senseless(request.doing, "what it sent is no list of objects");
      return page;
    } catch (error) {
      throw await this.#failure(error, request);
    }
  }

  /** One attempt. @throws Refusal for anything but a success */
  async #send(request: S3Request, receive: Receive, signal: AbortSignal): Promise<Answer> {
    const { method, key, query, body, bodySha256, headers } = request;
    const credentials = withoutUndefined(await this.#options.credentials());
    const bucket = this.#base.slice(0, -1) || "/"; // some servers sign `/bucket` where `/bucket/` was asked for
    const path = key === undefined ? bucket + queryText(query) : this.#base + this.#options.prefix + key;
    const signed = aws4.sign(
      {
        service: "s3",
        region: this.#options.region,
        method,
        path,
        headers: { ...headers, Host: this.#host, "X-Amz-Content-Sha256": bodySha256 ?? sha256("") },
      },
      credentials,
    );
    let refusalBody = "";
    const collect = (piece: Buffer) => {
      if (refusalBody.length < MAX_ERROR_BYTES) refusalBody += piece.toString("utf8");
    };
    const answer = await exchange(
      this.#connection,
      { method, path, headers: signed.headers as Record<string, string>, ...(body && { body }) },
      (head) => (isSuccess(head) ? receive(head) : collect),
      signal,
    );
    if (!isSuccess(answer)) throw new Refusal(answer, refusalBody);
    return answer;
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
      throw this.#senseless(doing, "it sent another range than was asked for");
    if (Number(last) < start + length - 1) throw objectTooShort(this.description, key, start, length);
    const declared = headers["content-length"];
    if (Number(last) > start + length - 1 || (declared !== undefined && Number(declared) > length)) {
      throw this.#senseless(doing, "it sent more bytes than were asked for");
    }
  }

  #senseless(doing: string, why: string): MvmError {
    return new MvmError(
      "REGISTRY_PROTOCOL",
      `could not ${doing} in ${this.description}: the server does not keep to S3: ${why}`,
      {
        hint: "see whether the endpoint is an S3 server, and whether a proxy stands before it",
      },
    );
  }

  async #failure(error: unknown, { doing }: Pick<S3Request, "doing">): Promise<unknown> {
    const { endpoint, bucket, region } = this.#options;
    const known = await this.#options.credentials().catch(() => undefined);
    const secrets = [known?.secretAccessKey, known?.sessionToken, known?.accessKeyId];
    return s3Failure(error, {
      doing,
      where: this.description,
      bucket,
      region,
      origin: endpoint.origin,
      host: this.#connection.hostname,
      secrets: secrets.filter((secret) => secret !== undefined),
    });
  }
}

const ignoreBody: Receive = () => () => {};

function isSuccess({ status }: Answer): boolean {
  return status >= 200 && status < 300;
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

function queryText(query: S3Request["query"]): string {
  if (!query) return "";
  return `?${Object.entries(query)
    .map(([name, value]) => `${name}=${encodeStrictly(value)}`)
    .join("&")}`;
}

/** As signatures want it: everything but RFC 3986's unreserved characters. */
function encodeStrictly(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function withoutUndefined({ accessKeyId, secretAccessKey, sessionToken }: S3Credentials): aws4.Credentials {
  return { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
}
