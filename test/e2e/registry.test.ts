import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { TemplateName } from "../../src/core/names.ts";
import { resolvePaths } from "../../src/core/paths.ts";
import { currentRevision } from "../../src/template/revisions.ts";
import { addSnapshot, QEMU_HERE } from "../support/data-directory.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";
import { type S3Server, startS3rver, startVersitygw, VERSITYGW } from "../support/s3-server.ts";
import { buildExample, shell, start } from "../support/template.ts";

const SERVERS: { name: string; skip: string | false; start: () => Promise<S3Server> }[] = [
  { name: "s3rver, which knows no conditional writes", skip: false, start: startS3rver },
  {
    name: "versitygw over TLS with a private authority",
    skip: VERSITYGW ? false : "MVM_TEST_VERSITYGW names no versitygw",
    start: () => startVersitygw({ tls: true }),
  },
];

describe("a template that was built on one machine runs on another", () => {
  let alice: Mvmctl;
  before(async () => {
    alice = useMvmctl();
    await buildExample(alice, "hello", ["--mem", "256"]);
  });
  after(() => alice[Symbol.dispose]());

  for (const { name, skip, start: startServer } of SERVERS) {
    test(`through ${name}`, { skip }, async () => {
      await using server = await startServer();
      const env = server.env();
      using bob = useMvmctl(env);
      assert.match(await bob.ok(["registry", "status"]), /conditional writes/);
      const pushed = await alice.run(["template", "push", "hello", "--debug"], { env });
      assert.equal(pushed.exitCode, 0, pushed.stderr);
      assert.match(pushed.stdout, /new .*sent.*reused.*zeros/);
      await bob.ok(["template", "pull", "hello"]);
      assert.equal((await start(bob, "hello", "clone")).start, "restored");
      assert.match(await shell(bob, "clone", "wget -qO- http://127.0.0.1:8080/"), /html/i);
      await bob.ok(["rm", "--force", "clone"]);
      await bob.ok(["template", "verify", "hello"]);
      await alice.ok(["template", "verify", "hello", "--remote"], { env });
      assert.match(await bob.ok(["registry", "ls"]), /hello +latest +1 +1/);
      const again = await alice.json<{ totals: { new: number } }>(["template", "push", "hello"], { env });
      assert.equal(again.totals.new, 0);
      const secret = env["MVM_TEMPLATE_REGISTRY_SECRET_ACCESS_KEY"]!;
      // s3rver knows one account, whose secret is its name.
      if (secret !== env["MVM_TEMPLATE_REGISTRY_ACCESS_KEY_ID"])
        assert.ok(![pushed.stdout, pushed.stderr, server.log()].some((text) => text.includes(secret)));
    });
  }

  test("a snapshot of another hypervisor version is kept and not used: pull and run say why, and run boots", async () => {
    await using server = await startS3rver();
    const env = server.env();
    using carol = useMvmctl(env);
    await carol.ok(["template", "create", "other", "--flake", join(REPOSITORY, "examples", "hello"), "--mem", "256"]);
    await carol.ok(["template", "build", "other"]);
    const paths = resolvePaths(carol.env);
    const name = "other" as TemplateName;
    const { id } = currentRevision(paths, name)!;
    addSnapshot(paths.snapshots(name, id), { ...QEMU_HERE, version: "99.0.0" }, { revision: id, memMiB: 256 });
    await carol.ok(["template", "push", "other"]);
    using bob = useMvmctl(env);
    assert.match(
      await bob.ok(["template", "pull", "other"]),
      /with a snapshot.*\nA run will boot it: .*99\.0\.0 there/,
    );
    const pulled = await bob.json<{ snapshots: string[] }>(["template", "pull", "other"]);
    assert.equal(pulled.snapshots.length, 1);
    const { start: how, coldBootReason } = await start(bob, "other", "booted");
    assert.equal(how, "booted");
    assert.match(coldBootReason!, /version is 99\.0\.0 there/);
    await bob.ok(["rm", "--force", "booted"]);
  });
});
