import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { run } from "../../src/core/process.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { start } from "../support/template.ts";

/** What users install: compiled, packed, and unpacked where there is nothing of this repository. */
describe("the published package", () => {
  let place: string;
  let root: string;
  let mvm: Mvmctl;
  before(async () => {
    place = mkdtempSync(join(tmpdir(), "mvm-package-"));
    const inRepository = { cwd: REPOSITORY, timeoutMs: 120_000 };
    const done = async (command: string, args: string[]) => {
      const { exitCode, stderr } = await run(command, args, inRepository);
      assert.equal(exitCode, 0, stderr);
    };
    await done(process.execPath, ["scripts/build.ts"]);
    await done("npm", ["pack", "--ignore-scripts", "--pack-destination", place]);
    const [archive = ""] = readdirSync(place);
    await done("tar", ["-xzf", join(place, archive), "-C", place]);
    root = join(place, "package");
    mvm = useMvmctl({}, undefined, join(root, "bin", "mvmctl.js"));
  });
  after(() => {
    mvm[Symbol.dispose]();
    rmSync(place, { recursive: true, force: true });
  });

  test("says its version, and what its commands do", async () => {
    assert.match(await mvm.ok(["--version"]), /^\d+\.\d+\.\d+\n$/);
    assert.match(await mvm.ok(["run", "--help"]), /^Usage: mvmctl run /);
  });

  test("is a library too", async () => {
    const script = `const m = await import(${JSON.stringify(pathToFileURL(join(root, "dist/lib/index.js")).href)}); console.log(typeof m.runInstance)`;
    const { stdout, stderr } = await run(process.execPath, ["--input-type=module", "-e", script], { cwd: place });
    assert.equal(stdout, "function\n", stderr);
  });

  test("builds a template with the agent it brings, and restores it", async () => {
    await mvm.ok(["template", "create", "hello", "--flake", join(root, "examples", "hello"), "--mem", "256"]);
    await mvm.ok(["template", "build", "hello", "--snapshot"]);
    assert.equal((await start(mvm, "hello", "one")).start, "restored");
    assert.equal((await mvm.ok(["exec", "one", "--", "cat", "/etc/hostname"])).trim(), "one");
  });

  test("keeps what it compiled also when memory was cleaned up since it ran", async () => {
    const keptBytes = async (collections: number) => {
      const directory = join(place, `kept-${collections}`);
      const script = `
        const { load } = await import(process.argv[1]);
        const { keep } = load(process.argv[2], process.argv[3], "test");
        for (let i = 0; i < ${collections}; i++) gc();
        keep();`;
      const files = [
        pathToFileURL(join(root, "bin", "load.js")).href,
        join(root, "dist", "lib", "main.cjs"),
        directory,
      ];
      // What V8 forgets when it needs the room and has not used it for long, it forgets at each collection here.
      const args = ["--expose-gc", "--stress-flush-code", "--input-type=module", "-e", script, ...files];
      const { exitCode, stderr } = await run(process.execPath, args, {});
      assert.equal(exitCode, 0, stderr);
      return statSync(join(directory, readdirSync(directory)[0]!)).size;
    };
    const [at, after] = [await keptBytes(0), await keptBytes(2)];
    assert.ok(after > at * 0.9, `${after} of ${at} bytes`);
  });

  test("runs whether or not what was compiled in an earlier run is there, and whole", async () => {
    const cache = join(mvm.dataDir, "cache", "node");
    const kept = () => readdirSync(cache).filter((name) => name.startsWith("ls-"));
    await mvm.ok(["ls"]);
    const [name = ""] = kept();
    assert.deepEqual(kept(), [name], "what one command compiled is kept once");
    const path = join(cache, name);
    const whole = readFileSync(path);
    for (const damaged of [
      whole.subarray(0, 1000),
      whole.fill(0, 4096, 4096 + 512),
      Buffer.from("else"),
      Buffer.alloc(0),
    ]) {
      writeFileSync(path, damaged);
      assert.match(await mvm.ok(["ls"]), /one/);
      assert.ok(readFileSync(path).length > 4096, "it is made anew");
    }
    rmSync(cache, { recursive: true });
    writeFileSync(cache, "a file where a directory should be");
    assert.match(await mvm.ok(["ls"]), /one/);
    rmSync(cache);
    mkdirSync(cache);
  });
});
