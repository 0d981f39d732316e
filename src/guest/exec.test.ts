import assert from "node:assert/strict";
import type { ServerHttp2Stream } from "node:http2";
import { PassThrough, Readable, Writable } from "node:stream";
import { test } from "node:test";
import { useFakeAgent } from "../../test/support/fake-agent.ts";
import { AgentClient } from "./agent-client.ts";
import { type ExecRequest, type ExecStreams, execInGuest } from "./exec.ts";

function frame(type: number, payload: string | Buffer | object): Buffer {
  const body = Buffer.isBuffer(payload)
    ? payload
    : Buffer.from(typeof payload === "string" ? payload : JSON.stringify(payload));
  const head = Buffer.alloc(5);
  head.writeUInt8(type, 0);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** Runs a command in a guest whose agent does what `serve` does; `sent` gives the frames that the host sent. */
async function exec(
  serve: (stream: ServerHttp2Stream) => void,
  request: Partial<ExecRequest> = {},
  streams: Partial<ExecStreams> = {},
) {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const received: Buffer[] = [];
  await using guest = await useFakeAgent((stream) => {
    stream.on("data", (chunk: Buffer) => received.push(chunk));
    stream.respond({ ":status": 200 });
    serve(stream);
  });
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  const code = await execInGuest(client, { argv: ["true"], ...request }, { stdout, stderr, ...streams });
  const text = (stream: PassThrough) => String(stream.read() ?? "");
  return { code, stdout: text(stdout), stderr: text(stderr), sent: Buffer.concat(received) };
}

test("a command's output arrives on its streams, and its exit code is passed on", async () => {
  const result = await exec((stream) => {
    stream.write(Buffer.concat([frame(0, { pid: 42 }), frame(1, "out"), frame(2, "err"), frame(1, "put")]));
    stream.end(frame(3, { code: 7 }));
  });
  assert.deepEqual([result.code, result.stdout, result.stderr], [7, "output", "err"]);
});

test("frames may come in pieces, cut anywhere", async () => {
  const bytes = Buffer.concat([frame(0, { pid: 42 }), frame(1, "one "), frame(1, "two"), frame(3, { code: 0 })]);
  const result = await exec((stream) => {
    let at = 0;
    const next = () => {
      if (at === bytes.length) stream.end();
      else stream.write(bytes.subarray(at, ++at), () => setImmediate(next));
    };
    next();
  });
  assert.deepEqual([result.code, result.stdout], [0, "one two"]);
});

test("a command that a signal ended has the exit code a shell would give it", async () => {
  assert.equal((await exec((stream) => stream.end(frame(3, { signal: 9 })))).code, 137);
});

test("what is to run is said first; without an input, its end follows", async () => {
  const done = (stream: ServerHttp2Stream) => stream.end(frame(3, { code: 0 }));
  let seen = Buffer.alloc(0);
  await exec(
    (stream) => {
      stream.on("data", (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk]);
        if (seen.includes(frame(2, ""))) done(stream);
      });
    },
    { argv: ["ls", "-l"], user: "app", env: { K: "V" } },
  );
  const start = frame(0, { env: { K: "V" }, cwd: "/", tty: null, argv: ["ls", "-l"], user: "app" });
  assert.deepEqual(seen, Buffer.concat([start, frame(2, "")]));
});

test("input is sent in frames that are not too long, then its end", async () => {
  const input = Buffer.alloc(100_000, "x");
  let bytes = 0;
  const result = await exec(
    (stream) => {
      stream.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        // start, two frames of input, the end
        if (bytes === startLength + 5 + 65_536 + 5 + (100_000 - 65_536) + 5) stream.end(frame(3, { code: 0 }));
      });
    },
    {},
    { stdin: Readable.from([input]) },
  );
  assert.equal(result.code, 0);
});
const startLength = frame(0, { env: {}, cwd: "/", tty: null, argv: ["true"] }).length;

test("a command that is not in the image is named, with what to do", async () => {
  const refused = exec((stream) => stream.end(frame(4, { code: "NOT_FOUND", message: "no such file" })), {
    argv: ["vim"],
  });
  await assert.rejects(refused, {
    code: "COMMAND_NOT_FOUND",
    message: "'vim' was not found in the guest",
    hint: /packages/,
  });
  const failed = exec((stream) => stream.end(frame(4, { code: "FAILED", message: "permission denied" })), {
    argv: ["/etc"],
  });
  await assert.rejects(failed, { code: "COMMAND_FAILED", message: /permission denied/ });
});

test("a guest that ends, or talks nonsense, is an error and no exit code", async () => {
  await assert.rejects(
    exec((stream) => stream.end(frame(1, "half"))),
    { code: "AGENT_FAILED", message: /ended before the command did/ },
  );
  const long = Buffer.alloc(5);
  long.writeUInt32BE(65_537, 1);
  await assert.rejects(
    exec((stream) => stream.end(long)),
    { code: "AGENT_FAILED", message: /too long/ },
  );
});

test("whoever waits for a reader that is gone is let go: the command ends", async () => {
  const readerLeft = new AbortController();
  let told: () => void = () => {};
  const hungUp = new Promise<void>((resolve) => {
    told = resolve;
  });
  // Takes the first piece and never says that it takes more, as a pipe whose reader is gone.
  const stdout = new Writable({ highWaterMark: 1, write: () => readerLeft.abort() });
  const running = exec(
    (stream) => {
      stream.on("close", () => told());
      stream.write(frame(1, "y"));
    },
    {},
    { stdout, signal: readerLeft.signal },
  );
  await assert.rejects(running);
  await hungUp;
});

test("a command whose output goes nowhere any more runs to its end", async () => {
  const stdout = new Writable({ highWaterMark: 1, write: () => stdout.destroy() });
  const result = await exec(
    (stream) => {
      stream.write(Buffer.concat([frame(1, "one"), frame(1, "two")]));
      stream.end(frame(3, { code: 5 }));
    },
    {},
    { stdout },
  );
  assert.equal(result.code, 5);
});
