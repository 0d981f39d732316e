/** What `registry status` finds, and what is found out about conditional writes, on the same stores as the contract. */
import assert from "node:assert/strict";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { checkRegistry } from "../../src/registry/check-registry.ts";
import { supportsConditions } from "../../src/registry/conditions.ts";
import { openStore } from "../../src/registry/settings.ts";
import { useDataDirectory } from "../support/data-directory.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { type S3Server, startS3rver, startVersitygw, VERSITYGW } from "../support/s3-server.ts";
import { useDirectoryStore } from "../support/stores.ts";
import { freePort } from "../support/wait.ts";

const S3_CHECKS = ["settings", "endpoint", "credentials", "bucket", "list", "write", "read", "clock", "delete"];
const ALL_KEPT = { ifAbsent: true, ifMatch: true };

async function check(env: NodeJS.ProcessEnv) {
  using directory = useDataDirectory();
  return checkRegistry({ ...directory.ctx, env });
}

/** The one check that failed, which has to be the last. */
async function failure(env: NodeJS.ProcessEnv) {
  const checks = await check(env);
  assert.deepEqual(
    checks.filter(({ ok }) => !ok),
    checks.slice(-1),
  );
  return checks.at(-1)!;
}

async function conditions(env: NodeJS.ProcessEnv) {
  using directory = useDataDirectory();
  const ctx = { ...directory.ctx, env };
  const store = await openStore(ctx);
  const { ifAbsent, ifMatch } = await supportsConditions(ctx, store);
  const left = await Array.fromAsync(store.list("v1/probes/", ctx.signal));
  assert.deepEqual(left, []);
  return { ifAbsent, ifMatch };
}

describe("registry check: nothing and a directory", () => {
  test("nothing is configured", async () => {
    const { name, fix } = await failure({});
    assert.equal(name, "settings");
    assert.match(fix!, /MVM_TEMPLATE_REGISTRY_ENDPOINT/);
  });

  test("a directory that works, and one that is not there", async () => {
    await using registry = await useDirectoryStore();
    const env = { MVM_TEMPLATE_REGISTRY_ENDPOINT: `file://${registry.root}` };
    const checks = await check(env);
    assert.ok(
      checks.every(({ ok }) => ok),
      JSON.stringify(checks),
    );
    assert.equal(checks.at(-1)?.detail, "kept");
    assert.deepEqual(await conditions(env), ALL_KEPT);
    rmSync(registry.root, { recursive: true });
    const { name, fix } = await failure(env);
    assert.equal(name, "bucket");
    assert.match(fix!, /mkdir/);
  });

  test("what was found out about a store is not asked again", async () => {
    await using registry = await useDirectoryStore();
    using directory = useDataDirectory();
    const first = await supportsConditions(directory.ctx, registry.store);
    assert.ok(first.ifAbsent);
    assert.equal(readdirSync(join(directory.paths.cache, "registry")).length, 1);
    rmSync(registry.root, { recursive: true }); // a probe would fail now
    assert.ok((await supportsConditions(directory.ctx, registry.store)).ifMatch);
  });
});

function s3Checks(start: () => Promise<S3Server>, kept: { ifAbsent: boolean; ifMatch: boolean }): void {
  let server: S3Server;
  before(async () => {
    server = await start();
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
  });

  test("a bucket that works", async () => {
    const checks = await check(server.env());
    assert.ok(
      checks.every(({ ok }) => ok),
      JSON.stringify(checks),
    );
    const names = checks.map(({ name }) => name).filter((name) => name !== "tls");
    assert.deepEqual(names, [...S3_CHECKS, "conditional writes"]);
    assert.deepEqual(await conditions(server.env()), kept);
  });

  test("what is wrong is found where it is", async () => {
    const wrong = async (name: string, changes: NodeJS.ProcessEnv, words: RegExp) => {
      const found = await failure({ ...server.env(), ...changes });
      assert.equal(found.name, name, found.detail);
      assert.match(`${found.detail}\n${found.fix}`, words);
    };
    await wrong("credentials", { MVM_TEMPLATE_REGISTRY_ACCESS_KEY_ID: "nobody" }, /access key/);
    await wrong("credentials", { MVM_TEMPLATE_REGISTRY_SESSION_TOKEN: "a\nb" }, /session token has a character/);
    await wrong("credentials", { MVM_TEMPLATE_REGISTRY_SECRET_ACCESS_KEY: "wrong" }, /secret key/);
    const order = ["settings", "endpoint", "credentials", "bucket"];
    const bucket = { ...server.env(), MVM_TEMPLATE_REGISTRY_BUCKET: "no-such-bucket" };
    const names = (await check(bucket)).map(({ name }) => name).filter((name) => name !== "tls");
    assert.deepEqual(names, order);
    await wrong("bucket", { MVM_TEMPLATE_REGISTRY_BUCKET: "no-such-bucket" }, /no-such-bucket/);
    const nobody = `http://127.0.0.1:${await freePort()}`;
    await wrong("endpoint", { MVM_TEMPLATE_REGISTRY_ENDPOINT: nobody }, /nothing listens/);
  });
}

describe("registry check: s3rver", () => {
  s3Checks(startS3rver, { ifAbsent: false, ifMatch: false });

  test("may list, may not write", async () => {
    await using server = await startS3rver();
    await using proxy = await startFaultProxy(server.options.endpoint);
    const body = "<Error><Code>AccessDenied</Code></Error>";
    proxy.on({ method: "PUT", times: Infinity }, { kind: "answer", status: 403, body });
    const { name, fix } = await failure(server.env(proxy.endpoint.href));
    assert.equal(name, "write");
    assert.match(fix!, /policy/);
  });
});

const skip = VERSITYGW === undefined && "MVM_TEST_VERSITYGW is not set; .ci/run builds versitygw and sets it";

describe("registry check: versitygw", { skip }, () => {
  s3Checks(startVersitygw, ALL_KEPT);
});

describe("registry check: versitygw with TLS of a private authority", { skip }, () => {
  s3Checks(() => startVersitygw({ tls: true }), ALL_KEPT);

  test("an authority that is not trusted", async () => {
    await using server = await startVersitygw({ tls: true });
    const { name, fix } = await failure({ ...server.env(), MVM_TEMPLATE_REGISTRY_CA_FILE: "" });
    assert.equal(name, "tls");
    assert.match(fix!, /MVM_TEMPLATE_REGISTRY_CA_FILE/);
  });
});
