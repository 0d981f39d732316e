import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/core/process.ts";
import { LAUNCHER, type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { freePort, until } from "../support/wait.ts";

interface Started {
  name: string;
  start: string;
  coldBootReason?: string;
  runningMs: number;
  healthyMs: number;
}

describe("the main job: init, build, snapshot, run", () => {
  let mvm: Mvmctl;
  let work: string;
  before(async () => {
    mvm = useMvmctl();
    work = mkdtempSync(join(tmpdir(), "mvm-work-"));
    await mvm.ok(["template", "init", "web", "--local", "--preset", "http", "--pkgs", "host", "--dir", "."], {
      cwd: work,
    });
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(work, { recursive: true, force: true });
  });

  test("a scaffold builds into a revision, which a cold boot runs until a snapshot exists", async () => {
    const built = await mvm.json<{ cached: boolean; revision: string }>(["template", "build", "web"], { cwd: work });
    assert.equal(built.cached, false);
    assert.match(built.revision, /^[0-9a-f]{64}$/);
    const started = await mvm.json<Started>(["run", "--template", "web", "--name", "cold"]);
    assert.equal(started.start, "booted");
    assert.match(started.coldBootReason ?? "", /no snapshot/);
    await mvm.ok(["rm", "cold", "--force"]);
  });

  test("a second build says that nothing changed", async () => {
    const again = await mvm.json<{ cached: boolean }>(["template", "build", "web"], { cwd: work });
    assert.equal(again.cached, true);
    assert.match(
      (await mvm.run(["template", "build", "web"], { cwd: work })).stdout,
      /cached|unchanged|nothing changed/i,
    );
  });

  test("build --snapshot stores a read-only snapshot beside the revision and leaves no VM", async () => {
    const built = await mvm.json<{ revision: string; snapshots: [{ key: string }] }>(
      ["template", "build", "web", "--snapshot"],
      { cwd: work },
    );
    const snapshots = join(
      mvm.dataDir,
      "templates",
      "web",
      "revisions",
      built.revision,
      "snapshots",
      built.snapshots[0].key,
    );
    for (const file of ["vmstate.bin", "mem.bin"]) {
      assert.equal(statSync(join(snapshots, file)).mode & 0o777, 0o444, `${file} is read-only`);
    }
    const memory = statSync(join(snapshots, "mem.bin"));
    assert.ok(memory.blocks * 512 < memory.size / 2, "the memory file is sparse");
    assert.deepEqual(JSON.parse(await mvm.ok(["ls", "--json"])), []);
  });

  test("run restores the snapshot and the guest answers over a published port", async () => {
    const port = await freePort();
    const started = await mvm.json<Started>(["run", "--template", "web", "--name", "svc", "-p", `${port}:8080`]);
    assert.equal(started.start, "restored");
    assert.ok(started.healthyMs >= started.runningMs);
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    assert.equal(answer.status, 200);
    assert.ok((await answer.text()).length > 0);
  });

  test("a running instance is listed, inspected, and its name is taken", async () => {
    const [only] = await mvm.json<{ name: string; state: string }[]>(["ls"]);
    assert.deepEqual([only?.name, only?.state], ["svc", "running"]);
    const details = await mvm.json<{ guest: { health: { status: string }; info: { hostname: string } } }>([
      "inspect",
      "svc",
    ]);
    assert.equal(details.guest.health.status, "healthy");
    assert.equal(details.guest.info.hostname, "svc");
    assert.match(await mvm.fails(["run", "--template", "web", "--name", "svc"], "INSTANCE_EXISTS"), /svc/);
  });

  test("exec passes on arguments, standard input, output and the exit code", async () => {
    assert.equal(await mvm.ok(["exec", "svc", "--", "echo", "two  spaces"]), "two  spaces\n");
    assert.equal((await mvm.run(["exec", "svc", "--", "sh", "-c", "echo oops >&2; exit 7"])).exitCode, 7);
    assert.equal(
      await mvm.ok(["exec", "-i", "svc", "--", "wc", "-c"], { input: "x".repeat(300_000) }).then((text) => text.trim()),
      "300000",
    );
    await mvm.fails(["exec", "svc", "--", "no-such-program"], "COMMAND_NOT_FOUND");
    assert.equal((await mvm.run(["exec", "svc", "--", "no-such-program"])).exitCode, 127);
    assert.equal((await mvm.run(["exec", "svc", "--", "/etc/hostname"])).exitCode, 126);
    const elsewhere = ["exec", "--workdir", "/no/such/place", "svc", "--", "ls"];
    assert.match(await mvm.fails(elsewhere, "COMMAND_FAILED"), /no directory \/no\/such\/place/);
    assert.match(await mvm.fails(["exec", "--user", "nobody2", "svc", "--", "ls"], "COMMAND_FAILED"), /nobody2/);
  });

  test("exec -it gives the command a terminal of the right size", async () => {
    const command = `"${process.execPath}" "${LAUNCHER}" exec -it svc -- sh -c 'tty; stty size; exit 4'`;
    const result = await run("script", ["-qec", `stty rows 33 cols 99; ${command}`, "/dev/null"], { env: mvm.env });
    assert.equal(result.exitCode, 4);
    assert.match(result.stdout, /\/dev\/pts\/\d+\s+33 99/);
  });

  test("services do not run as root", async () => {
    const users = await mvm.ok([
      "exec",
      "svc",
      "--",
      "sh",
      "-c",
      "for p in $(pidof httpd); do grep ^Uid: /proc/$p/status; done",
    ]);
    assert.match(users, /Uid:\s+[1-9]\d+/);
    assert.doesNotMatch(users, /Uid:\s+0\b/);
  });

  test("cp copies files and trees both ways", async () => {
    const tree = join(work, "tree");
    mkdirSync(join(tree, "deep"), { recursive: true });
    writeFileSync(join(tree, "deep", "data"), Buffer.alloc(1_000_003, 7));
    writeFileSync(join(tree, "run.sh"), "#!/bin/sh\necho ran\n", { mode: 0o755 });
    utimesSync(join(tree, "run.sh"), 1_000_000_007, 1_000_000_007);
    await mvm.ok(["cp", tree, "svc:/tmp/copied"]);
    assert.equal(await mvm.ok(["exec", "svc", "--", "/tmp/copied/run.sh"]), "ran\n");
    const seconds = (await mvm.ok(["exec", "svc", "--", "stat", "-c", "%Y", "/tmp/copied/run.sh"])).trim();
    assert.equal(Number(seconds), Math.floor(statSync(join(tree, "run.sh")).mtimeMs / 1000));
    await mvm.ok(["cp", "svc:/tmp/copied", join(work, "back")]);
    assert.deepEqual(readFileSync(join(work, "back", "deep", "data")), readFileSync(join(tree, "deep", "data")));
    const back = statSync(join(work, "back", "run.sh"));
    assert.deepEqual([back.mode & 0o777, back.mtimeMs], [0o755, 1_000_000_007_000]);
    assert.match(await mvm.fails(["cp", "svc:/nothing/here", work], "AGENT_NOT_FOUND"), /nothing/);
  });

  test("cp of a file over a directory loses nothing, and says how to copy into it", async () => {
    await mvm.ok([
      "exec",
      "svc",
      "--",
      "sh",
      "-c",
      "mkdir /tmp/dir && echo kept > /tmp/dir/kept && echo file > /tmp/file",
    ]);
    const source = join(work, "tree", "run.sh");
    assert.match(await mvm.fails(["cp", source, "svc:/tmp/dir"], "FILE_FAILED"), /svc:\/tmp\/dir\//);
    await mvm.fails(["cp", join(work, "tree"), "svc:/tmp/file"], "FILE_FAILED");
    await mvm.ok(["cp", source, "svc:/tmp/dir/"]);
    assert.equal(await mvm.ok(["exec", "svc", "--", "ls", "/tmp/dir"]), "kept\nrun.sh\n");
    assert.equal(await mvm.ok(["exec", "svc", "--", "cat", "/tmp/file"]), "file\n");
  });

  test("pause and resume", async () => {
    await mvm.ok(["pause", "svc"]);
    assert.equal((await mvm.json<{ state: string }[]>(["ls"]))[0]?.state, "paused");
    assert.match(await mvm.fails(["exec", "svc", "--", "true"], "INSTANCE_NOT_RUNNING"), /resume/);
    assert.match(await mvm.fails(["logs", "svc"], "INSTANCE_NOT_RUNNING"), /paused.*resume/s);
    await mvm.ok(["logs", "svc", "--console"]);
    await mvm.ok(["resume", "svc"]);
    await mvm.ok(["exec", "svc", "--", "true"]);
  });

  test("an instance that is in use keeps its template from being deleted", async () => {
    assert.match(await mvm.fails(["template", "delete", "web", "--yes"], "TEMPLATE_IN_USE"), /svc/);
  });

  test("an instance whose hypervisor dies shows as dead, with its logs, and whoever follows them is let go", async () => {
    await mvm.ok(["run", "--template", "web", "--name", "victim"]);
    const following = mvm.ok(["logs", "victim", "--console", "--follow"]);
    const { record } = (await mvm
      .json<{ state: string; record: { process: { pid: number } } }[]>(["ls"])
      .then((all) => all.find((one) => "name" in one && one.name === "victim")!)) as never;
    process.kill((record as { process: { pid: number } }).process.pid, "SIGKILL");
    const dead = await until("the death shows", async () =>
      (await mvm.json<{ name: string; state: string; reason?: string }[]>(["ls"])).find(
        (one) => one.name === "victim" && one.state === "dead",
      ),
    );
    assert.ok(dead.reason);
    await following;
    await mvm.ok(["logs", "victim", "--console", "--follow"]);
    await mvm.ok(["rm", "victim"]);
  });

  test("stop is graceful, keeps the logs, and frees the name", async () => {
    const logs = await mvm.ok(["logs", "svc"]);
    await mvm.ok(["stop", "svc"]);
    assert.equal((await mvm.json<{ state: string }[]>(["ls"]))[0]?.state, "stopped");
    assert.equal((await mvm.ok(["logs", "svc"])).startsWith(logs), true);
    const { current } = await mvm.json<{ current: string }>(["template", "info", "web"]);
    const again = ["run", "--template", "web", "--revision", current.slice(0, 12), "--name", "svc"];
    assert.equal((await mvm.json<Started>(again)).start, "restored");
    await mvm.ok(["stop", "--all"]);
    await mvm.ok(["rm", "svc"]);
    assert.deepEqual(await mvm.json(["ls"]), []);
    assert.equal(existsSync(join(mvm.dataDir, "instances", "svc")), false);
  });

  test("run --flake builds and runs in one go", async () => {
    const started = await mvm.json<Started>(["run", "--flake", work, "--name", "direct"]);
    assert.equal(started.name, "direct");
    await mvm.ok(["rm", "direct", "--force"]);
  });

  test("a damaged snapshot is found before it is loaded, and the instance boots cold", async () => {
    const info = await mvm.json<{ current: string }>(["template", "info", "web"]);
    const snapshots = join(mvm.dataDir, "templates", "web", "revisions", info.current, "snapshots");
    const { readdirSync, chmodSync, openSync, writeSync, closeSync } = await import("node:fs");
    const memory = join(snapshots, readdirSync(snapshots).find((name) => !name.startsWith("."))!, "mem.bin");
    chmodSync(memory, 0o644);
    const fd = openSync(memory, "r+");
    writeSync(fd, Buffer.from("damage"), 0, 6, 20 * 1024 * 1024);
    closeSync(fd);
    chmodSync(memory, 0o444);
    const started = await mvm.json<Started>(["run", "--template", "web", "--name", "after"]);
    assert.equal(started.start, "booted");
    assert.match(started.coldBootReason ?? "", /mem\.bin was altered/);
    await mvm.ok(["rm", "after", "--force"]);
  });
});
