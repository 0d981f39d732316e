import { isErrno, MvmError, messageOf } from "../../../core/errors.ts";
import { BrokenOff, Stalled } from "./exchange.ts";
import { Refusal } from "./refusal.ts";

/** What an error's sentence says besides what went wrong. */
export interface Circumstances {
  /** `read v1/blobs/…`. */
  readonly doing: string;
  /** The store's description. */
  readonly where: string;
  readonly bucket: string;
  readonly region: string;
  /** `http://127.0.0.1:9000`. */
  readonly origin: string;
  /** What the endpoint has behind that: empty, or `/some/path`. */
  readonly path: string;
  /** The host that is asked: with the bucket before it, if that is how it is addressed. */
  readonly host: string;
  /** Texts that must not be shown, whoever says them. */
  readonly secrets: readonly string[];
}

const ENV = "MVM_TEMPLATE_REGISTRY_";

/** A failed request in words a person can act on. What is no failure of the network or the server passes through. */
export function s3Failure(error: unknown, now: Circumstances): unknown {
  if (error instanceof MvmError) return error;
  if (error instanceof Refusal) return refused(error, now);
  const broken = networkFailure(error, now);
  if (!broken) return error;
  const { code, why, hint } = broken;
  // The HTTP parser's errors carry what the server sent, which may be anything.
  if (error instanceof Error && "rawPacket" in error) delete error.rawPacket;
  return new MvmError(code, `could not ${now.doing} in ${now.where}: ${why}`, { hint, cause: error });
}

interface Words {
  readonly code: string;
  readonly why: string;
  readonly hint: string;
}

function refused(refusal: Refusal, now: Circumstances): MvmError {
  const { code, why, hint } = wordsForRefusal(refusal, now);
  const said = clean(refusal.serverMessage, now.secrets);
  const answer = `the server answered ${[refusal.status, refusal.s3Code].filter(Boolean).join(" ")}${said && `: ${said}`}`;
  return new MvmError(code, `could not ${now.doing} in ${now.where}: ${why}`, { hint, detail: answer });
}

function wordsForRefusal(refusal: Refusal, now: Circumstances): Words {
  const { status, s3Code } = refusal;
  if (status >= 300 && status < 400) return redirected(refusal, now);
  const known = KNOWN_CODES[s3Code];
  if (known) return known(refusal, now);
  if (status === 401 || status === 403) {
    return {
      code: "REGISTRY_DENIED",
      why: "access denied: these credentials may not do that",
      hint: `check the bucket's policy for ${now.bucket}, and that the credentials are the ones you mean (\`mvmctl registry status\`)`,
    };
  }
  if (status === 412 || status === 409) {
    return {
      code: "REGISTRY_CONFLICT",
      why: "it was changed by somebody else in the meantime",
      hint: "look at what is there now, and try again",
    };
  }
  if (status === 404) {
    return {
      code: "REGISTRY_UNREACHABLE",
      why: "there is no such thing on the server",
      hint: `check that ${now.origin} is an S3 endpoint, and the bucket's name ${now.bucket}${orThePath(now)}`,
    };
  }
  if (status === 429 || status === 503) {
    return { code: "REGISTRY_UNREACHABLE", why: "the server is overloaded", hint: "try again later" };
  }
  if (status === 501) {
    return {
      code: "REGISTRY_UNSUPPORTED",
      why: "the server does not know this kind of request",
      hint: "use an S3 server that does",
    };
  }
  if (status === 507) return FULL;
  if (status >= 500) {
    return { code: "REGISTRY_UNREACHABLE", why: "the server failed", hint: "try again later; its log may say why" };
  }
  return {
    code: "REGISTRY_REFUSED",
    why: "the server refused the request",
    hint: `check that ${now.origin} is an S3 endpoint (\`mvmctl registry status\`)`,
  };
}

const FULL: Words = {
  code: "REGISTRY_FULL",
  why: "there is no space left",
  hint: "free some space there; `mvmctl registry gc` may help",
};

const KNOWN_CODES: Record<string, (refusal: Refusal, now: Circumstances) => Words> = {
  InvalidAccessKeyId: unknownKey,
  XAdminUserNotFound: unknownKey, // versitygw, with status 404
  SignatureDoesNotMatch: () => ({
    code: "REGISTRY_DENIED",
    why: "the secret key does not belong to the access key",
    hint: `check ${ENV}SECRET_ACCESS_KEY. If it is right, a proxy before the server changes the Host header or the path`,
  }),
  ExpiredToken: sessionEnded,
  InvalidToken: sessionEnded,
  TokenRefreshRequired: sessionEnded,
  NoSuchBucket: (_refusal, now) => ({
    code: "REGISTRY_NO_BUCKET",
    why: `there is no bucket ${now.bucket}`,
    hint: `make the bucket, or check ${ENV}BUCKET${orThePath(now)}`,
  }),
  RequestTimeTooSkewed: ({ headers }) => ({
    code: "REGISTRY_CLOCK_SKEW",
    why: `the clocks differ too much: here it is ${new Date().toISOString()}, there ${serverTime(headers.date)}`,
    hint: "set this machine's clock (`timedatectl set-ntp true`), or the server's",
  }),
  AuthorizationHeaderMalformed: (refusal, now) => wrongRegion(refusal, now),
  NotImplemented: () => ({
    code: "REGISTRY_UNSUPPORTED",
    why: "the server does not know this kind of request",
    hint: "use an S3 server that does",
  }),
  QuotaExceeded: () => FULL,
  XMinioStorageFull: () => FULL,
};

