import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { until } from "../../test/support/wait.ts";
import { findProgram, run } from "./process.ts";
import { identify, isAlive } from "./process-identity.ts";

const directory = mkdtempSync(join(tmpdir(), "mvm-process-"));
after(() => rmSync(directory, { recursive: true }));

const sh = (script: string, options = {}) => run("sh", ["-c", script], options);

test("a program's exit code and output come back, whatever they are", async () => {
  const result = await sh("echo out; echo err >&2; exit 3");
  assert.deepEqual(result, { exitCode: 3, stdout: "out\n", stderr: "err\n" });
});

test("a program that a signal ended has the exit code a shell would give it", async () => {
  assert.equal((await sh("kill -9 $$")).exitCode, 137);
  assert.equal((await sh("kill -ABRT $$")).exitCode, 134);
});

test("input is written, and without any the input is empty", async () => {
  assert.equal((await run("cat", [], { input: "héllo\n" })).stdout, "héllo\n");
  assert.equal((await run("cat", [])).stdout, "");
});

test("a program that does not read its input is no failure", async () => {
  assert.equal((await run("true", [], { input: "x".repeat(1024 * 1024) })).exitCode, 0);
});

test("lines of standard error are told as they come", async () => {
  const lines: string[] = [];
  await sh("printf 'one\\ntwo\\r10%%\\rthr' >&2; printf 'ee' >&2", {
    onStderrLine: (line: string) => lines.push(line),
  });
  assert.deepEqual(lines, ["one", "two", "10%", "three"]);
});

test("a missing program is named, with how to get it", async () => {
  await assert.rejects(run("mvm-no-such-program", [], { installHint: "apt-get install it" }), {
    code: "PROGRAM_MISSING",
    message: /mvm-no-such-program was not found/,
    hint: "apt-get install it",
  });
});

test("a missing working directory is not mistaken for a missing program", async () => {
  await assert.rejects(run("true", [], { cwd: join(directory, "nowhere") }), {
    code: "FILE_FAILED",
    message: /nowhere: there is no such directory/,
  });
});

test("past its time a program is ended, with all that it started", async () => {
  const pidFile = join(directory, "timeout.pid");
  await assert.rejects(sh(`sleep 1000 & echo $! > ${pidFile}; wait`, { timeoutMs: 300 }), {
    code: "PROCESS_TIMEOUT",
    message: /300 ms/,
  });
  await goneFrom(pidFile);
});

test("a program that ignores SIGTERM is killed", async () => {
  await assert.rejects(sh("trap '' TERM; while :; do sleep 1; done", { timeoutMs: 300 }), { code: "PROCESS_TIMEOUT" });
});

test("a descendant that left the process group and keeps the output open does not hold us up", async () => {
  const pidFile = join(directory, "escaped.pid");
  const before = Date.now();
  await assert.rejects(sh(`setsid sh -c 'echo $$ > ${pidFile}; exec sleep 1000' & wait`, { timeoutMs: 300 }), {
    code: "PROCESS_TIMEOUT",
  });
  assert.ok(Date.now() - before < 10_000);
  process.kill(Number(readFileSync(pidFile, "utf8")), "SIGKILL");
});

test("an aborted run ends the program and throws the reason", async () => {
  const pidFile = join(directory, "abort.pid");
  const abort = new AbortController();
  const running = sh(`sleep 1000 & echo $! > ${pidFile}; wait`, { signal: abort.signal });
  await until("the program runs", () => readFileSync(pidFile, "utf8").trim());
  abort.abort(new Error("Ctrl+C"));
  await assert.rejects(running, /Ctrl\+C/);
  await goneFrom(pidFile);
});

test("an abort while the program is being started is not missed", async () => {
  const abort = new AbortController();
  const running = sh("sleep 1000", { signal: abort.signal });
  abort.abort(new Error("Ctrl+C"));
  await assert.rejects(running, /Ctrl\+C/);
});

test("nothing is started once aborted", async () => {
  await assert.rejects(
    run("mvm-no-such-program", [], { signal: AbortSignal.abort(new Error("too late")) }),
    /too late/,
  );
});

test("a program is found on the PATH, or by its own path", () => {
  const env = { PATH: `:/nowhere:${process.env["PATH"]}` };
  const found = findProgram("sh", env);
  assert.match(found ?? "", /^\/.*\/sh$/);
  assert.equal(findProgram(found!, {}), found);
  assert.equal(findProgram("mvm-no-such-program", env), undefined);
  assert.equal(findProgram("/etc/passwd", env), undefined, "it is not executable");
  assert.equal(findProgram("/etc", env), undefined, "it is a directory");
});

async function goneFrom(pidFile: string): Promise<void> {
  const identity = identify(Number(readFileSync(pidFile, "utf8")));
  await until("the descendant is gone", () => !identity || !isAlive(identity), 5000);
}
