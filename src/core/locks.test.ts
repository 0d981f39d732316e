import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { until } from "../../test/support/wait.ts";
import { acquireLock, tryLock } from "./locks.ts";

let count = 0;
/** A resource that no other test uses. */
const resource = () => `/test/${process.pid}/${count++}`;
const options = { purpose: "testing", timeoutMs: 10_000 };

/** Another process that takes a lock and keeps it until it dies. */
async function holder(name: string) {
  const script = `
    import { acquireLock } from ${JSON.stringify(import.meta.resolve("./locks.ts"))};
    await acquireLock(${JSON.stringify(name)}, { purpose: "building web", timeoutMs: 10000 });
    console.log("held");
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(createInterface(child.stdout!), "line");
  return { pid: child.pid!, kill: () => child.kill("SIGKILL"), [Symbol.dispose]: () => void child.kill("SIGKILL") };
}

test("a lock is held by one at a time", async () => {
  const name = resource();
  const first = await acquireLock(name, options);
  assert.equal(await tryLock(name, "testing"), undefined);
  await first.release();
  await using second = await tryLock(name, "testing");
  assert.ok(second);
});

test("different resources have different locks", async () => {
  await using _one = await acquireLock(resource(), options);
  await using _two = await acquireLock(resource(), { ...options, timeoutMs: 0 });
});

test("whoever does not wait is told who holds it and what for", async () => {
  const name = resource();
  using other = await holder(name);
  await assert.rejects(acquireLock(name, { purpose: "testing", timeoutMs: 100 }), {
    code: "LOCKED",
    message: `${name} is in use by process ${other.pid} (building web)`,
  });
});

test("a waiter is told once whom it waits for, and wakes as soon as the lock is free", async () => {
  const name = resource();
  const first = await acquireLock(name, { purpose: "building web", timeoutMs: 0 });
  const told: string[] = [];
  const waiting = acquireLock(name, { ...options, onWait: (text) => told.push(text) });
  await until("the waiter was told", () => told.length > 0);
  const freed = Date.now();
  await first.release();
  await using _second = await waiting;
  assert.ok(Date.now() - freed < 1000, `it took ${Date.now() - freed} ms to wake`);
  assert.deepEqual(told, [`process ${process.pid} (building web)`]);
});

test("a lock dies with its process, however that dies", async () => {
  const name = resource();
  using other = await holder(name);
  const waiting = acquireLock(name, options);
  other.kill();
  await using _lock = await waiting;
});

test("of many who wait, each gets it once", async () => {
  const name = resource();
  let inside = 0;
  const work = async () => {
    await using _lock = await acquireLock(name, options);
    assert.equal(++inside, 1);
    await nextTurn();
    inside--;
  };
  await Promise.all(Array.from({ length: 20 }, work));
});

test("who is cancelled stops waiting", async () => {
  const name = resource();
  await using _lock = await acquireLock(name, options);
  const abort = new AbortController();
  const waiting = acquireLock(name, {
    ...options,
    signal: abort.signal,
    onWait: () => abort.abort(new Error("Ctrl+C")),
  });
  await assert.rejects(waiting, /Ctrl\+C/);
});

test("a lock that is held does not keep its process from ending", async () => {
  const script = `
    import { acquireLock } from ${JSON.stringify(import.meta.resolve("./locks.ts"))};
    await acquireLock(${JSON.stringify(resource())}, { purpose: "testing", timeoutMs: 0 });
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "inherit" });
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
});
