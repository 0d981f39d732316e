import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { test } from "node:test";
import { useFakeGuest } from "../../test/support/fake-agent.ts";
import { tryLock } from "../core/locks.ts";
import { openAgentStream } from "./agent-stream.ts";

const soon = () => ({ deadlineMs: Date.now() + 10_000 });
const nonceOf = (text: string) => /CONNECT 52 ([0-9a-f]+)\n/.exec(text)?.[1];

/** Calls `take` with all that a connection has received so far, each time more comes. */
function collect(connection: Socket, take: (received: string) => void): void {
  let received = "";
  connection.on("data", (data) => {
    received += data.toString("latin1");
    take(received);
  });
}

test("what the guest had to say to an earlier client is skipped; what follows the answer is left for HTTP/2", async () => {
  await using guest = await useFakeGuest((connection) => {
    connection.write("the end of some old frame OK 0123\n");
    connection.once("data", (data) => {
      const answer = `OK ${nonceOf(data.toString())}\n`;
      connection.write(`more of it ${answer.slice(0, 9)}`);
      setImmediate(() => connection.write(`${answer.slice(9)}the first frame`));
    });
  });
  await using stream = await openAgentStream(guest.endpoint, soon());
  const [data] = await once(stream.socket, "data");
  assert.equal(String(data), "the first frame");
});

test("an unanswered greeting is repeated, after enough bytes to end any frame that was begun", async () => {
  let filler = 0;
  await using guest = await useFakeGuest((connection) => {
    collect(connection, (received) => {
      const greetings = received.split("CONNECT 52 ").length - 1;
      if (greetings < 2) return;
      filler = received.split("\xff").length - 1;
      connection.write(`OK ${nonceOf(received)}\n`);
    });
  });
  await using _stream = await openAgentStream(guest.endpoint, { ...soon(), repeatAfterMs: 20 });
  assert.ok(filler >= 16_393, `${filler} bytes`);
});

test("a guest that does not answer is given up at the deadline", async () => {
  await using guest = await useFakeGuest((connection) => void connection.resume());
  const before = Date.now();
  await assert.rejects(openAgentStream(guest.endpoint, { deadlineMs: before + 300 }), {
    code: "AGENT_UNREACHABLE",
    message: /did not answer in time/,
  });
  assert.ok(Date.now() - before < 3000);
});

test("a VM that closes its sockets as it ends is said to have ended, a moment later", async () => {
  await using guest = await useFakeGuest((connection) => void connection.end());
  let asked = 0;
  const checkAlive = () => {
    asked++;
    if (asked > 3) throw new Error("the VM died");
  };
  await assert.rejects(openAgentStream(guest.endpoint, { ...soon(), checkAlive }), /the VM died/);
});

test("a VM that has ended is not waited for", async () => {
  await using guest = await useFakeGuest((connection) => void connection.resume());
  const checkAlive = () => {
    throw new Error("the VM died");
  };
  await assert.rejects(openAgentStream(guest.endpoint, { ...soon(), checkAlive, repeatAfterMs: 20 }), /the VM died/);
  await using ending = await useFakeGuest((connection) => connection.destroy());
  await assert.rejects(openAgentStream(ending.endpoint, soon()), {
    code: "AGENT_UNREACHABLE",
    message: /closed the connection/,
  });
});

test("who is cancelled stops waiting, and gives the port back", async () => {
  const abort = new AbortController();
  const before = Date.now();
  await using guest = await useFakeGuest(() => abort.abort(new Error("Ctrl+C")));
  await assert.rejects(
    openAgentStream(guest.endpoint, { ...soon(), signal: abort.signal, repeatAfterMs: 9000 }),
    /Ctrl\+C/,
  );
  assert.ok(Date.now() - before < 5000);
  await using lock = await tryLock(guest.socket, "testing");
  assert.ok(lock);
});

test("a port serves one client at a time: when all are taken, the error says so", async () => {
  await using guest = await useFakeGuest((connection) => void connection.resume());
  await using _lock = await tryLock(guest.socket, "mvmctl exec");
  await assert.rejects(openAgentStream(guest.endpoint, { deadlineMs: Date.now() + 50 }), {
    code: "AGENT_BUSY",
    message: /all 1 connections/,
  });
});

test("Firecracker answers for the guest, with a port number of its choice", async () => {
  let greeting = "";
  await using guest = await useFakeGuest((connection) => {
    connection.once("data", (data) => {
      greeting = data.toString();
      connection.write("OK 1073741824\nframe");
    });
  });
  await using stream = await openAgentStream(guest.vsock, soon());
  assert.equal(greeting, "CONNECT 52\n");
  const [data] = await once(stream.socket, "data");
  assert.equal(String(data), "frame");
});

test("a guest that floods instead of answering is given up", async () => {
  const flood = Buffer.alloc(1024 * 1024, "x");
  await using guest = await useFakeGuest((connection) => {
    const pour = () => {
      while (connection.writable && connection.write(flood)) {
        // until the socket is full
      }
      connection.once("drain", pour);
    };
    pour();
  });
  await assert.rejects(openAgentStream(guest.endpoint, soon()), { code: "AGENT_UNREACHABLE" });
});

test("a guest that does not listen on its vsock yet is tried again on new connections, whether closed or silent", async () => {
  const greetings: string[] = [];
  await using guest = await useFakeGuest((connection) => {
    connection.once("data", (data) => {
      greetings.push(String(data));
      if (greetings.length <= 2) connection.destroy();
      else if (greetings.length > 3) connection.write("OK 1\n");
    });
  });
  await using _stream = await openAgentStream(guest.vsock, { ...soon(), repeatAfterMs: 20 });
  assert.deepEqual(greetings, Array(4).fill("CONNECT 52\n"));
});

test("a guest that never listens on its vsock is given up at the deadline, and a dead one at once", async () => {
  await using guest = await useFakeGuest((connection) => connection.destroy());
  await assert.rejects(openAgentStream(guest.vsock, { deadlineMs: Date.now() + 200 }), { code: "AGENT_UNREACHABLE" });
  const dead = new Error("it is dead");
  const checkAlive = () => {
    throw dead;
  };
  await assert.rejects(openAgentStream(guest.vsock, { ...soon(), checkAlive }), dead);
});
