import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Context } from "../../src/core/context.ts";
import { renderDocument, writeDocument } from "../../src/core/documents.ts";
import { replaceSymlink } from "../../src/core/files.ts";
import type { RevisionId, TemplateName } from "../../src/core/names.ts";
import { type Paths, resolvePaths } from "../../src/core/paths.ts";
import { ownIdentity } from "../../src/core/process-identity.ts";
import type { HypervisorIdentity } from "../../src/hypervisor/driver.ts";
import type { InstanceRecord } from "../../src/instance/record.ts";
import { BuildRecordDocument, type Manifest } from "../../src/template/revision.ts";
import { type Snapshot, SnapshotDocument } from "../../src/template/snapshot.ts";
import { snapshotKey } from "../../src/template/snapshots.ts";
import { TEMPLATE_DEFAULTS } from "../../src/template/spec.ts";

/** A data directory of a test's own, and a context for the library's functions. */
export interface DataDirectory extends Disposable {
  /** Of the test: the data directory is below it, and so may be whatever else the test makes. */
  readonly root: string;
  readonly paths: Paths;
  readonly ctx: Context;
  /** The notes that were reported. */
  readonly notes: string[];
  /** Makes a directory with a flake.nix, and returns its path. */
  flake(name: string): string;
}

export function useDataDirectory(): DataDirectory {
  const root = mkdtempSync(join(tmpdir(), "mvm-unit-"));
  const env = { ...process.env, MVM_DATA_DIR: join(root, "data") };
  const notes: string[] = [];
  const paths = resolvePaths(env);
  return {
    root,
    paths,
    notes,
    ctx: {
      paths,
      env,
      signal: new AbortController().signal,
      report: (progress) => {
        if (progress.kind === "note") notes.push(progress.text);
      },
    },
    flake: (name) => {
      const directory = join(root, name);
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, "flake.nix"), "{ outputs = { self }: { }; }\n");
      return directory;
    },
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  };
}

export const QEMU_HERE: HypervisorIdentity = {
  name: "qemu",
  version: "7.2.0",
  accelerator: "tcg",
  architecture: "x86_64",
  cpuModel: "max",
  layout: 1,
};

const NO_DIGEST = "0".repeat(64);

/** Stores a revision as a build would, and makes it the current one. `kernel` tells revisions apart. */
export function addRevision(
  paths: Paths,
  name: TemplateName,
  revision: { kernel: string; builtAt: string; flake?: string; spec?: Partial<Manifest["spec"]> },
): RevisionId {
  const { flake, ...settings } = TEMPLATE_DEFAULTS;
  const manifest: Manifest = {
    version: 1,
    template: name,
    architecture: "x86_64",
    spec: { ...settings, ...revision.spec },
    package: "default",
    artifacts: {
      kernel: { file: "vmlinux", size: revision.kernel.length, sha256: sha256(revision.kernel) },
      rootfs: { file: "rootfs.erofs", size: 4096, sha256: NO_DIGEST },
    },
    image: { rootfsType: "erofs", kernelCommandLine: "", agent: true },
  };
  const text = renderDocument(manifest);
  const id = sha256(text) as RevisionId;
  const directory = paths.revision(name, id);
  mkdirSync(paths.snapshots(name, id), { recursive: true });
  writeFileSync(join(directory, "manifest.json"), text);
  writeFileSync(join(directory, "vmlinux"), revision.kernel);
  writeDocument(BuildRecordDocument, join(directory, "build.json"), {
    builtAt: revision.builtAt,
    durationMs: 1,
    flake: revision.flake ?? flake,
    fingerprint: id,
    storePath: "/nix/store/none",
  });
  replaceSymlink(paths.current(name), join("revisions", id));
  return id;
}

/** Stores a snapshot beside a revision: real small files with their real digests. Returns its directory. */
export function addSnapshot(
  snapshotsDirectory: string,
  identity: HypervisorIdentity,
  sizes: Partial<Snapshot> = {},
): string {
  const directory = join(snapshotsDirectory, snapshotKey(identity));
  mkdirSync(directory, { recursive: true });
  const memory = Buffer.alloc(1024 * 1024);
  writeFileSync(join(directory, "vmstate.bin"), "the state");
  writeFileSync(join(directory, "mem.bin"), "");
  truncateSync(join(directory, "mem.bin"), memory.length);
  writeDocument(SnapshotDocument, join(directory, "snapshot.json"), {
    revision: NO_DIGEST,
    hypervisor: identity,
    cpus: 2,
    memMiB: 1024,
    dataDiskMiB: 0,
    createdAt: "2026-01-02T03:04:05.000Z",
    bootMs: 900,
    healthyMs: 1200,
    files: {
      vmstate: { file: "vmstate.bin", size: "the state".length, sha256: sha256("the state") },
      memory: { file: "mem.bin", size: memory.length, sha256: sha256(memory) },
    },
    ...sizes,
  });
  return directory;
}

function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** What instance.json of an instance of `hello` says, that this process is starting. */
export function instanceRecord(name: string, other: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    version: 1,
    name,
    template: "hello",
    revision: "0".repeat(64),
    hypervisor: QEMU_HERE,
    state: "starting",
    starter: ownIdentity(),
    start: "booted",
    cpus: 1,
    memMiB: 256,
    dataDiskMiB: 0,
    ports: [],
    createdAt: "2026-01-02T03:04:05.000Z",
    ...other,
  };
}
