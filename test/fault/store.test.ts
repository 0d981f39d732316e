/** The fault table's rows 2, 3, 14 and 15 for the S3 store itself: a proxy makes the faults in front of a real server. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import { inspect } from "node:util";
import { MvmError } from "../../src/core/errors.ts";
import { type S3Options, S3Store } from "../../src/registry/stores/s3.ts";
import { makeCertificates } from "../support/certificates.ts";
import { useDataDirectory } from "../support/data-directory.ts";
import { isMvmError } from "../support/errors.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { type S3Server, startS3rver, startVersitygw, VERSITYGW } from "../support/s3-server.ts";
import { freePort, until as untilTrue } from "../support/wait.ts";

const signal = new AbortController().signal;
const KEY = "v1/blobs/some";
const BODY = randomBytes(300_000);
const SECRET = "a-secret-that-nothing-may-show";
const quick = { attempts: 4, firstWaitMs: 1, longestWaitMs: 5 };

describe("a store behind faults", () => {
  let server: S3Server;
  let proxy: FaultProxy;
  let store: S3Store;

  const storeWith = (options: Partial<S3Options>) =>
    new S3Store({ ...server.options, endpoint: proxy.endpoint, retries: quick, idleMs: 500, ...options });
  /** What was asked of the proxy since the last test. */
  let seenBefore = 0;
  const asked = () => proxy.requests.slice(seenBefore);

  before(async () => {
    server = await (VERSITYGW ? startVersitygw() : startS3rver());
    proxy = await startFaultProxy(server.options.endpoint);
    store = storeWith({});
    await store.put(KEY, BODY, {}, signal);
    await store.put("v1/small", Buffer.from("small"), {}, signal);
    seenBefore = proxy.requests.length;
  });
  afterEach(() => {
    proxy.clear();
    seenBefore = proxy.requests.length;
  });
  after(async () => {
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  describe("row 2: cut and stalled", () => {
    for (const kind of ["cut", "stall"] as const) {
      test(`a range goes on from the byte where it was broken off (${kind})`, async () => {
        proxy.on({ method: "GET" }, { kind, after: 100_000 });
        proxy.on({ method: "GET", nth: 2 }, { kind, after: 70_000 });
        const range = await store.getRange(KEY, 1000, 290_000, signal);
        assert.ok(range.equals(BODY.subarray(1000, 291_000)));
        assert.deepEqual(
          asked().map(({ headers }) => headers["range"]),
          ["bytes=1000-290999", "bytes=101000-290999", "bytes=171000-290999"],
        );
      });

      test(`a whole object is never taken short when it was broken off (${kind})`, async () => {
        proxy.on({ method: "GET" }, { kind, after: 4 });
        assert.equal((await store.get("v1/small", 100, signal))?.bytes.toString(), "small");
      });
    }

    test("a body without a length may have been cut, and is not taken", async () => {
      const rule = proxy.on({ method: "GET", times: Infinity }, { kind: "undeclared", after: 3 });
      await assert.rejects(store.get("v1/small", 100, signal), isMvmError("REGISTRY_SHORT_READ"));
      assert.equal(rule.used, quick.attempts);
      // Of a range we know the length ourselves.
      assert.equal((await store.getRange("v1/small", 0, 5, signal)).toString(), "small");
    });

    test("cut again and again it fails, and says so", async () => {
      const rule = proxy.on({ method: "GET", times: Infinity }, { kind: "cut", after: 10 });
      await assert.rejects(store.getRange(KEY, 0, 100, signal), isMvmError("REGISTRY_SHORT_READ"));
      assert.equal(rule.used, quick.attempts);
    });

    test("a connection that is cut as long as it makes progress is put up with", async () => {
      const rule = proxy.on({ method: "GET", times: Infinity }, { kind: "cut", after: 66_000 });
      assert.ok((await store.getRange(KEY, 0, BODY.length, signal)).equals(BODY));
      assert.equal(rule.used, 5);
    });

    test("a silent server is given up after the idle time-out", async () => {
      const impatient = storeWith({ idleMs: 50, retries: { ...quick, attempts: 2 } });
      const rule = proxy.on({ times: Infinity }, { kind: "stall" });
      await assert.rejects(impatient.get("v1/small", 100, signal), isMvmError("REGISTRY_UNREACHABLE"));
      assert.equal(rule.used, 2);
      await assert.rejects(impatient.put("v1/other", BODY, {}, signal), isMvmError("REGISTRY_UNREACHABLE"));
    });

    test("who waits for a silent server can be stopped at once", async () => {
      const patient = storeWith({ idleMs: 600_000 });
      proxy.on({ times: Infinity }, { kind: "stall" });
      const stop = new AbortController();
      const reason = new Error("enough");
      const waiting = [patient.get("v1/small", 100, stop.signal), patient.put("v1/other", BODY, {}, stop.signal)];
      setTimeout(() => stop.abort(reason), 20);
      for (const result of await Promise.allSettled(waiting)) {
        assert.equal(result.status === "rejected" && result.reason, reason);
      }
    });

    test("more requests at once than connections wait for one", async () => {
      let release = () => {};
      const until = new Promise<void>((resolve) => {
        release = resolve;
      });
      const patient = storeWith({ idleMs: 600_000 });
      proxy.on({ times: 64 }, { kind: "hold", until });
      const reads = [...Array(80).keys()].map(() => patient.get("v1/small", 100, signal));
      await untilTrue("all connections are taken", () => asked().length === 64);
      release();
      for (const read of await Promise.all(reads)) assert.equal(read?.bytes.toString(), "small");
      assert.equal(asked().length, 80);
    });

    test("a write whose answer was lost is written once more", async () => {
      proxy.on({ method: "PUT" }, { kind: "drop", afterServer: true });
      await store.put("v1/lost", Buffer.from("lost"), {}, signal);
      assert.equal((await store.get("v1/lost", 10, signal))?.bytes.toString(), "lost");
    });

    const skip = !VERSITYGW && "needs a server with conditional writes: MVM_TEST_VERSITYGW is not set";
    test("a conditional write whose answer was lost is known to be ours", { skip }, async () => {
      proxy.on({ method: "PUT" }, { kind: "drop", afterServer: true });
      const condition = { ifAbsent: true } as const;
      const { etag } = await store.put("v1/lost-once", Buffer.from("mine"), { condition }, signal);
      assert.equal((await store.get("v1/lost-once", 10, signal))?.etag, etag);
      const late = store.put("v1/lost-once", Buffer.from("other"), { condition }, signal);
      await assert.rejects(late, isMvmError("REGISTRY_CONFLICT"));
    });
  });

  describe("row 3: too much", () => {
    test("more than declared is never taken for the body", async () => {
      proxy.on({ times: Infinity }, { kind: "excess", extra: 5_000_000 });
      await assert.rejects(store.get("v1/small", 6_000_000, signal), isMvmError("REGISTRY_PROTOCOL"));
      await assert.rejects(store.getRange(KEY, 10, 50, signal), isMvmError("REGISTRY_PROTOCOL"));
      proxy.clear();
      assert.equal((await store.get("v1/small", 1000, signal))?.bytes.toString(), "small");
    });

    test("more than was asked for is refused", async () => {
      proxy.on({ method: "GET" }, { kind: "replace", body: BODY });
      await assert.rejects(store.getRange(KEY, 10, 50, signal), isMvmError("REGISTRY_PROTOCOL"));
      proxy.on({ method: "GET" }, { kind: "replace", body: BODY });
      await assert.rejects(store.get("v1/small", 1000, signal), isMvmError("REGISTRY_OBJECT_TOO_LARGE"));
    });

    test("an endless body is read to its bound, and the memory stays", async () => {
      proxy.on({ times: Infinity }, { kind: "endless" });
      const rss = process.memoryUsage.rss();
      await assert.rejects(store.get("v1/small", 1000, signal), isMvmError("REGISTRY_OBJECT_TOO_LARGE"));
      await assert.rejects(store.getRange(KEY, 10, 50, signal), isMvmError("REGISTRY_PROTOCOL"));
      await assert.rejects(Array.fromAsync(store.list("v1/", signal)), isMvmError("REGISTRY_OBJECT_TOO_LARGE"));
      assert.ok(process.memoryUsage.rss() - rss < 64 * 1024 * 1024);
      assert.equal(asked().length, 3, "a refused body is not asked for again");
    });

    test("a list that is none, or goes round in circles, is refused", async () => {
      proxy.on({ path: /list-type/ }, { kind: "answer", status: 200, body: "<html>Welcome</html>" });
      await assert.rejects(Array.fromAsync(store.list("v1/", signal)), isMvmError("REGISTRY_PROTOCOL"));
      const page = `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>`;
      proxy.on({ path: /list-type/, times: Infinity }, { kind: "answer", status: 200, body: page });
      await assert.rejects(Array.fromAsync(store.list("v1/", signal)), isMvmError("REGISTRY_PROTOCOL"));
    });
  });

  test("row 14: a redirect is refused, and who it names hears nothing", async () => {
    let heard = 0;
    await using other = await listen(
      createServer((_request, response) => {
        heard++;
        response.end();
      }),
    );
    const to = `http://127.0.0.1:${other.port}/templates/${KEY}`;
    for (const status of [301, 302, 303, 307, 308]) {
      const rule = proxy.on({ times: Infinity }, { kind: "redirect", to, status });
      await assert.rejects(store.get(KEY, 1e6, signal), isMvmError("REGISTRY_REDIRECT"));
      await assert.rejects(store.put(KEY, BODY, {}, signal), isMvmError("REGISTRY_REDIRECT"));
      await assert.rejects(store.delete(KEY, signal), isMvmError("REGISTRY_REDIRECT"));
      assert.equal(rule.used, 3);
      proxy.clear();
    }
    assert.equal(heard, 0);
  });

  describe("row 15: refused, overloaded, failing", () => {
    const answer = (status: number, code: string, message = "", headers = {}) =>
      ({
        kind: "answer",
        status,
        headers,
        body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`,
      }) as const;

    for (const [status, s3Code, code, words] of [
      [403, "AccessDenied", "REGISTRY_DENIED", /policy/],
      [403, "InvalidAccessKeyId", "REGISTRY_DENIED", /ACCESS_KEY_ID/],
      [403, "SignatureDoesNotMatch", "REGISTRY_DENIED", /SECRET_ACCESS_KEY/],
      [400, "ExpiredToken", "REGISTRY_DENIED", /SESSION_TOKEN/],
      [400, "AuthorizationHeaderMalformed", "REGISTRY_DENIED", /REGION/],
      [404, "NoSuchBucket", "REGISTRY_NO_BUCKET", /no bucket templates/],
      [400, "InvalidRequest", "REGISTRY_REFUSED", /400 InvalidRequest/],
      [501, "NotImplemented", "REGISTRY_UNSUPPORTED", /does not know/],
    ] as const) {
      test(`${status} ${s3Code} is not tried again, and is explained`, async () => {
        const rule = proxy.on({ times: Infinity }, answer(status, s3Code));
        await assert.rejects(store.get("v1/small", 100, signal), (error) => {
          assert.ok(isMvmError(code)(error));
          assert.match(said(error), words);
          return true;
        });
        assert.equal(rule.used, 1);
      });
    }

    for (const status of [429, 500, 502, 503, 504]) {
      test(`${status} is tried again, and not for ever`, async () => {
        proxy.on({ times: 2 }, answer(status, "SlowDown"));
        assert.equal((await store.get("v1/small", 100, signal))?.bytes.toString(), "small");
        const rule = proxy.on({ times: Infinity }, answer(status, "SlowDown"));
        await assert.rejects(store.getRange(KEY, 0, 5, signal), isMvmError("REGISTRY_UNREACHABLE"));
        assert.equal(rule.used, quick.attempts);
      });
    }

    test("a skewed clock is named, with both clocks", async () => {
      const date = "Thu, 01 Jan 2015 10:20:30 GMT";
      proxy.on({}, answer(403, "RequestTimeTooSkewed", "too skewed", { date }));
      await assert.rejects(store.get("v1/small", 100, signal), (error) => {
        assert.ok(isMvmError("REGISTRY_CLOCK_SKEW")(error));
        assert.match(said(error), /2015-01-01T10:20:30/);
        assert.ok(said(error).includes(new Date().toISOString().slice(0, 13)));
        return true;
      });
    });

    test("no such host, nobody there, no TLS there", async () => {
      const unreachable = async (endpoint: string, code: string, words: RegExp) => {
        await assert.rejects(storeWith({ endpoint: new URL(endpoint) }).get("v1/small", 100, signal), (error) => {
          assert.ok(isMvmError(code)(error));
          assert.match(said(error), words);
          return true;
        });
      };
      await unreachable("http://no-such-host.invalid", "REGISTRY_UNREACHABLE", /no-such-host\.invalid/);
      await unreachable(`http://127.0.0.1:${await freePort()}`, "REGISTRY_UNREACHABLE", /nothing listens/);
      await unreachable(`https://127.0.0.1:${proxy.endpoint.port}`, "REGISTRY_TLS", /http:\/\//);
    });

    test("a certificate of an unknown authority is refused, and its authority can be trusted", async () => {
      using directory = useDataDirectory();
      const { ca, certificate, key } = await makeCertificates(directory.root);
      const files = { cert: readFileSync(certificate), key: readFileSync(key) };
      await using tls = await listen(
        createTlsServer(files, (_request, response) => {
          response.writeHead(200, { etag: '"1"', "content-length": 2 }).end("ok");
        }),
      );
      const { port } = tls;
      const endpoint = new URL(`https://127.0.0.1:${port}`);
      await assert.rejects(storeWith({ endpoint }).get("v1/small", 100, signal), (error) => {
        assert.ok(isMvmError("REGISTRY_TLS")(error));
        assert.match(said(error), /MVM_TEMPLATE_REGISTRY_CA_FILE/);
        return true;
      });
      assert.equal((await storeWith({ endpoint, ca }).get("v1/small", 100, signal))?.bytes.toString(), "ok");
      const misnamed = storeWith({ endpoint: new URL(`https://other.localhost:${port}`), ca });
      await assert.rejects(misnamed.get("v1/small", 100, signal), isMvmError("REGISTRY_TLS"));
    });

    test("secrets are in no error, whatever the server says", async () => {
      const credentials = async () => ({ accessKeyId: "some-key-id", secretAccessKey: SECRET, sessionToken: "tok-en" });
      const secretive = storeWith({ credentials });
      const check = async (call: Promise<unknown>) => {
        await assert.rejects(call, (error) => {
          assert.ok(error instanceof MvmError);
          const all = inspect(error, { depth: 20, showHidden: true, getters: true });
          for (const secret of [SECRET, "tok-en", "AWS4-HMAC", "Signature=", "rawPacket"]) {
            assert.ok(!all.includes(secret), all);
          }
          return true;
        });
      };
      await check(secretive.get("v1/small", 100, signal)); // the server does not know the key
      const { authorization, "x-amz-security-token": token } = asked().at(-1)!.headers;
      assert.equal(token, "tok-en");
      assert.match(String(authorization), /AWS4-HMAC-SHA256 Credential=some-key-id/);
      proxy.on({}, answer(403, "AccessDenied", `you sent ${authorization} with ${SECRET} and tok-en`));
      await check(secretive.get("v1/small", 100, signal));
      proxy.on({ times: 3 }, { kind: "excess", extra: 100 }); // what the parser says of it holds what was sent
      await check(store.get("v1/small", 100, signal));
      proxy.on({ times: Infinity }, { kind: "cut", after: 0 });
      await check(secretive.get("v1/small", 100, signal));
      await check(secretive.put("v1/small", BODY, {}, signal));
    });
  });
});

async function listen(server: Server): Promise<AsyncDisposable & { readonly port: number }> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** What a person reads of an error. */
function said(error: unknown): string {
  assert.ok(error instanceof MvmError);
  return [error.message, error.detail, error.hint].join("\n");
}
