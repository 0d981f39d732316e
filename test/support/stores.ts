import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Store } from "../../src/registry/store.ts";
import { DirectoryStore } from "../../src/registry/stores/directory.ts";

/** A store of a test's own, empty, and gone with its server when it is disposed. */
export interface TestStore extends AsyncDisposable {
  readonly store: Store;
}

export async function useDirectoryStore(): Promise<TestStore & { readonly root: string }> {
  const parent = mkdtempSync(join(tmpdir(), "mvm-registry-"));
  const root = join(parent, "templates");
  mkdirSync(root);
  return {
    root,
    store: new DirectoryStore(root),
    [Symbol.asyncDispose]: async () => rmSync(parent, { recursive: true, force: true }),
  };
}
