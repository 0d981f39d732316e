/**
 * The main job, once, for somebody who just cloned the repository: builds examples/hello with a snapshot, boots it cold,
 * restores it, shows its answer, prints how long both took, and cleans up.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { run } from "../src/core/process.ts";
import { findVmProcesses, signalProcess } from "../src/core/process-identity.ts";
import { formatMs } from "../src/core/sizes.ts";

const REPOSITORY = join(import.meta.dirname, "..");
const LAUNCHER = join(REPOSITORY, "bin", "mvmctl.js");
const { values } = parseArgs({ options: { example: { type: "string", default: "hello" } } });
const dataDir = mkdtempSync(join(tmpdir(), "mvm-demo-"));
const say = (text: string) => process.stdout.write(`${text}\n`);

/** Shows the command as a user types it, runs it, and passes on what it says. */
async function mvmctl(args: string[]): Promise<string> {
  say(`\n$ mvmctl ${args.join(" ")}`);
  const result = await run(process.execPath, [LAUNCHER, ...args], {
    cwd: REPOSITORY,
    env: { ...process.env, MVM_DATA_DIR: dataDir },
    onStderrLine: (line) => say(line),
  });
  process.stdout.write(result.stdout);
  if (result.exitCode !== 0) throw new Error(`mvmctl ${args[0]} failed`);
  return result.stdout;
}

function cleanUp(): void {
  for (const vm of findVmProcesses(dataDir)) signalProcess(vm, "SIGKILL");
  rmSync(dataDir, { recursive: true, force: true });
}

/** A port of this machine that nobody listens on. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

async function demo(): Promise<void> {
  const example = values.example;
  const [coldPort, port] = [await freePort(), await freePort()];
  await mvmctl(["template", "create", example, "--flake", `./examples/${example}`, "--mem", "512"]);
  await mvmctl(["template", "build", example, "--snapshot"]);
  const runTimed = async (args: string[]) => {
    const started = performance.now();
    await mvmctl(["run", "--template", example, ...args]);
    return performance.now() - started;
  };
  const booted = await runTimed(["--name", "booted", "--cold", "-p", `${coldPort}:8080`]);
  const restored = await runTimed(["--name", "restored", "-p", `${port}:8080`]);
  say(`\n$ curl http://127.0.0.1:${port}/`);
  say((await (await fetch(`http://127.0.0.1:${port}/`)).text()).trim());
  await mvmctl(["ls"]);
  await mvmctl(["exec", "restored", "--", "uname", "-a"]);
  await mvmctl(["stop", "--all"]);
  await mvmctl(["rm", "booted", "restored"]);
  say(`\nFrom the command to a healthy guest: cold boot ${formatMs(booted)}, restore ${formatMs(restored)}.`);
}

process.once("SIGINT", () => {
  cleanUp();
  process.exit(130);
});
try {
  await demo();
} catch (error) {
  say(`\nThe demo failed: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
} finally {
  cleanUp();
}
