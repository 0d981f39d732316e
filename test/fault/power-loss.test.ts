import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { describe, test } from "node:test";
import { resolvePaths } from "../../src/core/paths.ts";
import { findProgram, run } from "../../src/core/process.ts";
import { LAUNCHER, type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { makeTemplate } from "../support/registry.ts";

const skip = findProgram("strace", process.env) ? false : "needs strace";

/**
 * What would be on the disk if the power went at the end: a trace of a command shows that each file it leaves was synced, and
 * that each directory was after the last name that came into it.
 */
describe("what a command leaves survives a power cut", { skip }, () => {
  test("a template that was created", async () => {
    using mvm = useMvmctl();
    const flake = join(REPOSITORY, "examples", "hello");
    const trace = await traced(mvm, ["template", "create", "hello", "--flake", flake]);
    requireDurable(trace, join(mvm.dataDir, "templates"));
  });

  test("what was pushed to a directory, and what was pulled from it", async () => {
    const registry = mkdtempSync(join(tmpdir(), "mvm-durable-"));
    try {
      const env = { MVM_TEMPLATE_REGISTRY_ENDPOINT: `file://${registry}` };
      using alice = useMvmctl(env);
      using bob = useMvmctl(env);
      mkdirSync(join(bob.dataDir, "cache"), { recursive: true });
      makeTemplate(resolvePaths(alice.env), "web");
      requireDurable(await traced(alice, ["template", "push", "web"]), join(registry, "v1", "templates"));
      requireDurable(await traced(bob, ["template", "pull", "web"]), join(bob.dataDir, "templates"));
    } finally {
      rmSync(registry, { recursive: true, force: true });
    }
  });

  test("the trace would show a file that was not synced", () => {
    const place = mkdtempSync(join(tmpdir(), "mvm-durable-"));
    try {
      mkdirSync(join(place, "a"));
      assert.throws(
        () => requireDurable([{ call: "rename", from: "/x", to: join(place, "a") }], place),
        /was not synced/,
      );
    } finally {
      rmSync(place, { recursive: true });
    }
  });
});

type Event =
  | { readonly call: "fsync"; readonly path: string }
  | { readonly call: "rename"; readonly from: string; readonly to: string };

async function traced(mvm: Mvmctl, args: readonly string[]): Promise<Event[]> {
  const log = join(mvm.dataDir, "trace");
  const calls = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat";
  // -y names the file behind a descriptor.
  const strace = ["-f", "-y", "-s", "4096", "-e", calls, "-e", "signal=none", "-o", log];
  const result = await run("strace", [...strace, process.execPath, LAUNCHER, ...args], { env: mvm.env });
  assert.equal(result.exitCode, 0, result.stderr);
  return readFileSync(log, "utf8").split("\n").flatMap(parseLine);
}

function parseLine(line: string): Event[] {
  const synced = /f(?:data)?sync\(\d+<(.*?)>/.exec(line)?.[1];
  if (synced !== undefined) return [{ call: "fsync", path: synced }];
  if (!/ (rename|link)/.test(line) || / = -1 /.test(line)) return [];
  const [from, to] = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, path]) => path!);
  return from !== undefined && to !== undefined ? [{ call: "rename", from, to }] : [];
}

/** Follows names through renames: what was synced under one name is synced under the next. */
function requireDurable(events: readonly Event[], root: string): void {
  const synced = new Set<string>();
  /** Directories with a name that came in since they were synced. */
  const unsettled = new Set<string>();
  for (const event of events) {
    if (event.call === "fsync") {
      synced.add(event.path);
      unsettled.delete(event.path);
      continue;
    }
    const { from, to } = withoutDescriptors(event, synced);
    for (const path of [...synced])
      if (path === from || path.startsWith(`${from}/`)) synced.add(`${to}${path.slice(from.length)}`);
    unsettled.add(dirname(to));
  }
  for (const entry of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    // `current` is a link to a revision: what is behind it is looked at under its own name.
    const path = realpathSync(join(root, entry));
    assert.ok(synced.has(path), `${path} was not synced`);
  }
  const open = [...unsettled].filter((path) => path === root || path.startsWith(`${root}/`));
  assert.deepEqual(open, [], "directories that were not synced after their last change");
}

/** A directory store names files by its open directory (`/proc/self/fd/N/name`); a temporary name is like no other. */
function withoutDescriptors(
  names: { from: string; to: string },
  synced: ReadonlySet<string>,
): { from: string; to: string } {
  if (!names.from.startsWith("/proc/self/fd/")) return names;
  const from = [...synced].find((path) => basename(path) === basename(names.from)) ?? names.from;
  return { from, to: join(dirname(from), basename(names.to)) };
}
