import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { DirectoryStore } from "../../src/registry/stores/directory.ts";
import { isMvmError } from "../support/errors.ts";
import { startS3rver, startVersitygw, useS3Store, VERSITYGW } from "../support/s3-server.ts";
import { useDirectoryStore } from "../support/stores.ts";
import { storeContract } from "./store-contract.ts";

const signal = new AbortController().signal;

describe("directory", () => {
  storeContract(useDirectoryStore);

  test("leaves nothing beside its objects", async () => {
    await using registry = await useDirectoryStore();
    const { store, root } = registry;
    const { etag } = await store.put("v1/tag", Buffer.from("1"), { condition: { ifAbsent: true } }, signal);
    await store.put("v1/tag", Buffer.from("2"), { condition: { ifMatch: etag } }, signal);
    await assert.rejects(store.put("v1/tag", Buffer.from("3"), { condition: { ifMatch: etag } }, signal));
    assert.deepEqual(readdirSync(join(root, "v1")), ["tag"]);
  });

  test("a directory that is not there is not made", async () => {
    await using registry = await useDirectoryStore();
    const root = join(registry.root, "unmounted");
    const store = new DirectoryStore(root);
    await assert.rejects(store.put("v1/a", Buffer.from("x"), {}, signal), isMvmError("REGISTRY_NO_BUCKET"));
    await assert.rejects(store.get("v1/a", 1, signal), isMvmError("REGISTRY_NO_BUCKET"));
    assert.equal(existsSync(root), false);
  });

  test("links, pipes and devices are never followed", async () => {
    await using registry = await useDirectoryStore();
    const { store, root } = registry;
    const outside = join(root, "..", "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "secret"), "secret");
    mkdirSync(join(root, "v1"));
    symlinkSync(outside, join(root, "v1", "folder"));
    symlinkSync(join(outside, "secret"), join(root, "v1", "file"));
    execFileSync("mkfifo", [join(root, "v1", "pipe")]);
    const unsafe = isMvmError("REGISTRY_UNSAFE_PATH");
    for (const key of ["v1/folder/secret", "v1/file", "v1/pipe"]) {
      await assert.rejects(store.get(key, 1024, signal), unsafe, key);
      await assert.rejects(store.getRange(key, 0, 1, signal), unsafe, key);
      await assert.rejects(store.head(key, signal), unsafe, key);
    }
    await assert.rejects(store.put("v1/folder/new", Buffer.from("x"), {}, signal), unsafe);
    assert.deepEqual(readdirSync(outside), ["secret"]);
    assert.deepEqual(await Array.fromAsync(store.list("", signal)), []);
    // What is written replaces a link or a pipe, and what it pointed to stays as it was.
    await store.put("v1/file", Buffer.from("new"), {}, signal);
    await store.put("v1/pipe", Buffer.from("new"), {}, signal);
    assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
    assert.equal((await store.get("v1/file", 10, signal))?.bytes.toString(), "new");
  });

  test("a lock that a dead machine left is broken, and its half-written file goes after a day", async () => {
    await using registry = await useDirectoryStore();
    const { store, root } = registry;
    const { etag } = await store.put("v1/tag", Buffer.from("1"), {}, signal);
    const lock = join(root, "v1", ".lock-tag");
    const abandoned = join(root, "v1", `.tmp-${"0".repeat(32)}`);
    const recent = join(root, "v1", `.tmp-${"1".repeat(32)}`);
    for (const path of [lock, abandoned, recent]) writeFileSync(path, "");
    const ago = (seconds: number) => new Date(Date.now() - seconds * 1000);
    utimesSync(lock, ago(31), ago(31));
    utimesSync(abandoned, ago(90_000), ago(90_000));
    await store.put("v1/tag", Buffer.from("2"), { condition: { ifMatch: etag } }, signal);
    assert.deepEqual(
      (await Array.fromAsync(store.list("v1/", signal))).map(({ key }) => key),
      ["v1/tag"],
    );
    assert.deepEqual(readdirSync(join(root, "v1")).sort(), [`.tmp-${"1".repeat(32)}`, "tag"]);
  });

  test("who waits for a lock can be stopped", async () => {
    await using registry = await useDirectoryStore();
    const { store, root } = registry;
    const { etag } = await store.put("v1/tag", Buffer.from("1"), {}, signal);
    writeFileSync(join(root, "v1", ".lock-tag"), "");
    const stop = new AbortController();
    const waiting = store.put("v1/tag", Buffer.from("2"), { condition: { ifMatch: etag } }, stop.signal);
    setImmediate(() => stop.abort());
    await assert.rejects(waiting, { name: "AbortError" });
    assert.deepEqual(readdirSync(join(root, "v1")).sort(), [".lock-tag", "tag"]);
  });
});

describe("s3rver, an S3 server without conditional writes", () => {
  storeContract(() => useS3Store(startS3rver), { conditions: false, exact: false });
});

const skip = VERSITYGW === undefined && "MVM_TEST_VERSITYGW is not set; .ci/run builds versitygw and sets it";

describe("versitygw, a production S3 server", { skip }, () => {
  storeContract(() => useS3Store(startVersitygw));
});

describe("versitygw with a prefix, TLS of a private authority, the bucket in the host's name", { skip }, () => {
  storeContract(() =>
    useS3Store(() => startVersitygw({ tls: true }), { prefix: "team/a", addressing: "virtual-host" }),
  );
});
