import type { Answer } from "./exchange.ts";
import { readErrorAnswer } from "./xml.ts";

/** An answer that is no success. It holds nothing of the request, so no secret can get into a log through it. */
export class Refusal extends Error {
  readonly status: number;
  /** S3's own word for it: `NoSuchBucket`; empty where there is none. */
  readonly s3Code: string;
  /** What the server says, for people. Not trusted: to be cleaned before it is shown. */
  readonly serverMessage: string;
  readonly headers: Answer["headers"];
  /** How long the server asks to wait. */
  readonly retryAfterMs: number;

  constructor(answer: Answer, body: string) {
    super(`HTTP status ${answer.status}`);
    const { code, message } = readErrorAnswer(body);
    this.status = answer.status;
    this.s3Code = /^[A-Za-z0-9.]{1,64}$/.test(code) ? code : "";
    this.serverMessage = message;
    this.headers = answer.headers;
    this.retryAfterMs = (Number(answer.headers["retry-after"]) || 0) * 1000;
  }
}
