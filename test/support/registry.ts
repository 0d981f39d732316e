import { createCipheriv, createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { CHUNK_BYTES } from "../../src/core/chunks.ts";
import { renderDocument, writeDocument } from "../../src/core/documents.ts";
import { replaceSymlink } from "../../src/core/files.ts";
import type { RevisionId, TemplateName } from "../../src/core/names.ts";
import type { Paths } from "../../src/core/paths.ts";
import type { HypervisorIdentity } from "../../src/hypervisor/driver.ts";
import { DEFAULT_TAG } from "../../src/registry/keys.ts";
import type { PullRequest } from "../../src/registry/pull.ts";
import type { PushRequest } from "../../src/registry/push.ts";
import { BuildRecordDocument, type FileDigest, type Manifest } from "../../src/template/revision.ts";
import { SnapshotDocument } from "../../src/template/snapshot.ts";
import { readSnapshots, snapshotKey, writeGuard } from "../../src/template/snapshots.ts";
import { TEMPLATE_DEFAULTS, TemplateSpecDocument } from "../../src/template/spec.ts";
import { QEMU_HERE } from "./data-directory.ts";

/** A template as a build leaves it, with files of a few MiB: no guest runs from it, and a registry can't tell. */
export interface MadeTemplate {
  readonly name: TemplateName;
  readonly id: RevisionId;
  readonly directory: string;
  readonly snapshot: string;
}

export interface TemplateToMake {
  /** Decides the content of all files. */
  readonly seed?: string;
  /** Decides one more chunk of the root image and one of the memory. */
  readonly change?: string;
  readonly builtAt?: string;
  readonly hypervisor?: HypervisorIdentity;
  /** Whether the guest has read of its root image: then a chunk of that is in its memory, too. */
  readonly hasRead?: boolean;
}

const ROOTFS_CHUNKS = 12;
const MEMORY_CHUNKS = 40;

export function makeTemplate(paths: Paths, text: string, made: TemplateToMake = {}): MadeTemplate {
  const { seed = "a", change = "0", builtAt = "2026-01-02T03:04:05.000Z" } = made;
  const name = text as TemplateName;
  const { flake: _, ...settings } = TEMPLATE_DEFAULTS;
  mkdirSync(paths.revisions(name), { recursive: true });
  if (!existsSync(paths.templateSpec(name))) {
    writeDocument(TemplateSpecDocument, paths.templateSpec(name), {
      name,
      ...TEMPLATE_DEFAULTS,
      flake: "github:somebody/something",
      createdAt: builtAt,
    });
  }
  const kernel = noise(`${seed} kernel`, 2.5 * CHUNK_BYTES);
  const rootfs = [0, 1, 2, 5, 6, 7, 8].map((at) => ({ at, bytes: noise(`${seed} rootfs ${at}`, CHUNK_BYTES) }));
  rootfs.push({ at: 9, bytes: noise(`rootfs ${change}`, CHUNK_BYTES) });
  const staging = join(paths.revisions(name), `making-${seed}-${change}`);
  mkdirSync(staging, { recursive: true });
  const artifacts = {
    kernel: put(staging, "vmlinux", kernel.length, [{ at: 0, bytes: kernel }]),
    rootfs: put(staging, "rootfs.erofs", ROOTFS_CHUNKS * CHUNK_BYTES - 1000, rootfs),
  };
  const manifest: Manifest = {
    version: 1,
    template: name,
    architecture: "x86_64",
    spec: settings,
    package: "default",
    artifacts,
    image: { rootfsType: "erofs", kernelCommandLine: "", agent: true },
  };
  const manifestText = renderDocument(manifest);
  const id = sha256(manifestText) as RevisionId;
  writeFileSync(join(staging, "manifest.json"), manifestText);
  const directory = paths.revision(name, id);
  rmSync(directory, { recursive: true, force: true });
  renameSync(staging, directory);
  writeDocument(BuildRecordDocument, join(directory, "build.json"), { builtAt, flake: "github:somebody/something" });
  const snapshot = addSnapshotFiles(paths, name, id, made);
  replaceSymlink(paths.current(name), join("revisions", id));
  return { name, id, directory, snapshot };
}

function addSnapshotFiles(
  paths: Paths,
  name: TemplateName,
  id: RevisionId,
  { seed = "a", change = "0", hypervisor = QEMU_HERE, hasRead = false }: TemplateToMake,
): string {
  const directory = join(paths.snapshots(name, id), snapshotKey(hypervisor));
  mkdirSync(directory, { recursive: true });
  const memory = [0, 3, 4, 5, 20, 21].map((at) => ({ at, bytes: noise(`${seed} memory ${at}`, CHUNK_BYTES) }));
  if (hasRead) memory.push({ at: 22, bytes: noise(`${seed} rootfs 0`, CHUNK_BYTES) });
  memory.push({ at: 30, bytes: noise(`memory ${change}`, CHUNK_BYTES) });
  const state = noise(`${seed} state ${change}`, 5000);
  writeDocument(SnapshotDocument, join(directory, "snapshot.json"), {
    revision: id,
    hypervisor,
    cpus: 2,
    memMiB: 1024,
    dataDiskMiB: 0,
    createdAt: "2026-01-02T03:04:05.000Z",
    bootMs: 900,
    healthyMs: 1200,
    files: {
      vmstate: put(directory, "vmstate.bin", state.length, [{ at: 0, bytes: state }]),
      memory: put(directory, "mem.bin", MEMORY_CHUNKS * CHUNK_BYTES, memory),
    },
  });
  for (const stored of readSnapshots(paths.snapshots(name, id))) writeGuard(stored.directory, stored.snapshot);
  return directory;
}

/** Writes a file that is full of holes but for some chunks. */
function put(directory: string, file: string, size: number, content: { at: number; bytes: Buffer }[]): FileDigest {
  const path = join(directory, file);
  const fd = openSync(path, "w");
  ftruncateSync(fd, size);
  for (const { at, bytes } of content) {
    const offset = at * CHUNK_BYTES;
    writeSync(fd, bytes, 0, Math.min(bytes.length, size - offset), offset);
  }
  closeSync(fd);
  chmodSync(path, 0o444);
  return { file, size, sha256: sha256(readFileSync(path)) };
}

/** Bytes that look random and are the same for the same seed. */
function noise(seed: string, length: number): Buffer {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

export function pushRequest(template: string, more: Partial<PushRequest> = {}): PushRequest {
  return {
    template: template as TemplateName,
    tag: DEFAULT_TAG,
    snapshots: true,
    allowUnsigned: false,
    allowRollback: false,
    conditionalWrites: true,
    ...more,
  };
}

export function pullRequest(template: string, more: Partial<PullRequest> = {}): PullRequest {
  return {
    template: template as TemplateName,
    what: { tag: DEFAULT_TAG },
    snapshots: true,
    trustedKeys: [],
    allowRollback: false,
    ...more,
  };
}