/** Many write the bucket into the endpoint, too. */
function orThePath({ path }: Circumstances): string {
  return path && `; or leave the path ${path} out of ${ENV}ENDPOINT: the bucket's name is put behind it`;
}

function unknownKey(): Words {
  return {
    code: "REGISTRY_DENIED",
    why: "the server does not know the access key",
    hint: `check ${ENV}ACCESS_KEY_ID, and that the endpoint is the one the key is for`,
  };
}

function sessionEnded(): Words {
  return {
    code: "REGISTRY_DENIED",
    why: "the session token is not valid, or no longer",
    hint: `get new credentials, and set ${ENV}SESSION_TOKEN with them`,
  };
}

function wrongRegion({ headers, serverMessage }: Refusal, { region }: Circumstances): Words {
  const [, expected] = /expecting ["']([a-z0-9-]{1,40})["']/.exec(serverMessage) ?? [];
  const right = safeText(headers["x-amz-bucket-region"]) ?? expected;
  return {
    code: "REGISTRY_DENIED",
    why: `the request was signed for the region ${region}, and the bucket is in ${right ?? "another one"}`,
    hint: `export ${ENV}REGION=${right ?? "…"}`,
  };
}

/** Following would send requests signed with our key to whom the server names. */
function redirected(refusal: Refusal, now: Circumstances): Words {
  if (refusal.headers["x-amz-bucket-region"]) return { ...wrongRegion(refusal, now), code: "REGISTRY_REDIRECT" };
  const target = URL.parse(String(refusal.headers.location ?? ""), now.origin);
  return {
    code: "REGISTRY_REDIRECT",
    why: `the server redirects to ${target ? safeText(target.origin) : "somewhere else"}, and redirects are not followed`,
    hint: `if you trust that address, set ${ENV}ENDPOINT to it`,
  };
}

function networkFailure(error: unknown, { origin, host }: Circumstances): Words | undefined {
  const unreachable = (why: string, hint: string): Words => ({ code: "REGISTRY_UNREACHABLE", why, hint });
  const checkEndpoint = `check ${ENV}ENDPOINT (${origin}), and that the server runs`;
  if (error instanceof Stalled) return unreachable(messageOf(error), "see whether the network or the server hangs");
  if (error instanceof BrokenOff) {
    return { code: "REGISTRY_SHORT_READ", why: `${messageOf(error)}, again and again`, hint: "see the server's log" };
  }
  if (!(error instanceof Error && "code" in error)) return undefined;
  const code = String(error.code);
  if (isErrno(error, "ENOTFOUND")) {
    const inHost = host !== new URL(origin).hostname;
    const orPath = inHost ? `; or export ${ENV}ADDRESSING=path: the bucket is put before the host's name now` : "";
    return unreachable(`there is no host named ${host}`, `${checkEndpoint}${orPath}`);
  }
  if (isErrno(error, "EAI_AGAIN")) return unreachable(`the name ${host} could not be looked up`, "check the network");
  if (isErrno(error, "ECONNREFUSED")) return unreachable(`nothing listens at ${origin}`, checkEndpoint);
  if (isErrno(error, "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH")) {
    return unreachable(`${host} can't be reached`, "check the network, and the endpoint's address");
  }
  if (isErrno(error, "ECONNRESET", "EPIPE", "ECONNABORTED")) {
    return unreachable("the server closed the connection", checkEndpoint);
  }
  if (code.startsWith("HPE_")) {
    return {
      code: "REGISTRY_PROTOCOL",
      why: "what it answers is no HTTP",
      hint: `check ${ENV}ENDPOINT (${origin}): https or http, and the port`,
    };
  }
  return tlsFailure(code, host);
}

const UNTRUSTED = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);

function tlsFailure(code: string, host: string): Words | undefined {
  const tls = (why: string, hint: string): Words => ({ code: "REGISTRY_TLS", why, hint });
  if (UNTRUSTED.has(code)) {
    return tls(
      `the certificate of ${host} is not signed by an authority this machine trusts`,
      `if it is your own, export ${ENV}CA_FILE=/path/to/ca.pem`,
    );
  }
  if (code === "CERT_HAS_EXPIRED") return tls(`the certificate of ${host} has expired`, "renew it, or check the clock");
  if (code === "CERT_NOT_YET_VALID") return tls(`the certificate of ${host} is not valid yet`, "check the clock");
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return tls(`the certificate is not for ${host}`, `name the endpoint as its certificate does`);
  }
  if (code === "EPROTO" || code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS") || code.startsWith("CERT_")) {
    return tls(`TLS with ${host} failed (${code})`, `check ${ENV}ENDPOINT: a server without TLS has http://`);
  }
  return undefined;
}

function serverTime(date: string | undefined): string {
  const time = Date.parse(date ?? "");
  return Number.isNaN(time) ? "another time" : new Date(time).toISOString();
}

/** Text of the server's that may be shown: short, on one line, plain. */
function safeText(text: unknown): string | undefined {
  return typeof text === "string" && /^[\x21-\x7e]{1,200}$/.test(text) ? text : undefined;
}

/** A server's message may hold anything, even what it was sent. */
function clean(text: string, secrets: readonly string[]): string {
  const plain = text
    .slice(0, 10_000)
    .replace(/[\p{C}\s]+/gu, " ")
    .replace(/AWS4-HMAC-SHA256.*|Signature=\w+/g, "***")
    .trim();
  return secrets.reduce((left, secret) => (secret ? left.replaceAll(secret, "***") : left), plain).slice(0, 300);
}
