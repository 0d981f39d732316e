import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { chmod, open } from "node:fs/promises";
import { join } from "node:path";
import type { TemplateName } from "../../src/core/names.ts";
import { generateKey, readSigningKey, type SigningKey } from "../../src/registry/signatures.ts";
import type { Store } from "../../src/registry/store.ts";
import { DirectoryStore } from "../../src/registry/stores/directory.ts";
import { type DataDirectory, useDataDirectory } from "./data-directory.ts";

/** Two machines and a registry between them. */
interface World extends Disposable {
  readonly alice: DataDirectory;
  readonly bob: DataDirectory;
  readonly store: DirectoryStore;
  /** The registry's directory. */
  readonly root: string;
}

export function useWorld(): World {
  const [alice, bob] = [useDataDirectory(), useDataDirectory()];
  const root = join(alice.root, "registry");
  mkdirSync(root);
  return {
    alice,
    bob,
    root,
    store: new DirectoryStore(root),
    [Symbol.dispose]: () => {
      alice[Symbol.dispose]();
      bob[Symbol.dispose]();
    },
  };
}

export const web = "web" as TemplateName;

export function makeKey({ root }: DataDirectory): SigningKey {
  const path = join(root, "key.pem");
  generateKey(path);
  return readSigningKey(path);
}

/** Changes fields of a revision's record, as somebody who can write to the registry and has no key. */
export function alterRecord({ root }: World, id: string, change: object): void {
  const path = join(root, `v1/templates/web/revisions/${id}.json`);
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...change }));
}

/** A store with some of its calls replaced. */
export function wrap(store: Store, calls: Partial<Store>): Store {
  return new Proxy(store, {
    get: (target, name) => {
      const replaced = calls[name as keyof Store];
      const value = replaced ?? Reflect.get(target, name);
      return typeof value === "function" && !replaced ? value.bind(target) : value;
    },
  });
}

/** Flips one bit of a file. */
export async function flip(path: string, offset: number): Promise<void> {
  await chmod(path, 0o644);
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0]! ^= 1;
  await file.write(byte, 0, 1, offset);
}
