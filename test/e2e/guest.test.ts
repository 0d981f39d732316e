import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run, spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses } from "../../src/core/process-identity.ts";
import { LAUNCHER, type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { buildHelloWith, shell, start } from "../support/template.ts";
import { until } from "../support/wait.ts";

/** The time to a fraction of a second, which the image's `date` does not print. */
const NOW = "touch /run/now; stat -c %y /run/now";
/** 4 MiB, in a file that is there no more when the guest is captured. */
const FREED_LINES = 400_000;
/** Set back as the last thing before the capture: the snapshot is as one that was made years ago. */
const PRE_SNAPSHOT = `awk 'BEGIN { for (i = 0; i < ${FREED_LINES}; i++) printf "freed %s", "page\\n" > "/run/freed" }'; rm /run/freed
date -s '2020-02-02 02:02:02'; echo "captured in $(date +%Y)" >> /run/hooks`;
const POST_RESTORE = `(${NOW}) >> /run/hooks; test -z "$FAIL" || { echo the reason is here; exit 7; }`;

const MORE = `
  hooks.preSnapshot = [ ${nix(PRE_SNAPSHOT)} ];
  hooks.postRestore = [ ${nix(POST_RESTORE)} ];
  services.again = { command = "echo again; exec sleep 100000"; restartOnWake = true; logFile = "/var/log/own/again.log"; };
  services.late = { preStart = "rm -f /tmp/late"; command = "sleep 1; touch /tmp/late; exec sleep 100000"; };
  healthChecks.late = { healthCmd = "test -e /tmp/late"; };
  services.once = { command = "echo once; echo to stderr >&2; exec sleep 100000"; logFile = "/var/log/own/once.log"; };`;

function nix(text: string): string {
  return JSON.stringify(text).replaceAll("${", "\\${");
}

interface Listed {
  name: string;
  state: string;
  reason?: string;
}

describe("what a guest does by itself", () => {
  let mvm: Mvmctl;
  let flake: string;
  before(async () => {
    mvm = useMvmctl();
    flake = await buildHelloWith(mvm, "hello", MORE);
  });
  after(() => mvm[Symbol.dispose]());

  test("a snapshot that is years old: the clock is right before hooks and services run on, and hooks run once each", async () => {
    const earlier = Date.now();
    assert.equal((await start(mvm, "hello", "svc")).start, "restored");
    const soon = Date.now();
    const [captured, restored = "", ...more] = (await shell(mvm, "svc", "cat /run/hooks")).split("\n");
    assert.deepEqual([captured, more], ["captured in 2020", []]);
    const inHook = timeOf(restored);
    assert.ok(inHook > earlier - 500 && inHook < soon + 500, `the hook's clock: ${restored}`);
    const before = Date.now();
    const now = timeOf(await shell(mvm, "svc", NOW));
    assert.ok(now > before - 500 && now < Date.now() + 500, `${now - before} ms off`);
  });

  test("what was freed before the capture is not in the snapshot", async () => {
    const snapshots = join(mvm.dataDir, "templates", "hello", "current", "snapshots");
    const memory = join(snapshots, readdirSync(snapshots)[0]!, "mem.bin");
    const { stdout } = await run("grep", ["-c", "-a", "^freed page$", memory]);
    // The kernel has uses of its own for a few of those pages.
    assert.ok(Number(stdout) < FREED_LINES / 20, `${stdout} lines of ${FREED_LINES}`);
  });

  test("a guest with hardly any free memory is captured, too", async () => {
    await mvm.ok(["template", "create", "tiny", "--flake", join(REPOSITORY, "examples", "hello"), "--mem", "88"]);
    await mvm.ok(["template", "build", "tiny", "--snapshot"]);
  });

  test("a guest that has too little memory to boot is said to have", async () => {
    const said = await mvm.fails(["run", "hello", "--name", "short", "--mem", "64"], "VM_DIED");
    assert.match(said, /the guest ran out of memory\n/);
    assert.match(said, /give it more: --mem/);
  });

  test("a service with restartOnWake is started anew by a restore, others run on; both write to their log files", async () => {
    const restarted = await until("the service is started again", async () => {
      const log = await shell(mvm, "svc", "cat /var/log/own/again.log");
      return log === "again\nagain" && log;
    });
    assert.ok(restarted);
    assert.equal(await shell(mvm, "svc", "cat /var/log/own/once.log | sort"), "once\nto stderr");
    assert.match(
      await mvm.ok(["inspect", "svc"]),
      /service again +running, process \d+, \d+ restarts, last exit: signal 15$/m,
    );
  });

  test("a service that a run starts anew, for its variables, is healthy when the new one is, not because the old one was", async () => {
    await mvm.ok(["run", "hello", "--name", "anew", "--env", "A=1"]);
    assert.equal(await shell(mvm, "anew", "ls /tmp/late"), "/tmp/late");
    await mvm.ok(["rm", "--force", "anew"]);
  });

  test("a guest that is not healthy soon is waited for, but no longer than was asked", async () => {
    const slow = 'healthChecks.slow = { healthCmd = "sleep 2.5"; healthTimeoutSecs = 20; };';
    await buildHelloWith(mvm, "slow", slow);
    assert.equal((await start(mvm, "slow", "slow")).start, "restored");
    await mvm.ok(["rm", "--force", "slow"]);
    const { exitCode, stderr } = await mvm.run(["run", "--template", "slow", "--name", "slow", "--timeout", "1"]);
    assert.equal(exitCode, 1);
    assert.match(stderr, /not healthy.*'slow'/);
  });

  test("a guest that never answers is an error with what its console said last, as its logs go with it", async () => {
    const waits = 'kernelCommandLine = "rdinit=/nowhere root=/dev/nothing rootwait loglevel=7";';
    await buildHelloWith(mvm, "mute", waits, []);
    const said = await mvm.fails(
      ["run", "--template", "mute", "--name", "mute", "--timeout", "6"],
      "AGENT_UNREACHABLE",
    );
    assert.match(said, /mute did not start/);
    assert.match(said, /root device \/dev\/nothing/);
    assert.doesNotMatch(said, /mvmctl logs/);
    await mvm.fails(["inspect", "mute"], "INSTANCE_NOT_FOUND");
  });

  test("orphans that end are reaped", async () => {
    // Each shell ends before its child does, which then belongs to process 1.
    const orphans = "for i in $(seq 40); do sh -c 'sleep 0.2 & echo $!'; done; sleep 0.1; ls -d /proc/[0-9]* | wc -l";
    const pids = (await shell(mvm, "svc", orphans)).split("\n").slice(0, -1);
    assert.equal(new Set(pids).size, 40);
    const there = `for p in ${pids.join(" ")}; do test ! -e /proc/$p || echo $p; done`;
    await until("none is left, not even as a zombie", async () => (await shell(mvm, "svc", there)) === "");
  });

  test("exec -it: a terminal that gets another size has it in the guest, too", async () => {
    const marker = join(mvm.dataDir, "resize");
    const resize = `while ! test -e ${marker}; do sleep 0.05; done; stty rows 41 cols 123 < $tty`;
    const inGuest = `echo ready; until test "$(stty size)" = "41 123"; do sleep 0.1; done; echo resized`;
    const exec = `"${process.execPath}" "${LAUNCHER}" exec -it svc -- sh -c '${inGuest}'`;
    const command = `tty=$(tty); stty rows 20 cols 80; (${resize}) & ${exec}`;
    const child = await spawnChecked("script", ["-qec", command, "/dev/null"], { env: mvm.env, stdio: "pipe" });
    let said = "";
    child.stdout!.setEncoding("utf8").on("data", (text) => {
      said += text;
    });
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    try {
      await until("the command runs", () => /ready/.test(said));
      writeFileSync(marker, "");
      await until("the guest sees the new size", () => /resized/.test(said));
      assert.equal(await ended, 0);
    } finally {
      child.kill("SIGKILL");
    }
  });

  test("poweroff and reboot in a guest stop its services and end the VM", async () => {
    for (const command of ["poweroff", "reboot"]) {
      await start(mvm, "hello", command);
      // The connection may end before the answer is here.
      await mvm.run(["exec", command, "--", command]);
      const ended = await until(`${command} ends the VM`, async () => {
        const found = (await mvm.json<Listed[]>(["ls"])).find(({ name }) => name === command);
        return found?.state === "dead" ? found : undefined;
      });
      assert.match(ended.reason ?? "", /the guest shut itself down/);
      await mvm.ok(["rm", command]);
    }
  });

  test("instances without a name get one each that can be read, and are found by it", async () => {
    const names = await Promise.all(
      [1, 2].map(async () => (await mvm.json<{ name: string }>(["run", "--template", "hello"])).name),
    );
    for (const name of names) {
      assert.match(name, /^[a-z]+-[a-z]+-\d{4}$/);
      assert.equal(await shell(mvm, name, "hostname"), name);
    }
    assert.notEqual(names[0], names[1]);
    await mvm.ok(["rm", "--force", ...names]);
  });

  test("a postRestore hook that fails is an error with its words, and leaves nothing", async () => {
    const run = ["run", "--template", "hello", "--name", "failing", "-e", "FAIL=yes"];
    const said = (await mvm.run(run)).stderr;
    assert.match(said, /postRestore hook .* failed: code 7: the reason is here/);
    assert.deepEqual(
      (await mvm.json<{ name: string }[]>(["ls"])).map(({ name }) => name),
      ["svc"],
    );
    assert.equal(findVmProcesses(mvm.dataDir).length, 1);
  });

  test("a preSnapshot hook that fails fails the snapshot with its words, and leaves the one before", async () => {
    const path = join(flake, "flake.nix");
    writeFileSync(path, readFileSync(path, "utf8").replace(nix(PRE_SNAPSHOT), nix("echo not like this; exit 9")));
    const said = await mvm.fails(["template", "build", "hello", "--snapshot"], "SNAPSHOT_FAILED");
    assert.match(said, /step 'prepare the guest'/);
    assert.match(said, /preSnapshot hook .* failed: code 9: not like this/);
    assert.equal(findVmProcesses(mvm.dataDir).length, 1);
  });

  for (const type of ["squashfs", "ext4"]) {
    test(`a root file system of the type ${type} boots, and is written to like any other`, async () => {
      await buildHelloWith(mvm, type, `rootfsType = "${type}";`, []);
      assert.equal((await start(mvm, type, type)).start, "booted");
      assert.ok(existsSync(join(mvm.dataDir, "templates", type, "current", `rootfs.${type}`)));
      assert.equal(await shell(mvm, type, "echo mine > /etc/mine; cat /etc/mine"), "mine");
      await mvm.ok(["rm", "--force", type]);
    });
  }
});

/** @param text as stat(1) prints it: `2026-01-02 03:04:05.678901234 +0000` */
function timeOf(text: string): number {
  const [day, time = ""] = text.split(" ");
  return Date.parse(`${day}T${time.slice(0, 12)}Z`);
}
