import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { until } from "../../test/support/wait.ts";
import { run } from "./process.ts";
import { findVmProcesses, identify, isAlive, ownIdentity, VM_DIRECTORY_VARIABLE } from "./process-identity.ts";
import { makeStagingDirectory, sweepStaging } from "./staging.ts";
import { isAbandoned, stagingName } from "./staging-name.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-staging-"));
after(() => rmSync(root, { recursive: true }));
const parent = (name: string) => {
  const path = join(root, name);
  mkdirSync(path);
  return path;
};

/** The staging directory of a mvmctl that was killed while it worked. */
async function abandoned(where: string): Promise<string> {
  const script = `
    import { makeStagingDirectory } from ${JSON.stringify(import.meta.resolve("./staging.ts"))};
    console.log(makeStagingDirectory(${JSON.stringify(where)}, "work").path);
    process.kill(process.pid, "SIGKILL");
  `;
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", script]);
  return stdout.trim();
}

test("what was staged is gone at the end, unless it was published", () => {
  const where = join(parent("own"), "made-on-demand");
  let unpublished = "";
  {
    using staging = makeStagingDirectory(where, "web");
    unpublished = staging.path;
    writeFileSync(join(staging.path, "half"), "");
  }
  assert.ok(!existsSync(unpublished));
  {
    using staging = makeStagingDirectory(where, "web");
    renameSync(staging.path, join(where, "web"));
  }
  assert.deepEqual(readdirSync(where), ["web"]);
});

test("what a killed command left is swept; what lives, and what is no staging entry, stays", async () => {
  const where = parent("sweep");
  const dead = await abandoned(where);
  assert.ok(existsSync(dead));
  writeFileSync(join(dead, "half"), "");
  using own = makeStagingDirectory(where, "own");
  mkdirSync(join(where, "web"));
  mkdirSync(join(where, ".staging-of-somebody-else"));
  assert.deepEqual(sweepStaging(where), [dead]);
  assert.deepEqual(new Set(readdirSync(where)), new Set([basename(own.path), "web", ".staging-of-somebody-else"]));
  assert.deepEqual(sweepStaging(where), []);
});

test("a directory that is not there needs no sweeping", () => {
  assert.deepEqual(sweepStaging(join(root, "missing")), []);
});

test("a VM that runs on in an abandoned directory is killed with it", async () => {
  const where = parent("stray");
  const dead = await abandoned(where);
  const vmDirectory = join(dead, "vm");
  mkdirSync(vmDirectory);
  const vm = spawn("sleep", ["1000"], {
    env: { ...process.env, [VM_DIRECTORY_VARIABLE]: vmDirectory },
    stdio: "ignore",
  });
  const ended = once(vm, "exit");
  await until("the VM runs", () => findVmProcesses(vmDirectory).length === 1);
  using own = makeStagingDirectory(where, "own");
  using living = startVmIn(join(own.path, "vm"));
  await until("the other VM runs", () => findVmProcesses(own.path).length === 1);
  sweepStaging(where);
  const [, signal] = await ended;
  assert.equal(signal, "SIGKILL");
  assert.ok(!existsSync(dead));
  assert.ok(isAlive(identify(living.pid)!), "the VM of a living command runs on");
});

function startVmIn(directory: string) {
  const child = spawn("sleep", ["1000"], {
    env: { ...process.env, [VM_DIRECTORY_VARIABLE]: directory },
    stdio: "ignore",
  });
  return { pid: child.pid!, [Symbol.dispose]: () => void child.kill("SIGKILL") };
}

test("a staging name says who made it, in this boot", () => {
  const name = stagingName("web");
  assert.ok(name.endsWith("-web"));
  assert.ok(!isAbandoned(name));
  const { pid, startTime, bootId } = ownIdentity();
  assert.ok(name.startsWith(`.staging-${pid}-${startTime}-${bootId.slice(0, 8)}-`));
  assert.ok(isAbandoned(name.replace(`-${startTime}-`, "-1-")), "another process with our pid");
  assert.ok(isAbandoned(name.replace(bootId.slice(0, 8), "00000000")), "before the machine booted");
  assert.ok(!isAbandoned(".staging-web"), "nobody knows whose this is");
  assert.ok(stagingName("x".repeat(255)).length < 255);
});
