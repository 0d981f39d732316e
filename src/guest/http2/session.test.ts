import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { test } from "node:test";
import { Http2Session } from "./session.ts";
import type { Http2Stream } from "./stream.ts";

/** The other side is Node's own HTTP/2, which is nghttp2. */
type Answer = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

async function withServer(answer: Answer, use: (session: Http2Session) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-http2-"));
  const server = createServer().on("stream", answer);
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  const path = join(directory, "socket");
  await once(server.listen(path), "listening");
  const socket = connect({ path });
  await once(socket, "connect");
  const session = new Http2Session(socket);
  session.on("error", () => {});
  try {
    await use(session);
  } finally {
    session.destroy();
    for (const each of sessions) each.destroy();
    server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

const get = (session: Http2Session, path: string): Http2Stream =>
  session.request({ ":method": "GET", ":scheme": "http", ":authority": "agent", ":path": path }, Buffer.of());
const post = (session: Http2Session, path: string, body?: Buffer): Http2Stream =>
  session.request({ ":method": "POST", ":scheme": "http", ":authority": "agent", ":path": path }, body);
const statusOf = async (stream: Http2Stream): Promise<number> => (await once(stream, "response"))[0];

test("a body of many windows goes there and comes back whole", async () => {
  const echo: Answer = (stream) => {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
  };
  const sent = Buffer.alloc(5_000_000, "0123456789abcdef-");
  await withServer(echo, async (session) => {
    const stream = post(session, "/echo");
    const [back] = await Promise.all([buffer(stream), pipeline([sent], stream, { end: true }).catch(() => {})]);
    assert.ok(back.equals(sent));
  });
});

test("a body that is given with its request arrives whole, whatever its length", async () => {
  const echo: Answer = (stream) => {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
  };
  await withServer(echo, async (session) => {
    // The seven together are more than a connection's first window.
    const bodies = [0, 1, 16_384, 16_385, 65_535, 65_536, 200_000].map((length) => Buffer.alloc(length, "body-"));
    const backs = await Promise.all(bodies.map((body) => buffer(post(session, "/", body))));
    assert.deepEqual(
      backs.map((back, index) => back.equals(bodies[index]!)),
      bodies.map(() => true),
    );
  });
});

test("a stream that nobody reads holds up its sender, and no other stream", async () => {
  let poured = 0;
  const answer: Answer = (stream, headers) => {
    stream.respond({ ":status": 200 });
    if (headers[":path"] !== "/flood") return void stream.end("short");
    stream.on("error", () => {});
    const pour = () => {
      for (let free = true; free && !stream.destroyed; poured += 16_384) free = stream.write(Buffer.alloc(16_384));
      stream.once("drain", pour);
    };
    pour();
  };
  await withServer(answer, async (session) => {
    const flood = get(session, "/flood");
    assert.equal(await statusOf(flood), 200);
    for (let i = 0; i < 20; i++) assert.equal(String(await buffer(get(session, "/short"))), "short");
    assert.ok(poured < 1_000_000, `${poured} bytes for a stream that was never read`);
    flood.destroy();
    assert.equal(String(await buffer(get(session, "/short"))), "short");
  });
});

test("a path that needs several frames arrives", async () => {
  const path = `/${"x".repeat(30_000)}`;
  let seen: string | undefined;
  const answer: Answer = (stream, headers) => {
    seen = headers[":path"];
    stream.respond({ ":status": 204 }, { endStream: true });
  };
  await withServer(answer, async (session) => {
    assert.equal(await statusOf(get(session, path)), 204);
    assert.equal(seen, path);
  });
});

test("headers of several frames, trailers and an early hint are understood", async () => {
  const answer: Answer = (stream) => {
    stream.additionalHeaders({ ":status": 103 });
    stream.respond({ ":status": 418, "x-long": "y".repeat(40_000) }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-end": "1" }));
    stream.end("tea");
  };
  await withServer(answer, async (session) => {
    const stream = get(session, "/");
    const [status, body] = await Promise.all([statusOf(stream), buffer(stream)]);
    assert.deepEqual([status, String(body)], [418, "tea"]);
  });
});

test("an answer that comes before the request has ended is read whole", async () => {
  const answer: Answer = (stream) => {
    stream.respond({ ":status": 200 });
    stream.end("x".repeat(60_000));
    stream.on("finish", () => stream.close(0));
  };
  await withServer(answer, async (session) => {
    for (let i = 0; i < 10; i++) {
      const stream = post(session, "/");
      stream.write("a beginning");
      await statusOf(stream);
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal((await buffer(stream)).length, 60_000);
      if (!stream.closed) await once(stream, "close");
    }
  });
});

test("who cancels is heard by the other side", async () => {
  const cancelled = Promise.withResolvers<number | undefined>();
  const answer: Answer = (stream) => {
    stream.respond({ ":status": 200 });
    stream.on("error", () => {});
    stream.on("close", () => cancelled.resolve(stream.rstCode));
  };
  await withServer(answer, async (session) => {
    const stream = post(session, "/");
    await statusOf(stream);
    stream.destroy();
    assert.equal(await cancelled.promise, 8);
  });
});

test("an answer that is broken off is an error, and a connection that is lost an end", async () => {
  const answer: Answer = (stream, headers) => {
    stream.respond({ ":status": 200 });
    stream.write("half");
    stream.on("error", () => {});
    setImmediate(() =>
      headers[":path"] === "/reset" ? stream.destroy(new Error("broken")) : stream.session?.destroy(),
    );
  };
  await withServer(answer, async (session) => {
    await assert.rejects(buffer(get(session, "/reset")), /code 2/);
    const closed = new Promise<void>((resolve) => session.once("close", resolve));
    assert.equal(String(await buffer(get(session, "/lost"))), "half");
    await closed;
    const late = get(session, "/late");
    await once(late, "close");
    assert.equal(late.isAnswered, false);
  });
});

test("what is no HTTP/2 ends the connection with the reason", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mvm-http2-"));
  const path = join(directory, "socket");
  const { createServer: createSocketServer } = await import("node:net");
  const server = createSocketServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await once(server.listen(path), "listening");
  const session = new Http2Session(connect({ path }));
  const [error] = await once(session, "error");
  assert.match(error.message, /frame of \d+ bytes/);
  server.close();
  rmSync(directory, { recursive: true, force: true });
});
