import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import type { ObjectInfo, Store } from "../../src/registry/store.ts";
import { isMvmError } from "../support/errors.ts";
import type { TestStore } from "../support/stores.ts";

const signal = new AbortController().signal;
const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");
const bytes = (text: string) => Buffer.from(text);

/**
 * What every store has to do. Call it inside a `describe`.
 * @param conditions false for a server that ignores If-Match and If-None-Match
 * @param exact false for a stand-in that lists by directories and fails at the second page, replaces objects in two steps, and answers
 *   a range of the first byte alone with everything: no client can make that right, and no production server does so
 */
export function storeContract(open: () => Promise<TestStore>, { conditions = true, exact = true } = {}): void {
  let opened: TestStore;
  let store: Store;
  before(async () => {
    opened = await open();
    store = opened.store;
  });
  after(async () => {
    await opened?.[Symbol.asyncDispose]();
  });
  const put = (key: string, body: Uint8Array) => store.put(key, body, {}, signal);
  const get = async (key: string) => (await store.get(key, 1024, signal))?.bytes.toString();
  const list = (prefix: string) => Array.fromAsync(store.list(prefix, signal));
  const keysOf = (objects: readonly ObjectInfo[]) => objects.map(({ key }) => key);

  test("what was put is read back, and put again is replaced", async () => {
    await put("v1/a/one.json", bytes("first"));
    assert.equal(await get("v1/a/one.json"), "first");
    await put("v1/a/one.json", bytes("second"));
    assert.equal(await get("v1/a/one.json"), "second");
  });

  test("an empty object is an object", async () => {
    await put("v1/a/empty", bytes(""));
    assert.equal(await get("v1/a/empty"), "");
    assert.equal((await store.head("v1/a/empty", signal))?.size, 0);
  });

  test("what is not there is undefined, and missing to who wants a range of it", async () => {
    assert.equal(await store.get("v1/none/at-all", 1024, signal), undefined);
    assert.equal(await store.head("v1/none/at-all", signal), undefined);
    await assert.rejects(store.getRange("v1/none/at-all", 0, 1, signal), isMvmError("REGISTRY_OBJECT_MISSING"));
  });

  test("more than the caller allows is refused", async () => {
    await put("v1/a/large", Buffer.alloc(1025));
    await assert.rejects(store.get("v1/a/large", 1024, signal), isMvmError("REGISTRY_OBJECT_TOO_LARGE"));
    assert.equal((await store.get("v1/a/large", 1025, signal))?.bytes.length, 1025);
  });

  test("ranges are exact, whoever asks at the same time", async () => {
    const body = randomBytes(3 * 1024 * 1024 + 17);
    await store.put("v1/blobs/range", body, { sha256: sha256(body) }, signal);
    const ranges = [...Array(24).keys()].map((index) => ({ offset: index * 131_000, length: 2 + index * 4099 }));
    const first = exact ? [{ offset: 0, length: 1 }] : [];
    const last = { offset: body.length - 1, length: 1 };
    const whole = { offset: 0, length: body.length };
    await Promise.all(
      [...ranges, ...first, last, whole].map(async ({ offset, length }) => {
        const range = await store.getRange("v1/blobs/range", offset, length, signal);
        assert.ok(range.equals(body.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
      }),
    );
  });

  test("a range past the end is too short", async () => {
    await put("v1/a/short", bytes("0123456789"));
    for (const [offset, length] of [
      [5, 6],
      [10, 1],
      [1_000_000, 5],
    ] as const) {
      await assert.rejects(store.getRange("v1/a/short", offset, length, signal), isMvmError("REGISTRY_SHORT_READ"));
    }
  });

  test("size and time of an object", async () => {
    await put("v1/a/sized", Buffer.alloc(4321));
    const info = await store.head("v1/a/sized", signal);
    assert.equal(info?.size, 4321);
    // The servers run on this machine, so their clock is ours; S3's times are whole seconds.
    assert.ok(Math.abs(info.modifiedMs - Date.now()) < 60_000, `modified at ${info.modifiedMs}`);
  });

  test("deleting twice is no error", async () => {
    await put("v1/a/gone", bytes("x"));
    await store.delete("v1/a/gone", signal);
    await store.delete("v1/a/gone", signal);
    assert.equal(await get("v1/a/gone"), undefined);
  });

  test("lists what begins with a prefix, in the order of the keys", async () => {
    // '-' and '.' come before '/', and '0' after it, so an order by directories would differ.
    const keys = ["v1/l/a-b", "v1/l/a.b", "v1/l/a/1", "v1/l/a/2", "v1/l/a0", "v1/l/b/c/d", "v1/lx"];
    for (const key of keys.toReversed()) await put(key, bytes(key));
    const listed = async (prefix: string) => (exact ? keysOf(await list(prefix)) : keysOf(await list(prefix)).sort());
    assert.deepEqual(await listed("v1/l"), keys);
    assert.deepEqual(await listed("v1/l/"), keys.slice(0, 6));
    assert.deepEqual(await listed("v1/l/a/"), ["v1/l/a/1", "v1/l/a/2"]);
    assert.deepEqual(await listed("v1/l/a"), keys.slice(0, 5));
    assert.deepEqual(keysOf(await list("v1/nothing/")), []);
    assert.deepEqual(
      (await list("v1/l/a/")).map(({ size }) => size),
      [8, 8],
    );
    assert.ok(keysOf(await list("")).includes("v1/l/b/c/d"));
  });

  test("lists more than a page of a thousand", { skip: !exact }, async () => {
    const keys = [...Array(1037).keys()].map((index) => `v1/many/${String(index).padStart(5, "0")}`);
    for (let at = 0; at < keys.length; at += 64) {
      await Promise.all(keys.slice(at, at + 64).map((key) => put(key, bytes("x"))));
    }
    assert.deepEqual(keysOf(await list("v1/many/")), keys);
  });

  test("keys that are none are refused before anything is asked", async () => {
    const bad = ["", "/etc/passwd", "../x", "v1/../../x", "v1//x", "v1/x/", ".hidden", "v1/.tmp-1", "v1/a b", "v1/ü"];
    for (const key of [...bad, "v1/\0", "v1/a\n", "v1/a?b", "v1/%2e%2e/x", "x".repeat(300)]) {
      await assert.rejects(store.get(key, 10, signal), isMvmError("INVALID_REGISTRY_KEY"), JSON.stringify(key));
      await assert.rejects(put(key, bytes("x")), isMvmError("INVALID_REGISTRY_KEY"));
      await assert.rejects(store.delete(key, signal), isMvmError("INVALID_REGISTRY_KEY"));
    }
    await assert.rejects(list("../"), isMvmError("INVALID_REGISTRY_KEY"));
  });

  test("the etag that a put returns is the one that is read", async () => {
    const { etag } = await put("v1/a/tagged", bytes("one"));
    assert.equal((await store.get("v1/a/tagged", 10, signal))?.etag, etag);
    const next = await put("v1/a/tagged", bytes("two"));
    assert.notEqual(next.etag, etag);
  });

  test("a reader sees the old object or the new one, never a mixture", { skip: !exact }, async () => {
    const bodies = [1, 2, 3, 4].map((fill) => Buffer.alloc(512 * 1024, fill));
    await put("v1/a/replaced", bodies[0]!);
    let writing = true;
    const reader = (async () => {
      while (writing) {
        const { bytes: seen } = (await store.get("v1/a/replaced", 1024 * 1024, signal))!;
        assert.ok(bodies.some((body) => body.equals(seen)));
      }
    })();
    for (const body of bodies) await put("v1/a/replaced", body);
    writing = false;
    await reader;
  });

  test("a call whose signal is aborted ends with the signal's reason", async () => {
    const reason = new Error("enough");
    const aborted = AbortSignal.abort(reason);
    await put("v1/a/aborted", bytes("x"));
    await assert.rejects(store.get("v1/a/aborted", 10, aborted), reason);
    await assert.rejects(store.getRange("v1/a/aborted", 0, 1, aborted), reason);
    await assert.rejects(store.put("v1/a/aborted", bytes("y"), {}, aborted), reason);
    await assert.rejects(Array.fromAsync(store.list("v1/", aborted)), reason);
    assert.equal(await get("v1/a/aborted"), "x");
  });

  if (!conditions) return;

  test("ifAbsent writes once", async () => {
    const condition = { ifAbsent: true } as const;
    await store.put("v1/c/first", bytes("one"), { condition }, signal);
    await assert.rejects(store.put("v1/c/first", bytes("two"), { condition }, signal), isMvmError("REGISTRY_CONFLICT"));
    assert.equal(await get("v1/c/first"), "one");
  });

  test("ifMatch writes over what the caller saw, and over nothing else", async () => {
    const { etag } = await put("v1/c/match", bytes("one"));
    const second = await store.put("v1/c/match", bytes("two"), { condition: { ifMatch: etag } }, signal);
    const late = store.put("v1/c/match", bytes("late"), { condition: { ifMatch: etag } }, signal);
    await assert.rejects(late, isMvmError("REGISTRY_CONFLICT"));
    assert.equal(await get("v1/c/match"), "two");
    await store.delete("v1/c/match", signal);
    const gone = store.put("v1/c/match", bytes("x"), { condition: { ifMatch: second.etag } }, signal);
    await assert.rejects(gone, isMvmError("REGISTRY_CONFLICT"));
    assert.equal(await get("v1/c/match"), undefined);
  });

  test("of many who write at once, one wins", async () => {
    const rounds = 5;
    for (let round = 0; round < rounds; round++) {
      const key = `v1/c/race-${round}`;
      const winners = async (condition: { ifAbsent: true } | { ifMatch: string }, label: string) => {
        const results = await Promise.allSettled(
          [...Array(8).keys()].map((index) => store.put(key, bytes(`${label} ${index}`), { condition }, signal)),
        );
        for (const result of results) {
          if (result.status === "rejected") assert.ok(isMvmError("REGISTRY_CONFLICT")(result.reason));
        }
        return results.flatMap((result, index) => (result.status === "fulfilled" ? [{ index, ...result.value }] : []));
      };
      const [first, ...others] = await winners({ ifAbsent: true }, "first");
      assert.ok(first && others.length === 0, `${others.length + 1} were first`);
      assert.equal(await get(key), `first ${first.index}`);
      const [second, ...more] = await winners({ ifMatch: first.etag }, "second");
      assert.ok(second && more.length === 0, `${more.length + 1} replaced it`);
      assert.equal(await get(key), `second ${second.index}`);
    }
  });
}
