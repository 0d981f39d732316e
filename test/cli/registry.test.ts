import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { resolvePaths } from "../../src/core/paths.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";
import { type MadeTemplate, makeTemplate } from "../support/registry.ts";
import { startS3rver } from "../support/s3-server.ts";
import { onTerminal } from "../support/terminal.ts";

describe("the registry's commands, and those that ask", () => {
  let mvm: Mvmctl;
  let made: MadeTemplate;
  let config: string;
  let endpoint: string;
  before(() => {
    mvm = useMvmctl();
    made = makeTemplate(resolvePaths(mvm.env), "web");
    config = join(mvm.dataDir, "config.json");
    mkdirSync(join(mvm.dataDir, "registry"));
    endpoint = `file://${join(mvm.dataDir, "registry")}`;
  });
  after(() => mvm[Symbol.dispose]());

  test("login writes nothing when the registry does not work, and asks for a secret without showing it", async () => {
    assert.equal((await mvm.run(["registry", "login", "file:///no/such/place"])).exitCode, 1);
    assert.equal(existsSync(config), false);

    await using server = await startS3rver();
    const { endpoint: url, bucket, credentials } = server.options;
    const { accessKeyId, secretAccessKey } = await credentials();
    const login = ["registry", "login", url.href, "--access-key-id", accessKeyId];
    const wrong = await onTerminal(mvm, login, [
      [/Bucket: /, bucket],
      [/Secret access key: /, "wrong-secret"],
    ]);
    assert.equal(wrong.exitCode, 1, wrong.screen);
    assert.doesNotMatch(wrong.screen, /wrong-secret/);
    assert.match(wrong.screen, /Nothing was written/);
    assert.equal(existsSync(config), false);

    const whole = [...login, "--bucket", bucket, "--addressing", "path", "--secret-stdin"];
    await mvm.ok(whole, { input: `${secretAccessKey}\n` });
    assert.equal(statSync(config).mode & 0o777, 0o600);
    const { registry } = JSON.parse(readFileSync(config, "utf8"));
    assert.deepEqual([registry.bucket, registry.secretAccessKey], [bucket, secretAccessKey]);
    assert.equal(registry.addressing, "path");
    await mvm.ok(["template", "push", "web"]);
    assert.match(await mvm.ok(["registry", "ls"]), /^web /m);
  });

  test("login says what the environment overrides, and refuses what it would pass over", async () => {
    const { stderr } = await mvm.run(["registry", "login", endpoint], {
      env: { MVM_TEMPLATE_REGISTRY_ENDPOINT: "file:///elsewhere" },
    });
    assert.match(stderr, /environment .*MVM_TEMPLATE_REGISTRY_ENDPOINT/);
    const before = readFileSync(config, "utf8");
    for (const [args, code, words] of [
      [[endpoint, "--bucket", "b"], "USAGE", /--bucket/],
      [["http://127.0.0.1:1", "--bucket", "b", "--secret-stdin"], "USAGE", /--access-key-id/],
      [["http://127.0.0.1:1"], "USAGE", /--bucket NAME/],
      [["/srv/templates"], "REGISTRY_SETTINGS", /file:\/\/\/srv\/templates/],
    ] as const)
      assert.match(await mvm.fails(["registry", "login", ...args], code), words);
    const bucket = ["registry", "login", "http://127.0.0.1:1", "--bucket", "templates"];
    const relative = await mvm.run([...bucket, "--ca-file", "ca.pem"]);
    assert.match(relative.stdout, /CA_FILE \/.*\/ca\.pem can't be read/);
    assert.match((await mvm.run([...bucket, "--addressing", "host"])).stdout, /'path' nor 'virtual-host'/);
    assert.equal(readFileSync(config, "utf8"), before);
  });

  test("login keeps what else is configured", async () => {
    const trustedKeys = [Buffer.alloc(32).toString("base64")];
    const nix = { substituters: ["https://cache.example.com"] };
    writeFileSync(
      config,
      JSON.stringify({ version: 1, nix, registry: { endpoint: "file:///elsewhere", trustedKeys } }),
    );
    await mvm.ok(["registry", "login", endpoint]);
    assert.deepEqual(JSON.parse(readFileSync(config, "utf8")), {
      version: 1,
      nix,
      registry: { trustedKeys, endpoint },
    });
    writeFileSync(config, JSON.stringify({ version: 1, registry: { endpoint } }));
  });

  test("info shows tags, revisions and who signed; delete removes a tag, and asks before it removes all", async () => {
    const key = join(mvm.dataDir, "key.pem");
    const { publicKey } = await mvm.json<{ publicKey: string }>(["registry", "keygen", key]);
    await mvm.fails(["registry", "keygen", join(mvm.dataDir, "no", "key.pem")], "INVALID_PATH");
    await mvm.ok(["template", "push", "web", "--key", key]);
    const before = readFileSync(config, "utf8");
    const { version, registry } = JSON.parse(before);
    writeFileSync(config, JSON.stringify({ version, registry: { ...registry, signingKeyFile: "key.pem" } }));
    await mvm.ok(["template", "push", "web", "--sign", "--tag", "v1"]);
    writeFileSync(config, before);
    const shown = await mvm.ok(["registry", "info", "web"]);
    assert.match(shown, new RegExp(`${made.id.slice(0, 12)} \\(latest, v1\\): .*x86_64`));
    assert.ok(shown.includes(`signed by ${publicKey}`), shown);

    await mvm.ok(["registry", "delete", "web:v1"]);
    const tags = async () =>
      (await mvm.json<{ revisions: { tags: string[] }[] }>(["registry", "info", "web"])).revisions[0]?.tags;
    assert.deepEqual(await tags(), ["latest"]);
    assert.equal((await mvm.run(["registry", "delete", "web"])).exitCode, 2);
    const question = /Delete template web with all its tags and revisions .*\[y\/N\] /;
    const no = await onTerminal(mvm, ["registry", "delete", "web"], [[question, ""]]);
    assert.equal(no.exitCode, 1);
    assert.match(no.screen, /nothing was done/);
    assert.deepEqual(await tags(), ["latest"]);
    const yes = await onTerminal(mvm, ["registry", "delete", "web"], [[question, "yes"]]);
    assert.equal(yes.exitCode, 0, yes.screen);
    await mvm.fails(["registry", "info", "web"], "REGISTRY_TEMPLATE_NOT_FOUND");
  });

  test("what is more than a name with a tag or a revision is refused, not passed over", async () => {
    await mvm.ok(["template", "push", "web"]);
    for (const [args, code] of [
      [["template", "push", "web:v1"], "USAGE"],
      [["template", "push", `web@${made.id}@v1`], "INVALID_NAME"],
      [["template", "pull", "web:latest:v1"], "INVALID_NAME"],
      [["template", "pull", "web@"], "INVALID_REVISION"],
      [["template", "verify", "web:latest"], "USAGE"],
      [["template", "verify", "web", "--remote", "--repair"], "USAGE"],
      [["registry", "delete", "web@"], "INVALID_REVISION"],
      [["registry", "gc", "--grace", "5"], "INVALID_DURATION"],
    ] as const) {
      await mvm.fails(args, code);
      assert.equal((await mvm.run(args)).exitCode, 2, args.join(" "));
    }
    assert.match(await mvm.fails(["template", "push", "web:v1"], "USAGE"), /template push web --tag v1/);
  });

  test("verify ends with 1 and names what is damaged; --repair fetches it", async () => {
    await mvm.ok(["template", "push", "web"]);
    const rootfs = join(made.directory, "rootfs.erofs");
    chmodSync(rootfs, 0o644);
    const bytes = readFileSync(rootfs);
    bytes[300_000]! ^= 1;
    writeFileSync(rootfs, bytes);
    const found = await mvm.run(["template", "verify", "web"]);
    assert.equal(found.exitCode, 1);
    assert.match(found.stdout, /^damaged: .*rootfs\.erofs: chunk 1: /m);
    const repaired = await mvm.run(["template", "verify", "web", "--repair"]);
    assert.equal(repaired.exitCode, 0, repaired.stderr);
    assert.match(repaired.stdout, /^Repaired 1 file of web/m);
    assert.equal((await mvm.run(["template", "verify", "web"])).exitCode, 0);

    const manifest = join(made.directory, "manifest.json");
    writeFileSync(manifest, "{");
    await mvm.ok(["template", "verify", "web", "--repair"]);
    assert.equal(statSync(manifest).mode & 0o777, 0o444);

    await mvm.ok(["registry", "delete", "web", "--yes"]);
    chmodSync(rootfs, 0o644);
    writeFileSync(rootfs, bytes);
    assert.equal(
      (await mvm.run(["template", "verify", "web", "--repair"])).exitCode,
      1,
      "what nobody has can't be mended",
    );
  });

  test("template delete asks on a terminal, and takes only a yes for one", async () => {
    const question = /Delete template web with all its revisions and snapshots\? \[y\/N\] /;
    for (const answer of ["", "n", "yep"]) {
      const { exitCode, screen } = await onTerminal(mvm, ["template", "delete", "web"], [[question, answer]]);
      assert.equal(exitCode, 1, screen);
      assert.match(screen, /nothing was done/);
    }
    await mvm.ok(["template", "info", "web"]);
    const { exitCode, screen } = await onTerminal(mvm, ["template", "delete", "web"], [[question, "Y"]]);
    assert.equal(exitCode, 0, screen);
    assert.deepEqual(await mvm.json(["template", "list"]), []);
  });
});
