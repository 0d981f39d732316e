import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Writable } from "node:stream";
import { test } from "node:test";
import { isMvmError } from "../../test/support/errors.ts";
import { failFileCalls } from "../../test/support/failing-files.ts";
import { until } from "../../test/support/wait.ts";
import {
  bootId,
  findVmProcesses,
  identify,
  isAlive,
  ownIdentity,
  signalProcess,
  VM_DIRECTORY_VARIABLE,
} from "./process-identity.ts";

/** A process that does nothing for as long as the test needs it. */
function sleeper(env: NodeJS.ProcessEnv = {}) {
  const child = spawn("sleep", ["1000"], { env: { ...process.env, ...env }, stdio: "ignore" });
  return { pid: child.pid!, ended: once(child, "exit"), [Symbol.dispose]: () => void child.kill("SIGKILL") };
}

test("this process is alive", () => {
  assert.equal(ownIdentity().pid, process.pid);
  assert.equal(ownIdentity().bootId, bootId());
  assert.ok(isAlive(ownIdentity()));
});

test("a process is dead once it has ended, and then gets no signals", async () => {
  using child = sleeper();
  const identity = identify(child.pid)!;
  assert.ok(isAlive(identity));
  assert.ok(signalProcess(identity, "SIGTERM"));
  await child.ended;
  assert.ok(!isAlive(identity));
  assert.ok(!signalProcess(identity, "SIGTERM"));
  assert.equal(identify(child.pid), undefined);
});

test("a zombie is dead", async () => {
  // The shell becomes a sleep, which never reaps its child; only then is the child let go.
  const script = "cat <&3 & echo $!; exec sleep 1000";
  const parent = spawn("sh", ["-c", script], { stdio: ["ignore", "pipe", "ignore", "pipe"] });
  try {
    const [line] = await once(parent.stdout!.setEncoding("utf8"), "data");
    await until("the shell is a sleep", () => readFileSync(`/proc/${parent.pid}/comm`, "utf8") === "sleep\n");
    const child = identify(Number(line))!;
    assert.ok(isAlive(child));
    (parent.stdio[3] as Writable).end();
    await until("the child is a zombie", () => !isAlive(child));
    assert.deepEqual(identify(child.pid), child, "it still has an entry in the process table");
  } finally {
    parent.kill("SIGKILL");
  }
});

test("a process that can't be looked at, with too many files open, is not taken for dead", async () => {
  const self = ownIdentity();
  const isStat = (_call: string, path: unknown) => path === `/proc/${process.pid}/stat`;
  await failFileCalls(isStat, "EMFILE", () => assert.throws(() => isAlive(self), isMvmError("FILE_FAILED")));
  await failFileCalls(isStat, "ESRCH", () => assert.ok(!isAlive(self)));
});

test("somebody else who got the same pid is neither meant nor signalled", () => {
  using child = sleeper();
  const identity = identify(child.pid)!;
  for (const other of [
    { ...identity, startTime: "1" },
    { ...identity, bootId: "another boot" },
  ]) {
    assert.ok(!isAlive(other));
    assert.ok(!signalProcess(other, "SIGKILL"));
  }
  assert.ok(isAlive(identity));
});

test("a VM that nobody recorded is found by the directory in its environment", async () => {
  using vm = sleeper({ [VM_DIRECTORY_VARIABLE]: "/data/instances/web" });
  using below = sleeper({ [VM_DIRECTORY_VARIABLE]: "/data/instances/web/vm" });
  using _other = sleeper({ [VM_DIRECTORY_VARIABLE]: "/data/instances/web-2" });
  const pids = () => findVmProcesses("/data/instances/web").map(({ pid }) => pid);
  // Between fork and exec a child still has its parent's environment.
  await until("both are found", () => pids().length === 2);
  assert.deepEqual(new Set(pids()), new Set([vm.pid, below.pid]));
});
