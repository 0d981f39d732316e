import aws4 from "aws4";
import { sha256 } from "../../../core/digests.ts";
import { MvmError } from "../../../core/errors.ts";
import { MiB } from "../../../core/sizes.ts";
import { orAborted } from "../pause.ts";
import { type Answer, type Connection, exchange, openConnection, type Sink } from "./exchange.ts";
import { s3Failure } from "./failures.ts";
import { Refusal } from "./refusal.ts";
import { DEFAULT_RETRIES, type RetryPolicy, withRetries } from "./retry.ts";

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
export interface S3Request {
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

/** Looks at a success's head, and says where its body goes. */
export type Receive = (answer: Answer) => Sink;

/** Requests to one bucket: signed, tried again, and their failures in words. */
export class S3Client {
  readonly description: string;
  readonly identity: string;
  /** Before every key: empty, or ends in a slash. */
  readonly prefix: string;
  readonly #options: S3Options;
  readonly #connection: Connection;
  readonly #retries: RetryPolicy;
  /** The Host header, which is signed. */
  readonly #host: string;
  /** What stands before a key in the request's path. */
  readonly #base: string;
  /** What was last signed with, so that no message shows it. */
  #secrets: readonly string[] = [];

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
    this.#options = options;
    this.prefix = prefix && `${prefix}/`;
    this.#retries = { ...DEFAULT_RETRIES, ...options.retries };
    this.description = `s3://${[bucket, prefix].filter(Boolean).join("/")} on ${endpoint.host}${pathOf(endpoint)}`;
    this.identity = `${endpoint.protocol}//${this.#host}${this.#base}${this.prefix}`;
  }

  /** Sends a request until it is answered with a success. @throws Refusal and network errors, for `failure` to explain */
  send(request: S3Request, receive: Receive, signal: AbortSignal): Promise<Answer> {
    return this.retry(signal, () => this.sendOnce(request, receive, signal));
  }

  /** See withRetries. */
  retry<T>(signal: AbortSignal, attempt: (again: boolean) => Promise<T>, progress?: () => number): Promise<T> {
    return withRetries(this.#retries, signal, attempt, progress);
  }

  /** One attempt. @throws Refusal for anything but a success */
  async sendOnce(request: S3Request, receive: Receive, signal: AbortSignal): Promise<Answer> {
    const { method, key, query, body, bodySha256, headers } = request;
    const { accessKeyId, secretAccessKey, sessionToken } = await orAborted(this.#options.credentials(), signal);
    const credentials = { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
    this.#secrets = Object.values(credentials);
    const bucket = this.#base.slice(0, -1) || "/"; // some servers sign `/bucket` where `/bucket/` was asked for
    const path = key === undefined ? bucket + queryText(query) : this.#base + this.prefix + key;
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
    const pieces: Buffer[] = [];
    let collected = 0;
    const refusal = (head: Answer) => new Refusal(head, Buffer.concat(pieces).toString("utf8"));
    const collect = (head: Answer) => (piece: Buffer) => {
      pieces.push(piece);
      collected += piece.length;
      if (collected > MAX_ERROR_BYTES) throw refusal(head); // it may never end
    };
    const answer = await exchange(
      this.#connection,
      { method, path, headers: signed.headers as Record<string, string>, ...(body && { body }) },
      (head) => (isSuccess(head) ? receive(head) : collect(head)),
      signal,
    );
    if (!isSuccess(answer)) throw refusal(answer);
    return answer;
  }

  /** An answer that makes no sense. */
  senseless(doing: string, why: string): MvmError {
    return new MvmError(
      "REGISTRY_PROTOCOL",
      `could not ${doing} in ${this.description}: the server does not keep to S3: ${why}`,
      {
        hint: "see whether the endpoint is an S3 server, and whether a proxy stands before it",
      },
    );
  }

  /** What a failed request says to people; other errors pass through. */
  failure(error: unknown, { doing }: Pick<S3Request, "doing">): unknown {
    const { endpoint, bucket, region } = this.#options;
    return s3Failure(error, {
      doing,
      where: this.description,
      bucket,
      region,
      origin: endpoint.origin,
      path: pathOf(endpoint),
      host: this.#connection.hostname,
      secrets: this.#secrets,
    });
  }
}

function isSuccess({ status }: Answer): boolean {
  return status >= 200 && status < 300;
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

/** Empty where there is none. */
function pathOf({ pathname }: URL): string {
  return pathname.replace(/\/+$/, "");
}
