import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { sha256 } from "../../src/core/digests.ts";
import { writeDocument } from "../../src/core/documents.ts";
import { parseTemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { MiB } from "../../src/core/sizes.ts";
import { currentRevisionId } from "../../src/template/revisions.ts";
import { SnapshotDocument } from "../../src/template/snapshot.ts";
import { readSnapshots, writeGuard } from "../../src/template/snapshots.ts";
import { listTemplates, loadSpec } from "../../src/template/store.ts";
import { atEachChange, atRandomMoments, durationOf, type Kill, requireSound } from "../support/kill.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { type MadeTemplate, makeTemplate } from "../support/registry.ts";

const MOMENTS = 20;
/** More than one of the blobs that a push sends. */
const MEMORY_BYTES = 20 * MiB;

/** kill -9 of each command that needs no VM, at random moments: the old state or the new one, and the same command works again. */
describe("commands that are killed at any moment", () => {
  let alice: Mvmctl;
  let bob: Mvmctl;
  let registry: string;
  /** Until this much of a command's time Node.js only starts. */
  let fromMs: number;
  before(async () => {
    registry = mkdtempSync(join(tmpdir(), "mvm-registry-"));
    const env = { MVM_TEMPLATE_REGISTRY_ENDPOINT: `file://${registry}` };
    alice = useMvmctl(env);
    bob = useMvmctl(env);
    fromMs = 0.5 * (await durationOf(alice, ["--version"]));
  });
  after(() => {
    alice[Symbol.dispose]();
    bob[Symbol.dispose]();
    rmSync(registry, { recursive: true, force: true });
  });

  let builds = 0;
  /** A newer revision of Alice's template, that shares nothing with the one before, which is gone. */
  function newRevision(): MadeTemplate {
    const paths = resolvePaths(alice.env);
    rmSync(paths.revisions(WEB), { recursive: true, force: true });
    const builtAt = new Date(Date.UTC(2026, 1, 1) + 1000 * builds++).toISOString();
    const made = makeTemplate(paths, "web", { seed: `${builds}`, change: `${builds}`, builtAt });
    fillMemory(made.snapshot);
    return made;
  }
  const object = (...parts: string[]) => join(registry, "v1", ...parts);
  test("push: the tag is old or new, and the next push sends only what is missing", async () => {
    const push = ["template", "push", "web"];
    let { id } = newRevision();
    const toMs = await durationOf(alice, push);
    const tagged = () => JSON.parse(readFileSync(object("templates", "web", "tags", "latest.json"), "utf8")).revision;
    await atRandomMoments(alice, { count: MOMENTS, fromMs, toMs }, async (kill) => {
      const old = id;
      ({ id } = newRevision());
      await kill(push);
      assert.ok([old, id].includes(tagged()), tagged());
      if (tagged() === id) await alice.ok(["template", "verify", "web", "--remote"]);

      const there = blobs(object("blobs"));
      const { totals } = await alice.json<{ totals: { transferred: number } }>(push);
      const now = blobs(object("blobs"));
      const sent = [...now].filter(([blob]) => !there.has(blob)).reduce((sum, [, size]) => sum + size, 0);
      assert.equal(totals.transferred, sent);
      const named = blobsNamed(object("templates", "web", "revisions"));
      assert.deepEqual(
        [...now.keys()].filter((blob) => !named.has(blob)),
        [],
        "what was there is used, not sent again",
      );
      assert.equal(tagged(), id);
      await requireSound(alice);
    });
    await alice.ok(["template", "verify", "web", "--remote"]);
  });

  test("pull: what was there, or what was to be pulled, whole", async () => {
    const pull = ["template", "pull", "web"];
    const old = newRevision().id;
    await alice.ok(["template", "push", "web"]);
    const { id } = newRevision();
    await alice.ok(["template", "push", "web"]);
    const toMs = await durationOf(bob, pull);
    await atRandomMoments(bob, { count: MOMENTS, fromMs, toMs }, async (kill, index) => {
      remove(bob);
      const updates = index % 4 === 0;
      if (updates) await bob.ok(["template", "pull", `web@${old}`]);
      await kill(pull);
      const found = names(bob).length > 0 ? current(bob) : undefined;
      assert.ok([updates ? old : undefined, id].includes(found), found);
      if (found) await bob.ok(["template", "verify", "web"]);
      await requireSound(bob);
      await bob.ok(pull);
      assert.equal(current(bob), id);
      assert.deepEqual(readdirSync(join(bob.dataDir, "cache", "pulls")), []);
      await bob.ok(["template", "verify", "web"]);
    });
  });

  test("create: the template is there, whole, or it is not", async () => {
    using mvm = useMvmctl();
    const create = ["template", "create", "web", "--flake", join(REPOSITORY, "examples", "hello")];
    const toMs = await durationOf(mvm, create);
    const round = async (kill: Kill) => {
      remove(mvm);
      await kill(create);
      const there = names(mvm);
      assert.ok(["", "web ok"].includes(`${there}`), `${there}`);
      await requireSound(mvm);
      if (there.length > 0) await mvm.fails(create, "TEMPLATE_EXISTS");
      else await mvm.ok(create);
    };
    await atRandomMoments(mvm, { count: MOMENTS, fromMs, toMs }, round);
    await atEachChange(mvm, round);
  });

  test("edit: the settings are the old ones or the new ones", async () => {
    using mvm = useMvmctl();
    makeTemplate(resolvePaths(mvm.env), "web");
    const edit = (mem: number) => ["template", "edit", "web", "--mem", `${mem}`, "--cpus", `${1 + (mem % 2)}`];
    const settings = () => {
      const { memMiB, cpus } = loadSpec(resolvePaths(mvm.env), WEB);
      return [memMiB, cpus];
    };
    let mem = 301;
    const toMs = await durationOf(mvm, edit(mem));
    const round = async (kill: Kill) => {
      const old = settings();
      mem++;
      const wanted = [mem, 1 + (mem % 2)];
      await kill(edit(mem));
      const found = settings();
      assert.ok([`${old}`, `${wanted}`].includes(`${found}`), `${found}`);
      await requireSound(mvm);
      if (`${found}` === `${wanted}`) await mvm.fails(edit(mem), "NOTHING_TO_DO");
      else await mvm.ok(edit(mem));
      assert.deepEqual(settings(), wanted);
    };
    await atRandomMoments(mvm, { count: MOMENTS, fromMs, toMs }, round);
    await atEachChange(mvm, round);
  });

  test("delete: all of the template is there, or nothing", async () => {
    using mvm = useMvmctl();
    const deletion = ["template", "delete", "web", "--yes"];
    const make = () => makeTemplate(resolvePaths(mvm.env), "web");
    make();
    const toMs = await durationOf(mvm, deletion);
    const round = async (kill: Kill) => {
      make();
      await kill(deletion);
      const there = names(mvm);
      assert.ok(["", "web ok"].includes(`${there}`), `${there}`);
      await requireSound(mvm);
      if (there.length > 0) await mvm.ok(deletion);
      else await mvm.fails(deletion, "TEMPLATE_NOT_FOUND");
      assert.deepEqual(readdirSync(join(mvm.dataDir, "templates")), []);
    };
    await atRandomMoments(mvm, { count: MOMENTS, fromMs, toMs }, round);
    await atEachChange(mvm, round);
  });
});

const WEB = parseTemplateName("web");
const current = ({ env }: Mvmctl) => currentRevisionId(resolvePaths(env), WEB);
const names = ({ env }: Mvmctl) => listTemplates(resolvePaths(env)).map(({ name, state }) => `${name} ${state}`);
const remove = ({ env }: Mvmctl) => rmSync(resolvePaths(env).template(WEB), { recursive: true });

/** Gives a made snapshot a memory that fills more than one blob. */
function fillMemory(directory: string): void {
  const { snapshot } = readSnapshots(join(directory, ".."))[0]!;
  const path = join(directory, snapshot.files.memory.file);
  const bytes = randomBytes(MEMORY_BYTES);
  chmodSync(path, 0o644);
  writeFileSync(path, bytes);
  const memory = { ...snapshot.files.memory, size: bytes.length, sha256: sha256(bytes) };
  const filled = { ...snapshot, files: { ...snapshot.files, memory } };
  writeDocument(SnapshotDocument, join(directory, "snapshot.json"), filled);
  writeGuard(directory, filled);
}

/** The whole blobs in a directory registry, with their sizes in bytes. */
function blobs(directory: string): Map<string, number> {
  mkdirSync(directory, { recursive: true });
  const whole = readdirSync(directory).filter((name) => /^[0-9a-f]{64}$/.test(name));
  return new Map(whole.map((name) => [name, statSync(join(directory, name)).size]));
}

/** The blobs that the records below a directory rely on. */
function blobsNamed(directory: string): Set<string> {
  const records = readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((path) =>
    path.endsWith(".json"),
  );
  return new Set(records.flatMap((path) => JSON.parse(readFileSync(join(directory, path), "utf8")).blobs as string[]));
}
