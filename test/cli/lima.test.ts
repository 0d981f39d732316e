import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, test } from "node:test";
import { run, spawnChecked } from "../../src/core/process.ts";
import { type LimaStandIn, useLima } from "../support/lima.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { until } from "../support/wait.ts";

// No macOS here and no VM: the stand-in shows that a command reaches "the other side" whole, not that Lima's VM is right.
describe("commands on a host that is no Linux, with a stand-in for limactl", () => {
  let lima: LimaStandIn;
  let mvm: Mvmctl;
  beforeEach(() => {
    lima = useLima();
    mvm = useMvmctl(lima.env);
  });
  afterEach(() => {
    mvm[Symbol.dispose]();
    lima[Symbol.dispose]();
  });
  const callFiles = () => readdirSync(join(lima.home, ".mvm", "lima", "calls"));

  test("a command says in the VM what it says here, with the same exit code and data directory", async () => {
    const here = useMvmctl({}, mvm.dataDir);
    for (const args of [
      ["ls", "--json"],
      ["template", "list"],
      ["inspect", "nobody", "--json"],
      ["stop"],
      ["nonsense"],
    ]) {
      const there = await mvm.run(args, { cwd: lima.home });
      const { exitCode, stdout, stderr } = await here.run(args);
      assert.deepEqual({ args, ...there }, { args, exitCode, stdout, stderr });
    }
    assert.equal(lima.calls().filter((call) => call.startsWith("'shell'")).length, 5);
    assert.deepEqual(callFiles(), []);
  });

  test("every argument arrives as it was", async () => {
    lima.guestMvmctl(`printf '%s\\0' "$@"`);
    const args = [
      "exec",
      "a b",
      "",
      "it's",
      '"',
      "$HOME",
      "`id`",
      "*",
      "A=b",
      "-x",
      "two\nlines",
      "\\",
      "é ☃",
      "--",
      "--help",
    ];
    assert.equal(await mvm.ok(args, { cwd: lima.home }), args.map((arg) => `${arg}\0`).join(""));
  });

  test("the exit code is the one from the VM", async () => {
    for (const code of [0, 1, 2, 42, 130]) {
      lima.guestMvmctl(`exit ${code}`);
      assert.equal((await mvm.run(["ls"], { cwd: lima.home })).exitCode, code);
    }
  });

  test("MVM_* variables go along, secrets among them unseen, and nothing else does", async () => {
    lima.guestMvmctl(`printf '%s|%s|%s|%s' "$MVM_SECRET" "\${MVM_EMPTY-unset}" "\${MVM_LIMA-unset}" "\${OTHER-unset}"`);
    const env = { MVM_SECRET: "it's\na $ecret", MVM_EMPTY: "", OTHER: "x" };
    assert.equal(await mvm.ok(["ls"], { cwd: lima.home, env }), "it's\na $ecret||unset|unset");
    assert.doesNotMatch(lima.calls().join("\n"), /ecret/);
    lima.guestMvmctl(`cat ${JSON.stringify(join(lima.home, ".mvm", "lima", "calls"))}/*`);
    assert.match(await mvm.ok(["ls"], { cwd: lima.home, env }), /^\d+\n$/, "the file with them is gone");
  });

  test("standard input goes in, standard output and error come out apart", async () => {
    lima.guestMvmctl("cat; echo said >&2");
    const result = await mvm.run(["exec", "-i", "x", "cat"], { cwd: lima.home, input: "a\0b\n" });
    assert.deepEqual(result, { exitCode: 0, stdout: "a\0b\n", stderr: "said\n" });
  });

  test("the working directory is the same, and where the VM does not see it one line says so", async () => {
    lima.guestMvmctl("pwd");
    const directory = join(lima.home, "a b", "it's");
    mkdirSync(directory, { recursive: true });
    assert.equal(await mvm.ok(["ls"], { cwd: directory }), `${directory}\n`);
    const outside = await mvm.run(["ls"], { cwd: tmpdir() });
    assert.equal(outside.stdout, `${lima.home}\n`);
    assert.match(outside.stderr, /does not see \/tmp: the command runs in /);
  });

  test("a signal reaches the command in the VM, which ends as it wants", async () => {
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGHUP", 129],
    ] as const) {
      const ready = join(lima.guestHome, `ready-${signal}`);
      const said = join(lima.guestHome, `said-${signal}`);
      lima.guestMvmctl(
        `trap 'echo ${signal} > ${said}; exit 7' ${signal}; echo > ${ready}; while :; do sleep 0.05; done`,
      );
      const child = await spawnChecked(process.execPath, [LAUNCHER, "logs", "-f", "x"], {
        cwd: lima.home,
        env: mvm.env,
        stdio: "ignore",
      });
      await until("the command runs in the VM", () => readFileSync(ready, "utf8"));
      child.kill(signal);
      assert.deepEqual(await once(child, "exit"), [code, null]);
      assert.equal(readFileSync(said, "utf8"), `${signal}\n`);
      assert.deepEqual(callFiles(), []);
    }
  });

  test("Ctrl+C in the middle of a pipe waits for what the command says on its way out", async () => {
    const ready = join(lima.guestHome, "ready");
    lima.guestMvmctl(`trap 'sleep 0.3; echo cleaned up; exit 0' INT; echo > ${ready}; while :; do sleep 0.05; done`);
    const pipe = `'${process.execPath}' '${LAUNCHER}' logs -f x | (trap '' INT; cat)`;
    const child = await spawnChecked("script", ["-qec", pipe, "/dev/null"], { cwd: lima.home, env: mvm.env });
    const output = text(child.stdout!);
    await until("the command runs in the VM", () => readFileSync(ready, "utf8"));
    child.stdin!.write("\x03");
    assert.match(await output, /cleaned up/);
  });

  test("a command that has not begun in the VM when it is stopped never begins", async () => {
    const began = join(lima.home, "began");
    const gate = join(lima.home, "gate");
    lima.guestMvmctl(`echo > "${began}"`);
    // The VM's `sh`, which waits as a slow connection would.
    const slow = `#!/bin/bash\nif [[ $2 == call=* ]]; then until [ -e "${gate}" ]; do sleep 0.02; done; fi\nexec /bin/sh "$@"\n`;
    writeFileSync(join(lima.env["LIMA_STAND_IN"]!, "bin", "sh"), slow, { mode: 0o755 });
    const child = await spawnChecked(process.execPath, [LAUNCHER, "run"], {
      cwd: lima.home,
      env: mvm.env,
      stdio: "ignore",
    });
    await until("limactl is called", () => lima.calls().some((call) => call.startsWith("'shell'")));
    child.kill("SIGTERM");
    assert.deepEqual(await once(child, "exit"), [143, null]);
    writeFileSync(gate, "");
    await until("the shell in the VM has ended", async () => (await run("pgrep", ["-f", lima.home])).exitCode === 1);
    assert.throws(() => readFileSync(began), { code: "ENOENT" });
  });

  test("on a terminal the command has one too, and standard error stays apart when it goes elsewhere", async () => {
    lima.guestMvmctl(`for fd in 0 1 2; do test -t $fd && echo "fd $fd is a terminal"; done; echo error >&2`);
    const mvmctl = `'${process.execPath}' '${LAUNCHER}' ls`;
    const onTerminal = (command: string) =>
      run("script", ["-qec", command, "/dev/null"], { cwd: lima.home, env: mvm.env, timeoutMs: 60_000 });
    assert.match((await onTerminal(mvmctl)).stdout, /fd 0 is.*fd 1 is.*fd 2 is.*error/s);
    const apart = (await onTerminal(`${mvmctl} 2>error.log`)).stdout;
    assert.match(apart, /fd 0 is/);
    assert.doesNotMatch(apart, /error/);
    assert.equal(readFileSync(join(lima.home, "error.log"), "utf8"), "error\n");
  });

  test("a stopped VM is started, and one line says so", async () => {
    lima.setVm("Stopped");
    const result = await mvm.run(["ls", "--json"], { cwd: lima.home });
    assert.deepEqual([result.exitCode, result.stdout], [0, "[]\n"]);
    assert.equal(lima.calls().filter((call) => call === "'start' '--tty=false' 'mvmctl'").length, 1);
    lima.setVm("Stopped");
    assert.match((await mvm.run(["ls"], { cwd: lima.home })).stderr, /starting the Lima VM, which was stopped/);
    lima.setVm("Stopped");
    lima.makeStartFail();
    assert.match(await mvm.fails(["ls"], "LIMA_FAILED"), /could not start the VM\n.*exiting.*\n`mvmctl setup`/);
  });

  test("what is missing, broken, older or newer is said, with the command that mends it", async () => {
    lima.setVm(undefined);
    assert.match(await mvm.fails(["ls"], "LIMA_VM_MISSING"), /no Lima VM for mvmctl yet\nmvmctl setup$/);
    lima.setVm("Broken");
    assert.match(await mvm.fails(["ls"], "LIMA_VM_BROKEN"), /broken\nLima calls it Broken\n`mvmctl setup`/);
    lima.setVm("Running", { layout: 0 });
    assert.match(await mvm.fails(["ls"], "LIMA_VM_OUTDATED"), /`mvmctl setup` brings it up to date/);
    lima.setVm("Running", { packageDirectory: "/Users/me/elsewhere" });
    await mvm.fails(["ls"], "LIMA_VM_OUTDATED");
    lima.setVm("Running", { layout: 99 });
    assert.match(await mvm.fails(["ls"], "NEWER_VERSION"), /update mvmctl/);
    const noLima = useMvmctl({ MVM_LIMA: "force", PATH: "/usr/bin:/bin", HOME: lima.home });
    assert.match(await noLima.fails(["ls"], "LIMA_MISSING"), /limactl was not found\nbrew install lima/);
    noLima[Symbol.dispose]();
  });

  test("setup says what it will do, and makes the VM when that is confirmed", async () => {
    lima.setVm(undefined);
    const dry = await mvm.ok(["setup", "--dry-run", "--lima-cpus", "3", "--lima-mem", "4096"]);
    assert.match(dry, /create a Lima VM .*3 CPUs, 4096 MiB/);
    assert.ok(!lima.calls().some((call) => call.startsWith("'create'")));
    assert.equal((await mvm.run(["setup"])).exitCode, 2, "nothing is done without a yes");
    await mvm.ok(["setup", "--yes", "--lima-cpus", "3", "--lima-mem", "4096"]);
    assert.ok(lima.calls().some((call) => call.startsWith("'create'")));
    assert.ok(lima.calls().some((call) => call.startsWith("'start'")));
    await mvm.fails(["setup", "--lima-mem", "10"], "INVALID_SIZE");
  });

  test("help, completions and the version need no VM", async () => {
    for (const args of [[], ["--help"], ["help", "run"], ["run", "--help"], ["completions", "bash"], ["--version"]])
      await mvm.ok(args);
    assert.deepEqual(lima.calls(), []);
  });
});
