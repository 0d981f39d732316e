import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { buildExample } from "../support/template.ts";
import { freePort, until } from "../support/wait.ts";

describe("a fleet's machine, which has the exported units and an empty data directory", () => {
  let builder: Mvmctl;
  let machine: Mvmctl;
  let work: string;
  let port: number;
  before(async () => {
    work = mkdtempSync(join(tmpdir(), "mvm-fleet-"));
    mkdirSync(join(work, "registry"));
    const registry = { MVM_TEMPLATE_REGISTRY_ENDPOINT: pathToFileURL(join(work, "registry")).href };
    builder = useMvmctl(registry);
    machine = useMvmctl(registry);
    port = await freePort();
    await buildExample(builder, "hello", ["--mem", "256"]);
    await builder.ok(["template", "push", "hello"]);
    const data = ["--data-dir", machine.dataDir, "--program", LAUNCHER];
    await builder.ok(["export", "systemd", "--template", "hello", "-o", work, "-p", `${port}:8080`, ...data]);
  });
  after(() => {
    machine[Symbol.dispose]();
    builder[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });

  /** A line of the unit as systemd would read it for instance 1: specifiers and variables replaced, in words. */
  function words(key: string): string[] {
    const unit = readFileSync(join(work, "hello@.service"), "utf8");
    const ports = readFileSync(join(work, "hello@1.service.d", "ports.conf"), "utf8");
    const line = new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1] ?? "";
    const published = /MVM_RUN_ARGUMENTS=(.*)"/.exec(ports)?.[1] ?? "";
    return line.replaceAll("%i", "1").replace("$MVM_RUN_ARGUMENTS", published).split(" ");
  }

  test("what the unit runs pulls the template, restores it, serves, and ends in order with SIGTERM", async () => {
    const [, ...pull] = words("ExecStartPre");
    await machine.ok(pull);
    const [program, ...args] = words("ExecStart");
    assert.equal(program, LAUNCHER);
    const vm = await spawnChecked(process.execPath, [program, ...args], { env: machine.env, stdio: "ignore" });
    const ended = new Promise<number | null>((resolve) => vm.once("close", resolve));
    const answer = await until("the page is served", () => fetch(`http://127.0.0.1:${port}/`), 60_000);
    assert.equal(answer.status, 200);
    const [only] = await machine.json<{ name: string; record: { start: string } }[]>(["ls"]);
    assert.deepEqual([only?.name, only?.record.start], ["hello-1", "restored"]);
    vm.kill("SIGTERM");
    assert.equal(await ended, 0);
    assert.deepEqual(findVmProcesses(machine.dataDir), []);
  });
});
