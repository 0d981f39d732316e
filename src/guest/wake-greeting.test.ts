import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { useFakeGuest } from "../../test/support/fake-agent.ts";
import { tryLock } from "../core/locks.ts";
import { newIdentity } from "./identity.ts";
import { fitsGreeting, wakeByGreeting } from "./wake-greeting.ts";

const soon = () => ({ deadlineMs: Date.now() + 10_000 });
const identity = () => newIdentity("svc", "worker", { K: "ä" });

/** Calls `take` with every whole greeting that comes. */
function greetings(connection: Socket, take: (nonce: string, body: string) => void): void {
  let received = Buffer.alloc(0);
  connection.on("data", (data) => {
    received = Buffer.concat([received, data]);
    for (;;) {
      const [line = "", nonce = "", length] = /WAKE 52 ([0-9a-f]+) (\d+)\n/.exec(received.toString("latin1")) ?? [];
      const body = received.indexOf(line) + line.length;
      const end = body + Number(length);
      if (line === "" || received.length < end) return;
      const request = received.subarray(body, end).toString();
      received = received.subarray(end);
      take(nonce, request);
    }
  });
}

test("the guest is told all that the request says, and its health is what it says last", async () => {
  let told: unknown;
  await using guest = await useFakeGuest((connection) =>
    greetings(connection, (nonce, body) => {
      told = JSON.parse(body);
      connection.write(`HEALTH 0123 failed\nAWAKE ${nonce} 2\n`);
      setImmediate(() => connection.write(`HEALTH ${nonce} healthy\n`));
    }),
  );
  const request = identity();
  await using woken = await wakeByGreeting([guest.socket], () => request, soon());
  assert.deepEqual(told, request);
  assert.equal(await woken.settled, "healthy");
});

test("a guest that fails, and one that goes away, are told apart from a healthy one", async () => {
  for (const [last, settled] of [
    ["failed", "failed"],
    ["", "ended"],
  ]) {
    await using guest = await useFakeGuest((connection) =>
      greetings(connection, (nonce) => {
        connection.end(`AWAKE ${nonce} 2\n${last && `HEALTH ${nonce} ${last}\n`}`);
      }),
    );
    await using woken = await wakeByGreeting([guest.socket], identity, soon());
    assert.equal(await woken.settled, settled);
  }
});

test("what the guest refuses is an error with its reason, and the port is free again", async () => {
  await using guest = await useFakeGuest((connection) =>
    greetings(connection, (nonce) => connection.write(`REFUSED ${nonce} the postRestore hook failed: kein Gerät\n`)),
  );
  await assert.rejects(wakeByGreeting([guest.socket], identity, soon()), {
    code: "AGENT_FAILED",
    message: /the postRestore hook failed: kein Gerät/,
  });
  await using lock = await tryLock(guest.socket, "test");
  assert.ok(lock);
});

test("a greeting that is repeated says what time it is then", async () => {
  const times: bigint[] = [];
  await using guest = await useFakeGuest((connection) =>
    greetings(connection, (nonce, body) => {
      times.push(BigInt(JSON.parse(body).timeNs));
      if (times.length === 2) connection.write(`AWAKE ${nonce} 1\n`);
    }),
  );
  await using _woken = await wakeByGreeting([guest.socket], identity, { ...soon(), repeatAfterMs: 50 });
  assert.ok(times[1]! > times[0]!, String(times));
});

test("a request with more variables than a greeting carries is known beforehand", () => {
  assert.ok(fitsGreeting(identity()));
  assert.equal(fitsGreeting(newIdentity("svc", "worker", { K: "x".repeat(100_000) })), false);
});
